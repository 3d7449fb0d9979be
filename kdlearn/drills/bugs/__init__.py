"""Twelve exercises: a symptom, a function, one wrong line; after mistakes that were published."""

from __future__ import annotations

from importlib import import_module

from kdlearn.drills.bugs.bug import Bug

NAMES = (
    "hundred-classes",
    "long-sentences",
    "negative-divergence",
    "nan-from-the-start",
    "temperature-sweep",
    "stuck-loss",
    "nothing-learned",
    "sharper-targets",
    "maps-that-stay",
    "wrong-mixture",
    "sampling-setting",
    "silent-switch",
)
"""All exercises, in order."""


def find_bug(name: str) -> Bug:
    """Give an exercise by its name.

    Raises:
        KeyError: there is no such exercise.

    Example:
        >>> find_bug("stuck-loss").line() > 0
        True
    """
    if name not in NAMES:
        raise KeyError(f"there is no bug {name!r}: choose from {', '.join(NAMES)}.")
    bug: Bug = import_module(f"kdlearn.drills.bugs.{name.replace('-', '_')}").bug
    return bug


def show_bug(name: str) -> None:
    """Print what was measured, and the numbered code; ``find_bug(name).symptom`` has the story.

    Example:
        >>> show_bug("stuck-loss")  # doctest: +ELLIPSIS
        loss after 200 steps = 1.46
        ...
    """
    bug = find_bug(name)
    print(f"{bug.label} = {bug.measure(bug.broken):.3g}\n\n{bug.numbered()}")


def check_line(name: str, line: int) -> None:
    """Say whether a line is the wrong one; if it is, why, and what belongs there.

    Raises:
        KeyError: there is no such exercise.
        ValueError: the function has no such line; 0 stands for "not answered yet".

    Example:
        >>> check_line("stuck-loss", 0)
        stuck-loss: not answered yet.
        >>> check_line("stuck-loss", 1)
        stuck-loss: line 1 is fine. What would the symptom be if it were not?
    """
    bug = find_bug(name)
    last = len(bug.source().splitlines())
    if isinstance(line, bool) or not isinstance(line, int) or not 0 <= line <= last:
        raise ValueError(f"line is {line!r}: expected a number from 1 to {last}.")
    if line == 0:
        print(f"{name}: not answered yet.")
    elif line != bug.line():
        print(f"{name}: line {line} is fine. What would the symptom be if it were not?")
    else:
        print(f"{name}: yes, line {line}. {bug.explanation}\n\nIn its place:\n\n{bug.mended()}\n")
        after = bug.measure(bug.fixed)
        print(f"Then {bug.label} = {after:.3g}." + (f" Seen {bug.seen}." if bug.seen else ""))
