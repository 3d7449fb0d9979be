"""What the experiments share: numbers read from a recipe, and what all students of a seed share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from kdlearn import recipes
from kdlearn.data import Split, Splits, balanced_subset
from kdlearn.data.views import Augment
from kdlearn.measure import accuracy, agreement, expected_calibration_error, kl_to_teacher, predict
from kdlearn.recipes.build import make_augment
from kdlearn.recipes.names import make
from kdlearn.recipes.schema import DataTable, ModelTable
from kdlearn.training import adamw, fit

Row = dict[str, int | float | str]
Model = TypeVar("Model", bound=nn.Module)
MEASURED = ("accuracy", "agreement", "kl_to_teacher", "ece")


@dataclass(frozen=True)
class Recipe:
    """The numbers of an experiment; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        data: which data.
        pool: images that the teacher learns from.
        images: how many of them the student may see.
        teacher: the large network.
        student: the small one.
        teacher_epochs: passes over the pool.
        student_epochs: passes over the student's images.
        teacher_rate: peak of the teacher's one-cycle schedule.
        student_rate: the same of the student's.
        batch_size: images a step, for both.
        augment: what an augmented student sees.

    Example:
        >>> recipe = Recipe.read("warped-digits")
        >>> recipe.pool, recipe.images, recipe.student_epochs
        (12000, 500, 100)
    """

    data: DataTable
    pool: int
    images: int
    teacher: ModelTable
    student: ModelTable
    teacher_epochs: int
    student_epochs: int
    teacher_rate: float
    student_rate: float
    batch_size: int
    augment: Augment | None

    @classmethod
    def read(cls, name: str) -> Recipe:
        """Read the numbers from a recipe that comes with the package."""
        plan = recipes.load(name)
        assert plan.data.images is not None and plan.teacher_training is not None
        return cls(
            plan.data,
            plan.data.options["train"],
            plan.data.images,
            plan.teacher,
            plan.student,
            plan.teacher_training.epochs,
            plan.training.epochs,
            plan.teacher_training.learning_rate,
            plan.training.learning_rate,
            plan.training.batch_size,
            make_augment(plan.training),
        )

    def make_data(self, seed: int) -> Splits:
        """Make the pool of the teacher, and what is measured on."""
        made: Splits = make(self.data.function, {"train": self.pool}, seed=seed)
        return made

    def make_teacher(self) -> nn.Module:
        """Return a new teacher; its first weights follow from torch's current seed."""
        return self.teacher.make(classes=10, channels=1)

    def make_student(self) -> nn.Module:
        """Return a new student; its first weights follow from torch's current seed."""
        return self.student.make(classes=10, channels=1)

    def train_teacher(self, data: Splits, seed: int) -> nn.Module:
        """Train a teacher on the whole pool, from labels."""
        teacher = seeded(self.make_teacher, seed)
        fit(
            teacher,
            data.train,
            epochs=self.teacher_epochs,
            batch_size=self.batch_size,
            learning_rate=self.teacher_rate,
            seed=seed,
            progress=False,
        )
        return teacher


class Experiment(Protocol):
    """What a module of this package offers: the module itself is the experiment.

    Every student of a seed has the same teacher, first weights, images and order of batches; a
    method is what differs.

    Attributes:
        RECIPE: the numbers.
        METHODS: name to what a student is told, in the order of the table.
        COLUMNS: what is measured, in the order of the table; a row need not have all.
    """

    @property
    def RECIPE(self) -> Any: ...  # noqa: N802, D102

    @property
    def METHODS(self) -> Mapping[str, Any]: ...  # noqa: N802, D102

    @property
    def COLUMNS(self) -> tuple[str, ...]: ...  # noqa: N802, D102

    def run_seed(
        self, seed: int, *, recipe: Any = ..., methods: Iterable[str] = ..., on: str = ...
    ) -> Iterator[Row]:
        """Train a teacher and the students of one seed, and yield a row for each.

        Args:
            seed: of data, teacher, student and order.
            recipe: the numbers; a shorter one for a live run.
            methods: names from ``METHODS``.
            on: the split to measure on; ``"validation"`` while choosing, ``"test"`` to report.

        Yields:
            ``seed``, ``method`` (``"teacher"`` first) and some of ``COLUMNS``.

        Raises:
            KeyError: an unknown method.
            ValueError: an unknown split.
        """


class Numbers(Protocol):
    """The numbers of an experiment with images: what a `Bench` asks of them."""

    @property
    def images(self) -> int:
        """How many images a student may see."""

    def make_data(self, seed: int) -> Splits:
        """Make the pool of the teacher, and what is measured on."""

    def train_teacher(self, data: Splits, seed: int) -> nn.Module:
        """Train a teacher on the whole pool, from labels."""


Plan = TypeVar("Plan", bound=Numbers)


@dataclass(frozen=True)
class Bench(Generic[Plan]):
    """What all students of one seed share, and what they are measured on.

    Attributes:
        seed: of data, teacher, student and order.
        recipe: the numbers.
        data: the three splits.
        images: what students see.
        teacher: trained.
        held_out: the split to measure on.
        teacher_logits: the teacher's on it.
    """

    seed: int
    recipe: Plan
    data: Splits
    images: Split
    teacher: nn.Module
    held_out: Split
    teacher_logits: Tensor

    @classmethod
    def prepare(
        cls, known: Iterable[str], seed: int, recipe: Plan, methods: Iterable[str], on: str
    ) -> Bench[Plan]:
        """Check the methods and the split; then make the data and train the teacher."""
        check(known, methods, on)
        data = recipe.make_data(seed)
        teacher = recipe.train_teacher(data, seed)
        held_out = measured_on(data, on)
        images = balanced_subset(data.train, recipe.images, seed=seed)
        return cls(seed, recipe, data, images, teacher, held_out, predict(teacher, held_out.images))

    def row(self, method: str, logits: Tensor) -> Row:
        """Return what all experiments report of a model: per cent, and the KL in nats at T = 1."""
        return {
            "seed": self.seed,
            "method": method,
            "accuracy": 100 * accuracy(logits, self.held_out.labels),
            "agreement": 100 * agreement(logits, self.teacher_logits),
            "kl_to_teacher": kl_to_teacher(logits, self.teacher_logits),
            "ece": 100 * expected_calibration_error(logits, self.held_out.labels),
        }


def seeded(make: Callable[[], Model], seed: int) -> Model:
    """Make a model whose first weights follow from the seed; torch's global state stays as it was.

    Example:
        >>> first, again = (seeded(lambda: nn.Linear(2, 2), seed=3) for _ in range(2))
        >>> torch.equal(first.weight, again.weight)
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def rows_of(data: Sized, size: int, seed: int) -> Iterator[Tensor]:
    """Yield batches of rows without end, shuffled anew each time they are through."""
    generator = torch.Generator().manual_seed(seed)
    whole = max(len(data) // size, 1) * size
    while True:
        yield from torch.randperm(len(data), generator=generator)[:whole].split(size)


def descend(
    weights: Iterable[Tensor],
    losses: Iterator[Tensor],
    *,
    rate: float,
    steps: int,
    weight_decay: float = 0.01,
    warm_up: float = 0.3,
) -> None:
    """Train weights in place with AdamW under a one-cycle schedule, where `fit` has no such loss.

    Args:
        weights: what is trained.
        losses: one for each step, made when its turn comes, with the weights of that moment.
        rate: the peak of the schedule.
        steps: how many.
        weight_decay: of AdamW.
        warm_up: the share of steps until the peak.

    Example:
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> losses = ((weight - 1).square().sum() for _ in range(200))
        >>> descend([weight], losses, rate=0.1, steps=200)
        >>> weight.item()  # doctest: +ELLIPSIS
        0.99...
    """
    optimizer = adamw(weights, rate, weight_decay)
    scheduler = OneCycleLR(optimizer, rate, total_steps=steps, pct_start=warm_up)
    for loss in islice(losses, steps):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


def measured_on(data: Splits, on: str) -> Split:
    """Return the split of that name, ``"validation"`` or ``"test"``."""
    return data.validation if on == "validation" else data.test


def check(known: Iterable[str], methods: Iterable[str], on: str) -> None:
    """Refuse a method that the experiment does not have, and a split to measure on that is none.

    Raises:
        KeyError: lists the methods there are.
        ValueError: another split than validation and test.
    """
    names = list(known)
    for method in methods:
        if method not in names:
            raise KeyError(f"no method {method!r}: choose from {', '.join(map(repr, names))}.")
    if on not in ("validation", "test"):
        raise ValueError(f"measure on 'validation' or 'test', got {on!r}.")
