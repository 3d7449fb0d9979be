"""What can be said of numbers that no setting explains: where they are right, what is off."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdlearn.drills.grader.compare import Raised, is_finite, is_number, numbers_of, same, shown
from kdlearn.drills.grader.drill import Case, Solution
from kdlearn.drills.grader.observe import Observation, Origin, observe
from kdlearn.drills.grader.search import Runs

POWERS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)


def facts(mine: Runs, right: Runs) -> tuple[list[str], list[str]]:
    """Return what was found out: what tells where to look, and where the numbers are right."""
    telling = [
        *_of_other_input(mine),
        *_where_it_plays_no_part(mine, right),
        *_of_the_rows(mine, right),
        *_right_and_wrong(mine, right),
        *_as_a_whole(mine, right),
        *_moved(mine, right),
        *_ignored(mine, right),
        *_nearly(mine, right),
    ]
    good, bad = _titles(mine, right)
    if len(bad) == 1 and len(good) > 2 and bad[0] in [edge.title for edge in mine.inputs.edges]:
        telling.append(f"of all edges your numbers are wrong for {bad[0]} alone: look there.")
    parted = _in_part(mine, right)
    if good:
        wrong = f" Wrong for {'; '.join(bad)}." if bad else ""
        parted.append(f"right for {'; '.join(good)}.{wrong}")
    return telling, parted


def factor(mine: Runs, other: Solution) -> str | None:
    """Return by which product of sizes a solution's numbers differ from another's on all inputs.

    Values and gradients must all be off by the same factor. What is sought is the simplest product:
    a constant, then one size, then two, each to a power of at most 2.
    """
    drill, inputs = mine.drill, mine.inputs
    ratios: list[tuple[float, Mapping[str, float]]] = []
    for group, number in inputs.keys("ordinary", "fresh"):
        ours = mine.on(group, number).numbers
        theirs = inputs.bench(drill, group, number).numbers(other)
        one, two = numbers_of(ours), numbers_of(theirs)
        if one is None or two is None or one.shape != two.shape or not is_finite([one, two]):
            return None
        if not two.abs().max() > 0 or _words(ours) != _words(theirs):
            return None
        ratio = float((one * two).sum() / (two * two).sum())
        if ratio == 0 or not same(one, ratio * two):
            return None
        ratios.append((ratio, drill.sizes(inputs.case(group, number))))
    names = list(ratios[0][1])
    for number in (0, 1, 2):
        for chosen in itertools.combinations(names, number):
            for powers in itertools.product(POWERS, repeat=number):
                rest = [
                    ratio / math.prod(sizes[n] ** p for n, p in zip(chosen, powers, strict=True))
                    for ratio, sizes in ratios
                ]
                if max(rest) - min(rest) <= 1e-6 * abs(rest[0]) and (number or rest[0] != 1):
                    return _product(rest[0], list(zip(chosen, powers, strict=True)))
    return None


def origin(mine: Runs, case: Case, observation: Observation) -> str:
    """Say where a NaN or an infinity comes from, if it can be found."""
    solution = mine.solution
    file = getattr(getattr(solution, "__code__", None), "co_filename", "")
    tracer = Origin(file)
    with tracer:
        seen = observe(mine.drill, solution, case)
    if not is_finite({k: v for k, v in seen.numbers.items() if not k.startswith("gradient")}):
        return tracer.story()
    try:
        with torch.autograd.set_detect_anomaly(True), warnings.catch_warnings(action="ignore"):
            observe_raising = observe(mine.drill, solution, case)
    except RuntimeError:
        return ""
    if isinstance(observe_raising.result, Raised) and "Backward" in observe_raising.result.message:
        step = observe_raising.result.message.split("'")[1].split("Backward")[0]
        return f"the value is finite, and the derivative of {step.lower()} is not"
    return ""


def _words(numbers: Mapping[str, Any]) -> list[str]:
    return [value for value in numbers.values() if isinstance(value, str)]


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "went through a softmax": lambda x: x.softmax(-1 if x.dim() < 3 else 1),
    "went through a log_softmax": lambda x: x.log_softmax(-1 if x.dim() < 3 else 1),
    "went through a ReLU": torch.relu,
    "went through a tanh": torch.tanh,
    "went through a sigmoid": torch.sigmoid,
    "were negative": torch.neg,
    "were absolute values": torch.abs,
    "were squared": torch.square,
    "were detached": torch.detach,
    "were exponentiated": torch.exp,
    "were divided by 2": lambda x: x / 2,
    "were divided by 4": lambda x: x / 4,
    "were doubled": lambda x: 2 * x,
    "had length 1 in each row": lambda x: torch.nn.functional.normalize(x, dim=1),
    "were clipped to [-10, 10]": lambda x: x.clamp(-10, 10),
    "had mean 0 over the batch": lambda x: x - x.mean(0),
    "had mean 0": lambda x: x - x.mean(-1, keepdim=True),
    "had mean 0 at each sample": lambda x: x - x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1)),
    "were those of the first row": lambda x: x[:1].expand_as(x),
    "were in the reverse order of rows": lambda x: x.flip(0),
    "had its last two dimensions exchanged": lambda x: x.mT,
    "were one-hot at the largest": lambda x: torch.nn.functional.one_hot(
        x.argmax(-1), x.shape[-1]
    ).to(x.dtype),
}
"""What a solution may do to an argument that it should take as it is."""
CONSTANTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
FUNCTIONS: dict[str, Callable[[float], float]] = {
    "the square of {}": lambda x: x * x,
    "the root of {}": lambda x: abs(x) ** 0.5,
    "1 / {}": lambda x: 1 / x if x else x,
    "1 - {}": lambda x: 1 - x,
    "half of {}": lambda x: x / 2,
    "twice {}": lambda x: 2 * x,
    "{} + 1": lambda x: x + 1,
}
"""What a solution may make of a number that it should take as it is."""


def _of_other_input(mine: Runs) -> list[str]:
    """Whether the numbers are the right ones of an input that was changed first, or a multiple."""
    case = mine.inputs.ordinary[0]
    tensors = [n for n, v in case.items() if isinstance(v, Tensor) and v.is_floating_point()]
    changes: dict[str, Callable[[Case], Case]] = {}
    for names in [[name] for name in tensors] + ([tensors] if len(tensors) > 1 else []):
        for what, change in CHANGES.items():
            changes[f"if {' and '.join(names)} {what} first"] = partial(_changed_by, names, change)
    for name in [name for name, value in case.items() if isinstance(value, float)]:
        for constant in CONSTANTS:
            told = f"of {name} = {constant:g}, whatever {name} is"
            changes[told] = partial(_changed_by, [name], partial(_always, constant))
        for what, function in FUNCTIONS.items():
            told = f"of {what.format(name)} in place of {name}"
            changes[told] = partial(_changed_by, [name], function)
    for told, way in changes.items():
        solution = _of_changed(mine, way)
        if mine.does(solution, "ordinary"):
            return [f"your numbers are the right ones {told}."]
        times = factor(mine, solution)
        if times:
            return [f"your numbers are the right ones {told}, times {times}."]
    return []


def _changed_by(names: list[str], change: Callable[[Any], Any], given: Case) -> Case:
    return {name: change(given[name]) for name in names}


def _always(constant: float, value: float) -> float:
    return constant


def _of_changed(mine: Runs, change: Callable[[Case], Case]) -> Solution:
    """The reference, of inputs that are changed first."""
    drill = mine.drill

    def changed(*arguments: Any, **named: Any) -> Any:
        given = dict(zip(drill.positions, arguments, strict=True)) | named
        return drill.call(drill.reference, given | change(given))

    return changed


def _where_it_plays_no_part(mine: Runs, right: Runs) -> list[str]:
    """Which edges that leave something out are right, where others are wrong."""
    found = []
    for number, edge in enumerate(mine.inputs.edges):
        wanted = right.on("edges", number).numbers
        plain = numbers_of(wanted)
        trivial = plain is not None and not plain.any()
        if edge.without and not trivial and same(mine.on("edges", number).numbers, wanted):
            found.append(f"your numbers are right for {edge.title}: look at {edge.without}.")
    return found[:2]


def _of_the_rows(mine: Runs, right: Runs) -> list[str]:
    """Whether a value is another function of what the rows give, or of the right value."""
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "the root of the right one": lambda value, rows: value.sqrt(),
        "the square of the right one": lambda value, rows: value.square(),
        "the logarithm of the right one": lambda value, rows: value.log(),
        "the exponential of the right one": lambda value, rows: value.exp(),
        "the largest of the rows', not their mean": lambda value, rows: rows.max(),
        "the smallest of the rows', not their mean": lambda value, rows: rows.min(),
        "the median of the rows', not their mean": lambda value, rows: rows.median(),
        "that of the first row alone": lambda value, rows: rows[0],
        "that of the last row alone": lambda value, rows: rows[-1],
        "the root mean square of the rows', not their mean": lambda value, rows: (
            rows.square().mean().sqrt()
        ),
        "the mean of the rows' roots": lambda value, rows: rows.clamp(min=0).sqrt().mean(),
    }
    for number, case in enumerate(mine.inputs.ordinary):
        ours, value = mine.on("ordinary", number).result, right.on("ordinary", number).result
        size = mine.drill.sizes(case).get("B")
        if not size or any(not isinstance(one, Tensor) or one.dim() for one in (ours, value)):
            return []
        cut = [n for n, v in case.items() if isinstance(v, Tensor) and v.dim() and len(v) == size]
        rows = [
            observe(
                mine.drill, right.solution, case | {n: case[n][row : row + 1] for n in cut}
            ).result
            for row in range(int(size))
        ]
        if any(not isinstance(row, Tensor) or row.dim() for row in rows):
            return []
        every = torch.stack([row.detach() for row in rows])
        ways = {name: way for name, way in ways.items() if same(ours, way(value.detach(), every))}
    return [f"your value is {name}." for name in list(ways)[:1]]


def _moved(mine: Runs, right: Runs) -> list[str]:
    """How far a network moved, against how far it should."""
    said: list[str] = []
    for name in mine.drill.changes:
        key, ratios = f"weights of the {name}", []
        for number, case in enumerate(mine.inputs.ordinary):
            runs = (mine.on("ordinary", number).numbers, right.on("ordinary", number).numbers)
            if key not in runs[0] or key not in runs[1]:
                return said
            before = numbers_of(dict(case[name].named_parameters()))
            ours, theirs = (numbers_of(run[key]) for run in runs)
            assert before is not None and ours is not None and theirs is not None
            if same(ours, theirs):
                break
            ours, theirs = ours - before, theirs - before
            ratio = float((ours * theirs).sum() / theirs.square().sum().clamp(min=1e-30))
            if not same(ours, ratio * theirs):
                break
            ratios.append(ratio)
        else:
            if ratios and max(map(abs, ratios)) < 1e-9:
                said.append(f"the {name}'s weights do not move.")
            elif ratios and max(ratios) - min(ratios) < 1e-6:
                said.append(
                    f"the {name} moves in the right direction, {ratios[0]:.3g} times as far as it "
                    "should."
                )
            elif ratios:
                said.append(
                    f"the {name} moves in the right direction and another distance, "
                    f"{ratios[0]:.3g} times the right one in the first case: are gradients clipped "
                    "or scaled?"
                )
    return said


def _nearly(mine: Runs, right: Runs) -> list[str]:
    """Whether the numbers are off by very little."""
    if mine.drill.changes:
        return []
    gaps = []
    for one, two in zip(mine.all("ordinary"), right.all("ordinary"), strict=True):
        a, b = numbers_of(one.numbers), numbers_of(two.numbers)
        if a is None or b is None or a.shape != b.shape or not is_finite([a, b]):
            return []
        gaps.append(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)))
    worst = max(gaps)
    if not 1e-9 < worst < 0.035:
        return []
    return [
        f"your numbers are off by {100 * worst:.1g} % at most: look for a guard (eps, clamp) that "
        "is too large, for rounding, or for a constant that is not exact."
    ]


def _product(constant: float, parts: Sequence[tuple[str, float]]) -> str:
    words = [_power(name, power) for name, power in parts]
    if abs(constant - 1) > 1e-6 or not words:
        words.insert(0, f"{constant:.4g}")
    return " · ".join(words)


def _power(name: str, power: float) -> str:
    size = {0.5: f"√{name}", 1: name, 2: f"{name}²"}[abs(power)]
    return size if power > 0 else f"1/{size}"


def _right_and_wrong(mine: Runs, right: Runs) -> list[str]:
    """Which results are right everywhere, and what the others are."""
    names = list(dict.fromkeys(name for one in right.all("ordinary") for name in one.numbers))
    pairs = list(zip(mine.all("ordinary"), right.all("ordinary"), strict=True))
    good = [n for n in names if all(same(a.numbers.get(n), b.numbers.get(n)) for a, b in pairs)]
    said = []
    if good and len(good) < len(names):
        bad = [name for name in names if name not in good]
        said.append(f"right on all inputs: {', '.join(good)}; not right: {', '.join(bad)}.")
    for name in names:
        vectors = [
            (numbers_of(a.numbers.get(name)), numbers_of(b.numbers.get(name))) for a, b in pairs
        ]
        if name not in good and len(names) > 1 and _is_words(pairs[0][1].numbers.get(name)):
            one, two = next(
                (a, b) for a, b in pairs if not same(a.numbers.get(name), b.numbers.get(name))
            )
            said.append(f"{name}: {_listed(one.numbers.get(name), two.numbers.get(name))}.")
        if name in good or any(v is None or w is None or v.shape != w.shape for v, w in vectors):
            continue
        if all(same(v, -w) for v, w in vectors if v is not None and w is not None):
            said.append(f"your {name} has the wrong sign, and is right otherwise.")
        elif all(not v.any() for v, _ in vectors if v is not None):
            said.append(f"your {name} is 0 whatever comes in.")
        elif any(
            all(same(v, w.round(decimals=d)) for v, w in vectors if v is not None and w is not None)
            for d in range(1, 6)
        ):
            said.append(f"your {name} is the right one, rounded: leave all digits.")
    return said


def _is_words(value: Any) -> bool:
    parts = value if isinstance(value, list) else [value]
    return all(isinstance(part, str) for part in parts)


def _listed(given: Any, wanted: Any) -> str:
    """Two words or two lists of words against each other."""
    if isinstance(given, list) and isinstance(wanted, list):
        more = [str(one) for one in given if given.count(one) > wanted.count(one)]
        missing = [str(one) for one in wanted if wanted.count(one) > given.count(one)]
        told = [
            f"{what}: {', '.join(dict.fromkeys(some))}"
            for what, some in (("too many", more), ("missing", missing))
            if some
        ]
        return "; ".join(told) or "in another order"
    return f"{given!r}, the right one {wanted!r}"


def _ignored(mine: Runs, right: Runs) -> list[str]:
    """The arguments whose change changes nothing; in a step function that proves little."""
    case = mine.inputs.ordinary[0]
    found = []
    for name, value in case.items():
        others = [case | {name: changed} for changed in _changed(value)]
        matters = [
            not same(
                right.on("ordinary", 0).numbers, observe(mine.drill, right.solution, other).numbers
            )
            for other in others
        ]
        if any(matters) and all(
            same(mine.on("ordinary", 0).numbers, observe(mine.drill, mine.solution, other).numbers)
            for other in others
        ):
            found.append(name)
    return [
        f"your result did not change when {name} was changed a little, and the right one did."
        for name in found
    ]


def _changed(value: Any) -> list[Any]:
    """Two other values for an argument; none for what cannot be changed so."""
    if isinstance(value, Tensor) and value.is_floating_point():
        steps = [torch.linspace(low, 1.4, value.numel(), dtype=value.dtype) for low in (0.7, 2.6)]
        return [value * step.view_as(value) for step in steps]
    if isinstance(value, Tensor) and value.dtype == torch.int64 and value.dim() == 1:
        return [value.flip(0), value.roll(1)]
    if isinstance(value, float):
        return [0.8 * value, 1.7 * value]
    if isinstance(value, list) and value and all(isinstance(one, Tensor) for one in value):
        return [list(parts) for parts in zip(*map(_changed, value), strict=True)]
    return []


def _tensors_that_differ(mine: Runs, right: Runs) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """By name, the results of one shape that differ in some case; gradients are left out."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for one, two in zip(mine.all("ordinary"), right.all("ordinary"), strict=True):
        for name, given in one.numbers.items():
            wanted = two.numbers.get(name)
            if not isinstance(given, Tensor) or not isinstance(wanted, Tensor) or not given.dim():
                continue
            alike = given.shape != wanted.shape or same(given, wanted)
            if not alike and not name.startswith("gradient"):
                found.setdefault(name, []).append((given.double(), wanted.double()))
    return found


def _as_a_whole(mine: Runs, right: Runs) -> list[str]:
    """What a result is to the right one: turned round, moved, or scaled part by part."""
    for name, pairs in _tensors_that_differ(mine, right).items():
        if all(same(*map(_in_order, pair)) for pair in pairs):
            return [f"the rows of your {name} are the right ones in another order."]
        dims = range(min(given.dim() for given, _ in pairs))
        for one, two in itertools.combinations(dims, 2):
            if all(same(given.transpose(one, two), wanted) for given, wanted in pairs):
                return [f"your {name} is the right one with dimensions {one} and {two} exchanged."]
        gaps = [(given - wanted).flatten() for given, wanted in pairs]
        if all(same(gap, gap[:1].expand_as(gap)) for gap in gaps):
            by = shown(float(gaps[0][0]))
            return [f"your {name} differs from the right one by the same {by} everywhere."]
        for dim in dims:
            ways = {_moved_by(*(side.movedim(dim, 0) for side in pair)) for pair in pairs}
            if all(ways):
                way = max(ways, key=len)  # a shift may be 0 in some case
                return [
                    f"along dimension {dim}, each part of your {name} is the right one {way} of "
                    "its own: look at what each is divided by, and at what is subtracted."
                ]
    return []


def _in_order(rows: Tensor) -> Tensor:
    """Rows sorted by a weighted sum, as plain sums are equal where rows are distributions."""
    flat = rows.flatten(1) if rows.dim() > 1 else rows[:, None]
    return rows[(flat @ torch.linspace(0.5, 1.5, flat.shape[1], dtype=flat.dtype)).argsort()]


def _in_part(mine: Runs, right: Runs) -> list[str]:
    """Which elements of a result are right."""
    for name, pairs in _tensors_that_differ(mine, right).items():
        for given, wanted in pairs:
            close = torch.isclose(given, wanted, rtol=1e-6, atol=1e-9)
            if close.any():
                places = (~close).nonzero().tolist()
                told = ", ".join(str(tuple(place)) for place in places[:3])
                return [
                    f"of the {close.numel()} entries of your {name} {int(close.sum())} are right; "
                    f"wrong are, in one case, {told}{', ...' if len(places) > 3 else ''}."
                ]
    return []


def _moved_by(rows: Tensor, others: Tensor) -> str:
    """How each row comes of another: by a factor, by a factor and a shift, or in no such way."""
    rows, others = rows.reshape(len(rows), -1), others.reshape(len(others), -1)
    if rows.shape[1] < 4 or len(rows) < 2:
        return ""
    if same(rows, others * (rows * others).sum(1, True) / others.square().sum(1, True)):
        return "times a number"
    one, two = rows - rows.mean(1, True), others - others.mean(1, True)
    close = same(one, two * (one * two).sum(1, True) / two.square().sum(1, True))
    return "times a number, and moved by a number," if close else ""


def _titles(mine: Runs, right: Runs) -> tuple[list[str], list[str]]:
    """For which inputs the numbers are right, and for which they are wrong."""
    titles: dict[bool, list[str]] = {True: [], False: []}
    for number, edge in enumerate(mine.inputs.edges):
        good = same(mine.on("edges", number).numbers, right.on("edges", number).numbers)
        titles[good].append(edge.title)
    sizes = mine.drill.sizes
    for number, case in enumerate(mine.inputs.ordinary):
        good = same(mine.on("ordinary", number).numbers, right.on("ordinary", number).numbers)
        told = ", ".join(f"{name} = {shown(value)}" for name, value in sizes(case).items())
        if told and number and (good or not titles[False]):
            titles[good].append(f"a case with {told}")
    return titles[True], titles[False]


def parts(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of what differs."""
    names = dict.fromkeys([*other, *one])
    return [name for name in names if not same(one.get(name), other.get(name))]


def kind_of(value: Any) -> str:
    """Say whether a value is an exception, not finite, or a number."""
    if isinstance(value, Raised):
        return "raised"
    return "number" if not is_number(value) or is_finite(value) else "not finite"
