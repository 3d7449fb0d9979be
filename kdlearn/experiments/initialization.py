"""Does it help to start the student with the teacher's layers, and does it help for long?

The student has the teacher's widths and half its blocks, so that the stem, the first block of each
group and the classifier can be copied. Four students: started at random or with copied layers, and
trained with labels alone or with soft targets too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from kdlearn import recipes
from kdlearn.data import Split, Splits
from kdlearn.distill import Distiller
from kdlearn.experiments.common import MEASURED, Bench, Recipe, Row, seeded
from kdlearn.measure import accuracy, predict
from kdlearn.models import copy_matching_weights
from kdlearn.training import fit


@dataclass(frozen=True)
class Method:
    """How a student starts and what it learns from.

    Attributes:
        copied: whether it starts with the teacher's layers where they fit.
        soft_targets: whether it sees the teacher's probabilities, at T = 4, beside the labels.
    """

    copied: bool
    soft_targets: bool


METHODS = {
    "random start": Method(copied=False, soft_targets=False),
    "copied layers": Method(copied=True, soft_targets=False),
    "random start, KD": Method(copied=False, soft_targets=True),
    "copied layers, KD": Method(copied=True, soft_targets=True),
}
RECIPE = Recipe.read("initialization")
KD = recipes.terms(recipes.load("initialization"), "KD")
EARLY = 3  # the pass after which the first number is taken; 24 steps
COLUMNS = (*MEASURED, "accuracy_start", "accuracy_early")


def train_teacher(data: Splits, *, recipe: Recipe = RECIPE, seed: int = 0) -> nn.Module:
    """Train the teacher on the whole pool, from labels."""
    return recipe.train_teacher(data, seed)


def start_student(
    teacher: nn.Module, method: Method, *, recipe: Recipe = RECIPE, seed: int = 0
) -> nn.Module:
    """Return a student that has not been trained yet."""
    student = seeded(recipe.make_student, seed)
    if method.copied:
        copy_matching_weights(student, teacher)
    return student


def train_student(
    student: nn.Module,
    teacher: nn.Module,
    images: Split,
    method: Method,
    *,
    curve_on: Split,
    recipe: Recipe = RECIPE,
    seed: int = 0,
) -> list[float]:
    """Train the student in place, and return its accuracy (in [0, 1]) after each epoch."""
    history = fit(
        Distiller(student, teacher, KD) if method.soft_targets else student,
        images,
        validation=curve_on,
        epochs=recipe.student_epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.student_rate,
        augment=recipe.augment,
        seed=seed,
        progress=False,
    )
    return [epoch["validation_accuracy"] for epoch in history.epochs]


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    Of students, ``accuracy_start`` is taken before any step and ``accuracy_early`` after three
    epochs. The curve is only recorded: nothing is chosen by it.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    held_out = bench.held_out
    yield bench.row("teacher", bench.teacher_logits)
    for name in methods:
        method = METHODS[name]
        student = start_student(bench.teacher, method, recipe=recipe, seed=seed)
        start = accuracy(predict(student, held_out.images), held_out.labels)
        curve = train_student(
            student,
            bench.teacher,
            bench.images,
            method,
            curve_on=held_out,
            recipe=recipe,
            seed=seed,
        )
        yield {
            **bench.row(name, predict(student, held_out.images)),
            "accuracy_start": 100 * start,
            "accuracy_early": 100 * curve[EARLY - 1],
        }
