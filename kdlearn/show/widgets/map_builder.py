"""An attention map built by hand: channels, power, length, and what a distance makes of two."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlearn.losses import attention_transfer_loss
from kdlearn.losses.maps import activation_map
from kdlearn.show.pictures import finite
from kdlearn.show.widgets.figure import HTMLFigure, static_table

MOST_CHANNELS, LONGEST_SIDE = 8, 16


def map_builder(student_features: Tensor, teacher_features: Tensor) -> HTMLFigure:
    r"""Build the attention maps of student and teacher channel by channel, and compare them.

    .. math:: Q = \sum_c |A_c|^p, \qquad \frac1P \lVert \hat Q_s - \hat Q_t \rVert_2^2
        = \frac{2 - 2 \cos(Q_s, Q_t)}{P}

    The reader switches channels on and off, chooses the power p (1, 2, 4), sum or mean over
    channels, whether each map is divided by its L2 length, and the distance: the mean over the P
    positions (``convention="code"`` of :func:`kdlearn.losses.attention_transfer_loss`), their
    sum, or the norm (``convention="paper"``). The equality above holds for the first, at length 1.

    Args:
        student_features: of one sample, shape (C_s, H, W), at most 8 channels, H and W at most 16.
            Rounded to 3 decimals.
        teacher_features: shape (C_t, H, W), of the same height and width.

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` tells the numbers at the start.

    Raises:
        ValueError: a shape is another, sizes differ, or a feature is NaN or infinite.

    Example:
        >>> student, teacher = torch.zeros(1, 2, 2), torch.zeros(2, 2, 2)
        >>> student[0, 0, 0] = teacher[1, 1, 1] = 1.0
        >>> map_builder(student, teacher)
        Attention maps to build from 1 channel of the student and 2 of the teacher, 2 x 2 positions. With all channels, p = 2 and length 1: mean over positions 0.50000, norm 1.4142, cosine 0.0000.
    """  # noqa: E501
    student, teacher = (
        (1000 * finite(side, "features")).round() / 1000
        for side in (student_features, teacher_features)
    )
    for side in (student, teacher):
        fits = (
            side.dim() == 3 and len(side) <= MOST_CHANNELS and max(side.shape[1:]) <= LONGEST_SIDE
        )
        if not fits or side.shape[1:] != student.shape[1:]:
            raise ValueError(
                f"expected features of one sample, (C, H, W) with C up to {MOST_CHANNELS} and H, W "
                f"up to {LONGEST_SIDE}, alike on both sides, got {tuple(student.shape)} and "
                f"{tuple(teacher.shape)}: pick a sample and a few channels, and pool larger maps."
            )
    pair = student[None], teacher[None]
    mean, norm = (
        attention_transfer_loss(*pair, convention=convention).item()
        for convention in ("code", "paper")
    )
    maps = [activation_map(side) for side in pair]
    cosine = torch.sum(maps[0] * maps[1]).item()
    height, width = student.shape[1:]
    text = (
        f"Attention maps to build from {len(student)} channel{'s' * (len(student) > 1)} of the "
        f"student and {len(teacher)} of the teacher, {height} x {width} positions. With all "
        f"channels, p = 2 and length 1: mean over positions {mean:.5f}, norm {norm:.4f}, cosine "
        f"{cosine:.4f}."
    )
    fallback = static_table(
        "Distance of the two maps with all channels, p = 2 and length 1. With scripts on (in a "
        "notebook: run this cell), each of these can be changed.",
        ["what", "value"],
        [
            ["mean over positions (authors' code)", f"{mean:.5f}"],
            ["norm, not squared (paper)", f"{norm:.4f}"],
            ["cosine", f"{cosine:.4f}"],
            ["(2 - 2 cos) / P", f"{(2 - 2 * cosine) / (height * width):.5f}"],
        ],
    )
    data = {
        "size": [1, height, width],
        "student": student.flatten(1).tolist(),
        "teacher": teacher.flatten(1).tolist(),
    }
    return HTMLFigure("map_builder", data, fallback, text)
