"""What are signals without a label worth, if a teacher can be asked about them?

MNIST-1D: a convolutional network learns from 4,000 labels and teaches a fully connected one, on the
same signals or on 20,000 more that nobody labeled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import Splits, mnist1d
from kdlearn.experiments.common import MEASURED, Bench, Row, descend, seeded
from kdlearn.losses import soft_target_loss
from kdlearn.measure import predict


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        images: signals with a label.
        unlabeled: signals without one.
        channels: of the teacher.
        hidden: units of each of the student's two hidden layers.
        teacher_steps: of the teacher.
        student_steps: of every student.
        batch_size: signals a step.
        learning_rate: peak of the one-cycle schedules.
    """

    images: int = 4000
    unlabeled: int = 20_000
    channels: int = 25
    hidden: int = 100
    teacher_steps: int = 1500
    student_steps: int = 2000
    batch_size: int = 100
    learning_rate: float = 5e-3

    def make_data(self, seed: int) -> Splits:
        """Make the labeled signals, then the others, and what is measured on."""
        return mnist1d(train=self.images + self.unlabeled, validation=2000, test=4000, seed=seed)

    def train_teacher(self, data: Splits, seed: int) -> nn.Module:
        """Train a teacher on the labeled signals."""
        teacher = seeded(lambda: convolutions(self.channels), seed)
        few = data.train[: self.images]
        learn(teacher, few.images, few.labels, recipe=self, steps=self.teacher_steps, seed=seed)
        return teacher


@dataclass(frozen=True)
class Method:
    """What a student learns from.

    Attributes:
        answers: who gives them: the labels, the teacher's argmax, or soft targets at a temperature.
        unlabeled: whether it sees the other signals too; their labels are read by one method
            alone, which says what labeling them would have bought.
    """

    answers: Literal["labels", "argmax"] | float
    unlabeled: bool


METHODS = {
    "labels": Method("labels", unlabeled=False),
    "KD, same signals": Method(1.0, unlabeled=False),
    "KD, unlabeled too": Method(1.0, unlabeled=True),
    "KD T=4, same signals": Method(4.0, unlabeled=False),
    "KD T=4, unlabeled too": Method(4.0, unlabeled=True),
    "teacher's argmax, unlabeled too": Method("argmax", unlabeled=True),
    "labels for all": Method("labels", unlabeled=True),
}
RECIPE = Recipe()
COLUMNS = MEASURED


def convolutions(channels: int) -> nn.Sequential:
    """Make the teacher: three convolutions with stride 2 and a linear layer.

    Example:
        >>> convolutions(25)(torch.zeros(3, 1, 40)).shape
        torch.Size([3, 10])
    """
    return nn.Sequential(
        *(nn.Conv1d(1, channels, 5, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv1d(channels, channels, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv1d(channels, channels, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(5 * channels, 10)),
    )


def fully_connected(hidden: int) -> nn.Sequential:
    """Make the student, which does not know that neighbors belong together.

    Example:
        >>> fully_connected(100)(torch.zeros(3, 1, 40)).shape
        torch.Size([3, 10])
    """
    layers = (nn.Linear(40, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(hidden, 10))


def learn(
    model: nn.Module,
    signals: Tensor,
    answers: Tensor,
    *,
    recipe: Recipe,
    steps: int,
    seed: int,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> None:
    """Train in place on labels, (N,), or with another loss on a teacher's logits, (N, 10)."""
    generator = torch.Generator().manual_seed(seed)
    batches = (
        torch.randint(len(signals), (recipe.batch_size,), generator=generator) for _ in range(steps)
    )
    losses = (loss(model(signals[rows]), answers[rows]) for rows in batches)
    descend(model.parameters(), losses, rate=recipe.learning_rate, steps=steps)


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`."""
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    yield bench.row("teacher", bench.teacher_logits)
    train = bench.data.train
    logits = predict(bench.teacher, train.images)
    for name in methods:
        method = METHODS[name]
        seen = slice(None if method.unlabeled else recipe.images)
        student = seeded(lambda: fully_connected(recipe.hidden), seed)
        how: dict[str, Any] = {"recipe": recipe, "steps": recipe.student_steps, "seed": seed}
        if isinstance(method.answers, float):
            how["loss"] = partial(soft_target_loss, temperature=method.answers)
            answers = logits
        else:
            answers = train.labels if method.answers == "labels" else logits.argmax(1)
        learn(student, train.images[seen], answers[seen], **how)
        yield bench.row(name, predict(student, bench.held_out.images))
