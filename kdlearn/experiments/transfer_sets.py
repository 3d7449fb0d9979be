"""On which images can a teacher teach?

Warped digits; the teacher learned from 12,000 of them. Its students read no label: they see their
teacher's answers for 500 digits, for pairs of these mixed, for digits that other people wrote, for
cuttings of two photographs, for noise, or for images that were made from the teacher alone. All
make 800 steps on images that are warped anew, at T = 4, which was not tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import Generator, Tensor, nn

from kdlearn.data import RandomAffine, mnist5k
from kdlearn.distill import Taps
from kdlearn.experiments import common
from kdlearn.experiments.common import MEASURED, Bench, Row, descend, seeded
from kdlearn.experiments.lanes import Lanes
from kdlearn.losses import soft_target_loss
from kdlearn.measure import predict
from kdlearn.models import SmallCNN

TEMPERATURE = 4.0


@dataclass(frozen=True)
class Recipe(common.Recipe):
    """Those of warped digits, with steps.

    Attributes:
        steps: of every student.
        made_steps: of descent on the pixels of images that are made from the teacher.
    """

    steps: int = 800
    made_steps: int = 100


# What a student sees; of two sets, half of each batch.
METHODS = {
    "labels": ("digits",),
    "KD, its digits": ("digits",),
    "KD, mixed pairs": ("mixed",),
    "KD, other people's digits": ("others",),
    "KD, photographs": ("photographs",),
    "KD, noise": ("noise",),
    "KD, made from the teacher": ("made",),
    "KD, its digits and photographs": ("digits", "photographs"),
}
RECIPE = Recipe(**vars(common.Recipe.read("warped-digits")))
COLUMNS = (*MEASURED, "most_frequent", "confidence")


def photographs(size: int, seed: int) -> Tensor:
    """Cut gray squares of 48 pixels out of scikit-learn's two photographs, and shrink them to 16.

    Source: Y. M. Asano and A. Saeed, The Augmented Image Prior: Distilling 1000 Classes by
        Extrapolating from a Single Image, ICLR 2023, for the idea.

    Example:
        >>> photographs(3, seed=0).shape
        torch.Size([3, 1, 16, 16])
    """
    pictures = [torch.tensor(p).float().mean(2) / 255 for p in load_sample_images().images]
    generator = torch.Generator().manual_seed(seed)
    cuttings = []
    for number in range(size):
        picture = pictures[number % len(pictures)]
        top, left = (
            int(torch.randint(side - 48, (), generator=generator)) for side in picture.shape
        )
        cuttings.append(picture[top : top + 48, left : left + 48])
    return F.interpolate(torch.stack(cuttings)[:, None], size=16, mode="area")


def small(images: Tensor) -> Tensor:
    """Shrink digits of 28 pixels to 12, on a background of 16, as warped digits are made."""
    return F.pad(F.interpolate(images, size=12, mode="area"), (2, 2, 2, 2))


def made_from(teacher: nn.Module, size: int, *, steps: int, rate: float, seed: int) -> Tensor:
    r"""Start from noise, and change it until the teacher is sure of a class and finds it familiar.

    .. math:: L = \mathrm{CE}(z_t(x), y) + \sum_l \mathrm{mean}_c \left[
        \frac{(\mu_{lc}(x) - \mu_{lc})^2}{\sigma_{lc}^2}
        + \Bigl(\frac{\sigma_{lc}^2(x)}{\sigma_{lc}^2} - 1\Bigr)^2 \right]

    with the mean and variance of channel c before batch normalization l over these images, and as
    the teacher remembers them from its training. The classes y take turns.

    Args:
        teacher: a `SmallCNN`; its weights stay as they are.
        size: how many images.
        steps: of descent on the pixels.
        rate: its peak.
        seed: of the noise.

    Source: H. Yin et al., Dreaming to Distill: Data-Free Knowledge Transfer via DeepInversion, CVPR
        2020, section 3.2; they take norms where this takes relative squares, and add terms that
        keep images smooth.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 16, 16, generator=generator).requires_grad_()
    classes = torch.arange(size) % 10
    norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]

    def next_loss() -> Tensor:
        with Taps(teacher, [f"group{i}.0" for i in (1, 2, 3)]) as taps:
            loss = F.cross_entropy(teacher(images), classes)
        for norm, before in zip(norms, taps.values(), strict=True):
            assert norm.running_mean is not None and norm.running_var is not None
            variance, mean = torch.var_mean(before, dim=(0, 2, 3))
            loss = loss + ((mean - norm.running_mean).square() / norm.running_var).mean()
            loss = loss + (variance / norm.running_var - 1).square().mean()
        return loss

    teacher.requires_grad_(False)
    losses = (next_loss() for _ in range(steps))
    descend([images], losses, rate=rate, steps=steps, weight_decay=0.0)
    return images.detach()


def shown(
    sets: dict[str, Tensor], names: tuple[str, ...], size: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Draw images, as many of each set, and warp them; return the rows of the last set too.

    Of "mixed" two images each are drawn and averaged, with a weight from 0 to 1.

    Source: H. Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018; L. Beyer et al.,
        CVPR 2022, let a teacher answer for such images.
    """
    parts, rows = [], torch.empty(0)
    for name in names:
        rows = torch.randint(len(sets[name]), (size // len(names),), generator=generator)
        images = RandomAffine()(sets[name][rows], generator)
        if name == "mixed":
            share = torch.rand(len(rows), 1, 1, 1, generator=generator)
            second = RandomAffine()(sets[name][rows.roll(1)], generator)
            images = share * images + (1 - share) * second
        parts.append(images)
    return torch.cat(parts), rows


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``most_frequent`` is the share of a transfer set that its teacher gives to one class, the
    largest, and ``confidence`` its mean probability of the class it chooses, at T = 1.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    yield bench.row("teacher", bench.teacher_logits)
    teacher = bench.teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    few = bench.images
    sets = {
        "digits": few.images,
        "mixed": few.images,
        "others": small(mnist5k(seed=seed).train.images),
        "photographs": photographs(3000, seed),
        "noise": torch.rand(3000, 1, 16, 16, generator=Generator().manual_seed(seed)),
        "made": made_from(teacher, len(few), steps=recipe.made_steps, rate=0.1, seed=seed),
    }
    students = Lanes([seeded(partial(SmallCNN, 4), seed)] * len(methods))
    generators = {METHODS[name]: Generator().manual_seed(seed) for name in methods}

    def next_loss() -> Tensor:
        seen, told = {}, {}
        for names, generator in generators.items():
            seen[names], rows = shown(sets, names, recipe.batch_size, generator)
            with torch.no_grad():
                told[names] = teacher(seen[names])
            if names == METHODS["labels"]:
                labels = few.labels[rows]
        logits = students(torch.cat([seen[METHODS[name]] for name in methods], dim=1))
        loss = torch.zeros(())
        for name, own in zip(methods, logits, strict=True):
            if name == "labels":
                loss = loss + F.cross_entropy(own, labels)
            else:
                loss = loss + soft_target_loss(own, told[METHODS[name]], temperature=TEMPERATURE)
        return loss

    losses = (next_loss() for _ in range(recipe.steps))
    descend(students.parameters(), losses, rate=recipe.student_rate, steps=recipe.steps)
    for place, name in enumerate(methods):
        student = students.lane(place)
        row = bench.row(name, predict(student, bench.held_out.images))
        images, _ = shown(sets, METHODS[name], 1000, Generator().manual_seed(seed))
        answers = predict(teacher, images).softmax(1)
        row["most_frequent"] = 100 * answers.argmax(1).bincount().max().item() / len(answers)
        row["confidence"] = 100 * answers.amax(1).mean().item()
        yield row
