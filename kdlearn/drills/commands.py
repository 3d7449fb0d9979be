"""The command ``kdlearn drill``: the drills in a terminal and an editor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from kdlearn.drills import desk
from kdlearn.drills.grader.drill import Drill
from kdlearn.drills.order import find, names

app = typer.Typer(help="Programming drills with a grader.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="a drill, such as kd-loss")]

IMPORTS = """import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
"""
"""What a solution may use without importing it, in the book and in a file."""


@app.command("list")
def list_drills() -> None:
    """List the drills with their times, and what you have done."""
    desk.status()


@app.command()
def start(
    name: Name, folder: Annotated[Path, typer.Option(help="where to write the file")] = Path()
) -> None:
    """Write a file with the task and the function to complete."""
    drill = _found(name)
    file = folder / f"{name.replace('-', '_')}.py"
    if file.exists():
        _stop(f"{file} is there already: check it, or move it away first.")
    if not folder.is_dir():
        _stop(f"there is no folder {folder}: make it first.")
    file.write_text(starter(drill), encoding="utf-8")
    typer.echo(f"{drill.title}, {drill.minutes} minutes. {drill.task}")
    typer.echo(f"Complete {file}, then: kdlearn drill check {file}")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="a file that `start` wrote")],
    seconds: Annotated[float, typer.Option(min=1, help="time for all checks together")] = 20,
) -> None:
    """Grade a file; ends with code 1 if it is not right yet."""
    name = file.stem.replace("_", "-")
    if name not in names():
        _stop(f"{file.name} is named after no drill: expected a name such as kd_loss.py.")
    if not file.is_file():
        _stop(f"{file} is not there: make it with kdlearn drill start {name}.")
    report = desk.graded(name, file, seconds=seconds)
    typer.echo(str(report))
    if not report.passed:
        raise typer.Exit(1)


@app.command()
def hint(name: Name) -> None:
    """Print the next hint."""
    desk.hint(_found(name).id)


@app.command()
def solution(name: Name) -> None:
    """Print the reference solution and how it works."""
    desk.solution(_found(name).id)


def starter(drill: Drill) -> str:
    """The text of a file to complete."""
    task = "\n".join(f"# {line}" for line in drill.task.splitlines())
    return f"{task}\n\n{IMPORTS}\n\n{drill.starter()}"


def _found(name: str) -> Drill:
    try:
        return find(name)
    except KeyError as error:
        _stop(error.args[0])


def _stop(message: str) -> NoReturn:
    typer.secho(f"kdlearn: {message}", err=True, fg="red")
    raise typer.Exit(2)
