"""Which teacher teaches best, and does it help to cut the student out of the teacher?

Warped digits; the student sees 500 images, never warped anew, and pure distillation at T = 4.
Teachers are narrower or wider, or trained for a third of the steps. A pruned start keeps,
group by group, the channels of the width-16 teacher whose weights are largest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlearn.data import Split, Splits, balanced_subset
from kdlearn.experiments.common import (
    MEASURED,
    Bench,
    Recipe,
    Row,
    check,
    descend,
    measured_on,
    rows_of,
    seeded,
)
from kdlearn.experiments.lanes import Lanes
from kdlearn.losses import soft_target_loss
from kdlearn.measure import accuracy, predict
from kdlearn.models import SmallCNN
from kdlearn.training import fit

TEMPERATURE = 4.0
OTHER_START = 1000


@dataclass(frozen=True)
class Method:
    """Who teaches a student, and how it starts.

    Attributes:
        teacher: width of the teacher; 0 is labels alone.
        short: whether the teacher made a third of the steps, with a schedule to match.
        same_start: whether the teacher had the student's first weights; else it had its own.
        pruned: whether the student starts as a pruned teacher.
    """

    teacher: int = 0
    short: bool = False
    same_start: bool = False
    pruned: bool = False


METHODS = {
    "labels": Method(),
    "KD, teacher 4": Method(4),
    "KD, teacher 4 of the same start": Method(4, same_start=True),
    "KD, teacher 8": Method(8),
    "KD, teacher 16": Method(16),
    "KD, teacher 32": Method(32),
    "KD, teacher 16, a third of the steps": Method(16, short=True),
    "labels, pruned start": Method(pruned=True),
    "KD, teacher 16, pruned start": Method(16, pruned=True),
}
RECIPE = Recipe.read("warped-digits")
COLUMNS = (*MEASURED, "accuracy_start", "teacher_accuracy")


def pruned(teacher: SmallCNN, width: int) -> SmallCNN:
    """Cut a narrower network out of a wider one: the output channels with the largest weights.

    Args:
        teacher: at least as wide.
        width: of the result.

    Source: H. Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1 (filters
        with the smallest sum of absolute weights go).

    Example:
        >>> model = SmallCNN(4).eval()
        >>> images = torch.rand(2, 1, 16, 16)
        >>> torch.allclose(pruned(model, 4).eval()(images), model(images), atol=1e-6)
        True
    """
    student = SmallCNN(width)
    kept = torch.arange(1)
    for name in ("group1", "group2", "group3"):
        wide, narrow = getattr(teacher, name), getattr(student, name)
        norms = wide[0].weight.abs().sum((1, 2, 3))
        rows = norms.topk(len(narrow[0].weight)).indices.sort().values
        narrow[0].weight.data = wide[0].weight.detach()[rows][:, kept].clone()
        for key, values in narrow[1].state_dict().items():
            if values.dim():
                values.copy_(wide[1].state_dict()[key][rows])
        kept = rows
    places = (4 * kept[:, None] + torch.arange(4)).flatten()  # 2 x 2 places of each channel
    student.classifier.weight.data = teacher.classifier.weight.detach()[:, places].clone()
    student.classifier.bias.data = teacher.classifier.bias.detach().clone()
    return student


def train_teacher(data: Splits, method: Method, recipe: Recipe, seed: int) -> SmallCNN:
    """Train the teacher of a method on the pool, from labels."""
    first_weights = seed if method.same_start else seed + OTHER_START
    teacher = seeded(partial(SmallCNN, method.teacher), first_weights)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit(
        teacher,
        data.train,
        epochs=-(-recipe.teacher_epochs // 3) if method.short else recipe.teacher_epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.teacher_rate,
        seed=seed,
        progress=False,
    )
    return teacher


def train_students(
    starts: list[SmallCNN], images: Split, targets: list[Tensor | None], recipe: Recipe, seed: int
) -> list[SmallCNN]:
    """Train students side by side: on a teacher's logits of the images, or else on their labels."""
    students = Lanes(starts)
    steps = recipe.student_epochs * -(-len(images) // recipe.batch_size)

    def loss_of(batch: Tensor) -> Tensor:
        logits = students(images.images[batch].expand(-1, len(starts), -1, -1))
        loss = torch.zeros(())
        for own, target in zip(logits, targets, strict=True):
            if target is None:
                loss = loss + F.cross_entropy(own, images.labels[batch])
            else:
                loss = loss + soft_target_loss(own, target[batch], temperature=TEMPERATURE)
        return loss

    losses = map(loss_of, rows_of(images, recipe.batch_size, seed))
    descend(students.parameters(), losses, rate=recipe.student_rate, steps=steps)
    return [students.lane(place) for place in range(len(starts))]


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    The first row is the teacher of width 16. ``accuracy_start`` is the student's before any step,
    ``teacher_accuracy`` that of its own teacher; agreement is with its own teacher too, or with the
    one of width 16 where it has none.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = recipe.make_data(seed)
    images = balanced_subset(data.train, recipe.images, seed=seed)
    held_out = measured_on(data, on)
    asked = [METHODS[name] for name in methods]
    keys = {Method(16), *(replace(m, pruned=False) for m in asked if m.teacher)}
    teachers = {key: train_teacher(data, key, recipe, seed) for key in sorted(keys, key=str)}

    def bench(method: Method) -> Bench[Recipe]:
        teacher = teachers[replace(method, pruned=False) if method.teacher else Method(16)]
        logits = predict(teacher, held_out.images)
        return Bench(seed, recipe, data, images, teacher, held_out, logits)

    first = bench(Method(16))
    yield first.row("teacher", first.teacher_logits)
    starts = [
        pruned(teachers[Method(16)], 4) if method.pruned else seeded(partial(SmallCNN, 4), seed)
        for method in asked
    ]
    targets = [predict(bench(m).teacher, images.images) if m.teacher else None for m in asked]
    students = train_students(starts, images, targets, recipe, seed)
    for name, method, start, student in zip(methods, asked, starts, students, strict=True):
        own = bench(method)
        row = own.row(name, predict(student, held_out.images))
        row["accuracy_start"] = 100 * accuracy(predict(start, held_out.images), held_out.labels)
        if method.teacher:
            row["teacher_accuracy"] = 100 * accuracy(own.teacher_logits, held_out.labels)
        yield row
