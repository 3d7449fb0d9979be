"""Data as a loop wants it: counted, put in order, loaded in batches, and recognized again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from kdlearn.core.identity import digest_of
from kdlearn.core.inputs import Inputs, count
from kdlearn.core.randomness import separate_randomness
from kdlearn.data.batch import Batch, as_batch

Share = tuple[int, int]
"""Which part of each batch a process computes: its number, and how many there are."""
ALONE: Share = (0, 1)
_KEPT = (
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
)


class Samples(ABC):
    """What one passes as training or validation data, in one form; made by `Samples.of`.

    Convention
        An epoch is a list of steps, and a step is a tensor of row numbers. The order follows from
        a generator alone. What a data set draws while it loads a batch (random crops, say) follows
        from the seed, the epoch and the first row of that batch, with any number of workers. So an
        epoch can be entered at any step, and no loader has to be replayed.
        What may stand as labels, and what then works without further words. "own loss" is
        ``label_term(loss=...)``, "own metric" is ``fit(metric=...)``: without them the data are
        refused before the first step. "loss with labels" is one such as
        `kdlearn.losses.dkd_loss`. Every kind may come as tensors, in dicts, from a `DataLoader`, as
        a stream with a length, or as a data set of Hugging Face.

        ============================ ========== ========== ================ =====
        labels                       fit        validation loss with labels cache
        ============================ ========== ========== ================ =====
        class numbers (B,)           yes        yes        yes              yes
        probabilities (B, C)         yes        own metric no               yes
        several classes, 0/1 (B, C)  own loss   own metric no               yes
        numbers (B,)                 own loss   own metric no               yes
        numbers (B, D)               own loss   own metric no               yes
        tokens (B, L), -100 for none yes        own metric no               yes
        none                         no         own metric no               yes
        ============================ ========== ========== ================ =====

    Attributes:
        name: what to call the data in messages.
        has_rows: whether samples have numbers. A stream has none: it is taken as it comes.
    """

    has_rows = True

    def __init__(self, name: str) -> None:
        self.name = name

    @staticmethod
    def of(data: Any, name: str = "the data") -> Samples:
        """Return anything that people have as `Samples`.

        Args:
            data: (inputs, labels), where labels may be None; an object with tensors ``images`` and
                ``labels``, such as `kdlearn.data.Split`; a dict of tensors; a `Batch`; a data set
                with ``__len__`` and ``__getitem__``, of torch or Hugging Face; a `DataLoader`; or
                an iterable of batches that knows its length.
            name: what to call it in messages.

        Raises:
            TypeError: it is none of these.
            ValueError: it is empty, has no length, or its parts have different lengths.

        Example:
            >>> samples = Samples.of((torch.zeros(5, 2), torch.arange(5)), "train")
            >>> len(samples), samples.steps(batch_size=2)
            (5, 3)
        """
        if isinstance(data, Samples):
            return data
        if isinstance(data, DataLoader):
            return _of_loader(data, name)
        images = getattr(data, "images", None)
        held = isinstance(data, Batch | Mapping | Tensor) or isinstance(images, Tensor | Mapping)
        if held or (isinstance(data, tuple) and len(data) == 2):
            return InMemory(as_batch(data, name), name)
        rows = isinstance(data, Sized) and hasattr(data, "__getitem__")
        if rows and not isinstance(data, tuple | list | str | IterableDataset):
            return OnDisk(data, name)
        if isinstance(data, Iterable) and not isinstance(data, str):
            return Stream(data, name)
        raise TypeError(
            f"{name} is a {type(data).__name__}: expected (inputs, labels), an object with tensors "
            ".images and .labels, a data set, a DataLoader, or an iterable of batches."
        )

    def __len__(self) -> int:
        raise TypeError(f"{self.name} is a stream: its samples cannot be counted.")

    def steps(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""
        return math.ceil(len(self) / batch_size)

    def order(self, batch_size: int, generator: Generator) -> Sequence[Tensor]:
        """Return the rows of each step of an epoch, shuffled.

        The batches differ in size by one at most: no batch of one sample is left over, on which
        batch normalization would fail.
        """
        return torch.randperm(len(self), generator=generator).tensor_split(self.steps(batch_size))

    def in_order(self, batch_size: int = 512) -> Iterator[Batch]:
        """Load all samples in their own order, as evaluation wants them."""
        return self.load(torch.arange(len(self)).split(batch_size), ALONE, (0,))

    def few(self, samples: int) -> Batch:
        """Load some samples from all over the data, always the same ones."""
        rows = torch.linspace(0, len(self) - 1, min(samples, len(self))).long()
        return next(iter(self.load([rows], ALONE, (0,))))

    @abstractmethod
    def load(self, order: Sequence[Tensor], share: Share, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Load the batches of these rows; ``seed`` fixes what is drawn while loading."""

    def digest(self, inputs_alone: bool = False) -> str:
        """Return a text that is equal for equal data: of what is not in memory, a few samples."""
        few = self.few(8)
        return f"{digest_of(few.inputs, None if inputs_alone else few.labels)} of {len(self)}"


class InMemory(Samples):
    """Tensors that hold all samples; every process has all of them.

    Attributes:
        batch: all of them, with their row numbers; these begin above 0 in one of several copies.
    """

    def __init__(self, batch: Batch, name: str, first_row: int = 0) -> None:
        super().__init__(name)
        if len(batch) == 0:
            raise ValueError(f"{name} is empty: expected at least one sample.")
        self.batch = replace(batch, rows=torch.arange(first_row, first_row + len(batch)))

    def __len__(self) -> int:
        return len(self.batch)

    def load(self, order: Sequence[Tensor], share: Share, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Take the rows; the whole batch for each process, since views are drawn for a batch."""
        for rows in order:
            yield self.batch.take(rows)

    def digest(self, inputs_alone: bool = False) -> str:
        """Return the digest of every tensor, in its order."""
        held = self.batch
        more = () if inputs_alone else (held.labels, held.mask, held.weight)
        return digest_of(held.inputs, *more)

    def with_inputs(self, inputs: Inputs, first_row: int) -> InMemory:
        """Return the same samples seen otherwise, with other row numbers."""
        if count(inputs) != len(self):
            raise ValueError(f"{count(inputs)} inputs for {len(self)} samples: expected as many.")
        return InMemory(replace(self.batch, inputs=inputs), self.name, first_row)


class OnDisk(Samples):
    """A data set that gives samples by number, read by as many workers as its loader had."""

    def __init__(self, dataset: Any, name: str, loader: DataLoader | None = None) -> None:
        super().__init__(name)
        if len(dataset) == 0:
            raise ValueError(f"{name} is empty: expected at least one sample.")
        if loader is not None and len(loader) == 0:
            raise ValueError(f"{name} has no batch: its loader drops the last one, the only one.")
        self.dataset, self.loader = dataset, loader

    def __len__(self) -> int:
        return len(self.dataset)

    def steps(self, batch_size: int) -> int:
        """Return how many batches an epoch has; those of the loader, where one was given."""
        return super().steps(batch_size) if self.loader is None else len(self.loader)

    def order(self, batch_size: int, generator: Generator) -> Sequence[Tensor]:
        """Return the rows of each step: those that the loader's sampler gives, or shuffled ones."""
        if self.loader is None:
            return super().order(batch_size, generator)
        seed = int(torch.randint(2**31, (), generator=generator))
        for owner in (self.loader, self.loader.sampler, self.loader.batch_sampler):
            own = getattr(owner, "generator", None)
            if isinstance(own, Generator):
                own.manual_seed(seed)
        with separate_randomness(seed):
            return [torch.as_tensor(rows) for rows in self.loader.batch_sampler or ()]

    def load(self, order: Sequence[Tensor], share: Share, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Load this process's share of each batch."""
        rank, processes = share
        own = [rows.tensor_split(processes)[rank] for rows in order]
        options: dict[str, Any] = {"collate_fn": getattr(self.loader, "collate_fn", None)}
        if self.loader is not None and len(order) > 1:  # one batch is not worth starting workers
            options |= {name: getattr(self.loader, name) for name in _KEPT}
        dataset: Any = _Seeded(self.dataset, seed)
        steps = [rows.tolist() for rows in own]
        loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=steps, **options)
        with separate_randomness(*seed):  # a loader draws a number when it begins
            loaded = iter(loader)
        for all_rows, rows, batch in zip(order, own, loaded, strict=True):
            whole = len(all_rows) if processes > 1 else None
            yield replace(as_batch(batch, f"a batch of {self.name}"), rows=rows, whole=whole)


class Stream(Samples):
    """Batches that come as they come; only their number is known."""

    has_rows = False

    def __init__(self, batches: Any, name: str) -> None:
        super().__init__(name)
        try:
            self.length = len(batches)
        except TypeError:
            raise ValueError(
                f"{name} is a {type(batches).__name__} without a length, which the schedule needs: "
                "give it a __len__ that says how many batches an epoch has."
            ) from None
        if self.length == 0:
            raise ValueError(f"{name} has no batch: expected at least one.")
        self.batches = batches

    def steps(self, batch_size: int) -> int:
        """Return the stream's own number of batches."""
        return self.length

    def order(self, batch_size: int, generator: Generator) -> Sequence[Tensor]:
        """Return a step without rows for each batch."""
        return [torch.empty(0, dtype=torch.int64)] * self.length

    def in_order(self, batch_size: int = 512) -> Iterator[Batch]:
        """Take the batches as they come."""
        for batch in self.batches:
            yield as_batch(batch, f"a batch of {self.name}")

    def few(self, samples: int) -> Batch:
        """Take the beginning of a first batch."""
        with separate_randomness(0):
            return next(self.in_order()).take(slice(samples))

    def load(self, order: Sequence[Tensor], share: Share, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Take the batches as they come, as many as the length says.

        Raises:
            ValueError: there are fewer or more.
        """
        number = 0
        for number, batch in enumerate(self.in_order(), start=1):
            if number > len(order):
                break
            yield batch
        if number != self.length:
            more = "more" if number > self.length else f"{number}"
            raise ValueError(
                f"{self.name} has a length of {self.length} batches and gave {more}: the schedule "
                "would be wrong; mend its __len__."
            )


class _Seeded:
    """A data set whose draws follow from a seed and the first row that is asked for."""

    def __init__(self, dataset: Any, seed: tuple[int, ...]) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, rows: list[int]) -> list[Any]:
        with separate_randomness(*self.seed, rows[0]):
            several = getattr(self.dataset, "__getitems__", None)
            return several(rows) if several else [self.dataset[row] for row in rows]


def _of_loader(loader: DataLoader, name: str) -> Samples:
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return Stream(loader, name)
    if isinstance(loader.sampler, DistributedSampler):
        raise ValueError(
            f"{name} has a DistributedSampler: pass shuffle=True instead, fit itself gives each "
            "process its share of every batch."
        )
    return OnDisk(loader.dataset, name, loader)
