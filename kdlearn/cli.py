"""The command ``kdlearn``: train a recipe, store its teacher, evaluate, run an experiment, practice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer
from safetensors.torch import load_file, save_file
from torch import nn

from kdlearn import experiments
from kdlearn.drills import commands as drill_commands
from kdlearn.experiments.running import write
from kdlearn.measure import accuracy, agreement, count_parameters, kl_to_teacher, predict, summary
from kdlearn.recipes import Recipe, RecipeError, load, make_augment
from kdlearn.recipes import build as build_recipe
from kdlearn.recipes.build import Built, distiller, fixed_copies, make_optimizer, stored_teacher
from kdlearn.recipes.schema import TrainingTable
from kdlearn.store.cache import CachedTeacher, CacheError
from kdlearn.training.checkpoints import CheckpointError, Checkpoints
from kdlearn.training.engine import Engine
from kdlearn.training.fit import fit

app = typer.Typer(
    help="Knowledge distillation and attention transfer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(drill_commands.app, name="drill")
RecipeName = Annotated[str, typer.Argument(help="a .toml file, or the name of a shipped recipe")]
Method = Annotated[str, typer.Option(help="one of the recipe's methods")]
Folder = Annotated[Path, typer.Option(help="where the runs of this recipe live")]
Seed = Annotated[int, typer.Option(min=0, help="of the student and of the order of images")]


def _stop(message: object) -> NoReturn:
    typer.secho(f"kdlearn: {message}", err=True, fg="red")
    raise typer.Exit(2)


@app.command()
def train(
    recipe: RecipeName,
    method: Method,
    folder: Folder = Path("runs"),
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option(help="go on where an earlier run stopped")] = False,
    progress: Annotated[bool, typer.Option(help="show bars")] = True,
) -> None:
    """Train the teacher where that was not done, then a student by one method; prints what came out."""
    plan, built = _prepared(recipe, method, seed)
    _teacher(plan, built, folder, progress=progress, train=True)
    source: nn.Module | CachedTeacher = built.teacher
    if plan.cache is not None:
        try:
            source = stored_teacher(
                plan, method, built, folder / f"store-{method}", progress=progress
            )
        except CacheError as error:
            _stop(error)
    run = folder / f"{method}-{seed}"
    model = distiller(plan, method, built.student, source)
    copies = fixed_copies(plan)
    try:
        history = _fit(
            plan.training,
            model,
            built.data.train,
            run / "checkpoints",
            seed=seed,
            resume=resume,
            progress=progress,
            augment=copies if copies is not None else make_augment(plan, plan.training),
            validation=built.data.validation,
        )
    except (CheckpointError, FloatingPointError, TypeError, ValueError) as error:
        _stop(error)
    _save(built.student, run / "student.safetensors")
    (run / "history.json").write_text(json.dumps(history.epochs))
    typer.echo(str(history))
    _report(plan, built, method, run)


@app.command()
def cache(
    recipe: RecipeName,
    method: Method,
    folder: Folder = Path("runs"),
    progress: Annotated[bool, typer.Option(help="show bars")] = True,
) -> None:
    """Store what a method needs of the teacher, or check that it is there."""
    plan, built = _prepared(recipe, method, 0)
    _teacher(plan, built, folder, progress=progress, train=True)
    try:
        stored = stored_teacher(plan, method, built, folder / f"store-{method}", progress=progress)
    except (CacheError, RecipeError, ValueError) as error:
        _stop(error)
    size = sum(stored.bytes_per_row().values())
    typer.echo(f"{stored.folder}: {len(stored)} rows, {size:.0f} bytes each")


@app.command()
def evaluate(
    recipe: RecipeName,
    method: Method,
    folder: Folder = Path("runs"),
    seed: Seed = 0,
) -> None:
    """Measure a trained student on the test split, beside its teacher."""
    plan, built = _prepared(recipe, method, seed)
    _teacher(plan, built, folder, progress=False, train=False)
    run = folder / f"{method}-{seed}"
    _load(built.student, run / "student.safetensors", f"kdlearn train {recipe} --method {method}")
    _report(plan, built, method, run)


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="one of the book's experiments")],
    output: Annotated[Path, typer.Option(help="CSV file to write")],
    seeds: Annotated[str, typer.Option(help="numbers with commas between them")] = "0,1,2,3,4",
    on: Annotated[str, typer.Option(help="validation to choose, test to report")] = "test",
) -> None:
    """Run one of the book's experiments over paired seeds into a table."""
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        _stop(f"seeds are {seeds!r}: expected whole numbers with commas, such as 0,1,2.")
    if not output.parent.is_dir():
        _stop(f"there is no folder {output.parent}: make it first.")
    if output.is_dir():
        _stop(f"{output} is a folder: name a file in it, such as {output / f'{name}.csv'}.")
    torch.set_num_threads(1)  # small models run faster so, and numbers repeat
    try:
        table = experiments.run(name, numbers, on=on)
    except (KeyError, ValueError) as error:
        _stop(error.args[0])
    write(table, output)
    typer.echo(str(summary(table)))
    typer.echo(f"wrote {len(table)} rows to {output}")


def _prepared(name: str, method: str, seed: int) -> tuple[Recipe, Built]:
    try:
        plan = load(name)
        if method not in plan.methods:
            raise RecipeError(
                f"there is no method {method!r}: choose from {', '.join(map(repr, plan.methods))}."
            )
        built = build_recipe(plan, seed=seed)
        distiller(plan, method, built.student, built.teacher)
    except (RecipeError, ImportError, OSError, ValueError) as error:
        _stop(error)
    return plan, built


def _teacher(plan: Recipe, built: Built, folder: Path, *, progress: bool, train: bool) -> None:
    """Load the recipe's teacher, or train it and keep it."""
    path = folder / "teacher.safetensors"
    if path.exists() or not train:
        _load(built.teacher, path, "kdlearn train")
        return
    try:
        _fit(
            plan.teacher_training,
            built.teacher,
            built.pool,
            folder / "teacher-checkpoints",
            seed=plan.data.seed,
            resume=True,
            progress=progress,
            augment=make_augment(plan, plan.teacher_training),
            validation=None,
        )
    except (CheckpointError, FloatingPointError, TypeError, ValueError) as error:
        _stop(error)
    _save(built.teacher, path)


def _fit(
    table: TrainingTable,
    model: nn.Module,
    data: Any,
    folder: Path,
    *,
    resume: bool,
    **settings: Any,
) -> Any:
    steps = table.epochs * -(-len(data.labels) // table.batch_size)
    optimizer, scheduler = make_optimizer(table, model, steps)
    return fit(
        model,
        data,
        epochs=table.epochs,
        batch_size=table.batch_size,
        optimizer=optimizer,
        scheduler=scheduler,
        engine=Engine(
            precision=table.precision,
            accumulate=table.accumulate,
            clip_norm=table.clip_norm,
        ),
        checkpoints=Checkpoints(folder, every_minutes=table.checkpoint_minutes),
        resume=resume,
        **settings,
    )


def _save(model: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, partial)
    partial.replace(path)


def _load(model: nn.Module, path: Path, command: str) -> None:
    if not path.is_file():
        _stop(f"{path} is not there: run `{command}` first.")
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:  # safetensors and torch raise their own kinds
        first = str(error).splitlines()[0]
        _stop(f"{path} does not hold this recipe's network ({first}): use another --folder.")


def _report(plan: Recipe, built: Built, method: str, run: Path) -> None:
    test = built.data.test
    of_student, of_teacher = (
        predict(model, test.images).cpu() for model in (built.student, built.teacher)
    )
    measured = {
        "accuracy": accuracy(of_student, test.labels),
        "teacher_accuracy": accuracy(of_teacher, test.labels),
        "agreement": agreement(of_student, of_teacher),
        "kl_to_teacher": kl_to_teacher(of_student, of_teacher),
        "parameters": count_parameters(built.student),
        "teacher_parameters": count_parameters(built.teacher),
    }
    run.mkdir(parents=True, exist_ok=True)
    (run / "test.json").write_text(json.dumps(measured, indent=2))
    for name, value in measured.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        typer.echo(f"{name:20}{shown:>12}")
    if method in plan.published:
        typer.echo(f"published: {plan.published[method]} ({plan.published['source']})")


def main() -> None:
    """Run the command line."""
    app()
