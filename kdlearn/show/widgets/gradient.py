"""Logits to drag: which way the soft term pulls, and how hard beside the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlearn.losses import soft_target_loss
from kdlearn.show.pictures import finite
from kdlearn.show.widgets.figure import HTMLFigure, static_table
from kdlearn.show.widgets.temperature import TEMPERATURES

WARM = TEMPERATURES[TEMPERATURES.index(1) :]
TEMPERATURE, WEIGHT = 4, 0.5
MOST_CLASSES = 6


def gradient_explorer(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    label: int = 0,
    class_names: Sequence[str] | None = None,
) -> HTMLFigure:
    r"""Let the reader drag logits and read the gradient of the distillation loss.

    .. math:: g_\text{soft} = w\, T\, (p_s^T - p_t^T), \qquad
              g_\text{labels} = (1 - w)\, (p_s^1 - y)

    the derivatives of :func:`kdlearn.losses.distillation_loss` with respect to the student's
    logits, for one sample. Without the factor T² the first is :math:`w\,(p_s^T - p_t^T) / T`. The
    share of a term is its gradient's L2 length over the sum of both lengths. It starts at T = 4
    and w = 0.5, with T².

    Args:
        student_logits: shape (C,), C from 2 to 6. Rounded to 1 decimal, the slider's step.
        teacher_logits: shape (C,).
        label: the class of the sample.
        class_names: C names; the numbers 0 to C - 1 if left out.

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` tells the numbers at the start.

    Raises:
        ValueError: the shapes are others, logits are NaN or infinite, the label is no class, or
            the number of names does not fit.

    Example:
        >>> gradient_explorer(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 3.0]), label=1)
        Logits of student and teacher to drag, over 2 classes; the label is 1. At T = 4 and w = 0.5, with T²: gradient of the soft term 0 +0.3693, 1 -0.3693; of the labels 0 +0.3655, 1 -0.3655; the soft term has 50 % of the two lengths.
    """  # noqa: E501
    student, teacher = (
        (10 * finite(side, "logits")).round() / 10 for side in (student_logits, teacher_logits)
    )
    if (
        student.shape != teacher.shape
        or student.dim() != 1
        or not 2 <= len(student) <= MOST_CLASSES
    ):
        raise ValueError(
            f"expected logits of shape (C,) on both sides, C from 2 to {MOST_CLASSES}, got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}: pick one sample and few classes."
        )
    names = [str(name) for name in (range(len(student)) if class_names is None else class_names)]
    if len(names) != len(student):
        raise ValueError(
            f"got {len(names)} class names for {len(student)} classes: name each once."
        )
    if not 0 <= label < len(student):
        raise ValueError(f"label is {label}, expected a class from 0 to {len(student) - 1}.")

    both = torch.cat([student, teacher])
    data: dict[str, Any] = {
        "names": names,
        "label": label,
        "student": student.tolist(),
        "teacher": teacher.tolist(),
        "range": [min(-6, math.floor(both.min().item())), max(8, math.ceil(both.max().item()))],
        "temperatures": WARM,
        "start": WARM.index(TEMPERATURE),
        "weight": WEIGHT,
    }
    z = student.clone().requires_grad_()
    terms = (
        WEIGHT * soft_target_loss(z[None], teacher[None], temperature=TEMPERATURE),
        (1 - WEIGHT) * F.cross_entropy(z[None], torch.tensor([label])),
    )
    soft, hard = (torch.autograd.grad(term, z)[0] for term in terms)
    lengths = soft.norm().item(), hard.norm().item()
    share = lengths[0] / max(sum(lengths), 1e-300)
    told = [
        ", ".join(f"{name} {g:+.4f}" for name, g in zip(names, side.tolist(), strict=True))
        for side in (soft, hard)
    ]
    text = (
        f"Logits of student and teacher to drag, over {len(names)} classes; the label is "
        f"{names[label]}. At T = {TEMPERATURE} and w = {WEIGHT}, with T²: gradient of the soft "
        f"term {told[0]}; of the labels {told[1]}; the soft term has {100 * share:.0f} % of the "
        "two lengths."
    )
    columns = torch.stack([student, teacher, soft, hard], dim=1).tolist()
    fallback = static_table(
        f"Gradients at T = {TEMPERATURE} and w = {WEIGHT}, with T². With scripts on (in a "
        "notebook: run this cell), logits, T and w can be changed.",
        ["class", "student's logit", "teacher's logit", "soft term", "labels"],
        [
            [name, f"{z_s:.1f}", f"{z_t:.1f}", f"{a:+.4f}", f"{b:+.4f}"]
            for name, (z_s, z_t, a, b) in zip(names, columns, strict=True)
        ],
    )
    return HTMLFigure("gradient", data, fallback, text)
