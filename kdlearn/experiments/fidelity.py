"""How close does a student come to its teacher, and to *its* teacher more than to any other?

Warped digits, the same 12,000 images for teacher and students, as in `same_data`: narrow students
and those of the teacher's own width, from first weights of their own; one more starts from those
that the teacher started from. A second teacher, which differs by its seed alone and teaches nobody,
says what two networks share without distillation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.distill import Taps
from kdlearn.experiments import same_data
from kdlearn.experiments.common import MEASURED, Bench, Recipe, Row
from kdlearn.experiments.same_data import Method
from kdlearn.measure import accuracy, agreement, linear_cka, predict

TWIN = "another teacher"
SAME_START = "KD, width 16, same start"
OTHER_SEED = 1000
OTHER_START = 2000
OWN_START = {
    "labels": same_data.METHODS["labels"],
    "KD": same_data.METHODS["KD"],
    "labels, width 16": Method(width=16),
    "KD, width 16": Method(same_data.WEIGHT, width=16),
}
STUDENTS = {**OWN_START, SAME_START: OWN_START["KD, width 16"]}
METHODS = {TWIN: None, **STUDENTS}
RECIPE = same_data.RECIPE
GROUPS = ("group1", "group2", "group3")
STRENGTHS = {
    "noise": (0.1, 0.2, 0.3),  # standard deviation, on top of the 0.1 that all images have
    "blur": (0.5, 1.0, 1.5),  # standard deviation in pixels
    "rotation": (15.0, 30.0, 45.0),  # degrees, on top of up to 30 that all images are turned by
}
COLUMNS = (
    *MEASURED,
    "agreement_other",
    "same_error",
    "same_error_other",
    *(f"cka_{group}" for group in GROUPS),
    *(f"recall_{digit}" for digit in range(10)),
    *(
        f"{metric}_{kind}_{step}"
        for kind in STRENGTHS
        for step in (1, 2, 3)
        for metric in ("accuracy", "agreement")
    ),
)


def corrupted(images: Tensor, kind: str, strength: float, seed: int) -> Tensor:
    """Add noise, blur, or turn every other image left and the rest right.

    Args:
        images: shape (N, 1, H, W).
        kind: a key of ``STRENGTHS``.
        strength: in the unit that stands there.
        seed: of the noise.

    Source: D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common
        Corruptions and Perturbations, ICLR 2019, for the idea of kinds and strengths.

    Example:
        >>> images = torch.rand(2, 1, 16, 16)
        >>> torch.allclose(corrupted(images, "rotation", 0.0, 0), images, atol=1e-5)
        True
    """
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        return images + strength * torch.randn(images.shape, generator=generator)
    if kind == "blur":
        bell = (-0.5 * (torch.arange(-4.0, 5.0) / strength) ** 2).exp()
        bell = bell / bell.sum()
        return F.conv2d(images, bell.outer(bell)[None, None], padding=4)
    side = torch.where(torch.arange(len(images)) % 2 == 0, 1.0, -1.0)
    angle = torch.deg2rad(strength * side)
    zero = torch.zeros(len(images))
    rows = [
        torch.stack([angle.cos(), -angle.sin(), zero], dim=1),
        torch.stack([angle.sin(), angle.cos(), zero], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def same_error(logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> float:
    """Return the share of a teacher's errors that a model makes too: the same wrong class.

    Example:
        >>> teacher = torch.eye(3)  # is wrong about the last two images
        >>> model = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]])
        >>> same_error(model, teacher, torch.tensor([0, 0, 0]))
        0.5
    """
    wrong = teacher_logits.argmax(1) != labels
    return agreement(logits[wrong], teacher_logits[wrong])


def features(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what the three groups of a model say of the images."""
    with Taps(model, GROUPS) as taps, torch.no_grad():
        model.eval()(images)
    return {group: taps[group] for group in GROUPS}


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``agreement_other`` and ``same_error_other`` compare with the teacher that taught nobody; of
    that one itself they say nothing. CKA, and what corruption does, are measured against the
    teacher, on half of the images.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    # Half the time of its forward pass.
    bench.teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = bench.held_out.images, bench.held_out.labels
    other = recipe.train_teacher(bench.data, seed + OTHER_SEED)
    other_logits = predict(other, images)
    half, its_labels = images[::2], labels[::2]  # for what takes the longest
    teachers_features = features(bench.teacher, half)
    harder = {
        f"{kind}_{step}": corrupted(half, kind, strength, seed)
        for kind, strengths in STRENGTHS.items()
        for step, strength in enumerate(strengths, start=1)
    }
    teachers_answers = {name: predict(bench.teacher, changed) for name, changed in harder.items()}

    def row(name: str, model: nn.Module) -> Row:
        logits = predict(model, images)
        row = bench.row(name, logits)
        row["same_error"] = 100 * same_error(logits, bench.teacher_logits, labels)
        if model is not other:
            row["agreement_other"] = 100 * agreement(logits, other_logits)
            row["same_error_other"] = 100 * same_error(logits, other_logits, labels)
        for group, own in features(model, half).items():
            row[f"cka_{group}"] = linear_cka(own, teachers_features[group])
        for digit in range(10):
            rows = labels == digit
            row[f"recall_{digit}"] = 100 * accuracy(logits[rows], labels[rows])
        for kind, changed in harder.items():
            answers = predict(model, changed)
            row[f"accuracy_{kind}"] = 100 * accuracy(answers, its_labels)
            row[f"agreement_{kind}"] = 100 * agreement(answers, teachers_answers[kind])
        return row

    yield row("teacher", bench.teacher)
    if TWIN in methods:
        yield row(TWIN, other)
    for start, names in ((OTHER_START, OWN_START), (0, [SAME_START])):
        chosen = [name for name in names if name in methods]
        if chosen:
            asked = [STUDENTS[name] for name in chosen]
            trained = same_data.train_students(replace(bench, seed=seed + start), asked)
            for name, student in zip(chosen, trained, strict=True):
                yield row(name, student)
