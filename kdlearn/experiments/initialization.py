"""Does it help to start the student with the teacher's layers, and does it help for long?

The student has the teacher's widths and half its blocks, so that the stem, the first block of each
group and the classifier can be copied. Four students: started at random or with copied layers, and
trained with labels alone or with soft targets too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from torch import Tensor, nn

from kdlearn import recipes
from kdlearn.data import Split
from kdlearn.distill import Distiller
from kdlearn.experiments.common import MEASURED, Bench, Recipe, Row, seeded
from kdlearn.measure import accuracy, predict
from kdlearn.models import copy_matching_weights
from kdlearn.training import Checkpoints, fit


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


def start_student(
    teacher: nn.Module, method: Method, *, recipe: Recipe = RECIPE, seed: int = 0
) -> nn.Module:
    """Return a student that has not been trained yet."""
    student = seeded(recipe.make_student, seed)
    if method.copied:
        copy_matching_weights(student, teacher)
    return student


def train_student(
    model: nn.Module, images: Split, *, recipe: Recipe = RECIPE, seed: int = 0
) -> dict[str, Tensor]:
    """Train a student or its distiller in place, and return the weights after `EARLY` passes."""
    with TemporaryDirectory() as folder:
        early = EARLY * -(-len(images) // recipe.batch_size)
        checkpoints = Checkpoints(folder, every_steps=early, keep=recipe.student_epochs)
        fit(
            model,
            images,
            epochs=recipe.student_epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.student_rate,
            augment=recipe.augment,
            seed=seed,
            progress=False,
            checkpoints=checkpoints,
        )
        weights: dict[str, Tensor] = checkpoints.load(checkpoints.saved()[0])["model"]
    return weights


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    Of students, ``accuracy_start`` is taken before any step and ``accuracy_early`` after three
    epochs. These are only recorded: nothing is chosen by them.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)

    def right(student: nn.Module) -> float:
        return 100 * accuracy(predict(student, bench.held_out.images), bench.held_out.labels)

    yield bench.row("teacher", bench.teacher_logits)
    for name in methods:
        method = METHODS[name]
        student = start_student(bench.teacher, method, recipe=recipe, seed=seed)
        start = right(student)
        model = Distiller(student, bench.teacher, KD) if method.soft_targets else student
        early = train_student(model, bench.images, recipe=recipe, seed=seed)
        row = bench.row(name, predict(student, bench.held_out.images))
        model.load_state_dict(early)
        yield {**row, "accuracy_start": start, "accuracy_early": right(student)}
