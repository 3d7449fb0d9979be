"""Specialists that know a part of the classes each: who should teach a student of all of them?

Warped digits. Three specialists learned from the images of their own digits alone, out of 12,000,
and a generalist of their size from all. Each made as many steps. The student is smaller, sees 500
images with labels, warped anew, and always starts from the same first weights; the methods differ
by who answers for an image.

A specialist with a dustbin has an eleventh class for the digits of others. Half of each batch of it
is of its own digits, half of the rest, as in Hinton et al. (2015), section 5.2; theirs start from a
generalist's weights.

Temperature and weight of each taught student are the best of T = 1, 4 and w = 0.5, 0.9 on the
validation split of seed 10, which is not reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kdlearn.data import RandomAffine, Split, balanced_subset, warped_digits
from kdlearn.experiments.common import Row, check, descend, measured_on, rows_of, seeded
from kdlearn.experiments.lanes import Lanes
from kdlearn.losses import soft_target_loss
from kdlearn.measure import accuracy, predict
from kdlearn.models import SmallCNN

PARTS = ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9))
CLASSES = 10
DUSTBIN = CLASSES
OTHER_START = 1000


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images that the teachers learn from, together.
        images: how many of them the student sees.
        teacher: width of every teacher.
        student: width of every student.
        teacher_steps: of every teacher.
        student_steps: of every student.
        batch_size: images a step.
        learning_rate: peak of the one-cycle schedules.
    """

    pool: int = 12_000
    images: int = 500
    teacher: int = 16
    student: int = 4
    teacher_steps: int = 800
    student_steps: int = 800
    batch_size: int = 64
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Method:
    """Who teaches a student, besides the labels.

    Attributes:
        asked: whose answers are the soft targets, see :func:`answers`; None for nobody's.
        temperature: of the soft targets.
        weight: of them; the labels have the rest.
    """

    asked: str | None = None
    temperature: float = 1.0
    weight: float = 0.0


# What the teachers say without any student; "generalist" is the row "teacher".
ASKED = {
    "asked by label": "by label",
    "asked all": "mean",
    "asked the surest": "surest",
    "asked the surest, dustbin": "dustbin",
}
STUDENTS = {
    "labels": Method(),
    "generalist": Method("generalist", 4.0, 0.9),
    "specialist by label": Method("by label", 4.0, 0.9),
    "mean of specialists": Method("mean", 1.0, 0.5),
    "surest specialist": Method("surest", 1.0, 0.5),
    "surest specialist, dustbin": Method("dustbin", 4.0, 0.5),
}
METHODS = {**dict.fromkeys(ASKED), **STUDENTS}
RECIPE = Recipe()
COLUMNS = ("accuracy", "routed", "sure_own", "sure_other")


def part_of(labels: Tensor) -> Tensor:
    """Return the specialist of each label.

    Example:
        >>> part_of(torch.tensor([0, 4, 9, 3]))
        tensor([0, 1, 2, 0])
    """
    of_class = torch.tensor([p for c in range(CLASSES) for p, own in enumerate(PARTS) if c in own])
    return of_class[labels]


@dataclass(frozen=True)
class Teachers:
    """The trained teachers.

    Attributes:
        plain: the specialists, and the generalist behind them.
        binned: specialists with a dustbin, so with a class more.
    """

    plain: Lanes
    binned: Lanes

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of specialists, generalist, and specialists with a dustbin."""
        logits = self.plain(images.expand(-1, len(PARTS) + 1, -1, -1))
        return logits[:-1], logits[-1], self.binned(images.expand(-1, len(PARTS), -1, -1))


def answers(
    said: tuple[Tensor, Tensor, Tensor], labels: Tensor, temperature: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Make one answer of what the teachers said, in five ways, as logits of shape (B, 10).

    "by label" is the specialist of the label; "mean" has the mean of all specialists'
    probabilities at the temperature; "surest" is, for each image, the one that gives its own choice
    the largest probability; and "dustbin" the one that gives its dustbin the smallest.

    Returns:
        The answers, and of those that choose a specialist, which one, shape (B,).
    """
    plain, general, binned = said
    chosen = {
        "by label": part_of(labels),
        "surest": plain.softmax(-1).amax(-1).argmax(0),
        "dustbin": binned.softmax(-1)[..., DUSTBIN].argmin(0),
    }
    of = torch.arange(len(labels))
    mean = (plain / temperature).log_softmax(-1).logsumexp(0)
    return (
        {
            "generalist": general,
            "mean": temperature * mean,  # a softmax takes the 1 / 3 away
            "by label": plain[chosen["by label"], of],
            "surest": plain[chosen["surest"], of],
            "dustbin": binned[chosen["dustbin"], of, :CLASSES],
        },
        chosen,
    )


def train_side_by_side(
    starts: Sequence[SmallCNN], lessons: Sequence[Sequence[Split]], recipe: Recipe, seed: int
) -> Lanes:
    """Train teachers from labels, each on equal shares of a batch from the parts of its lesson."""
    lanes = Lanes(starts)
    shares = [
        [(part, rows_of(part, recipe.batch_size // len(lesson), seed)) for part in lesson]
        for lesson in lessons
    ]

    def losses() -> Iterator[Tensor]:
        while True:
            drawn = [
                [(part.images[r], part.labels[r]) for part, rows in lesson for r in [next(rows)]]
                for lesson in shares
            ]
            images = torch.cat([torch.cat([x for x, _ in lesson]) for lesson in drawn], dim=1)
            labels = torch.cat([torch.cat([y for _, y in lesson]) for lesson in drawn])
            yield len(starts) * F.cross_entropy(lanes(images).flatten(0, 1), labels)

    descend(lanes.parameters(), losses(), rate=recipe.learning_rate, steps=recipe.teacher_steps)
    return lanes.eval()


def train_teachers(data: Split, recipe: Recipe, seed: int) -> Teachers:
    """Train the specialists, the generalist, and the specialists with a dustbin."""
    of = part_of(data.labels)
    own = [data.subset(of == part) for part in range(len(PARTS))]
    rest = [data.subset(of != part) for part in range(len(PARTS))]
    other = [replace(part, labels=torch.full_like(part.labels, DUSTBIN)) for part in rest]

    def starts(count: int, classes: int) -> list[SmallCNN]:
        return [
            seeded(partial(SmallCNN, recipe.teacher, classes), seed + OTHER_START * (1 + place))
            for place in range(count)
        ]

    lessons = [*([part] for part in own), [data]]
    plain = train_side_by_side(starts(len(lessons), CLASSES), lessons, recipe, seed)
    pairs = list(zip(own, other, strict=True))
    binned = train_side_by_side(starts(len(pairs), CLASSES + 1), pairs, recipe, seed)
    return Teachers(plain, binned)


def train_students(
    students: dict[str, Method], teachers: Teachers, few: Split, recipe: Recipe, seed: int
) -> dict[str, SmallCNN]:
    """Train students side by side, on the images with labels, warped anew each time."""
    start = seeded(partial(SmallCNN, recipe.student), seed)
    lanes = Lanes([start] * len(students))
    generator = Generator().manual_seed(seed)

    def loss(rows: Tensor) -> Tensor:
        images, labels = RandomAffine()(few.images[rows], generator), few.labels[rows]
        logits = lanes(images.expand(-1, len(students), -1, -1))
        said = teachers(images)
        total = torch.zeros(())
        for own, method in zip(logits, students.values(), strict=True):
            total = total + (1 - method.weight) * F.cross_entropy(own, labels)
            if method.asked is not None:
                target = answers(said, labels, method.temperature)[0][method.asked]
                soft = soft_target_loss(own, target, temperature=method.temperature)
                total = total + method.weight * soft
        return total

    losses = (loss(rows) for rows in rows_of(few, recipe.batch_size, seed))
    descend(lanes.parameters(), losses, rate=recipe.learning_rate, steps=recipe.student_steps)
    return {name: lanes.lane(place) for place, name in enumerate(students)}


def of_specialists(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return how sure specialists are of their own digits and of others', means in per cent.

    Args:
        logits: shape (specialists, B, C).
        labels: shape (B,).
    """
    sure = 100 * logits.softmax(-1)[..., :CLASSES].amax(-1)
    own = torch.arange(len(PARTS))[:, None] == part_of(labels)
    return {"sure_own": sure[own].mean().item(), "sure_other": sure[~own].mean().item()}


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    The first row is the generalist. Rows that begin with "asked" are what the specialists say
    themselves. ``routed`` is the share of images, in per cent, whose label the chosen specialist
    knows; ``sure_own`` and ``sure_other`` are the mean largest probabilities that all specialists
    give a digit, on images of their own digits and on all others.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = warped_digits(train=recipe.pool, seed=seed)
    few = balanced_subset(data.train, recipe.images, seed=seed)
    measured = measured_on(data, on)
    teachers = train_teachers(data.train, recipe, seed)
    said = teachers(measured.images)
    one, chosen = answers(said, measured.labels)

    def row(name: str, logits: Tensor) -> Row:
        return {
            "seed": seed,
            "method": name,
            "accuracy": 100 * accuracy(logits, measured.labels),
        }

    yield row("teacher", one["generalist"])
    of = part_of(measured.labels)
    more = {"surest": of_specialists(said[0], measured.labels)}
    more["dustbin"] = of_specialists(said[2], measured.labels)
    for name in methods:
        if name in ASKED:
            how = ASKED[name]
            if how in chosen:
                right = 100 * (chosen[how] == of).float().mean().item()
                more.setdefault(how, {})["routed"] = right
            yield {**row(name, one[how]), **more.get(how, {})}
    students = {name: STUDENTS[name] for name in methods if name in STUDENTS}
    if students:
        for name, student in train_students(students, teachers, few, recipe, seed).items():
            yield row(name, predict(student, measured.images))
