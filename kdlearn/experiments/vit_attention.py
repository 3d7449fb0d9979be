"""What may a small vision transformer take from a teacher: answers, or where it looks?

Real digits in 16 patches. A student sees 300 images, shifted anew in each batch, and gets
from a trained teacher its soft targets, its decisions for a second token (DeiT), or its attention
maps: put in place of its own (attention copy), or as a loss on its own (attention distillation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import RandomShift, Split, Splits, balanced_subset, mnist5k
from kdlearn.distill import Taps
from kdlearn.experiments.common import Row, check, descend, measured_on, rows_of, seeded
from kdlearn.losses import (
    attention_distribution_loss,
    deit_hard_loss,
    distillation_loss,
    vit_attention_loss,
)
from kdlearn.measure import accuracy, predict
from kdlearn.models import SmallCNN, TinyViT
from kdlearn.training import fit

LAYERS = 3
SHIFT = RandomShift(2)
SCORES = [f"layers.{layer}.attention.scores" for layer in range(LAYERS)]
Maps = list[Tensor]
"""Attention scores of each layer, before the softmax, shape (B, heads, N, N)."""


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images that the teachers learn from.
        images: how many of them a student may see.
        teacher_epochs: of both teachers over the pool.
        steps: of a student.
        batch_size: images a step of a student's; a teacher has 64.
        teacher_rate: peak of the one-cycle schedule of the teacher that is a vision transformer.
        learning_rate: the same of a student's.
        weight: of the sum over layers of the attention loss.
    """

    pool: int = 3000
    images: int = 300
    teacher_epochs: int = 10
    steps: int = 300
    batch_size: int = 32
    teacher_rate: float = 2e-3
    learning_rate: float = 3e-3
    weight: float = 3.0

    def make_data(self, seed: int) -> Splits:
        """Make the pool of the teachers, and what is measured on."""
        return mnist5k(train=self.pool, seed=seed)


@dataclass(frozen=True)
class Method:
    """What a student is told beside the labels.

    Attributes:
        soft: whose soft targets, "" for none: "vit" or "cnn".
        token: whether the CNN's decisions are told to a second token, as in DeiT.
        copies: whether the teacher's maps replace the student's own.
        maps: whose maps the student's own are compared with, "" for none: "own", those of the same
            image, or "other", those of another image.
        times: how many times the steps of the recipe.
    """

    soft: str = ""
    token: bool = False
    copies: bool = False
    maps: str = ""
    times: int = 1


METHODS = {
    "labels": Method(),
    "labels for longer": Method(times=3),
    "soft targets": Method(soft="vit"),
    "soft targets of a CNN": Method(soft="cnn"),
    "distillation token, CNN": Method(token=True),
    "attention copy": Method(copies=True),
    "attention distillation": Method(maps="own"),
    "attention of other images": Method(maps="other"),
    "attention distillation for longer": Method(maps="own", times=3),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "map_distance", "accuracy_alone")
make_vit = partial(TinyViT, image=28, patch=7, layers=LAYERS)


def maps_of(model: nn.Module, images: Tensor) -> Maps:
    """Return the attention scores of all layers, without a graph."""
    with torch.no_grad(), Taps(model, SCORES) as taps:
        model(images)
    return [taps[name] for name in SCORES]


def copying(student: nn.Module, images: Tensor, maps: Maps) -> Tensor:
    """Return the student's logits with a teacher's maps in the place of its own.

    The student's queries and keys have no part in it and get no gradient.

    Args:
        student: a `TinyViT`.
        images: shape (B, channels, H, W).
        maps: the teacher's scores for the same images.

    Source: A. C. Li et al., On the Surprising Effectiveness of Attention Transfer for Vision
        Transformers, NeurIPS 2024, attention copy.

    Example:
        >>> student, images = make_vit(), torch.rand(2, 1, 28, 28)
        >>> own = maps_of(student, images)
        >>> torch.allclose(copying(student, images, own), student(images), atol=1e-5)
        True
    """
    handles = [
        student.get_submodule(name.replace("scores", "weights")).register_forward_hook(
            lambda module, inputs, output, scores=scores: scores.softmax(-1)
        )
        for name, scores in zip(SCORES, maps, strict=True)
    ]
    try:
        logits: Tensor = student(images)
    finally:
        for handle in handles:
            handle.remove()
    return logits


def train_teacher(start: nn.Module, data: Splits, rate: float, recipe: Recipe, seed: int) -> None:
    """Train a teacher on the whole pool, from labels, in place."""
    fit(
        start,
        data.train,
        epochs=recipe.teacher_epochs,
        batch_size=64,
        learning_rate=rate,
        augment=SHIFT,
        seed=seed,
        progress=False,
    )


def answer_term(
    method: Method,
    taps: Taps,
    logits: Tensor,
    images: Tensor,
    labels: Tensor,
    teachers: dict[str, nn.Module],
) -> Tensor:
    """Compare the student's answers with the labels and, if the method says so, a teacher's."""
    if not (method.soft or method.token):
        return F.cross_entropy(logits, labels)
    with torch.no_grad():
        target = teachers[method.soft or "cnn"](images)
    if method.token:
        return deit_hard_loss(taps["classifier"], taps["distillation"], target, labels)
    return distillation_loss(logits, target, labels)


def train_student(
    images: Split, method: Method, teachers: dict[str, nn.Module], *, recipe: Recipe, seed: int
) -> TinyViT:
    """Train one student.

    Args:
        images: what it may see.
        method: what it is told.
        teachers: "vit", and "cnn" for the methods that ask it.
        recipe: the numbers.
        seed: of first weights, order and shifts.
    """
    student = seeded(partial(make_vit, distilled=method.token), seed)
    steps, rate = method.times * recipe.steps, recipe.learning_rate
    generator = torch.Generator().manual_seed(seed)
    taps = Taps(student, [*SCORES, "classifier", *(["distillation"] if method.token else [])])

    def loss_of(batch: Tensor) -> Tensor:
        seen, labels = SHIFT(images.images[batch], generator), images.labels[batch]
        with taps:
            if method.copies:
                logits = copying(student, seen, maps_of(teachers["vit"], seen))
            else:
                logits = student(seen)
        loss = answer_term(method, taps, logits, seen, labels, teachers)
        if method.maps:
            shown = seen.roll(1, dims=0) if method.maps == "other" else seen
            for name, scores in zip(SCORES, maps_of(teachers["vit"], shown), strict=True):
                loss = loss + recipe.weight * vit_attention_loss(taps[name], scores)
        return loss

    losses = map(loss_of, rows_of(images, recipe.batch_size, seed))
    descend(student.parameters(), losses, rate=rate, steps=steps, weight_decay=0.05, warm_up=0.1)
    return student.eval()


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    The teacher is the vision transformer. ``map_distance`` is the KL of the student's own maps from
    the teacher's, nats a row, mean over layers. ``accuracy_alone``, of attention copy, is the
    accuracy without the teacher's maps.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = recipe.make_data(seed)
    held_out = measured_on(data, on)
    teachers: dict[str, nn.Module] = {
        "vit": seeded(make_vit, seed + 1000),
        "cnn": seeded(partial(SmallCNN, 16), seed + 1000),
    }
    train_teacher(teachers["vit"], data, recipe.teacher_rate, recipe, seed)
    if any(METHODS[name].token or METHODS[name].soft == "cnn" for name in methods):
        train_teacher(teachers["cnn"], data, 5e-3, recipe, seed)
    images = balanced_subset(data.train, recipe.images, seed=seed)
    wanted = maps_of(teachers["vit"], held_out.images)

    def row(name: str, logits: Tensor) -> Row:
        right = 100 * accuracy(logits, held_out.labels)
        return {"seed": seed, "method": name, "accuracy": right}

    yield row("teacher", predict(teachers["vit"], held_out.images))
    for name in methods:
        method = METHODS[name]
        student = train_student(images, method, teachers, recipe=recipe, seed=seed)
        logits = predict(student, held_out.images)
        if not method.copies:
            told = row(name, logits)
        else:
            with torch.no_grad():
                told = row(name, copying(student, held_out.images, wanted))
            told["accuracy_alone"] = 100 * accuracy(logits, held_out.labels)
        if not method.token:
            pairs = zip(maps_of(student, held_out.images), wanted, strict=True)
            distances = [attention_distribution_loss(*pair).item() for pair in pairs]
            told["map_distance"] = sum(distances) / LAYERS
        yield told
