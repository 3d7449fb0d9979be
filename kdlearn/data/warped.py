"""Warped digits: small digits, turned, sheared and noisy, so that a small network has to work."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlearn.core.checks import check_sizes
from kdlearn.core.randomness import generator_of
from kdlearn.data.augment import RandomAffine
from kdlearn.data.digits import base_digits
from kdlearn.data.splits import Split, Splits

NOISE = 0.1


def warped_digits(
    *, train: int = 12000, validation: int = 2000, test: int = 4000, seed: int = 0
) -> Splits:
    """Make images of 16 x 16 pixels: a digit of 12 pixels, warped at random, plus noise.

    Each image starts from a random base digit of its part, so an original is used many times and
    never in two splits. Rotation up to 30 degrees, size 0.75 to 1.25 times, shear up to 0.3, shift
    up to a tenth of the side; then Gaussian noise of standard deviation 0.1.

    Args:
        train: number of images to train on.
        validation: number of images to choose on.
        test: number of images to report on.
        seed: which data set; same seed, same tensors. A different size of one split does not
            change the others.

    Returns:
        Splits of images (N, 1, 16, 16), float32, in [0, 1] before the noise; ``boxes`` is None.

    Raises:
        ValueError: a size is smaller than 1.

    Example:
        >>> data = warped_digits(train=100, validation=20, test=30)
        >>> data.train.images.shape
        torch.Size([100, 1, 16, 16])
    """
    check_sizes(train=train, validation=validation, test=test)
    return Splits(
        _warped("train", train, generator_of(seed, 0, 3)),
        _warped("validation", validation, generator_of(seed, 1, 3)),
        _warped("test", test, generator_of(seed, 2, 3)),
    )


def _warped(part: str, size: int, generator: torch.Generator) -> Split:
    digits = base_digits(part)
    rows = torch.randint(len(digits.labels), (size,), generator=generator)
    small = F.interpolate(digits.images, size=(12, 12), mode="bilinear", align_corners=False)
    images = RandomAffine()(F.pad(small, (2, 2, 2, 2))[rows], generator)
    images = images + NOISE * torch.randn(images.shape, generator=generator)
    return Split(images, digits.labels[rows], digits.index[rows])
