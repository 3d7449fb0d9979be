"""Find the setting of a drill's switches that does what a solution does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import Generator

from kdlearn.drills.grader.compare import numbers_of, same
from kdlearn.drills.grader.drill import Case, Drill, Edge, Solution, Wrong
from kdlearn.drills.grader.observe import Bench, Observation, alike, observe


@dataclass(frozen=True)
class Inputs:
    """All on which solutions are compared.

    Attributes:
        ordinary: the example, then the drawn cases.
        edges: the edges.
        fresh: cases that are drawn anew, on which a name must hold as well.
        benches: the inputs as the family is run on them.
    """

    ordinary: Sequence[Case]
    edges: Sequence[Edge]
    fresh: Sequence[Case]
    benches: dict[tuple[str, int], Bench] = field(default_factory=dict)

    @classmethod
    def of(cls, drill: Drill, seed: int) -> Inputs:
        """Draw the inputs of a drill."""
        drawn, fresh = (list(drill.cases(Generator().manual_seed(n))) for n in (seed, seed + 1))
        return cls([drill.example(), *drawn], list(drill.edges()), fresh)

    def case(self, group: str, number: int) -> Case:
        """Return one input."""
        chosen = getattr(self, group)[number]
        found: Case = chosen.case if isinstance(chosen, Edge) else chosen
        return found

    def kink(self, group: str, number: int) -> bool:
        """Say whether there is no derivative at one input."""
        return group == "edges" and self.edges[number].kink

    def keys(self, *groups: str) -> list[tuple[str, int]]:
        """Return where the inputs of these groups are."""
        return [(group, number) for group in groups for number in range(len(getattr(self, group)))]

    def bench(self, drill: Drill, group: str, number: int) -> Bench:
        """Return one input as members of the family are run on it."""
        key = (group, number)
        if key not in self.benches:
            self.benches[key] = Bench(drill, self.case(*key), kink=self.kink(*key))
        return self.benches[key]


class Runs:
    """A solution with what it did on each input, run when that is asked for."""

    def __init__(
        self, drill: Drill, solution: Solution, inputs: Inputs, right: Runs | None = None
    ) -> None:
        self.drill, self.solution, self.inputs, self.right = drill, solution, inputs, right
        self._seen: dict[tuple[str, int], Observation] = {}

    def on(self, group: str, number: int) -> Observation:
        """Return what was done with one input."""
        key = (group, number)
        if key not in self._seen:
            like = self.right.on(group, number) if self.right else None
            case, kink = self.inputs.case(*key), self.inputs.kink(*key)
            self._seen[key] = observe(self.drill, self.solution, case, like, kink=kink)
        return self._seen[key]

    def all(self, group: str) -> list[Observation]:
        """Return what was done with all inputs of a group."""
        return [self.on(*key) for key in self.inputs.keys(group)]

    def agrees(self, other: Runs, *groups: str) -> bool:
        """Say whether two give the same numbers on all inputs of these groups."""
        return all(
            same(self.on(*key).numbers, other.on(*key).numbers) for key in self.inputs.keys(*groups)
        )

    def does(self, other: Solution | Wrong, *groups: str) -> bool:
        """Say whether a member of the family gives the same numbers on these groups."""
        for key in self.inputs.keys(*groups):
            mine, bench = self.on(*key).numbers, self.inputs.bench(self.drill, *key)
            # Values first: most members part there, and gradients cost more.
            for gradients in (False, True) if self.drill.gradients else (True,):
                numbers = bench.numbers(other, gradients=gradients)
                if not same({name: mine.get(name) for name in numbers}, numbers):
                    return False
            if len(numbers) != len(mine):
                return False
        return True


@dataclass(frozen=True)
class Found:
    """What explains a solution.

    Attributes:
        wrong: the faults; none where the numbers are right.
        runs: the family's member with them.
        others: other settings that cannot be told from it.
    """

    wrong: Wrong
    runs: Runs
    others: tuple[Wrong, ...] = ()


@cache
def _always(drill: Drill) -> tuple[Bench, list[Bench]]:
    """The example and the edges, which are the same for all solutions."""
    edges = [Bench(drill, edge.case, kink=edge.kink) for edge in drill.edges()]
    return Bench(drill, drill.example()), edges


def prepared(drill: Drill) -> Iterator[None]:
    """Work out ahead, step by step, what every search of a drill begins with.

    Example:
        >>> from kdlearn.drills import find
        >>> sum(1 for _ in prepared(find("rapid-fire")))
        78
    """
    for wrong in drill.settings(1) + drill.settings(2):
        yield
        _always(drill)[0].numbers(wrong, gradients=False)


def _fits(mine: Runs, wrong: Wrong) -> bool:
    """Whether a setting agrees on the example, where most of them part."""
    numbers = _always(mine.drill)[0].numbers(wrong, gradients=False)
    seen = mine.on("ordinary", 0).numbers
    return same({name: seen.get(name) for name in numbers}, numbers)


def explained(mine: Runs, right: Runs, seen: Iterable[str]) -> Found | None:
    """Return the setting that gives a solution's values and gradients, also on fresh inputs.

    Faults that were seen in how the solution works are taken as given; one and then two more are
    tried. Among settings that agree there, the one counts that agrees at most edges; to explain an
    edge, one more fault may be added.

    Args:
        mine: the solution.
        right: the reference.
        seen: faults that were seen.
    """
    drill = mine.drill
    if not any(_has_numbers(one.numbers) for one in mine.all("ordinary") + mine.all("edges")):
        return None  # one NaN is like any other
    switches = {fault.id for faults in drill.knobs.values() for fault in faults}
    start = frozenset(seen) & switches
    found: list[Found] = []
    for base in dict.fromkeys((start, frozenset[str]())):
        for number in (0, 1, 2):
            for wrong in drill.settings(number, base):
                if _fits(mine, wrong) and mine.does(wrong, "ordinary", "fresh"):
                    found.append(Found(wrong, Runs(drill, drill.member(wrong), mine.inputs, right)))
            if found:
                return _at_the_edges(mine, right, found)
    return _part_by_part(mine, right)


def _part_by_part(mine: Runs, right: Runs) -> Found | None:
    """The faults that explain one result each, if together they explain all: any number of them."""
    drill, parts = mine.drill, frozenset[str]()
    for wrong in drill.settings(1):
        touched: set[str] = set()
        for number, (one, other) in enumerate(
            zip(mine.all("ordinary"), right.all("ordinary"), strict=True)
        ):
            bench = mine.inputs.bench(drill, "ordinary", number)
            given = bench.numbers(wrong)
            touched |= {name for name in given if not same(given[name], other.numbers.get(name))}
            if not all(same(one.numbers.get(name), given.get(name)) for name in touched):
                break
        else:
            parts |= wrong if touched else frozenset()
    if parts and mine.does(parts, "ordinary", "fresh"):
        return Found(parts, Runs(drill, drill.member(parts), mine.inputs, right))
    return None


def _has_numbers(numbers: Mapping[str, Any]) -> bool:
    vector = numbers_of(numbers)
    return vector is None or bool(vector.isfinite().any())


def misfit_explained(mine: Runs, right: Runs) -> Found | None:
    """Return the setting whose results are a solution's, where these are of a wrong kind."""
    drill = mine.drill
    for number in (1, 2):
        for wrong in drill.settings(number):
            member = drill.member(wrong)
            if all(
                alike(mine.inputs.bench(drill, group, n).result(member), one.result)
                for group in ("ordinary", "fresh")
                for n, one in enumerate(mine.all(group))
            ):
                return Found(wrong, Runs(drill, member, mine.inputs, right))
    return None


def _at_the_edges(mine: Runs, right: Runs, found: list[Found]) -> Found:
    """Choose among settings that agree on ordinary inputs, adding faults where edges need them."""
    drill = mine.drill

    def agreeing(wrong: Wrong) -> Iterator[bool]:
        for number, seen in enumerate(mine.all("edges")):
            yield same(seen.numbers, _always(drill)[1][number].numbers(wrong))

    good = {one.wrong: sum(agreeing(one.wrong)) for one in found}
    best = max(found, key=lambda one: good[one.wrong])
    for number in (1, 2) if good[best.wrong] < len(mine.inputs.edges) else ():
        more = []
        for wrong in drill.settings(number, best.wrong):
            fits = _fits(mine, wrong) and all(agreeing(wrong))
            if fits and mine.does(wrong, "ordinary", "fresh"):
                more.append(Found(wrong, Runs(drill, drill.member(wrong), mine.inputs, right)))
        if more:
            return Found(more[0].wrong, more[0].runs, tuple(one.wrong for one in more[1:]))
        if best.wrong:
            return best
    alike = [one for one in found if one is not best and good[one.wrong] == good[best.wrong]]
    return Found(best.wrong, best.runs, tuple(one.wrong for one in alike))
