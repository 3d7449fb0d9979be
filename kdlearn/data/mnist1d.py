"""MNIST-1D: ten glyphs drawn as short signals, of which there are as many as one asks for."""

from __future__ import annotations

import torch
from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]
from torch import Tensor

from kdlearn.core.checks import check_sizes
from kdlearn.core.randomness import generator_of
from kdlearn.data.splits import Split, Splits

# The authors' glyphs for 0 to 9, each twelve heights from left to right.
GLYPHS = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
PADDING = (36, 60)
SIZE, SHIFT, SHEAR = 0.4, 48, 0.75
BLURRED_NOISE, BLUR, NOISE = 0.25, 2, 0.02
CANVAS, LENGTH = 72, 40
# Of 600,000 signals before they are standardized; the authors take those of their 5,000.
MEAN, SPREAD = -0.0061, 0.1547


def mnist1d(
    *, train: int = 4000, validation: int = 1000, test: int = 1000, seed: int = 0
) -> Splits:
    """Draw signals of 40 numbers, each one of ten glyphs, which a network has to tell apart.

    A glyph of 12 points gets 36 to 60 zeros behind it, is stretched to a canvas of 72 points,
    scaled by 0.8 to 1.2 and moved to the right by 0 to 47 points. Where there is no glyph there is
    blurred noise, everywhere white noise of standard deviation 0.02. Then a slope of -0.375 to
    0.375 is taken off, and 40 points are read.

    Args:
        train: number of signals to train on.
        validation: number of signals to choose on.
        test: number of signals to report on.
        seed: which data set; same seed, same tensors. A different size of one split does not
            change the others.

    Returns:
        Splits of signals (N, 1, 40), float32, of mean 0 and standard deviation 1; ``base`` counts
        the signals, ``boxes`` is None.

    Raises:
        ValueError: a size is smaller than 1.

    Source: S. Greydanus and D. Kobak, Scaling down deep learning with MNIST-1D, ICML 2024, section
        2, and the authors' code (Apache-2.0), whose glyphs and ranges these are. It draws equally
        many of each digit, 4,000 for training and 1,000 for test; here digits are drawn at random.

    Example:
        >>> data = mnist1d(train=100)
        >>> data.train.images.shape, len(data.test)
        (torch.Size([100, 1, 40]), 1000)
    """
    check_sizes(train=train, validation=validation, test=test)
    first = 0
    splits = []
    for number, size in enumerate((train, validation, test)):
        generator = generator_of(seed, number, 3)
        labels = torch.randint(len(GLYPHS), (size,), generator=generator)
        signals = (_signals(labels, generator) - MEAN) / SPREAD
        splits.append(Split(signals[:, None], labels, torch.arange(first, first + size)))
        first += size
    return Splits(*splits)


def glyphs() -> Tensor:
    """Return the ten glyphs, shape (10, 12): they start and end at 0 and have one spread.

    Example:
        >>> glyphs()[:, 0].abs().max().item()
        0.0
    """
    heights = torch.tensor(GLYPHS)
    spread = heights.std(dim=1, correction=0, keepdim=True)
    return (heights - heights[:, :1]) / spread / 6


def _signals(labels: Tensor, generator: torch.Generator) -> Tensor:
    size = len(labels)
    uniform = torch.rand(size, 2, generator=generator)
    padding = torch.randint(PADDING[0], PADDING[1] + 1, (size, 1), generator=generator)
    shift = torch.randint(SHIFT, (size, 1), generator=generator)

    shapes = glyphs()[labels]
    points = shapes.shape[1]
    # Where each point of the canvas lies on the glyph with its zeros, which are cut to two.
    place = torch.linspace(0, 1, CANVAS) * (points + padding - 1)
    inside = place < points
    signals = _read(torch.nn.functional.pad(shapes, (0, 2)), place.clamp(max=points))
    signals = signals * (1 + SIZE * (uniform[:, :1] - 0.5))
    turned = (torch.arange(CANVAS) - shift) % CANVAS
    signals, inside = signals.gather(1, turned), inside.gather(1, turned)

    white = BLURRED_NOISE * torch.randn(size, CANVAS, generator=generator)
    blurred = torch.from_numpy(gaussian_filter1d(white.numpy(), BLUR, axis=1))
    signals = torch.where(inside, signals, blurred)
    signals = signals + NOISE * torch.randn(size, CANVAS, generator=generator)
    slope = SHEAR * (uniform[:, 1:] - 0.5)
    signals = signals - slope * torch.linspace(-0.5, 0.5, CANVAS)
    return _read(signals, torch.linspace(0, CANVAS - 1, LENGTH).expand(size, -1))


def _read(signals: Tensor, places: Tensor) -> Tensor:
    """Read signals (N, L) at places (N, M) between their points, along straight lines."""
    left = places.floor().long().clamp(max=signals.shape[1] - 2)
    share = places - left
    return (1 - share) * signals.gather(1, left) + share * signals.gather(1, left + 1)
