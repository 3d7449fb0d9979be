"""How often the grader is right: ``python -m kdlearn.drills.grader.rates FOLDER``.

The folder holds Python files named after drills, such as ``kd_loss.py``, with two lists of (name,
source): ``RIGHT`` and ``WRONG``. A source defines the drill's function and may use what a solution
has without importing it. An entry of ``WRONG`` may have a third part, the names of which at least
one should be given: of faults, of effects, or "edge".

A refusal misleads if it gives none of the names expected, or names a setting that does not give the
solution's values and gradients on inputs drawn anew.
"""

from __future__ import annotations

import runpy
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from kdlearn.drills.grader.drill import IMPORTS, Drill, Solution
from kdlearn.drills.grader.observe import alike
from kdlearn.drills.grader.probes import factor
from kdlearn.drills.grader.report import FACTOR, Diagnosis, Report
from kdlearn.drills.grader.run import run
from kdlearn.drills.grader.search import Inputs, Runs

VAGUE = ("unexplained",)
"""What is said where nothing is named and nothing narrowed down."""


class Graded(NamedTuple):
    """One solution with what was said of it.

    Attributes:
        drill: the drill's name.
        name: the solution's.
        right: whether it is right.
        expected: names of which one should be given; none where nobody said.
        report: what the grader said.
        seconds: how long it took.
        holds: whether the setting that was named gives the solution's numbers.
    """

    drill: str
    name: str
    right: bool
    expected: tuple[str, ...]
    report: Report
    seconds: float
    holds: bool = True

    @property
    def verdict(self) -> str:
        """Whether it was accepted or refused; of a wrong one refused, whether that helps."""
        if self.right or self.report.passed:
            return "accepted" if self.report.passed else "refused"
        said = {diagnosis.id for diagnosis in self.report.diagnoses}
        if said <= set(VAGUE):
            return "vague"
        named = not self.expected or said & set(self.expected)
        return "helps" if named and self.holds else "misleads"


def graded(folder: Path, *, seed: int = 1) -> Iterator[Graded]:
    """Grade all solutions of a folder."""
    for file in sorted(folder.glob("*.py")):
        known = runpy.run_path(str(file))
        drill: Drill = import_module(f"kdlearn.drills.tasks.{file.stem.replace('-', '_')}").drill
        for right in (True, False):
            for name, source, *expected in known.get("RIGHT" if right else "WRONG", []):
                with tempfile.TemporaryDirectory() as place:
                    path = Path(place) / f"{file.stem}.py"
                    path.write_text(f"{IMPORTS}\n\n{source}\n", encoding="utf-8")
                    start = time.perf_counter()
                    report = run(drill, path, seed=seed)
                    seconds = time.perf_counter() - start
                told = tuple(expected[0]) if expected else ()
                holds = gives(drill, source, report.diagnoses, seed=seed + 1000)
                yield Graded(drill.id, name, right, told, report, seconds, holds)


def gives(drill: Drill, source: str, said: Sequence[Diagnosis], *, seed: int) -> bool:
    """Say whether the setting that is named gives a solution's numbers on the inputs of a seed.

    A multiple of them counts where a factor is told; so does a name for how a solution was seen to
    work, and what holds no name of the drill's switches.

    Example:
        >>> from kdlearn.drills import find
        >>> zero = "def judge(letters): return [False for letter in letters]"
        >>> gives(find("rapid-fire"), zero, [Diagnosis("sum-or-mean", "b is true.")], seed=0)
        False
    """
    switches = {fault.id for faults in drill.knobs.values() for fault in faults}
    wrong = switches & {one.id for one in said}
    multiple = any(FACTOR in one.message for one in said)
    if not wrong:
        return True
    space: dict[str, Any] = {}
    exec(f"{IMPORTS}\n\n{source}", space)
    solution: Solution = space[drill.function]
    inputs, member = Inputs.of(drill, seed), drill.member(wrong)
    mine = Runs(drill, solution, inputs, Runs(drill, drill.reference, inputs))
    keys = inputs.keys("ordinary", "fresh")
    return (
        wrong <= {name for key in keys for name in mine.on(*key).effects}
        or mine.does(frozenset(wrong), "ordinary", "fresh")
        or (multiple and factor(mine, member) is not None)
        or all(
            alike(inputs.bench(drill, *key).result(member), mine.on(*key).result) for key in keys
        )
    )


def summary(found: list[Graded]) -> str:
    """Return the rates as text.

    Example:
        >>> one = Graded("kd-loss", "none", True, (), Report("kd-loss"), 0.1)
        >>> print(summary([one]))
        right accepted   0 of 1
        wrong refused    0 of 0
          helps          0
          vague          0
          misleads       0
        seconds a check  0.10 (median after the first)
    """
    right = [one for one in found if one.right]
    wrong = [one for one in found if not one.right]
    refused = [one.verdict for one in wrong if one.verdict != "accepted"]
    seconds = median([one.seconds for one in found][1:] or [found[0].seconds])
    return "\n".join(
        [
            f"right accepted   {sum(one.verdict == 'accepted' for one in right)} of {len(right)}",
            f"wrong refused    {len(refused)} of {len(wrong)}",
            *(f"  {word:15}{refused.count(word)}" for word in ("helps", "vague", "misleads")),
            f"seconds a check  {seconds:.2f} (median after the first)",
        ]
    )


def main(arguments: list[str]) -> int:
    """Print every solution whose verdict is not what it should be, and the rates."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise SystemExit(__doc__)
    found = []
    for one in graded(Path(arguments[0])):
        found.append(one)
        if one.verdict != ("accepted" if one.right else "helps"):
            said = "; ".join(f"{line.id}: {line.message}" for line in one.report.diagnoses)
            print(f"{one.drill}: {one.name}: {one.verdict}: {said}")
    print(summary(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
