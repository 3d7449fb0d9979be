"""Must the teacher see the crop that the student sees?

Real digits, moved by up to three pixels each way, which cuts some of them off. Every student sees
the same moved images; teachers are asked about that image, about another crop of the same digit, or
about the digit where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from kdlearn.data import RandomShift, Splits, mnist5k
from kdlearn.experiments.common import MEASURED, Bench, Row, descend, seeded
from kdlearn.experiments.real_digits import mlp
from kdlearn.losses import soft_target_loss
from kdlearn.measure import predict
from kdlearn.training import fit

CROP = RandomShift(3)


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: real digits that the teacher learns from.
        images: how many of them a student sees.
        teacher: hidden layers.
        student: hidden layers.
        teacher_epochs: passes of the teacher, on crops.
        student_steps: of every student.
        batch_size: images a step.
        learning_rate: peak of the one-cycle schedules.
        temperature: of the soft targets.
    """

    pool: int = 3000
    images: int = 500
    teacher: tuple[int, ...] = (200, 200)
    student: tuple[int, ...] = (50, 50)
    teacher_epochs: int = 30
    student_steps: int = 800
    batch_size: int = 100
    learning_rate: float = 2e-3
    temperature: float = 4.0

    def make_data(self, seed: int) -> Splits:
        """Deal out the images."""
        return mnist5k(train=self.pool, seed=seed)

    def train_teacher(self, data: Splits, seed: int) -> nn.Module:
        """Train the teacher on crops, from labels."""
        teacher = seeded(partial(mlp, *self.teacher), seed)
        fit(
            teacher,
            data.train,
            epochs=self.teacher_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            augment=CROP,
            seed=seed,
            progress=False,
        )
        return teacher


# What the teacher is asked about.
METHODS = {
    "same crop": "the student's own view",
    "another crop": "an independent view of the same digit",
    "fixed teacher": "the digit as it is stored",
}
RECIPE = Recipe()
COLUMNS = MEASURED


def losses_of(student: nn.Module, method: str, bench: Bench[Recipe]) -> Iterator[Tensor]:
    """Yield the soft-target loss of a batch of crops, without end."""
    recipe, generator = bench.recipe, torch.Generator().manual_seed(bench.seed)
    while True:
        rows = torch.randint(recipe.images, (recipe.batch_size,), generator=generator)
        images = bench.images.images[rows]
        own, other = CROP(images, generator), CROP(images, generator)
        asked = {"same crop": own, "another crop": other, "fixed teacher": images}[method]
        with torch.no_grad():
            said = bench.teacher(asked)
        yield soft_target_loss(student(own), said, temperature=recipe.temperature)


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    All are measured on digits that were not moved.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    yield bench.row("teacher", bench.teacher_logits)
    for name in methods:
        student = seeded(partial(mlp, *recipe.student), seed)
        losses = losses_of(student, name, bench)
        descend(student.parameters(), losses, rate=recipe.learning_rate, steps=recipe.student_steps)
        yield bench.row(name, predict(student, bench.held_out.images))
