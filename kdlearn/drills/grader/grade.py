"""Compare a solution with the reference, and name what is wrong with it."""

from __future__ import annotations

import dis
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader.compare import Observation, Raised, numbers_of, observe, same, shown
from kdlearn.drills.grader.drill import Case, Drill, Solution

GENERAL = {
    "signature": "your function takes {given}; expected {function}{expected}.",
    "raises": "your function raises {error}{where}.",
    "exits": "your function calls sys.exit{where}: return a value instead; an exit would end the reader's session.",
    "memory": "your function asks for more memory than it may have{where}: look for a tensor of an extra dimension.",
    "nothing-returned": "your function returns None for some inputs: is a return missing in a branch?",
    "wrong-kind": "your function returns {given}, expected {expected}.",
    "wrong-shape": "your result has shape {given}, expected {expected}.",
    "inputs-changed": "your function changes its argument {name}: work on a copy, and avoid operations that end in _.",
    "teacher-gradient": "{name} received a gradient: the teacher is a constant here. Use {name}.detach() or no_grad().",
    "no-gradient": "no gradient arrives at {name}: .item(), .detach(), .data, argmax or no_grad() cuts the graph.",
    "scale": "your {aspect} is the right one times {factor}: a reduction or a factor is off, the rest is right.",
    "not-finite": "your {aspect} is infinite or NaN where the right one is {expected}: a log or an exp left the "
    "range of numbers. Work with log_softmax or logsumexp.",
    "extreme": "your {aspect} is wrong for extreme inputs: {given} instead of {expected}.",
    "different": "your {aspect} differs: {given} instead of {expected}, and no known mistake gives these numbers. "
    "Work one small case by hand.",
}
"""What can be said of a solution of any drill."""


@dataclass(frozen=True)
class Outcome:
    """One check of a solution.

    Attributes:
        title: what was checked.
        passed: whether it held.
        detail: what was seen where it did not.
    """

    title: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a solution.

    Attributes:
        id: a mistake's name, of the drill or of `GENERAL`.
        message: the sentence for its writer.
    """

    id: str
    message: str


@dataclass(frozen=True)
class Report:
    """All that was found out about a solution.

    Attributes:
        drill: the drill's name.
        outcomes: every check, in order; none for a solution that is not written yet.
        diagnoses: what is wrong, the most telling first; none for a right solution.
        notes: what does not count but should be known, such as printing.
    """

    drill: str
    outcomes: tuple[Outcome, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def written(self) -> bool:
        """Whether there was anything to check."""
        return bool(self.outcomes or self.diagnoses)

    @property
    def passed(self) -> bool:
        """Whether the solution is right."""
        return self.written and not self.diagnoses

    def __str__(self) -> str:
        if not self.written:
            return f"{self.drill}: not written yet."
        good = sum(outcome.passed for outcome in self.outcomes)
        lines = [f"{self.drill}: {good} of {len(self.outcomes)} checks passed."]
        if not self.outcomes:
            lines = [f"{self.drill}: could not be checked."]
        for outcome in self.outcomes:
            mark = "passed" if outcome.passed else "FAILED"
            lines.append(f"  {mark}  {outcome.title}")
            if outcome.detail:
                lines.append(f"          {outcome.detail}")
        lines += [f"Diagnosis: {diagnosis.message}" for diagnosis in self.diagnoses]
        return "\n".join(lines + [f"Note: {note}" for note in self.notes])

    def as_dict(self) -> dict[str, Any]:
        """The report as plain lists and dicts; `from_dict` takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """Make a report again."""
        return cls(
            values["drill"],
            tuple(Outcome(**one) for one in values["outcomes"]),
            tuple(Diagnosis(**one) for one in values["diagnoses"]),
            tuple(values["notes"]),
        )


def is_empty(solution: Solution) -> bool:
    """Say whether a function has nothing but a docstring, ``pass`` or ``...`` in it.

    Example:
        >>> def starter(x):
        ...     "Double x."
        >>> is_empty(starter), is_empty(lambda x: 2 * x)
        (True, False)
    """
    if not inspect.isfunction(solution):
        return False
    idle = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "COPY_FREE_VARS"}
    code = list(dis.get_instructions(solution))
    constants = [one.argval for one in code if one.opname in ("LOAD_CONST", "RETURN_CONST")]
    return all(one.opname in idle for one in code) and constants[-1:] == [None]


def grade(drill: Drill, solution: Solution, *, seed: int, source: str = "") -> Report:
    """Check a solution in this process.

    The solution is run on inputs drawn from ``seed``. What differs from the reference is compared with the drill's
    mistakes: where one of them does the same on every input, it is named. Numbers that are wrong by a factor are named
    so; failed properties speak for themselves.

    Args:
        drill: the drill.
        solution: a function that is called as the reference is.
        seed: of the inputs.
        source: the solution's text, to show the line where it fails.

    Example:
        >>> from kdlearn.drills import find
        >>> kd = find("kd-loss")
        >>> print(
        ...     grade(kd, lambda student_logits, teacher_logits, *, temperature: 0.0, seed=0).passed
        ... )
        False
    """
    if is_empty(solution):
        return Report(drill.id)
    wrong = _wrong_signature(drill, solution)
    if wrong:
        return Report(drill.id, (Outcome("takes the arguments", False),), (wrong,))
    seen = _Sessions(drill, solution, seed)
    first = seen.own[0].aspects.get("value")
    if isinstance(first, Raised) and first.kind == "NotImplementedError":
        return Report(drill.id)
    outcomes, faults = _compared(drill, seen)
    faults += _failed_properties(drill, solution, seed, outcomes)
    return Report(drill.id, tuple(outcomes), tuple(_named(drill, seen, faults, source)))


@dataclass(frozen=True)
class _Fault:
    """Where a solution departs from the reference: how to look it up, and what to say if no mistake explains it."""

    key: tuple[str, str]
    fallback: Diagnosis
    strength: int = 0


class _Sessions:
    """The cases with what the reference, the solution and, when asked for, each mistake does with them."""

    def __init__(self, drill: Drill, solution: Solution, seed: int) -> None:
        self.drill = drill
        generator = Generator().manual_seed(seed)
        ordinary = list(drill.cases(generator))
        self.cases: list[Case] = ordinary + list(
            drill.extremes(generator) if drill.extremes else ()
        )
        self.ordinary = len(ordinary)
        self.own = self.run(solution)
        self.right = self.run(drill.reference)

    def run(self, solution: Solution) -> list[Observation]:
        return [observe(self.drill, solution, case) for case in self.cases]

    def group(self, number: int) -> str:
        return "ordinary" if number < self.ordinary else "extreme"

    def departures(self, given: list[Observation]) -> set[tuple[str, str]]:
        """Where something other than the reference does: pairs of group and aspect."""
        found = set()
        for number, (one, right) in enumerate(zip(given, self.right, strict=True)):
            group = self.group(number)
            for aspect in _aspects(right, one):
                if not same(one.aspects.get(aspect), right.aspects.get(aspect)):
                    found.add((group, aspect))
            found |= {("gradient", name) for name in one.reached}
            found |= {("changed", name) for name in one.changed}
        return found

    def explained(
        self, mine: set[tuple[str, str]], rival: list[Observation]
    ) -> set[tuple[str, str]]:
        """The departures of the solution that a mistake shows too."""
        found = {key for key in mine if self.alike(self.own, rival, key)}
        if found == mine:
            return found
        # At the edge of numbers different mistakes look alike, and one NaN is like any other: no evidence alone.
        groups = {group for group, _ in mine}, {group for group, _ in found}
        edge_only = "ordinary" in groups[0] and "ordinary" not in groups[1]
        return {
            key
            for key in found
            if self.has_numbers(key) and not (edge_only and key[0] == "extreme")
        }

    def has_numbers(self, key: tuple[str, str]) -> bool:
        """Whether the solution gave something else than infinity and NaN there, in every case."""
        values = [
            one.aspects.get(key[1]) for n, one in enumerate(self.own) if self.group(n) == key[0]
        ]
        vectors = [vector for vector in map(numbers_of, values) if vector is not None]
        return all(bool(vector.isfinite().any()) for vector in vectors)

    def alike(self, one: list[Observation], other: list[Observation], key: tuple[str, str]) -> bool:
        """Whether two do the same as far as a departure goes."""
        group, name = key
        if group == "gradient":
            return [name in a.reached for a in one] == [name in b.reached for b in other]
        if group == "changed":
            return [name in a.changed for a in one] == [name in b.changed for b in other]
        return all(
            same(a.aspects.get(name), b.aspects.get(name))
            for number, (a, b) in enumerate(zip(one, other, strict=True))
            if self.group(number) == group
        )


def _aspects(*observations: Observation) -> list[str]:
    return list(dict.fromkeys(name for one in observations for name in one.aspects))


def _wrong_signature(drill: Drill, solution: Solution) -> Diagnosis | None:
    expected = inspect.signature(drill.reference)
    try:
        given = inspect.signature(solution)
    except (TypeError, ValueError):
        return _general("wrong-kind", given=shown(solution), expected="a function")
    try:
        drill.call(given.bind, dict.fromkeys(expected.parameters))
    except TypeError:
        bare = expected.replace(
            parameters=[
                one.replace(annotation=one.empty, default=one.empty)
                for one in expected.parameters.values()
            ],
            return_annotation=expected.empty,
        )
        return _general("signature", given=given, function=drill.function, expected=bare)
    return None


def _compared(drill: Drill, seen: _Sessions) -> tuple[list[Outcome], list[_Fault]]:
    """Every check that compares with the reference, and what it found."""
    outcomes: list[Outcome] = []
    faults: list[_Fault] = []
    error = seen.own[0].aspects.get("value")
    if isinstance(error, Raised) and not isinstance(seen.right[0].aspects.get("value"), Raised):
        fault = _Fault(("ordinary", "value"), _raised(error), strength=3)
        return [Outcome("runs on this drill's inputs", False, shown(error))], [fault]
    departures = seen.departures(seen.own)
    groups = ["ordinary"] + ["extreme"] * (len(seen.cases) > seen.ordinary)
    for group in groups:
        where = "" if group == "ordinary" else " for extreme inputs"
        for aspect in _aspects(
            *(one for n, one in enumerate(seen.right) if seen.group(n) == group)
        ):
            broken = (group, aspect) in departures
            detail = ""
            if broken:
                fault, detail = _fault(drill, seen, group, aspect)
                faults.append(fault)
            outcomes.append(Outcome(f"gives the right {aspect}{where}", not broken, detail))
    for name in drill.detached:
        broken = ("gradient", name) in departures
        outcomes.append(Outcome(f"sends no gradient to {name}", not broken))
        if broken:
            message = _general("teacher-gradient", name=name)
            faults.append(_Fault(("gradient", name), message, strength=2))
    kept = [name for name in seen.cases[0] if name not in drill.changes]
    changed = [name for name in kept if ("changed", name) in departures]
    outcomes.append(Outcome("leaves its inputs as they were", not changed))
    faults += [
        _Fault(("changed", name), _general("inputs-changed", name=name), strength=2)
        for name in changed
    ]
    return outcomes, faults


def _fault(drill: Drill, seen: _Sessions, group: str, aspect: str) -> tuple[_Fault, str]:
    """The first case where an aspect is wrong, in words."""
    numbers = [n for n in range(len(seen.cases)) if seen.group(n) == group]
    number = next(
        n
        for n in numbers
        if not same(seen.own[n].aspects.get(aspect), seen.right[n].aspects.get(aspect))
    )
    given, expected = seen.own[number].aspects.get(aspect), seen.right[number].aspects.get(aspect)
    raised = seen.own[number].aspects.get("value")
    sizes = ", ".join(
        f"{name} = {shown(value)}" for name, value in drill.sizes(seen.cases[number]).items()
    )
    detail = f"{shown(given)} instead of {shown(expected)}" + (f" ({sizes})" if sizes else "")
    told = {"aspect": aspect, "given": shown(given), "expected": shown(expected)}
    make = partial(_Fault, (group, aspect))
    if isinstance(raised, Raised) and aspect == "value":
        return make(_raised(raised), strength=3), shown(raised)
    if isinstance(raised, Raised):
        return make(_raised(raised)), "nothing, as an exception was raised"
    if given is None:
        if aspect.startswith("gradient of "):
            return make(_general("no-gradient", name=aspect[12:]), strength=2), detail
        return make(_general("nothing-returned"), strength=2), detail
    mine, right = numbers_of(given), numbers_of(expected)
    if mine is None or right is None:
        kinds = {"given": _kind(given), "expected": _kind(expected)}
        if kinds["given"] != kinds["expected"]:
            return make(_general("wrong-kind", **kinds), strength=2), detail
        return make(_general("different", **told)), detail
    if isinstance(given, Tensor) and isinstance(expected, Tensor) and given.shape != expected.shape:
        shapes = {"given": tuple(given.shape), "expected": tuple(expected.shape)}
        return make(_general("wrong-shape", **shapes), strength=2), detail
    if right.isfinite().all() and not mine.isfinite().all():
        return make(_general("not-finite", **told), strength=2), detail
    if group == "extreme":
        return make(_general("extreme", **told)), detail
    factor = _factor(drill, seen, seen.right, aspect)
    if factor:
        return make(_general("scale", aspect=aspect, factor=factor), strength=1), detail
    return make(_general("different", **told)), detail


def _factor(drill: Drill, seen: _Sessions, others: list[Observation], aspect: str) -> str | None:
    """The factor between the solution and others, as a product of powers of sizes, if there is one for all cases."""
    logs, rows = [], []
    names = list(drill.sizes(seen.cases[0]))
    for number in range(seen.ordinary):
        mine = numbers_of(seen.own[number].aspects.get(aspect))
        right = numbers_of(others[number].aspects.get(aspect))
        if mine is None or right is None or mine.shape != right.shape or not len(mine):
            return None
        ratio = (mine * right).sum() / (right * right).sum()
        if not ratio > 0 or not same(mine, ratio * right):
            return None
        logs.append(math.log(ratio))
        sizes = drill.sizes(seen.cases[number])
        rows.append([1.0, *(math.log(sizes[name]) for name in names)])
    table, wanted = torch.tensor(rows, dtype=torch.float64), torch.tensor(logs, dtype=torch.float64)
    solved = torch.linalg.lstsq(table, wanted[:, None], driver="gelsd").solution.flatten()
    powers = (2 * solved[1:]).round() / 2  # B, 1/C, T², 1/√L
    constant = (wanted - table[:, 1:] @ powers).mean()
    if not torch.allclose(table[:, 1:] @ powers + constant, wanted, atol=1e-6):
        return None
    words = [_power(name, power) for name, power in zip(names, powers.tolist(), strict=True)]
    left = float(constant.exp())
    if abs(left - 1) > 1e-6:
        words.insert(0, f"{left:.4g}")
    return " · ".join(word for word in words if word) or None


def _power(name: str, power: float) -> str:
    if power == 0:
        return ""
    size = {0.5: f"√{name}", 1: name, 2: f"{name}²"}.get(abs(power), f"{name}^{abs(power):g}")
    return size if power > 0 else f"1/{size}"


def _failed_properties(
    drill: Drill, solution: Solution, seed: int, outcomes: list[Outcome]
) -> list[_Fault]:
    faults = []
    for prop in drill.properties:
        try:
            holds = prop.holds(solution, Generator().manual_seed(seed))
            detail = ""
        except (Exception, SystemExit) as error:
            holds, detail = False, f"{type(error).__name__}: {error}".splitlines()[0]
        outcomes.append(Outcome(prop.title, holds, detail))
        if not holds:
            faults.append(
                _Fault(("property", prop.id), Diagnosis(prop.id, prop.diagnosis), strength=2)
            )
    return faults


def _named(drill: Drill, seen: _Sessions, faults: Sequence[_Fault], source: str) -> list[Diagnosis]:
    """Find the mistake that explains all faults; else the mistakes that explain some; else say what was seen."""
    open_faults = [fault for fault in faults if fault.key[0] != "property"]
    named: list[Diagnosis] = []
    if open_faults:
        mine = {fault.key for fault in open_faults}
        rivals = [(mistake, seen.run(mistake.solution)) for mistake in drill.mistakes]
        explained = [
            # Best explains most; among equals, the one that does the fewest other things.
            (mistake, seen.explained(mine, runs), runs)
            for mistake, runs in rivals
        ]
        explained.sort(key=lambda one: (-len(one[1]), len(seen.departures(one[2]) - mine)))
        while open_faults and explained and explained[0][1]:
            mistake, keys, _ = explained[0]
            named.append(Diagnosis(mistake.id, _filled(drill, seen, mistake.diagnosis)))
            open_faults = [fault for fault in open_faults if fault.key not in keys]
            left = {fault.key for fault in open_faults}
            explained = sorted(
                ((other, found & left, runs) for other, found, runs in explained[1:]),
                key=lambda one: -len(one[1]),
            )
        for fault in open_faults:
            scaled = [
                (mistake, _factor(drill, seen, runs, fault.key[1]))
                for mistake, runs in rivals
                if fault.key[0] == "ordinary" and fault.fallback.id == "different"
            ]
            for mistake, factor in scaled:
                if factor:
                    if mistake.id not in {diagnosis.id for diagnosis in named}:
                        text = f"{_filled(drill, seen, mistake.diagnosis)} Besides, it is times {factor}."
                        named.append(Diagnosis(mistake.id, text))
                    open_faults = [other for other in open_faults if other is not fault]
                    break
    explained_ids = {diagnosis.id for diagnosis in named}
    properties = [fault for fault in faults if fault.key[0] == "property"]
    rest = sorted(open_faults + properties, key=lambda fault: -fault.strength)
    strongest = max((fault.strength for fault in rest), default=0)
    # What a named mistake or a factor explains in full may also break a property, which then is its symptom.
    clear = all(fault.fallback.id == "scale" for fault in open_faults)
    for fault in rest:
        # A vague finding beside a telling one would only confuse.
        vague = fault.strength == 0 and (strongest > 0 or named)
        symptom = fault.key[0] == "property" and clear and (named or open_faults)
        if not vague and not symptom and fault.fallback.id not in explained_ids:
            named.append(fault.fallback)
            explained_ids.add(fault.fallback.id)
    return [_with_line(diagnosis, seen, source) for diagnosis in named]


def _filled(drill: Drill, seen: _Sessions, text: str) -> str:
    sizes = drill.sizes(seen.cases[0])
    return text.format(**{name: f"{value:g}" for name, value in sizes.items()}) if sizes else text


def _raised(error: Raised) -> Diagnosis:
    where = f" in line {error.line} of your function" if error.line else ""
    if error.kind == "SystemExit":
        return _general("exits", where=where)
    if error.kind == "MemoryError" or "can't allocate memory" in error.message:
        return _general("memory", where=where)
    return _general("raises", error=f"{error.kind}: {error.message}", where=where)


def _with_line(diagnosis: Diagnosis, seen: _Sessions, source: str) -> Diagnosis:
    errors = [one.aspects.get("value") for one in seen.own]
    line = next((error.line for error in errors if isinstance(error, Raised)), 0)
    lines = source.splitlines()
    if diagnosis.id not in ("raises", "memory", "exits") or not 0 < line <= len(lines):
        return diagnosis
    return Diagnosis(diagnosis.id, f"{diagnosis.message} That line is: {lines[line - 1].strip()}")


def _general(id: str, **values: Any) -> Diagnosis:
    return Diagnosis(id, GENERAL[id].format(**values))


def _kind(value: Any) -> str:
    return "a number or tensor" if numbers_of(value) is not None else f"a {type(value).__name__}"
