"""A teacher far above its student: is there a gap, what is its cause, and what closes it?

Warped digits; the student sees 500 images, never warped anew, and pure distillation, as in
`which_teacher`. The teacher of width 32 is helped by a higher temperature, by an assistant of
width 8 that it taught on the whole pool, or by its own checkpoints. Each remedy has its control: a
teacher of width 8 that learned from labels, and the mean of all checkpoints at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import Split, balanced_subset
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
from kdlearn.experiments.which_teacher import OTHER_START
from kdlearn.losses import soft_target_loss
from kdlearn.measure import accuracy, predict
from kdlearn.models import SmallCNN

WIDE, MIDDLE, NARROW = 32, 8, 4


@dataclass(frozen=True)
class Method:
    """Who teaches a student.

    Attributes:
        taught: by "labels", the "wide" teacher, its "assistant", a "middle" teacher of the
            assistant's width, the wide one's checkpoints "in order", or the "mean" of their logits.
        temperature: of the soft targets.
    """

    taught: str
    temperature: float = 4.0


METHODS = {
    "labels": Method("labels"),
    "KD, teacher 32, T=1": Method("wide", 1.0),
    "KD, teacher 32": Method("wide"),
    "KD, teacher 32, T=16": Method("wide", 16.0),
    "KD, teacher 8, T=1": Method("middle", 1.0),
    "KD, teacher 8": Method("middle"),
    "KD, teacher 8, T=16": Method("middle", 16.0),
    "KD, assistant 8": Method("assistant"),
    "KD, checkpoints in order": Method("in order"),
    "KD, mean of checkpoints": Method("mean"),
}
RECIPE = Recipe.read("warped-digits")
COLUMNS = (*MEASURED, "kl_seen", "teacher_accuracy")


def train_teacher(
    width: int, images: Split, recipe: Recipe, seed: int, answers: Tensor | None = None
) -> list[SmallCNN]:
    """Train a network on the pool, from a start of its own: on labels, or on another's logits.

    Returns:
        The network at the end of each pass, the finished one last.
    """
    model = seeded(partial(SmallCNN, width), seed + OTHER_START)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows = rows_of(images, recipe.batch_size, seed)
    steps = len(images) // recipe.batch_size
    path: list[SmallCNN] = []

    def losses() -> Iterator[Tensor]:
        for step in range(steps * recipe.teacher_epochs):
            if step and step % steps == 0:
                path.append(deepcopy(model))
            batch = next(rows)
            logits = model(images.images[batch].contiguous(memory_format=torch.channels_last))
            if answers is None:
                yield F.cross_entropy(logits, images.labels[batch])
            else:
                yield soft_target_loss(logits, answers[batch])

    descend(
        model.parameters(),
        losses(),
        rate=recipe.teacher_rate,
        steps=steps * recipe.teacher_epochs,
    )
    path.append(model)
    for each in path:
        each.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return path


def train_students(
    targets: list[list[Tensor] | None],
    methods: list[Method],
    images: Split,
    recipe: Recipe,
    seed: int,
) -> list[SmallCNN]:
    """Train students side by side; of several targets each has its turn, for as many steps."""
    students = Lanes([seeded(partial(SmallCNN, NARROW), seed) for _ in methods])
    steps = recipe.student_epochs * -(-len(images) // recipe.batch_size)
    rows = rows_of(images, recipe.batch_size, seed)

    def losses() -> Iterator[Tensor]:
        for step in range(steps):
            batch = next(rows)
            logits = students(images.images[batch].expand(-1, len(methods), -1, -1))
            loss = torch.zeros(())
            for own, turns, method in zip(logits, targets, methods, strict=True):
                if turns is None:
                    loss = loss + F.cross_entropy(own, images.labels[batch])
                else:
                    now = turns[len(turns) * step // steps][batch]
                    loss = loss + soft_target_loss(own, now, temperature=method.temperature)
            yield loss

    descend(students.parameters(), losses(), rate=recipe.student_rate, steps=steps)
    return [students.lane(place) for place in range(len(methods))]


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    Agreement and KL are with the wide teacher; ``kl_seen`` is the KL from the student's last
    target on the student's own images, at T = 4, and ``teacher_accuracy`` that of who gave it.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    asked = [METHODS[name] for name in methods]
    data = recipe.make_data(seed)
    images = balanced_subset(data.train, recipe.images, seed=seed)
    held_out = measured_on(data, on)

    path = train_teacher(WIDE, data.train, recipe, seed)
    said = cache(predict)  # several students have the same teacher
    answer: dict[str, list[nn.Module]] = {"wide": [path[-1]], "in order": [*path], "mean": [*path]}
    needed = {method.taught for method in asked}
    if "middle" in needed:
        answer["middle"] = [train_teacher(MIDDLE, data.train, recipe, seed)[-1]]
    if "assistant" in needed:
        answers = said(path[-1], data.train.images)
        answer["assistant"] = [train_teacher(MIDDLE, data.train, recipe, seed, answers)[-1]]

    def logits(taught: str, split: Split) -> list[Tensor]:
        each = [said(model, split.images) for model in answer[taught]]
        return [torch.stack(each).mean(0)] if taught == "mean" else each

    (wide,) = logits("wide", held_out)
    bench = Bench(seed, recipe, data, images, path[-1], held_out, wide)
    yield bench.row("teacher", wide)
    targets = [None if m.taught == "labels" else logits(m.taught, images) for m in asked]
    students = train_students(targets, asked, images, recipe, seed)
    for name, method, student, target in zip(methods, asked, students, targets, strict=True):
        row = bench.row(name, predict(student, held_out.images))
        if target is not None:
            own = predict(student, images.images)
            row["kl_seen"] = soft_target_loss(own, target[-1], temperature=4.0).item() / 16
            taught = logits(method.taught, held_out)[-1]
            row["teacher_accuracy"] = 100 * accuracy(taught, held_out.labels)
        yield row
