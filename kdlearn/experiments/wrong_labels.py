"""What does a student learn from a teacher that was told lies?

Real digits; a share of the 3,000 labels is another digit, drawn at random. The teacher is trained
until it knows them by heart, or stopped long before; students see the same images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from kdlearn.data import Split, Splits, mnist5k
from kdlearn.distill import Distiller
from kdlearn.experiments.common import Row, check, measured_on, seeded
from kdlearn.experiments.real_digits import mlp
from kdlearn.experiments.warped_digits import soft_targets
from kdlearn.measure import accuracy, predict
from kdlearn.training import adamw, fit


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images that teacher and students learn from.
        teacher: its hidden layers.
        student: its hidden layers.
        stopped_epochs: passes of a teacher, or a student, that is stopped early.
        teacher_epochs: passes of a teacher that learns the lies too.
        student_epochs: passes of a student.
        batch_size: images a step.
        learning_rate: of both; the peak of the one-cycle schedule where none is stopped early.
    """

    pool: int = 3000
    teacher: tuple[int, ...] = (200, 200)
    student: tuple[int, ...] = (100, 100)
    stopped_epochs: int = 2
    teacher_epochs: int = 30
    student_epochs: int = 30
    batch_size: int = 100
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Method:
    """Who is told what.

    Attributes:
        noise: share of the labels that are wrong.
        teacher: "none", "late" or "stopped".
        stopped: whether the student is stopped early itself.
    """

    noise: float
    teacher: str = "none"
    stopped: bool = False


METHODS = {
    f"{name}, {round(100 * noise)} % wrong": Method(noise, teacher, stopped)
    for noise in (0.0, 0.2, 0.4)
    for name, teacher, stopped in (
        ("labels", "none", False),
        ("labels, stopped early", "none", True),
        ("KD, late teacher", "late", False),
        ("KD, teacher stopped early", "stopped", False),
    )
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "repeats_lies", "teacher_accuracy", "teacher_repeats_lies")


def with_lies(labels: Tensor, share: float, seed: int, classes: int = 10) -> Tensor:
    """Replace a share of the labels by another class, drawn at random.

    Example:
        >>> labels = torch.zeros(1000, dtype=torch.long)
        >>> wrong = with_lies(labels, 0.4, seed=0)
        >>> (wrong != labels).sum().item(), wrong.unique().tolist()
        (400, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    wrong = labels.clone()
    wrong[rows] += torch.randint(1, classes, (len(rows),), generator=generator)
    return wrong % classes


def train(
    model: nn.Module, images: Split, *, epochs: int, recipe: Recipe, seed: int, steady: bool = False
) -> None:
    """Train in place; a steady learning rate where training is stopped early."""
    optimizer = adamw(model.parameters(), recipe.learning_rate) if steady else None
    fit(
        model,
        images,
        epochs=epochs,
        batch_size=recipe.batch_size,
        optimizer=optimizer,
        learning_rate=recipe.learning_rate,
        seed=seed,
        progress=False,
    )


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``repeats_lies`` is the share of the wrong labels that a model gives back on the images that
    have them. The first row is a teacher that was told no lie.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data: Splits = mnist5k(train=recipe.pool, seed=seed)
    held_out = measured_on(data, on)

    def told(noise: float) -> Split:
        return replace(data.train, labels=with_lies(data.train.labels, noise, seed))

    def measured(model: nn.Module, images: Split) -> dict[str, float]:
        result = {"accuracy": 100 * accuracy(predict(model, held_out.images), held_out.labels)}
        lies = images.subset(images.labels != data.train.labels)
        if len(lies):
            result["repeats_lies"] = 100 * accuracy(predict(model, lies.images), lies.labels)
        return result

    def teacher(noise: float, how: str) -> nn.Module:
        model = seeded(partial(mlp, *recipe.teacher), seed)
        epochs = recipe.stopped_epochs if how == "stopped" else recipe.teacher_epochs
        train(model, told(noise), epochs=epochs, recipe=recipe, seed=seed, steady=True)
        return model

    honest = teacher(0.0, "late")
    teachers = {(0.0, "late"): honest}
    yield {"seed": seed, "method": "teacher", **measured(honest, told(0.0))}
    for name in methods:
        method = METHODS[name]
        images = told(method.noise)
        student = seeded(partial(mlp, *recipe.student), seed)
        row: Row = {"seed": seed, "method": name}
        if method.teacher == "none":
            epochs = recipe.stopped_epochs if method.stopped else recipe.student_epochs
            train(student, images, epochs=epochs, recipe=recipe, seed=seed, steady=method.stopped)
        else:
            key = (method.noise, method.teacher)
            if key not in teachers:
                teachers[key] = teacher(*key)
            row |= {f"teacher_{k}": v for k, v in measured(teachers[key], images).items()}
            model = Distiller(student, teachers[key], soft_targets(4))
            train(model, images, epochs=recipe.student_epochs, recipe=recipe, seed=seed)
        yield {**row, **measured(student, images)}
