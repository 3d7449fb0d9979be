"""Cluttered digits: a digit somewhere on a larger canvas, among pieces of other digits.

Since the place of the digit is known, one can check where a network looks, and not only what it
says.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlearn.core.checks import check_sizes
from kdlearn.core.randomness import generator_of
from kdlearn.data.digits import base_digits
from kdlearn.data.splits import Split, Splits

CANVAS, DIGIT, NOISE = 40, 16, 0.1
FRAGMENTS, FRAGMENT, MARGIN = 6, 7, 2


def cluttered_digits(
    *, train: int = 10000, validation: int = 1000, test: int = 2000, seed: int = 0
) -> Splits:
    """Make canvases of 40 x 40 pixels with one digit of 16 pixels, 6 fragments and noise.

    The fragments are squares of 7 pixels cut from random digits of the same part, 2 pixels or more
    from their border, and put down at random; the digit lies at a random place too. Where things
    overlap the brighter pixel wins. Then Gaussian noise of standard deviation 0.1.

    Args:
        train: number of images to train on.
        validation: number of images to choose on.
        test: number of images to report on.
        seed: which data set; same seed, same tensors. A different size of one split does not
            change the others.

    Returns:
        Splits of images (N, 1, 40, 40), float32, in [0, 1] before the noise, with ``boxes``: the
        square of 16 pixels that holds the digit, 16 % of the canvas, as fractions.

    Raises:
        ValueError: a size is smaller than 1.

    Example:
        >>> data = cluttered_digits(train=100, validation=20, test=30)
        >>> x0, y0, x1, y1 = data.train.boxes[0].tolist()
        >>> round(x1 - x0, 3), round(y1 - y0, 3)
        (0.4, 0.4)
    """
    check_sizes(train=train, validation=validation, test=test)
    return Splits(
        _cluttered("train", train, generator_of(seed, 0, 3)),
        _cluttered("validation", validation, generator_of(seed, 1, 3)),
        _cluttered("test", test, generator_of(seed, 2, 3)),
    )


def _cluttered(part: str, size: int, generator: torch.Generator) -> Split:
    digits = base_digits(part)
    large = F.interpolate(digits.images, size=(DIGIT, DIGIT), mode="bilinear", align_corners=False)
    large = large.squeeze(1)
    images = torch.zeros(size, CANVAS, CANVAS)
    for _ in range(FRAGMENTS):
        others = torch.randint(len(large), (size,), generator=generator)
        cut = torch.randint(MARGIN, DIGIT - FRAGMENT - MARGIN + 1, (2, size), generator=generator)
        piece = large[_window(others, cut, FRAGMENT)]
        place = torch.randint(CANVAS - FRAGMENT + 1, (2, size), generator=generator)
        _put(images, piece, place)
    rows = torch.randint(len(large), (size,), generator=generator)
    place = torch.randint(CANVAS - DIGIT + 1, (2, size), generator=generator)
    _put(images, large[rows], place)
    images = images + NOISE * torch.randn(images.shape, generator=generator)
    y0, x0 = place / CANVAS
    side = DIGIT / CANVAS
    boxes = torch.stack([x0, y0, x0 + side, y0 + side], dim=1)
    return Split(images.unsqueeze(1), digits.labels[rows], digits.index[rows], boxes)


def _window(which: Tensor, corner: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Index a square of each image; corner holds its rows and columns, shape (2, N)."""
    reach = torch.arange(side)
    y, x = corner
    return which[:, None, None], (y[:, None] + reach)[:, :, None], (x[:, None] + reach)[:, None, :]


def _put(canvas: Tensor, patch: Tensor, corner: Tensor) -> None:
    window = _window(torch.arange(len(canvas)), corner, patch.shape[-1])
    canvas[window] = torch.maximum(canvas[window], patch)
