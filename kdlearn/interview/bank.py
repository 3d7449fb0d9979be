"""The bank of questions: all files of a folder, and what must hold between them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from kdlearn.interview.question import Question, read

ALIKE = 0.6
# Words that any two questions share.
COMMON = frozenset(
    re.findall(
        "[a-z]+",
        "a an and are as at be by can do does for from has have how if in is it its not of on one "
        "or so than that the their them then they this to what when where which who why with would "
        "you your distillation knowledge student teacher model models",
    )
)


def questions_folder() -> Path:
    """Return the folder of the book's questions: beside this file once installed, else in book/.

    Example:
        >>> questions_folder().name
        'questions'
    """
    installed = Path(__file__).parent / "questions"
    in_the_repository = Path(__file__).parents[2] / "book" / "interview" / "questions"
    return installed if installed.exists() else in_the_repository


def read_bank(folder: Path) -> list[Question]:
    """Read every question of a folder, in the order of their file names.

    Args:
        folder: holds one Markdown file a question.

    Raises:
        ValueError: a file does not have the form, or two questions are alike.

    Example:
        >>> read_bank(Path("an empty folder"))
        []
    """
    questions = [
        read(path.read_text(encoding="utf-8"), path.stem) for path in sorted(folder.glob("*.md"))
    ]
    if faults := alike(questions) + said_twice(questions):
        raise ValueError(faults[0])
    return questions


def alike(questions: Sequence[Question]) -> list[str]:
    """Say which questions share too many words of title and question to be two.

    Example:
        >>> alike([])
        []
    """
    contents = [(question.head.id, _content(question)) for question in questions]
    return [
        f"{one} and {other} ask nearly the same: merge them, or say in both titles "
        "and questions what differs."
        for (one, first), (other, second) in itertools.combinations(contents, 2)
        if _overlap(first, second) >= ALIKE
    ]


def said_twice(questions: Sequence[Question]) -> list[str]:
    """Say which wordings stand with two questions, or twice with one.

    Example:
        >>> said_twice([])
        []
    """
    owners: dict[str, str] = {}
    faults = []
    for head in (question.head for question in questions):
        for wording in head.wordings:
            owner = owners.get(wording.casefold())
            if owner:
                faults.append(f"{owner} and {head.id} are both asked as {wording!r}: leave one.")
            owners[wording.casefold()] = head.id
    return faults


def likeness(one: Question, other: Question) -> float:
    """Words that titles and questions share, as a share of all their words (Jaccard, 0 to 1)."""
    return _overlap(_content(one), _content(other))


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / max(1, len(first | second))


def _content(question: Question) -> frozenset[str]:
    text = f"{question.head.title} {question.parts['Question']}".lower()
    return frozenset(re.findall(r"[a-z0-9²]+", text)) - COMMON


def select(
    questions: Sequence[Question],
    *,
    level: str | None = None,
    topic: str | None = None,
    format: str | None = None,
) -> list[Question]:
    """Return the questions of a level, a topic and a format; None takes all.

    Example:
        >>> select([], topic="losses")
        []
    """
    wanted = {"level": level, "topic": topic, "format": format}
    asked = {name: value for name, value in wanted.items() if value is not None}
    return [
        question
        for question in questions
        if all(getattr(question.head, name) == value for name, value in asked.items())
    ]
