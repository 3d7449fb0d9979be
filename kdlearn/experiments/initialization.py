"""Does it help to start the student with the teacher's layers, and does it help for long?

The student has the teacher's widths and half its blocks, so that the stem, the first block of each
group and the classifier can be copied. Four students: started at random or with copied layers, and
trained with labels alone or with soft targets too. ``run_seed`` yields a row for the teacher and
one for each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kdlearn.data import RandomAffine, Split, Splits, balanced_subset, warped_digits
from kdlearn.distill import Distiller, label_term, logit_term
from kdlearn.experiments.common import Row, check_methods, held_out, measure, seeded
from kdlearn.losses import soft_target_loss
from kdlearn.measure.metrics import accuracy, predict
from kdlearn.models import SlimWRN, copy_matching_weights
from kdlearn.training.fit import fit


@dataclass(frozen=True)
class Recipe:
    """Every number of the experiment; chosen on the validation split.

    Attributes:
        pool: images that the teacher learns from.
        images: how many of them the student may see.
        widths: channels of the three groups, for both.
        teacher_blocks: blocks in each group of the teacher; the student has 1.
        teacher_epochs: passes over the pool; 5 are 940 steps.
        student_epochs: passes over the student's images; 40 of 8 steps.
        early: the pass after which the first number is taken; 3 are 24 steps.
        learning_rate: peak of the one-cycle schedule, for both.
        batch_size: images a step.
        weight: of the soft targets; the labels have 1 - weight.
    """

    pool: int = 12000
    images: int = 500
    widths: tuple[int, int, int] = (8, 16, 32)
    teacher_blocks: int = 2
    teacher_epochs: int = 5
    student_epochs: int = 40
    early: int = 3
    learning_rate: float = 3e-3
    batch_size: int = 64
    weight: float = 0.9


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
RECIPE = Recipe()


def train_teacher(data: Splits, *, recipe: Recipe = RECIPE, seed: int = 0) -> SlimWRN:
    """Train the teacher on the whole pool, from labels."""
    teacher = seeded(lambda: SlimWRN(recipe.widths, blocks=recipe.teacher_blocks), seed)
    fit(
        teacher,
        data.train,
        epochs=recipe.teacher_epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        seed=seed,
        progress=False,
    )
    return teacher


def start_student(
    teacher: SlimWRN, method: Method, *, recipe: Recipe = RECIPE, seed: int = 0
) -> SlimWRN:
    """Return a student that has not been trained yet."""
    student = seeded(lambda: SlimWRN(recipe.widths, blocks=1), seed)
    if method.copied:
        copy_matching_weights(student, teacher)
    return student


def train_student(
    student: SlimWRN,
    teacher: SlimWRN,
    images: Split,
    method: Method,
    *,
    curve_on: Split,
    recipe: Recipe = RECIPE,
    seed: int = 0,
) -> list[float]:
    """Train the student in place, and return its accuracy (in [0, 1]) after each epoch."""
    terms = [
        label_term(1 - recipe.weight),
        logit_term("soft_targets", soft_target_loss, recipe.weight),
    ]
    history = fit(
        Distiller(student, teacher, terms) if method.soft_targets else student,
        images,
        validation=curve_on,
        epochs=recipe.student_epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        augment=RandomAffine(),
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
    """Train a teacher and the students of one seed, and yield a row for each.

    Args:
        seed: of data, teacher, student and order.
        recipe: the numbers; a shorter one for a live run.
        methods: names from :data:`METHODS`.
        on: the split to measure on; ``"validation"`` while choosing.

    Yields:
        Columns ``accuracy`` (at the end), ``agreement``, ``kl_to_teacher`` (nats, T = 1), ``ece``;
        for students also ``accuracy_start`` (before any step) and ``accuracy_early`` (after
        ``recipe.early`` epochs). The curve is only recorded: nothing is chosen by it.

    Raises:
        KeyError: an unknown method.
        ValueError: an unknown split.
    """
    methods = list(methods)
    check_methods(methods, METHODS)
    data = warped_digits(train=recipe.pool, seed=seed)
    split = held_out(data, on)
    teacher = train_teacher(data, recipe=recipe, seed=seed)
    images = balanced_subset(data.train, recipe.images, seed=seed)
    teacher_logits = predict(teacher, split.images)
    yield {
        "seed": seed,
        "method": "teacher",
        **measure(teacher_logits, teacher_logits, split.labels),
    }
    for name in methods:
        method = METHODS[name]
        student = start_student(teacher, method, recipe=recipe, seed=seed)
        start = accuracy(predict(student, split.images), split.labels)
        curve = train_student(
            student, teacher, images, method, curve_on=split, recipe=recipe, seed=seed
        )
        yield {
            "seed": seed,
            "method": name,
            **measure(predict(student, split.images), teacher_logits, split.labels),
            "accuracy_start": 100 * start,
            "accuracy_early": 100 * curve[recipe.early - 1],
        }
