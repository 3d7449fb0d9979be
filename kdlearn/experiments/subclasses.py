"""Is there dark knowledge with two classes, if the teacher invents classes within them?

Real digits with one bit of label: is it 5 or more? A teacher of two outputs can say little beyond
its answer. One of ten outputs, five a class, is pushed to use them all, and its student is shown
all ten.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import Split, mnist5k
from kdlearn.distill import Distiller, label_term, logit_term
from kdlearn.experiments.common import Row, check, measured_on, seeded
from kdlearn.experiments.real_digits import mlp
from kdlearn.losses import soft_target_loss
from kdlearn.measure import accuracy, predict
from kdlearn.training import fit

CLASSES, SUBCLASSES = 2, 10


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images that the teacher learns from.
        images: how many of them a student sees.
        teacher: hidden layers.
        student: hidden layers.
        teacher_epochs: passes of a teacher.
        student_epochs: passes of a student.
        batch_size: images a step.
        learning_rate: peak of the one-cycle schedules.
        temperature: of the soft targets.
        auxiliary: weight of what pushes the teacher to use its outputs.
    """

    pool: int = 3000
    images: int = 500
    teacher: tuple[int, ...] = (200, 200)
    student: tuple[int, ...] = (20,)
    teacher_epochs: int = 30
    student_epochs: int = 100
    batch_size: int = 100
    learning_rate: float = 2e-3
    temperature: float = 4.0
    auxiliary: float = 1.0


@dataclass(frozen=True)
class Method:
    """A student.

    Attributes:
        taught: by nobody, by the classes of the teacher, or by its ten outputs.
        spread: whether the teacher was pushed to use its outputs.
    """

    taught: str
    spread: bool = True


METHODS = {
    "labels": Method("labels"),
    "KD, two classes": Method("classes"),
    "KD, subclasses": Method("subclasses"),
    "KD, subclasses, no auxiliary loss": Method("subclasses", spread=False),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "digits_told_apart")


def class_logits(logits: Tensor) -> Tensor:
    """Return the logits of the two classes, whose probability is the sum over their subclasses.

    Example:
        >>> class_logits(torch.zeros(1, 10)).softmax(-1)
        tensor([[0.5000, 0.5000]])
    """
    return logits.unflatten(-1, (CLASSES, -1)).logsumexp(-1)


def class_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the class, whatever the subclass."""
    return F.cross_entropy(class_logits(logits), labels)


def spread_loss(logits: Tensor) -> Tensor:
    r"""Push the outputs of different images apart, so that all subclasses come to be used.

    .. math:: \frac1n \sum_i \log \sum_j \exp(\hat z_i^\top \hat z_j) - 1 - \log n

    with every row of logits standardized and brought to length 1.

    Source: R. Müller et al., Subclass Distillation, 2020; the authors' code at its temperature 1.

    Example:
        >>> same, apart = torch.tensor([[1.0, -1.0]] * 2), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> spread_loss(same).item() > spread_loss(apart).item()
        True
    """
    rows = F.normalize(logits - logits.mean(-1, keepdim=True), dim=-1)
    return (rows @ rows.T).logsumexp(-1).mean() - 1 - math.log(len(rows))


def teacher_loss(logits: Tensor, labels: Tensor, auxiliary: float) -> Tensor:
    """Return what a teacher minimizes; labels say the class and nothing of the digit."""
    return class_cross_entropy(logits, labels) + auxiliary * spread_loss(logits)


def class_soft_targets(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Distill the two classes of ten outputs."""
    return soft_target_loss(class_logits(student), class_logits(teacher), temperature=temperature)


def digits_told_apart(logits: Tensor, digits: Tensor) -> float:
    """Return how many digits one knows if each output is named after its most frequent digit."""
    counts = torch.zeros(SUBCLASSES, 10)
    counts.index_put_((logits.argmax(-1), digits), torch.ones(len(digits)), accumulate=True)
    return 100 * (counts.amax(1).sum() / len(digits)).item()


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``accuracy`` is that of the two classes; ``digits_told_apart`` names each output after the digit
    that it is most often the largest for, which no model was told.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = mnist5k(train=recipe.pool, seed=seed)
    held_out = measured_on(data, on)

    def halved(images: Split) -> Split:
        return replace(images, labels=(images.labels >= 5).long())

    def row(name: str, model: nn.Module) -> Row:
        logits = predict(model, held_out.images)
        return {
            "seed": seed,
            "method": name,
            "accuracy": 100 * accuracy(class_logits(logits), halved(held_out).labels),
            "digits_told_apart": digits_told_apart(logits, held_out.labels),
        }

    def train(model: nn.Module, images: Split, epochs: int) -> None:
        fit(
            model,
            images,
            epochs=epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            seed=seed,
            progress=False,
        )

    def train_teacher(spread: bool) -> nn.Module:
        teacher = seeded(partial(mlp, *recipe.teacher), seed)
        loss = partial(teacher_loss, auxiliary=recipe.auxiliary) if spread else class_cross_entropy
        train(
            Distiller(teacher, None, [label_term(loss=loss)]),
            halved(data.train),
            recipe.teacher_epochs,
        )
        return teacher

    teachers = {True: train_teacher(spread=True)}
    yield row("teacher", teachers[True])
    few = halved(data.train[: recipe.images])
    for name in methods:
        method = METHODS[name]
        if method.spread not in teachers:
            teachers[method.spread] = train_teacher(method.spread)
        temperature = recipe.temperature
        terms = {
            "labels": label_term(loss=class_cross_entropy),
            "classes": logit_term("classes", partial(class_soft_targets, temperature=temperature)),
            "subclasses": logit_term(
                "subclasses", partial(soft_target_loss, temperature=temperature)
            ),
        }
        teacher = None if method.taught == "labels" else teachers[method.spread]
        student = seeded(partial(mlp, *recipe.student), seed)
        train(Distiller(student, teacher, [terms[method.taught]]), few, recipe.student_epochs)
        yield row(name, student)
