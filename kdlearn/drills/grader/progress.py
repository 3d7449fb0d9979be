"""What a reader has done, kept in one small file.

The file is ``drills.json`` in the folder that the environment variable ``KDLEARN_HOME`` names, else
``~/.kdlearn``.
"""

from __future__ import annotations

import datetime
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kdlearn.core.files import reason


@dataclass(frozen=True)
class Record:
    """What was done with one drill.

    Attributes:
        attempts: solutions that were checked.
        hints: hints that were shown.
        seen: whether the solution was shown before the drill was solved.
        solved: the day of the first right solution, as YYYY-MM-DD; empty if there is none.
    """

    attempts: int = 0
    hints: int = 0
    seen: bool = False
    solved: str = ""


def path() -> Path:
    """Say where the file is."""
    home = os.environ.get("KDLEARN_HOME")
    return (Path(home) if home else Path.home() / ".kdlearn") / "drills.json"


def read() -> dict[str, Record]:
    """Give all records by drill; an unreadable file is put aside with a warning, not lost."""
    file = path()
    if not file.exists():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return {name: Record(**record) for name, record in values.items()}
    except (ValueError, TypeError, AttributeError, OSError) as error:
        aside = file.with_suffix(".damaged.json")
        try:
            file.replace(aside)
        except OSError:
            aside = file
        warnings.warn(
            f"the progress in {file} cannot be read ({reason(error)}): it is kept as {aside}, and "
            "a new one begins.",
            stacklevel=2,
        )
        return {}


def write(records: Mapping[str, Record]) -> None:
    """Keep all records; where that is not possible, warn and go on."""
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        values = {name: asdict(record) for name, record in records.items()}
        partial.write_text(json.dumps(values, indent=1), encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        warnings.warn(
            f"progress cannot be kept in {file} ({reason(error)}): set KDLEARN_HOME to a folder "
            "you can write.",
            stacklevel=2,
        )


def checked(drill: str, *, passed: bool) -> None:
    """Note that a solution was checked."""
    records = read()
    old = records.get(drill, Record())
    day = datetime.date.today().isoformat() if passed and not old.solved else old.solved
    write(records | {drill: replace(old, attempts=old.attempts + 1, solved=day)})


def next_hint(drill: str, most: int) -> int:
    """Note that one more hint was shown, and give its number from 1, or the last one's again."""
    records = read()
    old = records.get(drill, Record())
    number = min(old.hints + 1, most)
    write(records | {drill: replace(old, hints=number)})
    return number


def saw_solution(drill: str) -> None:
    """Note that the solution was shown, which counts only before the drill is solved."""
    records = read()
    old = records.get(drill, Record())
    if not old.solved:
        write(records | {drill: replace(old, seen=True)})
