"""The commands ``kdlearn interview`` and ``kdlearn quiz``: the bank of questions at a terminal."""

from __future__ import annotations

import random
import time
from typing import Annotated

import typer

from kdlearn.interview.bank import questions_folder, read_bank, select
from kdlearn.interview.question import FORMATS, LEVELS, SCORES, TOPICS, Question

Topic = Annotated[str | None, typer.Option(help=f"one of {', '.join(TOPICS)}")]
Level = Annotated[str | None, typer.Option(help=f"one of {', '.join(LEVELS)}")]
Kind = Annotated[str | None, typer.Option("--format", help=f"one of {', '.join(FORMATS)}")]
Seed = Annotated[int | None, typer.Option(help="for the same questions again")]


def interview(
    topic: Topic = None,
    level: Level = None,
    kind: Kind = None,
    minutes: Annotated[float, typer.Option(min=1, help="how long it lasts")] = 30,
    seed: Seed = None,
) -> None:
    """Sit a mock interview: a question, your answer aloud, the layers, your score, a push."""
    ends = time.monotonic() + 60 * minutes
    scores = []
    for question in _drawn(topic, level, kind, seed):
        if time.monotonic() > ends:
            break
        scores.append(_ask(question))
    typer.echo(f"\n{len(scores)} questions, {sum(scores) / len(scores):.1f} of {SCORES}.")


def quiz(
    topic: Topic = None,
    level: Level = None,
    number: Annotated[int, typer.Option(min=1, help="how many cards")] = 10,
    seed: Seed = None,
) -> None:
    """Turn cards: a question, then its answer of thirty seconds; say whether you knew it."""
    cards = _drawn(topic, level, None, seed)[:number]
    known = 0
    for card in cards:
        typer.echo(f"\n{card.head.title}\n{card.head.title_zh}")
        _wait("Say it, then press Enter")
        typer.echo(card.parts["30 seconds"])
        known += typer.confirm("Did you know it?", default=True)
    typer.echo(f"\n{known} of {len(cards)} known.")


def _drawn(
    topic: str | None, level: str | None, kind: str | None, seed: int | None
) -> list[Question]:
    found = select(read_bank(questions_folder()), topic=topic, level=level, format=kind)
    if not found:
        typer.echo(
            f"no question has topic={topic}, level={level} and format={kind}: leave one of them "
            "out, or see --help for what there is",
            err=True,
        )
        raise typer.Exit(2)
    random.Random(seed).shuffle(found)
    return found


def _ask(question: Question) -> int:
    head, parts = question.head, question.parts
    typer.echo(f"\n=== {head.title}  ({head.topic}, {head.level}, {head.minutes} minutes)\n")
    for part in ("Scenario", "Question"):
        if part in parts:
            typer.echo(parts[part] + "\n")
    for part in ("30 seconds", "2 minutes", "Whiteboard", "Napkin numbers"):
        _wait(f"Enter: {part}")
        typer.echo(parts[part] + "\n")
    for mistake in question.wrong_answers:
        typer.echo(f"Wrong: {mistake.title}\n  {mistake.body}\n")
    for points, text in enumerate(question.rubric, 1):
        typer.echo(f"  {points}. {text}")
    score = _score()
    # The weaker the answer, the nearer the push stays to the question.
    push = question.follow_ups[max(0, score - 2)]
    typer.echo(f"\nThe interviewer pushes: {push.title}")
    _wait("Enter: the answer")
    typer.echo(f"{push.body}\n\nRead: {head.chapter}")
    return score


def _score() -> int:
    while True:
        score: int = typer.prompt(f"Your score, 1 to {SCORES}", type=int)
        if 1 <= score <= SCORES:
            return score


def _wait(text: str) -> None:
    typer.prompt(text, default="", show_default=False)
