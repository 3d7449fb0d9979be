"""What a data set is here: four aligned tensors, and three of those for train, validation, test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdlearn.core.checks import check_whole
from kdlearn.core.randomness import generator_of


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, where they come from and, if known, where the object is.

    Attributes:
        images: float32, shape (N, 1, H, W).
        labels: int64, shape (N,).
        base: int64, shape (N,): the index of the digit in scikit-learn's data set that each image
            was made from. Two splits of one data set never share one.
        boxes: float32, shape (N, 4), or None: x0, y0, x1, y1 of the digit as fractions of the
            image's width and height; (0, 0) is the top left corner.

    Raises:
        ValueError: the tensors do not have the same length.

    Example:
        >>> split = Split(torch.zeros(3, 1, 8, 8), torch.tensor([4, 7, 4]), torch.arange(3))
        >>> len(split), split[:2].labels.tolist()
        (3, [4, 7])
        >>> split.subset(split.labels == 4).base.tolist()
        [0, 2]
    """

    images: Tensor
    labels: Tensor
    base: Tensor
    boxes: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong together."""
        lengths = {"images": len(self.images), "labels": len(self.labels), "base": len(self.base)}
        if self.boxes is not None:
            lengths["boxes"] = len(self.boxes)
        if len(set(lengths.values())) > 1:
            given = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"a split needs one row per image everywhere, but got {given}.")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def subset(self, indices: Tensor | slice | list[int]) -> Split:
        """Return the rows named by indices, by a boolean mask or by a slice, in that order."""
        return Split(
            self.images[indices],
            self.labels[indices],
            self.base[indices],
            None if self.boxes is None else self.boxes[indices],
        )

    def __getitem__(self, index: slice) -> Split:
        """Return a slice of the split, so that ``split[:500]`` is its first 500 images.

        Raises:
            TypeError: the index is not a slice.
        """
        if not isinstance(index, slice):
            raise TypeError(
                f"a split is sliced, as in split[:500], but got {type(index).__name__}: "
                "for chosen rows use split.subset(indices)."
            )
        return self.subset(index)


@dataclass(frozen=True, eq=False)
class Splits:
    """Three splits that share no base digit: train, choose on validation, report on test.

    Attributes:
        train: what models are fitted to; a student may see only a part of it.
        validation: what hyper-parameters are chosen on.
        test: what the reported numbers come from.
    """

    train: Split
    validation: Split
    test: Split


def balanced_subset(split: Split, size: int, *, seed: int = 0) -> Split:
    """Draw a subset with the same number of images of each class, in random order.

    Where ``size`` is no multiple of the number of classes, the first classes have one more.

    Args:
        split: where to draw from.
        size: how many images.
        seed: which draw; the same seed gives the same subset.

    Raises:
        ValueError: a class has fewer images than asked for, or ``size`` is not positive.

    Example:
        >>> split = Split(torch.zeros(40, 1, 8, 8), torch.arange(40) % 4, torch.arange(40))
        >>> balanced_subset(split, 20, seed=1).labels.bincount().tolist()
        [5, 5, 5, 5]
    """
    size = check_whole(size, "size")
    generator = generator_of(seed)
    classes = split.labels.unique().tolist()
    chosen = []
    for rank, label in enumerate(classes):
        wanted = size // len(classes) + (rank < size % len(classes))
        rows = (split.labels == label).nonzero().flatten()
        if len(rows) < wanted:
            raise ValueError(
                f"class {label} has {len(rows)} images, but {wanted} are needed for a balanced "
                f"subset of {size}: ask for fewer, or make a larger split."
            )
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:wanted]])
    indices = torch.cat(chosen)
    return split.subset(indices[torch.randperm(len(indices), generator=generator)])
