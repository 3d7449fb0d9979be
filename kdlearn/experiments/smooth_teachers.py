"""Is a teacher that was trained with label smoothing a worse teacher?

Two teachers of real digits, one trained on labels and one on smoothed labels; their students see
soft targets at T = 1 or T = 4 and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import nn

from kdlearn.data import Splits
from kdlearn.distill import Distiller, label_term
from kdlearn.experiments import real_digits
from kdlearn.experiments.common import MEASURED, Bench, Row, seeded
from kdlearn.experiments.real_digits import JITTER, mlp
from kdlearn.experiments.warped_digits import soft_targets
from kdlearn.measure import accuracy, predict
from kdlearn.training import fit

SMOOTHING = 0.1


@dataclass(frozen=True)
class Recipe(real_digits.Recipe):
    """Those of real digits, with smaller teachers; no student here sees few images."""

    images: int = 100
    teacher: tuple[int, ...] = (200, 200)
    teacher_epochs: int = 40

    def train_teacher(self, data: Splits, seed: int, *, smoothing: float = 0.0) -> nn.Module:
        """Train a teacher on jittered images, from labels or smoothed ones."""
        teacher = seeded(partial(mlp, *self.teacher), seed)
        labels = label_term(loss=partial(F.cross_entropy, label_smoothing=smoothing))
        fit(
            Distiller(teacher, None, [labels]),
            data.train,
            epochs=self.teacher_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            augment=JITTER,
            seed=seed,
            progress=False,
        )
        return teacher


METHODS = {
    "KD T=1, plain teacher": (1.0, False),
    "KD T=4, plain teacher": (4.0, False),
    "KD T=1, smoothed teacher": (1.0, True),
    "KD T=4, smoothed teacher": (4.0, True),
}
RECIPE = Recipe()
COLUMNS = (*MEASURED, "teacher_accuracy")


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    The first row is the plain teacher, and agreement is with it.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    yield bench.row("teacher", bench.teacher_logits)
    teachers = {False: bench.teacher}
    for name in methods:
        temperature, smoothed = METHODS[name]
        if smoothed not in teachers:
            teachers[smoothed] = recipe.train_teacher(bench.data, seed, smoothing=SMOOTHING)
        teacher = teachers[smoothed]
        student = seeded(partial(mlp, *recipe.student), seed)
        fit(
            Distiller(student, teacher, soft_targets(temperature)),
            bench.data.train,
            epochs=recipe.student_epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            seed=seed,
            progress=False,
        )
        logits = predict(teacher, bench.held_out.images)
        yield {
            **bench.row(name, predict(student, bench.held_out.images)),
            "teacher_accuracy": 100 * accuracy(logits, bench.held_out.labels),
        }
