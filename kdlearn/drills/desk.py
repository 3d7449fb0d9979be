"""What a reader calls: check, hint, solution, status."""

from __future__ import annotations

import secrets
from pathlib import Path

from kdlearn.drills.grader import progress
from kdlearn.drills.grader.drill import CITED, IMPORTS, Drill, Solution
from kdlearn.drills.grader.report import Report
from kdlearn.drills.grader.run import run
from kdlearn.drills.order import CHAPTERS, find, names


def check(name: str, solution: Solution | Path | str, *, seconds: float = 20) -> None:
    """Grade your solution: print what passed, name what is wrong, show the smallest such case.

    Your code runs in a process of its own with limits of time and memory, on inputs that are drawn
    anew each time. An endless loop, a crash or an exit is told in a sentence.

    Args:
        name: the drill, such as "kd-loss"; `status` lists them.
        solution: your function, called as the drill's text says; or the path of a file that has it.
        seconds: time for all checks together.

    Raises:
        KeyError: there is no such drill.
        FileNotFoundError: there is no such file.
        TypeError: the solution is neither a function nor a path.

    Example:
        >>> def kd_loss(student_logits, teacher_logits, *, temperature):
        ...     "Not yet."
        >>> check("kd-loss", kd_loss)
        kd-loss: not written yet.
    """
    print(graded(name, solution, seconds=seconds))


def graded(name: str, solution: Solution | Path | str, *, seconds: float = 20) -> Report:
    """Do what `check` does, and return the report in place of printing it."""
    drill = find(name)
    if isinstance(solution, str | Path):
        solution = Path(solution)
        if not solution.is_file():
            raise FileNotFoundError(
                f"{solution} is no file: give your function, or the file with it."
            )
    elif not callable(solution):
        raise TypeError(
            f"the solution is {solution!r}: pass the function itself, as in check({name!r}, "
            f"{drill.function}), without calling it."
        )
    report = run(drill, solution, seed=secrets.randbits(31), seconds=seconds)
    if report.written:
        progress.checked(name, passed=report.passed and not report.borrowed)
    return report


def hint(name: str) -> None:
    """Print the next of a drill's three hints.

    Raises:
        KeyError: there is no such drill.
    """
    print(next_hint(name, f"solution({name!r})"))


def next_hint(name: str, whole: str = "") -> str:
    """Return the next of a drill's three hints.

    Args:
        name: the drill.
        whole: what shows the solution, to be told with the last hint; "" tells nothing of it.

    Raises:
        KeyError: there is no such drill.
    """
    drill = find(name)
    number = progress.next_hint(name, len(drill.hints))
    text = f"Hint {number} of {len(drill.hints)}: {drill.hints[number - 1]}"
    if whole and number == len(drill.hints):
        text += f"\nThat was the last one; {whole} shows the whole."
    return text


def solution(name: str) -> None:
    """Print a drill's reference solution and how it works.

    Raises:
        KeyError: there is no such drill.
    """
    drill = find(name)
    progress.saw_solution(name)
    print(drill.source(), CITED.sub(r"\1", drill.explanation), sep="\n")


def starter(drill: Drill) -> str:
    """Return the text of a file to complete."""
    task = "\n".join(f"# {line}" for line in drill.task.splitlines())
    return f"{task}\n\n{IMPORTS}\n\n{drill.starter()}"


def status() -> None:
    """Print what you have done, and which drill comes next."""
    records = progress.read()
    done = {name for name, record in records.items() if record.solved}
    for chapter in CHAPTERS:
        print(chapter.title)
        for name in chapter.drills:
            record, drill = records.get(name, progress.Record()), find(name)
            state = "open"
            if record.solved:
                state = f"solved on {record.solved}"
            elif record.attempts:
                state = f"{record.attempts} attempts"
            helped = f", {record.hints} hints" if record.hints else ""
            helped += ", solution seen" if record.seen else ""
            print(f"  {name:22}{drill.minutes:3d} min  {drill.level:8}  {state}{helped}")
    print(f"{len(done & set(names()))} of {len(names())} solved.")
    following = next((name for name in names() if name not in done), None)
    if following:
        print(f"Next: {following}")
