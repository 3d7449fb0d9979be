"""Can a student learn to read digits from noise, and from outputs that mean nothing?

A network has ten outputs for the digits and three that nobody trains. A teacher learns digits with
the ten. A student is shown noise and fits the teacher's three, then its ten are asked for digits.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import Split, mnist5k
from kdlearn.experiments.common import Row, check, descend, measured_on, seeded
from kdlearn.experiments.real_digits import mlp
from kdlearn.losses import forward_kl
from kdlearn.measure import accuracy, predict
from kdlearn.training import adamw

CLASSES, AUXILIARY = 10, 3


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images that the teacher learns from.
        hidden: layers of both.
        teacher_steps: of the teacher.
        student_steps: of the student.
        batch_size: images, or pictures of noise, a step.
        learning_rate: of both; the peak of the student's one-cycle schedule.
    """

    pool: int = 3000
    hidden: tuple[int, ...] = (256, 256)
    teacher_steps: int = 350
    student_steps: int = 800
    batch_size: int = 100
    learning_rate: float = 1e-3


# What a student has of the teacher before it is trained.
METHODS = {
    "same start": "every first weight",
    "other start": "nothing",
    "same first output layer": "the first weights of the output layer",
    "trained output layer": "the output layer as the teacher trained it, which stays as it is",
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "accuracy_start")


def centered(images: Tensor) -> Tensor:
    """Bring pixels from [0, 1] to [-1, 1], where the noise lies too."""
    return 2 * images - 1


def train_teacher(start: nn.Module, images: Split, *, recipe: Recipe, seed: int) -> nn.Module:
    """Train a copy of the start on the labels; the three other outputs get no gradient."""
    teacher = copy.deepcopy(start)
    optimizer = adamw(teacher.parameters(), recipe.learning_rate, weight_decay=0)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(recipe.teacher_steps):
        rows = torch.randint(len(images), (recipe.batch_size,), generator=generator)
        logits = teacher(centered(images.images[rows]))[:, :CLASSES]
        loss = F.cross_entropy(logits, images.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher


def train_student(student: nn.Module, teacher: nn.Module, *, recipe: Recipe, seed: int) -> None:
    """Fit the teacher's three other outputs on uniform noise, in place."""
    trained = [weight for weight in student.parameters() if weight.requires_grad]
    generator = torch.Generator().manual_seed(seed)

    def next_loss() -> Tensor:
        noise = centered(torch.rand(recipe.batch_size, 1, 28, 28, generator=generator))
        with torch.no_grad():
            target = teacher(noise)[:, CLASSES:]
        return forward_kl(student(noise)[:, CLASSES:], target)

    losses = (next_loss() for _ in range(recipe.student_steps))
    descend(trained, losses, rate=recipe.learning_rate, steps=recipe.student_steps, weight_decay=0)


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``accuracy_start`` is the accuracy before the first step: chance, give or take.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = mnist5k(train=recipe.pool, seed=seed)
    held_out = measured_on(data, on)

    def read(model: nn.Module) -> float:
        logits = predict(model, centered(held_out.images))[:, :CLASSES]
        return 100 * accuracy(logits, held_out.labels)

    make = partial(mlp, *recipe.hidden, classes=CLASSES + AUXILIARY)
    start, other = seeded(make, seed), seeded(make, seed + 1000)
    teacher = train_teacher(start, data.train, recipe=recipe, seed=seed)
    yield {
        "seed": seed,
        "method": "teacher",
        "accuracy": read(teacher),
        "accuracy_start": read(start),
    }
    for name in methods:
        student = copy.deepcopy(start if name == "same start" else other)
        if name == "same first output layer":
            student[-1].load_state_dict(start[-1].state_dict())
        if name == "trained output layer":
            student[-1].load_state_dict(teacher[-1].state_dict())  # type: ignore[index]
            student[-1].requires_grad_(False)
        before = read(student)
        train_student(student, teacher, recipe=recipe, seed=seed)
        yield {
            "seed": seed,
            "method": name,
            "accuracy": read(student),
            "accuracy_start": before,
        }
