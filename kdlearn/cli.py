"""The command ``kdlearn``: train a recipe, store its teacher, evaluate, experiment, practice."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer

from kdlearn import __version__, experiments
from kdlearn.core.errors import in_full
from kdlearn.drills import commands as drill_commands
from kdlearn.interview import commands as interview_commands
from kdlearn.measure import summary
from kdlearn.recipes import Job, load, shipped
from kdlearn.store import CacheError
from kdlearn.training import CheckpointError

app = typer.Typer(
    help="Knowledge distillation and attention transfer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(drill_commands.app, name="drill")
app.command()(interview_commands.interview)
app.command()(interview_commands.quiz)

RecipeName = Annotated[
    str, typer.Argument(help="a .toml file, or a name that `kdlearn recipes` lists")
]
Method = Annotated[str, typer.Option(help="one of the recipe's methods")]
Folder = Annotated[
    Path | None, typer.Option(help="where the runs of this recipe live", show_default="runs/RECIPE")
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="of the student and of the order of images")
]
# What the package advises in Python, in the words of a terminal.
WORDS = (
    (r"pass resume='[^']*'", "move this one away and run with --resume"),
    (r"(pass )?resume=True", "--resume"),
    ("Call fit as the first time, or use another folder", "Name another --folder"),
    # Lines of a schedule's insides, which no recipe has a word for.
    (r"schedule ['\"].* there, ['\"].* here", "other schedule"),
    (r"Pass metric=.* returns a number", "A recipe measures accuracy: give class numbers"),
    (r"Keep AttentionMap\(size=[^.]*\)", "A recipe stores no smaller map: leave [cache] out"),
)
MISTAKES = (
    CacheError,
    CheckpointError,
    FloatingPointError,
    ImportError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
)
Progress = Annotated[bool, typer.Option(help="show bars")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kdlearn {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    # Your own networks and data are found in the folder where the command is started.
    sys.path.insert(0, os.getcwd())


@app.command()
def train(
    recipe: RecipeName,
    method: Method,
    folder: Folder = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="go on where this run stopped")] = False,
    progress: Progress = True,
) -> None:
    """Train the teacher where that was not done, then a student by one method; show the result."""
    folder = folder or _folder_of(recipe)
    with _told(lambda: f"{_newest(folder)}: go on with --resume"):
        job = _job(recipe, method, folder, seed, progress)
        history = job.train(resume=resume)
        _say(history)
        _report(job)


@app.command()
def cache(
    recipe: RecipeName, method: Method, folder: Folder = None, progress: Progress = True
) -> None:
    """Store what a method needs of the teacher, or check that it is there."""
    folder = folder or _folder_of(recipe)
    with _told(lambda: f"{_newest(folder)}: the same command goes on"):
        stored = _job(recipe, method, folder, 0, progress).store()
        size = sum(stored.bytes_per_row().values())
        _say(f"{stored.folder}: {len(stored)} rows, {size:.0f} bytes each")


@app.command()
def evaluate(recipe: RecipeName, method: Method, folder: Folder = None, seed: Seed = 0) -> None:
    """Measure a trained student on the test split, beside its teacher."""
    with _told(lambda: "nothing was changed"):
        job = _job(recipe, method, folder or _folder_of(recipe), seed, progress=False)
        job.load()
        _report(job)


@app.command()
def recipes() -> None:
    """List the recipes that come with the package."""
    names = shipped()
    width = max(map(len, names))
    for name in names:
        _say(f"{name:{width}}  {load(name).about}")


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="one that --list shows")] = "",
    output: Annotated[
        Path | None, typer.Option(help="CSV file; seeds that it has are not run again")
    ] = None,
    seeds: Annotated[str, typer.Option(help="numbers with commas between them")] = "0,1,2,3,4",
    methods: Annotated[str, typer.Option(help="names with commas between them; all without")] = "",
    on: Annotated[str, typer.Option(help="validation to choose, test to report")] = "test",
    list_all: Annotated[bool, typer.Option("--list", help="list experiments and methods")] = False,
    progress: Progress = True,
) -> None:
    """Run one of the book's experiments over paired seeds into a table."""
    if list_all:
        for known, module in experiments.EXPERIMENTS.items():
            _say(f"{known}: {(module.__doc__ or '').splitlines()[0]}")
            _say("".join(f"    {method}\n" for method in module.METHODS))
        return
    if not name or output is None:
        _stop(
            "name an experiment that `kdlearn experiment --list` shows, and a table: --output FILE."
        )
    torch.set_num_threads(1)  # small models run faster so, and numbers repeat
    with _told(lambda: f"{output} has the rows that were done: the same command goes on"):
        table = experiments.run(
            name,
            _numbers(seeds),
            methods=experiments.split_methods(name, methods) if methods else None,
            on=on,
            output=output,
            progress=progress,
        )
    measured = [str(c) for c in table if c not in ("seed", "method", "split")]
    _say(summary(table, measured).to_string())
    _say(f"{output} has {len(table)} rows")


def _folder_of(recipe: str) -> Path:
    return Path("runs") / Path(recipe).name.replace(".toml", "").replace(":", "-")


def _job(recipe: str, method: str, folder: Path, seed: int, progress: bool) -> Job:
    return Job(load(recipe), method, folder, seed=seed, progress=progress)


def _newest(folder: Path) -> str:
    """Return in words what was saved last in a folder of runs."""
    saved = [*folder.glob("**/step-*"), *folder.glob("*.safetensors"), *folder.glob("store-*/*")]
    newest = max(saved, key=lambda path: path.stat().st_mtime, default=None)
    return "nothing is saved yet" if newest is None else f"{newest} is saved"


def _numbers(seeds: str) -> list[int]:
    try:
        return [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ValueError(
            f"seeds are {seeds!r}: expected whole numbers with commas, such as 0,1,2."
        ) from None


def _report(job: Job) -> None:
    for name, value in job.measure().items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        _say(f"{name:20}{shown:>12}")
    published = job.recipe.published
    if job.method in published:
        _say(f"published: {published[job.method]} ({published['source']})")


def _say(text: object) -> None:
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        typer.echo(str(text))


def _stop(message: object) -> NoReturn:
    text = str(message)
    for in_python, at_a_terminal in WORDS:
        text = re.sub(in_python, at_a_terminal, text)
    typer.secho(f"kdlearn: {text}", err=True, fg="red")
    raise typer.Exit(2)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which stops a run as Ctrl-C does."""


def _terminate(*_: Any) -> NoReturn:
    raise _Terminated


@contextmanager
def _told(saved: Callable[[], str]) -> Iterator[None]:
    """End with a sentence: code 2 for a mistake, 130 for Ctrl-C and 143 for SIGTERM."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except MISTAKES as error:
        _stop(in_full(error))
    except KeyboardInterrupt as stop:
        typer.secho(f"kdlearn: stopped; {saved()}.", err=True, fg="yellow")
        raise typer.Exit(143 if isinstance(stop, _Terminated) else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Run the command line."""
    app()
