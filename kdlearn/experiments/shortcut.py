"""A shortcut that pays in training and not in the test: can a teacher's maps keep a student off it?

Each canvas has a real digit somewhere and a small texture beside it. In the student's images the
texture gives the class away, in the test it says nothing. The teacher has seen textures that say
nothing, so it looks at digits. In half of the methods it knows *other digits* than the student has
to learn: then its logits are of no use, and its maps are all there is to transfer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import Split, mnist5k
from kdlearn.distill.taps import Taps
from kdlearn.experiments.common import Row, check, descend, measured_on, rows_of, seeded
from kdlearn.losses import attention_transfer_loss, soft_target_loss
from kdlearn.losses.maps import activation_map
from kdlearn.measure import accuracy, predict
from kdlearn.training import fit

CANVAS, DIGIT, TEXTURE, NOISE = 28, 14, 5, 0.1
GROUPS = ("group2", "group3")
STUDENTS_DIGITS, OTHER_DIGITS = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
ALL_DIGITS = STUDENTS_DIGITS + OTHER_DIGITS


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: digits that the teacher learns from.
        images: digits that the student may see.
        copies: canvases drawn of each digit.
        teacher: width of its first group.
        student: the same of the student.
        teacher_steps: of the teacher.
        student_steps: of every student.
        batch_size: canvases a step.
        learning_rate: peak of the one-cycle schedule.
        attention: weight of attention transfer; the best of 5, 15, 50 and 150 on the validation
            split of seed 10.
        temperature: of the soft targets.
        soft_targets: their weight; the labels have the rest.
    """

    pool: int = 3000
    images: int = 1000
    copies: int = 8
    teacher: int = 12
    student: int = 4
    teacher_steps: int = 700
    student_steps: int = 800
    batch_size: int = 64
    learning_rate: float = 5e-3
    attention: float = 50.0
    temperature: float = 4.0
    soft_targets: float = 0.9


@dataclass(frozen=True)
class Method:
    """What a student is told.

    Attributes:
        maps: "none", its own image's ("own"), the next image's ("shuffled") or the average of all
            ("mean").
        soft_targets: whether it sees the teacher's probabilities.
        shortcut: whether the texture gives the class away.
        other_digits: whether the teacher knows 5 to 9 and the student has to learn 0 to 4.
    """

    maps: str = "none"
    soft_targets: bool = False
    shortcut: bool = True
    other_digits: bool = False


METHODS = {
    "labels": Method(),
    "AT": Method("own"),
    "AT, shuffled maps": Method("shuffled"),
    "AT, mean map": Method("mean"),
    "KD": Method(soft_targets=True),
    "KD+AT": Method("own", soft_targets=True),
    "labels, no shortcut": Method(shortcut=False),
    "other digits: labels": Method(other_digits=True),
    "other digits: AT": Method("own", other_digits=True),
    "other digits: AT, shuffled maps": Method("shuffled", other_digits=True),
    "other digits: AT, mean map": Method("mean", other_digits=True),
    "other digits: labels, no shortcut": Method(shortcut=False, other_digits=True),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "accuracy_shortcut")


def network(width: int) -> nn.Sequential:
    """Make three groups of convolution, batch normalization and ReLU, and a global average.

    Example:
        >>> network(4)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def group(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    return nn.Sequential(
        OrderedDict(
            group1=group(1, width, 2),
            group2=group(width, 2 * width, 2),
            group3=group(2 * width, 4 * width, 1),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(4 * width, 10),
        )
    )


def canvases(digits: Split, copies: int, *, shortcut: bool, generator: torch.Generator) -> Split:
    """Draw canvases with a digit of half size and a texture, both anywhere, and noise.

    Args:
        digits: of 28 x 28 pixels.
        copies: canvases of each digit.
        shortcut: whether the texture is that of the label, or else any of the ten.
        generator: draws everything.

    Returns:
        The canvases with ``boxes``: the square that holds the digit, a quarter of the canvas.

    Example:
        >>> digit = Split(torch.ones(1, 1, 28, 28), torch.tensor([3]), torch.arange(1))
        >>> drawn = canvases(digit, 4, shortcut=True, generator=torch.Generator())
        >>> drawn.images.shape, drawn.labels.tolist()
        (torch.Size([4, 1, 28, 28]), [3, 3, 3, 3])
    """
    textures = torch.rand(10, TEXTURE, TEXTURE, generator=torch.Generator().manual_seed(3)) < 0.5
    small = F.avg_pool2d(digits.images, 2)[:, 0].repeat(copies, 1, 1)
    labels = digits.labels.repeat(copies)
    count = len(labels)
    canvas = torch.zeros(count, CANVAS, CANVAS)
    at = torch.randint(CANVAS - DIGIT + 1, (2, count), generator=generator)
    _put(canvas, small, at)
    corner = torch.zeros_like(at)
    waiting = torch.ones(count, dtype=torch.bool)
    while waiting.any():  # draw again where the texture would lie on the digit
        drawn = torch.randint(CANVAS - TEXTURE + 1, (2, count), generator=generator)
        corner = torch.where(waiting, drawn, corner)
        waiting = ((corner + TEXTURE > at) & (corner < at + DIGIT)).all(0)
    shown = labels if shortcut else torch.randint(10, (count,), generator=generator)
    _put(canvas, textures[shown].float(), corner)
    noise = NOISE * torch.randn(canvas.shape, generator=generator)
    y0, x0 = at / CANVAS
    side = DIGIT / CANVAS
    boxes = torch.stack([x0, y0, x0 + side, y0 + side], dim=1)
    return Split((canvas + noise)[:, None], labels, digits.base.repeat(copies), boxes)


def _put(canvas: Tensor, patch: Tensor, corner: Tensor) -> None:
    reach = torch.arange(patch.shape[-1])
    y, x = corner
    rows, columns = (y[:, None] + reach)[:, :, None], (x[:, None] + reach)[:, None, :]
    canvas[torch.arange(len(canvas))[:, None, None], rows, columns] = patch


def attention_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the square roots of the maps of two groups, each (N, 1, H, W): features to be met."""
    parts: dict[str, list[Tensor]] = {group: [] for group in GROUPS}
    for batch in images.split(500):
        with Taps(model, list(GROUPS)) as taps:
            predict(model, batch)
            for group in GROUPS:
                parts[group].append(activation_map(taps[group]).sqrt()[:, None])
    return {group: torch.cat(part) for group, part in parts.items()}


def train_teacher(digits: Split, *, recipe: Recipe, seed: int) -> nn.Module:
    """Train a teacher on canvases whose textures say nothing."""
    generator = torch.Generator().manual_seed(seed)
    images = canvases(digits, recipe.copies, shortcut=False, generator=generator)
    teacher = seeded(partial(network, recipe.teacher), seed)
    fit(
        teacher,
        images,
        epochs=max(round(recipe.teacher_steps * recipe.batch_size / len(images)), 1),
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        seed=seed,
        progress=False,
    )
    return teacher


def train_student(
    images: Split,
    logits: Tensor,
    maps: dict[str, Tensor],
    method: Method,
    *,
    recipe: Recipe = RECIPE,
    seed: int = 0,
) -> nn.Module:
    """Train a student on canvases, with what a teacher said of them.

    Args:
        images: the canvases.
        logits: of the teacher.
        maps: of the teacher, as `attention_of` returns them.
        method: what is used of it.
        recipe: the numbers.
        seed: of first weights and order.
    """
    student = seeded(partial(network, recipe.student), seed).train()
    average = {group: each.square().mean(0, keepdim=True).sqrt() for group, each in maps.items()}

    def loss_of(batch: Tensor) -> Tensor:
        with Taps(student, list(GROUPS)) as taps:
            own = student(images.images[batch])
            loss = F.cross_entropy(own, images.labels[batch])
            if method.soft_targets:
                soft = soft_target_loss(own, logits[batch], temperature=recipe.temperature)
                loss = torch.lerp(loss, soft, recipe.soft_targets)
            for group in GROUPS if method.maps != "none" else ():
                target = maps[group][batch]
                if method.maps == "shuffled":
                    target = target.roll(1, dims=0)
                elif method.maps == "mean":
                    target = average[group].expand_as(target)
                loss = loss + recipe.attention * attention_transfer_loss(taps[group], target)
        return loss

    losses = map(loss_of, rows_of(images, recipe.batch_size, seed))
    descend(student.parameters(), losses, rate=recipe.learning_rate, steps=recipe.student_steps)
    return student.eval()


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``accuracy`` is on canvases whose texture says nothing, ``accuracy_shortcut`` where it gives the
    class away. The first row is the teacher of all ten digits.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = mnist5k(train=recipe.pool, seed=seed)
    held_out = measured_on(data, on)

    def only(digits: Split, classes: tuple[int, ...]) -> Split:
        return digits.subset(torch.isin(digits.labels, torch.tensor(classes)))

    def row(name: str, model: nn.Module, classes: tuple[int, ...]) -> Row:
        result: Row = {"seed": seed, "method": name}
        for column, shortcut in (("accuracy", False), ("accuracy_shortcut", True)):
            generator = torch.Generator().manual_seed(seed + 1)
            test = canvases(only(held_out, classes), 2, shortcut=shortcut, generator=generator)
            result[column] = 100 * accuracy(predict(model, test.images), test.labels)
        return result

    teacher = train_teacher(data.train, recipe=recipe, seed=seed)
    yield row("teacher", teacher, ALL_DIGITS)
    for other_digits in (False, True):
        asked = [name for name in methods if METHODS[name].other_digits == other_digits]
        if other_digits and asked:
            others = only(data.train, OTHER_DIGITS)
            teacher = train_teacher(others, recipe=recipe, seed=seed)
        classes = STUDENTS_DIGITS if other_digits else ALL_DIGITS
        few = only(data.train, classes)[: recipe.images]
        shown: dict[bool, tuple[Split, Tensor, dict[str, Tensor]]] = {}
        for name in asked:
            shortcut = METHODS[name].shortcut
            if shortcut not in shown:
                generator = torch.Generator().manual_seed(seed + 2)
                drawn = canvases(few, recipe.copies, shortcut=shortcut, generator=generator)
                said = predict(teacher, drawn.images)
                shown[shortcut] = drawn, said, attention_of(teacher, drawn.images)
            student = train_student(*shown[shortcut], METHODS[name], recipe=recipe, seed=seed)
            yield row(name, student, classes)
