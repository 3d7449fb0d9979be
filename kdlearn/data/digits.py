"""The 1,797 handwritten digits that come with scikit-learn, cut into three parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distribution

import numpy as np
import torch
from torch import Tensor

TRAIN, VALIDATION, TEST = 1000, 297, 500


@dataclass(frozen=True, eq=False)
class BaseDigits:
    """A part of the original digits.

    Attributes:
        images: float32, shape (N, 1, 8, 8), values in [0, 1].
        labels: int64, shape (N,).
        index: int64, shape (N,), the place in scikit-learn's data set.
    """

    images: Tensor
    labels: Tensor
    index: Tensor


@lru_cache(maxsize=1)
def _load() -> tuple[Tensor, Tensor]:
    # Not by load_digits: to import scikit-learn takes nearly as long as to import torch.
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    rows = torch.from_numpy(np.loadtxt(str(file), delimiter=","))
    return rows[:, :-1].float().view(-1, 1, 8, 8) / 16, rows[:, -1].long()


def base_digits(part: str) -> BaseDigits:
    """Return the original 8 x 8 digits of one part.

    The first 1,000 are for training, the next 297 for validation, the last 500 for the test, in
    scikit-learn's order.

    Args:
        part: ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        KeyError: there is no such part.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
        Learning Repository, 1998; scikit-learn ships its test set, written by 13 people.

    Example:
        >>> digits = base_digits("validation")
        >>> digits.images.shape, digits.index.min().item(), digits.index.max().item()
        (torch.Size([297, 1, 8, 8]), 1000, 1296)
    """
    bounds = {
        "train": (0, TRAIN),
        "validation": (TRAIN, TRAIN + VALIDATION),
        "test": (TRAIN + VALIDATION, TRAIN + VALIDATION + TEST),
    }
    if part not in bounds:
        raise KeyError(f"no part {part!r} of the digits: choose one of {', '.join(bounds)}.")
    start, stop = bounds[part]
    images, labels = _load()
    return BaseDigits(
        images[start:stop].clone(), labels[start:stop].clone(), torch.arange(start, stop)
    )
