"""What is told about a solution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

FACTOR = "Besides, it is times"
"""What is added to a name if the numbers are a multiple of those of the setting."""


@dataclass(frozen=True)
class Outcome:
    """One check of a solution.

    Attributes:
        title: what was checked.
        passed: whether it held.
    """

    title: str
    passed: bool


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a solution.

    Attributes:
        id: a fault's name, of the drill or of the grader.
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
        diagnoses: what is wrong, causes first; none for a right solution.
        smallest: the smallest input on which it is wrong, what came and what is right, line by
            line.
        notes: what does not count but should be known, such as printing.
        borrowed: whether a right solution only calls this package.
    """

    drill: str
    outcomes: tuple[Outcome, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    smallest: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    borrowed: bool = False

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
        lines += [f"  {'passed' if one.passed else 'FAILED'}  {one.title}" for one in self.outcomes]
        lines += [f"Diagnosis: {diagnosis.message}" for diagnosis in self.diagnoses]
        if self.smallest:
            lines += ["The smallest case where it shows:", *(f"  {one}" for one in self.smallest)]
        return "\n".join(lines + [f"Note: {note}" for note in self.notes])

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain lists and dicts; `from_dict` takes them."""
        return asdict(self) | {"passed": self.passed}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """Make a report again."""
        return cls(
            values["drill"],
            tuple(Outcome(**one) for one in values["outcomes"]),
            tuple(Diagnosis(**one) for one in values["diagnoses"]),
            tuple(values["smallest"]),
            tuple(values["notes"]),
            values["borrowed"],
        )
