"""What becomes of rare classes when the teacher has seen few of them as well?

Warped digits. 0 to 4 are nineteen times as frequent as 5 to 9, in the student's 500 images and in
the 5,500 of one teacher; another teacher learned from as many images of all ten classes alike. The
test images are balanced. Every student makes 800 steps on images that are warped anew.

T = 4 was not tuned: a student at T = 1 stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlearn.data import RandomAffine, Split, balanced_subset, warped_digits
from kdlearn.experiments.common import Row, check, descend, measured_on, rows_of, seeded
from kdlearn.experiments.lanes import Lanes
from kdlearn.measure import accuracy, predict
from kdlearn.models import SmallCNN
from kdlearn.training import fit

TEMPERATURE = 4.0
RARE = 5  # the first rare class


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images that both teachers' are drawn from.
        teacher_images: of a common and of a rare class, for the imbalanced teacher.
        student_images: the same for the students.
        teacher_epochs: passes of each teacher over its images.
        student_steps: of every student.
        batch_size: images a step.
        learning_rate: peak of the one-cycle schedules.
    """

    pool: int = 12_000
    teacher_images: tuple[int, int] = (1045, 55)
    student_images: tuple[int, int] = (95, 5)
    teacher_epochs: int = 10
    student_steps: int = 800
    batch_size: int = 64
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Method:
    """What a student is told.

    Attributes:
        teacher: who teaches it; "prior taken off" is the imbalanced one whose logits have lost the
            logarithm of its class frequencies.
        temperature: of the soft targets.
        weighted: whether an image counts inversely to how frequent its class is.
        adjusted: whether the logarithm of the class frequencies is added to the student's logits
            in the loss, and not in use.
    """

    teacher: Literal["none", "imbalanced", "prior taken off", "balanced"] = "none"
    temperature: float = TEMPERATURE
    weighted: bool = False
    adjusted: bool = False


METHODS = {
    "labels": Method(),
    "labels, weighted": Method(weighted=True),
    "labels, logit-adjusted": Method(adjusted=True),
    "KD, imbalanced teacher": Method("imbalanced"),
    "KD T=1, imbalanced teacher": Method("imbalanced", 1.0),
    "KD, imbalanced teacher, weighted": Method("imbalanced", weighted=True),
    "KD, prior taken off": Method("prior taken off"),
    "KD, prior taken off, weighted": Method("prior taken off", weighted=True),
    "KD, balanced teacher": Method("balanced"),
    "KD, balanced teacher, weighted": Method("balanced", weighted=True),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "common", "rare", "called_rare", "teacher_common", "teacher_rare")


def long_tail(split: Split, common: int, rare: int, seed: int) -> Split:
    """Draw as many images of each common class, 0 to 4, and of each rare one.

    Example:
        >>> split = Split(torch.zeros(80, 1, 8, 8), torch.arange(80) % 10, torch.arange(80))
        >>> long_tail(split, 7, 2, seed=0).labels.bincount().tolist()
        [7, 7, 7, 7, 7, 2, 2, 2, 2, 2]
    """
    counts = [common] * RARE + [rare] * (10 - RARE)
    parts = [
        balanced_subset(split.subset(split.labels == label), count, seed=seed)
        for label, count in enumerate(counts)
    ]
    images, labels, base = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels", "base")
    )
    return Split(images, labels, base)


def log_prior(labels: Tensor) -> Tensor:
    r"""Return the logarithm of each class's share, :math:`\log \pi_k`.

    Source: A. K. Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021: subtract it from
        the logits of a trained model (section 4.1), or add it in the loss (section 4.2).

    Example:
        >>> log_prior(torch.tensor([0, 0, 0, 1])).exp()
        tensor([0.7500, 0.2500])
    """
    return (labels.bincount() / len(labels)).log()


def loss_of(method: Method, own: Tensor, labels: Tensor, taught: Tensor, prior: Tensor) -> Tensor:
    """Average over a batch what a student is told, an image's part times its weight.

    Args:
        method: what the student is told.
        own: the student's logits, (B, C).
        labels: shape (B,).
        taught: its teacher's logits, (B, C); not read without a teacher.
        prior: see :func:`log_prior`, of the images that the student sees.
    """
    if method.teacher == "none":
        each = F.cross_entropy(own + prior * method.adjusted, labels, reduction="none")
    else:
        t = method.temperature
        soft = (taught / t).log_softmax(1)
        each = t**2 * (soft.exp() * (soft - (own / t).log_softmax(1))).sum(1)
    # An image of class k gets the mean weight 1 over all images: 1 / (C pi_k).
    weight = (-prior).exp()[labels] / len(prior) if method.weighted else torch.ones(())
    return (weight * each).mean()


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    The first row is the balanced teacher. ``common`` and ``rare`` are recalls, ``teacher_common``
    and ``teacher_rare`` those of a student's own teacher, as it speaks to the student.
    ``called_rare`` is the share of all images that is given a rare class, where half of them would
    be right.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = warped_digits(train=recipe.pool, seed=seed)
    measured = measured_on(data, on)
    tail = long_tail(data.train, *recipe.teacher_images, seed=seed)
    even = balanced_subset(data.train, len(tail), seed=seed)
    teachers = []
    for images in (even, tail):
        teacher = seeded(partial(SmallCNN, 16), seed)
        teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fit(
            teacher,
            images,
            epochs=recipe.teacher_epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            seed=seed,
            progress=False,
        )
        teachers.append(teacher.eval())
    balanced, imbalanced = (predict(teacher, measured.images) for teacher in teachers)
    seen = long_tail(data.train, *recipe.student_images, seed=seed)
    prior, teachers_prior = log_prior(seen.labels), log_prior(tail.labels)
    rare = measured.labels >= RARE

    def recalls(logits: Tensor) -> tuple[float, float]:
        common, of_rare = (accuracy(logits[s], measured.labels[s]) for s in (~rare, rare))
        return 100 * common, 100 * of_rare

    def row(name: str, logits: Tensor) -> Row:
        common, of_rare = recalls(logits)
        return {
            "seed": seed,
            "method": name,
            "accuracy": 100 * accuracy(logits, measured.labels),
            "common": common,
            "rare": of_rare,
            "called_rare": 100 * (logits.argmax(1) >= RARE).double().mean().item(),
        }

    yield row("teacher", balanced)
    asked = [METHODS[name] for name in methods]
    students = Lanes([seeded(partial(SmallCNN, 4), seed)] * len(asked))

    def speak(even_logits: Tensor, tail_logits: Tensor) -> dict[str, Tensor]:
        return {
            "none": even_logits,
            "balanced": even_logits,
            "imbalanced": tail_logits,
            "prior taken off": tail_logits - teachers_prior,
        }

    def losses() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        for batch in rows_of(seen, recipe.batch_size, seed):
            images = RandomAffine()(seen.images[batch], generator)
            with torch.no_grad():
                taught = speak(*(teacher(images) for teacher in teachers))
            logits = students(images.expand(-1, len(asked), -1, -1))
            yield torch.stack(
                [
                    loss_of(method, own, seen.labels[batch], taught[method.teacher], prior)
                    for method, own in zip(asked, logits, strict=True)
                ]
            ).sum()

    descend(students.parameters(), losses(), rate=recipe.learning_rate, steps=recipe.student_steps)
    said = speak(balanced, imbalanced)
    for place, (name, method) in enumerate(zip(methods, asked, strict=True)):
        told = {}
        if method.teacher != "none":
            told["teacher_common"], told["teacher_rare"] = recalls(said[method.teacher])
        yield {**row(name, predict(students.lane(place), measured.images)), **told}
