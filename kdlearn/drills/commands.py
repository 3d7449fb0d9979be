"""The command ``kdlearn drill``: the drills in a terminal, an editor, and an assistant."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from kdlearn.drills import desk, served
from kdlearn.drills.grader.drill import Drill
from kdlearn.drills.grader.report import Report
from kdlearn.drills.order import find, names

app = typer.Typer(help="Programming drills with a grader.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="a drill, such as kd-loss")]
File = Annotated[Path, typer.Argument(help="a file that `start` wrote")]
Seconds = Annotated[float, typer.Option(min=1, help="time for all checks together")]
Json = Annotated[bool, typer.Option("--json", help="print the report as JSON, one line a check")]


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
    file.write_text(desk.starter(drill), encoding="utf-8")
    typer.echo(f"{drill.title}, {drill.minutes} minutes. {drill.task}")
    typer.echo(f"Complete {file}, then: kdlearn drill check {file}")


@app.command()
def check(file: File, seconds: Seconds = 20, as_json: Json = False) -> None:
    """Grade a file; the exit code is 0 if it is right, 1 if not yet, 2 if nothing is there."""
    report = _report(file, seconds, as_json)
    if not report.passed:
        raise typer.Exit(1)


@app.command()
def watch(
    file: File,
    seconds: Seconds = 20,
    as_json: Json = False,
    checks: Annotated[int, typer.Option(help="end after so many checks; 0 for none")] = 0,
) -> None:
    """Grade a file now and each time that it is saved, until it is right; Ctrl-C ends it."""
    seen = -1
    for number in itertools.count(1):
        while (changed := file.stat().st_mtime_ns if file.is_file() else 0) == seen:
            time.sleep(0.2)
        seen = changed
        report = _report(file, seconds, as_json)
        if report.passed:
            return
        if number == checks:
            raise typer.Exit(1)


@app.command()
def hint(name: Name) -> None:
    """Print the next hint."""
    drill = _found(name).id
    typer.echo(desk.next_hint(drill, f"kdlearn drill solution {drill}"))


@app.command()
def solution(name: Name) -> None:
    """Print the reference solution and how it works."""
    desk.solution(_found(name).id)


@app.command()
def serve() -> None:
    """Serve task, hints, checks to an assistant over MCP, not the solution. Needs kdlearn[mcp]."""
    try:
        served.serve()
    except ImportError:
        _stop('an MCP server needs the package mcp: pip install "kdlearn[mcp]".')


def _report(file: Path, seconds: float, as_json: bool) -> Report:
    name = file.stem.replace("_", "-")
    if name not in names():
        _stop(f"{file.name} is named after no drill: expected a name such as kd_loss.py.")
    written = file.with_name(f"{name.replace('-', '_')}.py")
    if not file.is_file() and written.is_file():
        _stop(f"{file} is no file; give the file: kdlearn drill check {written}.")
    if not file.is_file():
        _stop(f"{file} is not there: make it with kdlearn drill start {name}.")
    report = desk.graded(name, file, seconds=seconds)
    typer.echo(json.dumps(report.as_dict()) if as_json else str(report))
    return report


def _found(name: str) -> Drill:
    try:
        return find(name.replace("_", "-"))
    except KeyError as error:
        _stop(error.args[0])


def _stop(message: str) -> NoReturn:
    typer.secho(f"kdlearn: {message}", err=True, fg="red")
    raise typer.Exit(2)
