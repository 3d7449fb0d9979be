"""A slider for the temperature: logits become softer probabilities before the reader's eyes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdlearn.show.pictures import as_images, finite
from kdlearn.show.widgets.figure import HTMLFigure, pack, static_table

# Four round values an octave, so that a step of the slider multiplies T by about 1.2.
TEMPERATURES = (
    *(0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.85, 1, 1.2, 1.4, 1.7, 2, 2.5, 3, 3.5, 4, 5, 6, 7),
    *(8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64),
)
START = 4
MOST_CLASSES = 40


def temperature_explorer(
    logits: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    images: Tensor | None = None,
) -> HTMLFigure:
    r"""Show what a temperature does to logits, with a slider from 0.25 to 64.

    .. math:: p_i = \frac{e^{z_i / T}}{\sum_j e^{z_j / T}}, \qquad
        H = -\sum_i p_i \ln p_i

    The page works the softmax out by itself: bars of the probabilities, a stroke at the ones of
    T = 1, the entropy in nats and as a share of its maximum :math:`\ln C`, the most likely class
    and the second best. The slider is logarithmic and starts at T = 4.

    Args:
        logits: shape (N, C), or (C,) for one sample; C from 2 to 40. Rounded to 4 decimals.
        class_names: C names; the numbers 0 to C - 1 if left out.
        images: one for each sample, shape (N, H, W), (N, 1, H, W) or (N, 3, H, W).

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` tells the numbers at the start.

    Raises:
        ValueError: the shape of the logits is another, they hold NaN or infinity, or the number
            of names or images does not fit.

    Example:
        >>> temperature_explorer(torch.tensor([8.0, 4.0, 0.0]), class_names=["cat", "dog", "car"])
        Softened probabilities of 1 sample over 3 classes, with a slider for the temperature T. At T = 4, sample 1: cat 0.6652, dog 0.2447, car 0.0900; entropy 0.832 nats, 75.8 % of the maximum.
    """  # noqa: E501
    rows = finite(logits, "logits")
    if rows.dim() == 1:
        rows = rows[None]
    if rows.dim() != 2 or not 2 <= rows.shape[1] <= MOST_CLASSES:
        raise ValueError(
            f"expected logits of shape (N, C) or (C,) with C from 2 to {MOST_CLASSES}, got "
            f"{tuple(torch.as_tensor(logits).shape)}: pick the classes to show first."
        )
    samples, classes = rows.shape
    names = [str(name) for name in (range(classes) if class_names is None else class_names)]
    if len(names) != classes:
        raise ValueError(f"got {len(names)} class names for {classes} classes: name each once.")

    data: dict[str, Any] = {
        "names": names,
        "logits": [[round(z, 4) for z in row] for row in rows.tolist()],
        "temperatures": TEMPERATURES,
        "start": TEMPERATURES.index(START),
    }
    if images is not None:
        pixels = as_images(images, samples)
        data["images"] = pack(pixels)
        data["size"] = list(pixels.shape[1:])

    softened = (rows[0] / START).softmax(dim=0)
    nats = torch.special.entr(softened).sum().item()
    told = ", ".join(f"{name} {p:.4f}" for name, p in zip(names, softened.tolist(), strict=True))
    text = (
        f"Softened probabilities of {samples} sample{'s' * (samples > 1)} over {classes} classes, "
        f"with a slider for the temperature T. At T = {START}, sample 1: {told}; entropy "
        f"{nats:.3f} nats, {100 * nats / math.log(classes):.1f} % of the maximum."
    )
    shown = (1, START, 20)
    columns = torch.stack([(rows[0] / t).softmax(dim=0) for t in shown], dim=1)
    fallback = static_table(
        "Softened probabilities of sample 1. With scripts on (in a notebook: run this cell), "
        "a slider sets T.",
        ["class", *(f"T = {t}" for t in shown)],
        [
            [name, *(f"{p:.4f}" for p in row)]
            for name, row in zip(names, columns.tolist(), strict=True)
        ],
    )
    return HTMLFigure("temperature", data, fallback, text)
