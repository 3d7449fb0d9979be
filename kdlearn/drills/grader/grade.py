"""Compare a solution with the reference, name what is wrong, and show the smallest case."""

from __future__ import annotations

import dis
import inspect
import string
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from kdlearn.drills.grader import probes
from kdlearn.drills.grader.compare import (
    Raised,
    copied,
    is_finite,
    numbers_of,
    same,
    shown,
    size_of,
)
from kdlearn.drills.grader.drill import Case, Drill, Edge, Solution
from kdlearn.drills.grader.observe import Observation, left_behind, misfit
from kdlearn.drills.grader.report import FACTOR, Diagnosis, Outcome, Report
from kdlearn.drills.grader.search import Found, Inputs, Runs, explained, misfit_explained

RAISED = {
    "SystemExit": (
        "your function calls sys.exit{where}: return a value instead; an exit would end the "
        "session."
    ),
    "MemoryError": (
        "your function asks for more memory than it may have{where}: look for a tensor of an extra "
        "dimension."
    ),
    "BlockingIOError": "your function starts more processes or threads than it may{where}.",
}
"""What is said of exceptions that have a meaning of their own."""


CAN_BE_A_SETTING = ("wrong-shape", "wrong-kind", "wrong-length", "other-keys")
"""Results of another kind that a setting of the switches may give too."""


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


def grade(drill: Drill, solution: Solution, *, seed: int) -> Report:
    """Check a solution in this process.

    First what would make numbers meaningless: other arguments, exceptions, another kind of result.
    Then what the solution does besides its result. Then its numbers: a name is given only to a
    setting of the drill's switches that gives the same values and gradients on all inputs, and on
    inputs drawn anew.

    Args:
        drill: the drill.
        solution: a function that is called as the reference is.
        seed: of the inputs.

    Example:
        >>> from kdlearn.drills import find
        >>> def zero(student_logits, teacher_logits, *, temperature):
        ...     return 0.0
        >>> grade(find("kd-loss"), zero, seed=0).passed
        False
    """
    if is_empty(solution):
        return Report(drill.id)
    wrong = _wrong_signature(drill, solution)
    if wrong:
        return Report(drill.id, (Outcome("takes the arguments", False),), (wrong,))
    right = _reference(drill, seed)
    inputs = right.inputs
    mine = Runs(drill, solution, inputs, right)
    first = mine.on("ordinary", 0).result
    if isinstance(first, Raised) and first.kinds[0] == "NotImplementedError":
        return Report(drill.id)
    stopped = _no_numbers(drill, mine, right)
    if stopped:
        return Report(drill.id, (Outcome("runs, and returns what is asked for", False),), *stopped)
    effects = effects_of(mine, right)
    outcomes = _outcomes(mine, right, effects)
    if all(outcome.passed for outcome in outcomes):
        return Report(
            drill.id, outcomes, borrowed=_is_borrowed(drill, solution, inputs.ordinary[0])
        )
    numbers, found = _numbers(drill, mine, right, effects)
    named = {diagnosis.id for diagnosis in numbers}
    # What the named setting does besides its numbers is its consequence.
    follows = effects_of(found.runs, right) if effects and found and found.wrong else {}
    causes = [
        Diagnosis(name, text)
        for name, text in effects.items()
        if name not in follows and name not in named and "parameters-exchanged" not in named
    ]
    return Report(drill.id, outcomes, (*causes, *numbers), _smallest(mine, right))


@lru_cache(maxsize=2)
def _reference(drill: Drill, seed: int) -> Runs:
    """The reference on the inputs of a seed, for all solutions that are graded with it."""
    return Runs(drill, drill.reference, Inputs.of(drill, seed))


def _wrong_signature(drill: Drill, solution: Solution) -> Diagnosis | None:
    expected = inspect.signature(drill.reference)
    if not callable(solution):
        return Diagnosis(
            "wrong-kind", f"{shown(solution)} is no function: expected {drill.function}."
        )
    try:
        given = inspect.signature(solution)
        drill.call(given.bind, dict.fromkeys(expected.parameters))
    except ValueError:
        return None  # a function that does not tell its parameters, as of TorchScript
    except TypeError:
        bare = expected.replace(
            parameters=[
                one.replace(annotation=one.empty, default=one.empty)
                for one in expected.parameters.values()
            ],
            return_annotation=expected.empty,
        )
        said = f"your function takes {given}; expected {drill.function}{bare}."
        return Diagnosis("signature", said)
    return None


def _no_numbers(
    drill: Drill, mine: Runs, right: Runs
) -> tuple[tuple[Diagnosis, ...], tuple[str, ...]] | None:
    """Whether something keeps results from being compared: what to say, and the case."""
    pairs = zip(mine.all("ordinary"), right.all("ordinary"), mine.inputs.ordinary, strict=True)
    for one, other, case in pairs:
        if isinstance(one.result, Raised) and not isinstance(other.result, Raised):
            if _exchanged(drill, mine.solution):
                return (_exchanged_names(drill, mine.solution),), ()
            named = explained(mine, right, ())
            if named and named.wrong:
                return tuple(_named(drill, named)), _case_shown(case, one, other)
            return (Diagnosis("raises", _raised(one.result)),), _case_shown(case, one, other)
        wrong = misfit(drill, other.result, one.result)
        if wrong:
            found = misfit_explained(mine, right) if wrong[0] in CAN_BE_A_SETTING else None
            said = _named(drill, found) if found else [Diagnosis(*wrong)]
            return tuple(said), _case_shown(case, one, other)
    return None


def effects_of(runs: Runs, right: Runs) -> dict[str, str]:
    """All that a solution does besides its numbers, on any input."""
    found: dict[str, str] = {}
    late: dict[str, str] = {}
    for group in ("ordinary", "edges"):
        for one, other in zip(runs.all(group), right.all(group), strict=True):
            if not isinstance(one.result, Raised):
                found = left_behind(one, other) | found
            elif isinstance(other.result, Raised):
                late |= left_behind(one, other)
    for name, text in late.items():
        if name not in found:
            found[f"{name}-after-error"] = f"where an exception is raised, {text}"
    return found


def _outcomes(mine: Runs, right: Runs, effects: Mapping[str, str]) -> tuple[Outcome, ...]:
    names = list(dict.fromkeys(name for one in right.all("ordinary") for name in one.numbers))
    pairs = list(zip(mine.all("ordinary"), right.all("ordinary"), strict=True))
    outcomes = [
        Outcome(
            f"gives the right {name}",
            all(same(one.numbers.get(name), other.numbers.get(name)) for one, other in pairs),
        )
        for name in names
    ]
    for edge, one, other in zip(
        mine.inputs.edges, mine.all("edges"), right.all("edges"), strict=True
    ):
        outcomes.append(Outcome(f"is right for {edge.title}", same(one.numbers, other.numbers)))
    return (*outcomes, Outcome("does nothing besides", not effects))


def _numbers(
    drill: Drill, mine: Runs, right: Runs, effects: Mapping[str, str]
) -> tuple[list[Diagnosis], Found | None]:
    """What is wrong with the numbers, and the setting that gives them."""
    ordinary = mine.agrees(right, "ordinary")
    if ordinary and mine.agrees(right, "edges"):
        return [], None
    if not ordinary and _exchanged(drill, mine.solution):
        return [_exchanged_names(drill, mine.solution)], None
    found = explained(mine, right, effects)
    said = _named(drill, found) if found and found.wrong else []
    if found is None and not ordinary:
        scaled = _scaled(drill, mine, right)
        if scaled:
            return scaled, None
        cut = [
            name
            for name in drill.gradients
            if mine.on("ordinary", 0).numbers.get(f"gradient of {name}") is None
        ]
        if cut and mine.on("ordinary", 0).numbers:
            text = (
                f"no gradient arrives at {', '.join(cut)}: .item(), .detach(), .data, argmax, "
                "no_grad() or a new torch.tensor(...) cuts the graph."
            )
            said.append(Diagnosis("no-gradient", text))
            if all(
                same(one.numbers.get("value"), other.numbers.get("value"))
                for one, other in zip(mine.all("ordinary"), right.all("ordinary"), strict=True)
            ):
                return said, None
        if effects:
            return said, None
        for number, case in enumerate(mine.inputs.ordinary):
            seen = mine.on("ordinary", number)
            if not is_finite(seen.numbers):
                story = probes.origin(mine, case, seen) or "NaN"
                text = f"your result is not finite: {story}."
                return [*said, Diagnosis("not-finite", text)], None
        telling, where = probes.facts(mine, right)
        lead = "no setting of this drill's switches, alone or with another, gives your numbers."
        text = " ".join([lead, *telling, *where])
        return [*said, Diagnosis("narrowed-down" if telling else "unexplained", text)], None
    return said + _edges(mine, right, found), found


def _edges(mine: Runs, right: Runs, found: Found | None) -> list[Diagnosis]:
    """What goes wrong at edges that the named setting does not explain; two at most."""
    said: list[Diagnosis] = []
    for number, edge in enumerate(mine.inputs.edges):
        one, other = mine.on("edges", number), right.on("edges", number)
        if same(one.numbers, other.numbers):
            continue
        named = found is not None and bool(found.wrong)
        if found is not None and named:
            theirs = found.runs.on("edges", number)
            broken = isinstance(one.result, Raised) or not is_finite(one.numbers)
            if same(one.numbers, theirs.numbers) or not broken:
                continue
        if len(said) < 2:
            what = _at_edge(mine, edge, one, other)
            said.append(Diagnosis("edge", f"for {edge.title} {what} {edge.hint}".strip()))
    return said


def _at_edge(mine: Runs, edge: Edge, one: Observation, other: Observation) -> str:
    if isinstance(one.result, Raised):
        instead = (
            f", expected {_article(other.result.kinds[0])}"
            if isinstance(other.result, Raised)
            else ""
        )
        return _raised(one.result).rstrip(".") + instead + "."
    if isinstance(other.result, Raised):
        error = _article(other.result.kinds[0])
        return f"your function returns {shown(one.result)}, expected {error}."
    wrong = misfit(mine.drill, other.result, one.result)
    if wrong:
        return wrong[1]
    names = probes.parts(one.numbers, other.numbers)
    name = next((found for found in names if not is_finite(one.numbers.get(found))), names[0])
    given, wanted = one.numbers.get(name), other.numbers.get(name)
    if not is_finite(given) and is_finite(wanted):
        story = probes.origin(mine, edge.case, one)
        return f"your {name} is not finite" + (f": {story}." if story else ".")
    return f"your {name} is {shown(given)}, the right one {shown(wanted)}."


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"


def _named(drill: Drill, found: Found) -> list[Diagnosis]:
    sizes = drill.sizes(drill.example())
    order = [fault for fault in drill.faults if fault in found.wrong]
    said = [Diagnosis(fault, _filled(drill.faults[fault].text, sizes)) for fault in order]
    for other in found.others[:1]:
        more = " ".join(_filled(drill.faults[fault].text, sizes) for fault in sorted(other))
        last = said[-1]
        said[-1] = Diagnosis(
            last.id, f"{last.message} (The same numbers also come of this: {more})"
        )
    return said


def _filled(text: str, sizes: Mapping[str, float]) -> str:
    if not any(field for _, field, _, _ in string.Formatter().parse(text)):
        return text
    return text.format(**{name: f"{value:g}" for name, value in sizes.items()})


def _scaled(drill: Drill, mine: Runs, right: Runs) -> list[Diagnosis]:
    """The right numbers, or those of one fault, times a factor."""
    factor = probes.factor(mine, drill.reference)
    if factor:
        said = (
            f"your result is the right one times {factor}: a reduction or a factor is off, the "
            "rest is right."
        )
        return [Diagnosis("scale", said)]
    for wrong in drill.settings(1):
        factor = probes.factor(mine, drill.member(wrong))
        if factor and not factor.startswith("-"):
            (named,) = _named(drill, Found(wrong, right))
            return [Diagnosis(named.id, f"{named.message} {FACTOR} {factor}.")]
    return []


def _exchanged(drill: Drill, solution: Solution) -> bool:
    """Whether a solution names the same parameters in another order."""
    try:
        given = [
            name
            for name, one in inspect.signature(solution).parameters.items()
            if one.kind != one.KEYWORD_ONLY
        ]
    except (TypeError, ValueError):
        return False
    expected = [
        name
        for name, one in inspect.signature(drill.reference).parameters.items()
        if one.kind != one.KEYWORD_ONLY
    ]
    return given != expected and sorted(given) == sorted(expected)


def _exchanged_names(drill: Drill, solution: Solution) -> Diagnosis:
    expected = ", ".join(inspect.signature(drill.reference).parameters)
    given = ", ".join(inspect.signature(solution).parameters)
    said = f"your parameters stand in another order: ({given}), and they are given as ({expected})."
    return Diagnosis("parameters-exchanged", said)


def _raised(error: Raised) -> str:
    where = f", in the line: {error.line}" if error.line else ""
    if "can't allocate memory" in error.message:
        return RAISED["MemoryError"].format(where=where)
    if error.kinds[0] in RAISED:
        return RAISED[error.kinds[0]].format(where=where)
    return f"your function raises {error}{where}."


def _smallest(mine: Runs, right: Runs) -> tuple[str, ...]:
    """The smallest input on which something is wrong."""
    wrong: list[tuple[float, Case, Observation, Observation, str]] = []
    for group in ("ordinary", "edges"):
        pairs = zip(mine.all(group), right.all(group), getattr(mine.inputs, group), strict=True)
        for one, other, chosen in pairs:
            case = chosen.case if isinstance(chosen, Edge) else chosen
            title = f"{chosen.title}: " if isinstance(chosen, Edge) else ""
            if not same(one.numbers, other.numbers):
                wrong.append((size_of(case), case, one, other, title))
    if not wrong:
        return ()
    _, case, one, other, title = min(wrong, key=lambda found: found[0])
    return _case_shown(case, one, other, title)


def _case_shown(
    case: Case, one: Observation, other: Observation, title: str = ""
) -> tuple[str, ...]:
    """An input, what came, what is right, and where they part."""
    given = ", ".join(f"{name} = {shown(value)}" for name, value in case.items())
    lines = [f"{title}{given}"]
    if isinstance(one.result, Raised) or not one.numbers:
        came = f"it raises {one.result}" if isinstance(one.result, Raised) else shown(one.result)
        return (*lines, f"yours: {came}", f"right: {shown(other.result)}")
    names = probes.parts(one.numbers, other.numbers)
    for name in names[:2]:
        mine, right = one.numbers.get(name), other.numbers.get(name)
        lines.append(f"{name}: yours {shown(mine)}, right {shown(right)}{_parting(mine, right)}")
    good = [name for name in other.numbers if name not in names]
    return (*lines, *([f"right there: {', '.join(good)}"] if good else []))


def _parting(mine: Any, right: Any) -> str:
    """The first row in which two results part, where some rows agree."""
    one, other = numbers_of(mine), numbers_of(right)
    if one is None or other is None or one.shape != other.shape or getattr(right, "dim", int)() < 1:
        return ""
    rows = len(right)
    good = [row for row in range(rows) if same(mine[row], right[row])]
    bad = [row for row in range(rows) if row not in good]
    return f"; rows {', '.join(map(str, good))} agree, {bad[0]} does not" if good and bad else ""


def _is_borrowed(drill: Drill, solution: Solution, case: Case) -> bool:
    """Whether a solution calls this package's own functions."""
    given, seen = copied(case), []
    own = drill.reference.__module__

    def look(frame: Any, event: str, argument: Any) -> None:
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith("kdlearn."):
            code = frame.f_code
            if name.startswith(("kdlearn.losses", "kdlearn.measure")) or (
                name == own
                and code.co_name == drill.function
                and code is not getattr(solution, "__code__", None)
            ):
                seen.append(name)

    sys.setprofile(look)
    try:
        drill.call(solution, given)
    finally:
        sys.setprofile(None)
    return bool(seen)
