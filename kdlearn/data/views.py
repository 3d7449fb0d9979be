"""How samples are shown: as they are, changed anew each time, or in a few fixed copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from kdlearn.core.inputs import Inputs, count
from kdlearn.core.randomness import generator_of
from kdlearn.data.batch import Batch
from kdlearn.data.samples import InMemory, Samples

Augment = Callable[[Tensor, Generator], Tensor]
"""From (images, generator) to changed images, such as `kdlearn.data.RandomShift`."""


@runtime_checkable
class Views(Protocol):
    """What student and teacher are shown of the data; both see the same."""

    def of_epoch(self, samples: Samples, epoch: int) -> Samples:
        """Return the samples as an epoch shows them, counted from 1."""

    def of_batch(self, batch: Batch, generator: Generator) -> Batch:
        """Return a batch as a step shows it."""


@dataclass(frozen=True)
class PlainViews:
    """The samples as they are.

    Example:
        >>> batch = Batch(torch.zeros(2, 3))
        >>> PlainViews().of_batch(batch, Generator()) is batch
        True
    """

    def of_epoch(self, samples: Samples, epoch: int) -> Samples:
        """Return them."""
        return samples

    def of_batch(self, batch: Batch, generator: Generator) -> Batch:
        """Return it."""
        return batch


@dataclass(frozen=True)
class LiveViews:
    """Changed anew for each batch.

    Args:
        augment: from (images, generator) to as many changed images.

    Example:
        >>> views = LiveViews(lambda images, generator: images + 1)
        >>> views.of_batch(Batch(torch.zeros(2, 1)), Generator()).inputs.flatten()
        tensor([1., 1.])
    """

    augment: Augment

    def of_epoch(self, samples: Samples, epoch: int) -> Samples:
        """Return them as they are: the change comes with the batch."""
        return samples

    def of_batch(self, batch: Batch, generator: Generator) -> Batch:
        """Return the batch with changed inputs.

        Raises:
            ValueError: the function returned something else than as many inputs.
        """
        changed: Any = self.augment(batch.inputs, generator)  # type: ignore[arg-type]
        fits = isinstance(changed, Tensor | Mapping) and count(changed) == len(batch)
        if not fits:
            given = type(changed).__name__
            if isinstance(changed, Tensor | Mapping):
                given = f"{count(changed)} inputs"
            raise ValueError(
                f"augment returned {given} for {len(batch)} samples: expected the changed batch, "
                "one input per sample."
            )
        return replace(batch, inputs=changed)


@dataclass(frozen=True)
class FixedCopies:
    """A few fixed augmented copies of the data, so that a stored teacher can serve augmented views.

    Convention
        Copy c is the whole data set in its order, augmented in blocks of 1,024 by one generator
        with seed c of ``seeds``: student and teacher see the same views, at any time ("consistent
        teacher"). Epoch e shows copy (e - 1) % K, whose rows are numbered from c times the number
        of samples.

    Args:
        augment: from (images, generator) to images.
        seeds: one per copy, all different.

    Raises:
        ValueError: no seed, or one twice.

    Source: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR
        2022, for the same view on both sides.

    Example:
        >>> from kdlearn.data import RandomShift
        >>> copies = FixedCopies(RandomShift(1), seeds=(0, 1))
        >>> images = torch.rand(4, 1, 8, 8)
        >>> torch.equal(copies.copy(images, 1), copies.copy(images, 1))
        True
    """

    augment: Augment
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not callable(self.augment):
            raise TypeError(f"augment is {self.augment!r}: expected a function, as RandomShift().")
        if not isinstance(self.seeds, Iterable):
            raise TypeError(f"seeds is {self.seeds!r}: expected one per copy, such as range(3).")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}: expected at least one, all different.")

    def __len__(self) -> int:
        return len(self.seeds)

    def copy(self, images: Inputs, number: int) -> Tensor:
        """Return the whole data set as copy ``number``, counted from 0."""
        if not isinstance(images, Tensor):
            raise ValueError(
                "fixed copies are made of one tensor of images, and named inputs were given: "
                "augment them before, or do without copies."
            )
        generator = generator_of(self.seeds[number])
        view, copy = LiveViews(self.augment), torch.empty(0)
        for start in range(0, len(images), 1024):
            plain = images[start : start + 1024].clone()  # which augment may change in place
            block: Any = view.of_batch(Batch(plain), generator).inputs
            if start == 0:  # made once, since joined blocks would take the room twice
                copy = block.new_empty(len(images), *block.shape[1:])
            copy[start : start + 1024] = block
        return copy

    def of_epoch(self, samples: Samples, epoch: int) -> Samples:
        """Return the samples as the epoch's copy.

        Raises:
            ValueError: the samples are no tensors in memory.
        """
        if not isinstance(samples, InMemory):
            raise ValueError(
                f"fixed copies are made of tensors and {samples.name} is loaded: pass (images, "
                "labels), or let the data set augment, with a teacher that runs live."
            )
        number = (epoch - 1) % len(self)
        copy = self.copy(samples.batch.inputs, number)
        return samples.with_inputs(copy, first_row=number * len(samples))

    def of_batch(self, batch: Batch, generator: Generator) -> Batch:
        """Return it: the copy was made for the whole epoch."""
        return batch


def shown(views: Views, batch: Batch) -> Batch:
    """Return a few samples as views may show them, always in the same way.

    Example:
        >>> copies = FixedCopies(lambda images, generator: images.float(), seeds=(0,))
        >>> shown(copies, Batch(torch.zeros(2, 3, dtype=torch.uint8))).inputs.dtype
        torch.float32
    """
    if isinstance(views, FixedCopies):  # which are made for a whole epoch
        return replace(batch, inputs=views.copy(batch.inputs, 0))
    return views.of_batch(batch, Generator().manual_seed(0))


def as_views(augment: Any) -> Views:
    """Return what ``augment`` means: nothing, a function, or views.

    Raises:
        TypeError: it is none of these.

    Example:
        >>> as_views(None)
        PlainViews()
    """
    if augment is None:
        return PlainViews()
    if isinstance(augment, Views):
        return augment
    if callable(augment):
        return LiveViews(augment)
    raise TypeError(
        f"augment is {augment!r}: expected a function of (images, generator), such as "
        "RandomShift(), FixedCopies, or None."
    )
