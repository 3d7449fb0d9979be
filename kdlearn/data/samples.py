"""Data as a loop wants it: counted, put in order, loaded in batches, and recognized again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from kdlearn.core.identity import digest_of
from kdlearn.core.inputs import Inputs, count, map_tensors
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
        a generator alone. What a data set or a ``collate_fn`` draws while it loads a batch (random
        crops, say) follows from the seed, the epoch and the first row of that batch, with any
        number of workers. So an epoch can be entered at any step, and no loader has to be replayed.
        Rows are those of the data set. Where a loader's sampler leaves some out, these are neither
        trained on nor measured; of what it draws at random, always the same draw is measured.
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
            ValueError: it is empty, has no length, its parts have different lengths, or its sampler
                is made for one of several processes.

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
        held &= not isinstance(data, Dataset)  # which may give them otherwise than it holds them
        if held or (isinstance(data, tuple) and len(data) == 2):
            return InMemory(as_batch(data, name), name)
        _check_form(data, name)
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

    def order(self, batch_size: int, generator: Generator, epoch: int = 1) -> Sequence[Tensor]:
        """Return the rows of each step of an epoch, shuffled.

        The batches differ in size by one at most: no batch of one sample is left over, on which
        batch normalization would fail. ``epoch`` is for samplers that want to be told.
        """
        return torch.randperm(len(self), generator=generator).tensor_split(self.steps(batch_size))

    def in_order(self, batch_size: int = 512) -> Iterator[Batch]:
        """Load all samples that count in their own order, as evaluation wants them."""
        return self.load(self._rows().split(batch_size), ALONE, (0,))

    def few(self, samples: int, seed: int = 0) -> Batch:
        """Load some samples from all over the data, always the same ones."""
        rows = self._rows().unique_consecutive()
        some = torch.linspace(0, len(rows) - 1, min(samples, len(rows)), dtype=torch.float64).long()
        return next(iter(self.load([rows[some]], ALONE, (seed,))))

    def whole(self) -> Samples:
        """Return all samples that have numbers, also those that a loader's sampler leaves out."""
        return self

    def changes(self) -> bool:
        """Return whether a few samples are others when they are loaded again: drawn, that is.

        Loaded often, since a change may be rare, such as a flip of every tenth image.
        """
        return len({digest_of(self.few(8, seed).inputs) for seed in range(8)}) > 1

    def _rows(self) -> Tensor:
        """Return the rows that count, sorted."""
        return torch.arange(len(self))

    @abstractmethod
    def load(self, order: Sequence[Tensor], share: Share, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Load the batches of these rows; ``seed`` fixes what is drawn while loading."""

    def digest(self, inputs_alone: bool = False) -> str:
        """Return a text that is equal for equal data: of what is not in memory, a few samples.

        Raises:
            ValueError: the order of a loader is another one each time, so that no second run could
                have the same.
        """
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
        self.dataset, self.loader = dataset, loader
        self._length = 0 if loader is None else _length(loader, name)
        self._samplers = [] if loader is None else _samplers(loader)
        self._named: Tensor | None = None
        self._is_whole = False
        if any(isinstance(part, DistributedSampler) for part in self._samplers):
            raise ValueError(
                f"{name} has a DistributedSampler: pass shuffle=True instead, fit itself gives "
                "each process its share of every batch."
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def steps(self, batch_size: int) -> int:
        """Return how many batches an epoch has; those of the loader, where one was given."""
        return super().steps(batch_size) if self.loader is None else self._length

    def order(self, batch_size: int, generator: Generator, epoch: int = 1) -> Sequence[Tensor]:
        """Return the rows of each step: those that the loader's sampler gives, or shuffled ones.

        Raises:
            TypeError: the sampler gives something else than row numbers.
            ValueError: it gives more or fewer batches than its length says.
        """
        if self.loader is None:
            return super().order(batch_size, generator)
        return self._drawn(int(torch.randint(2**31, (), generator=generator)), epoch)

    def _drawn(self, seed: int, epoch: int = 1) -> list[Tensor]:
        """Let the loader's samplers draw from a seed; what they draw from is as it was then."""
        assert self.loader is not None
        own = [part for part in self._samplers if isinstance(part, Generator)]
        before = [generator.get_state() for generator in own]
        for part in self._samplers:
            if isinstance(part, Generator):
                part.manual_seed(seed)
            elif hasattr(part, "set_epoch"):
                part.set_epoch(epoch - 1)
        with separate_randomness(seed):
            batches = list(islice(iter(self.loader.batch_sampler or ()), self._length + 1))
        for generator, state in zip(own, before, strict=True):
            generator.set_state(state)
        _check_given(len(batches), self._length, self.name)
        return [_row_numbers(rows, self.name) for rows in batches]

    def _rows(self) -> Tensor:
        if self.loader is None:
            return super()._rows()
        if self._named is None:
            self._named = torch.cat(self._drawn(0)).sort().values
        return self._named

    def in_order(self, batch_size: int = 512) -> Iterator[Batch]:
        """Load what the loader's sampler gives, in its own batches; without a loader all."""
        if self.loader is None or self._is_whole:
            return super().in_order(batch_size)
        return self.load(self._drawn(0), ALONE, (0,))

    def whole(self) -> Samples:
        """Return the samples of the whole data set, loaded as the loader does."""
        whole = copy(self)
        whole._named, whole._is_whole = super()._rows(), True
        return whole

    def load(self, order: Sequence[Tensor], share: Share, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Load this process's share of each batch."""
        rank, processes = share
        own = [rows.tensor_split(processes)[rank] for rows in order]
        options: dict[str, Any] = {}
        # One batch is not worth starting workers, unless they make the data ready.
        if self.loader is not None and (len(order) > 1 or self.loader.worker_init_fn is not None):
            options = {name: getattr(self.loader, name) for name in _KEPT}
            options["num_workers"] = min(self.loader.num_workers, len(order))
        own_collate = default_collate if self.loader is None else self.loader.collate_fn
        collated = _collated if own_collate is default_collate else own_collate
        dataset: Any = _Seeded(self.dataset, seed, collated)
        steps = [rows.tolist() for rows in own]
        loader: DataLoader[Any] = DataLoader(
            dataset, batch_sampler=steps, collate_fn=_as_it_is, **options
        )
        with separate_randomness(*seed):  # a loader draws a number when it begins
            loaded = iter(loader)
        for all_rows, rows, batch in zip(order, own, loaded, strict=True):
            whole = len(all_rows) if processes > 1 else None
            yield replace(as_batch(batch, f"a batch of {self.name}"), rows=rows, whole=whole)

    def digest(self, inputs_alone: bool = False) -> str:
        """Return the digest of a few samples, of tensors that a data set holds, and of the order.

        Raises:
            ValueError: the order of a loader is another one each time, so that no second run could
                have the same.
        """
        parts = [super().digest(inputs_alone)]
        # Of several tensors, the last are the labels.
        held = [digest_of(some[:-1] or some if inputs_alone else some) for some in self._held()]
        if held:
            parts.append(digest_of(*held))
        if self.loader is not None and not inputs_alone:
            first, again = digest_of(self._drawn(0)), digest_of(self._drawn(0))
            if first != again:
                raise ValueError(
                    f"the sampler of {self.name} gives another order each time it is asked, which "
                    "a run that goes on could not repeat: let it draw from torch, random or numpy, "
                    "or from a torch.Generator that it keeps as an attribute."
                )
            parts.append(first)
        return ", ".join(parts)

    def _held(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield in pieces the rows of a data set that is tensors, or a subset of such a one."""
        dataset: Any = self.dataset
        rows = self._rows().unique_consecutive()
        while isinstance(dataset, Subset):
            dataset, rows = dataset.dataset, torch.as_tensor(dataset.indices)[rows]
        if isinstance(dataset, TensorDataset):
            for some in rows.split(1024):  # a copy of all would double the memory of a data set
                yield tuple(tensor[some] for tensor in dataset.tensors)


class Stream(Samples):
    """Batches that come as they come; only their number is known."""

    has_rows = False

    def __init__(self, batches: Any, name: str) -> None:
        super().__init__(name)
        self.batches, self.length = batches, _length(batches, name)
        if isinstance(batches, Iterator):
            raise TypeError(
                f"{name} is a {type(batches).__name__}, which is used up after one pass: pass what "
                "it goes over, such as a list of batches or a DataLoader."
            )

    def steps(self, batch_size: int) -> int:
        """Return the stream's own number of batches."""
        return self.length

    def order(self, batch_size: int, generator: Generator, epoch: int = 1) -> Sequence[Tensor]:
        """Return a step without rows for each batch."""
        return [torch.empty(0, dtype=torch.int64)] * self.length

    def in_order(self, batch_size: int = 512) -> Iterator[Batch]:
        """Take the batches as they come, as many as the length says.

        Raises:
            ValueError: there are fewer or more.
        """
        number = 0
        for number, batch in enumerate(self.batches, start=1):
            if number > self.length:
                break
            yield as_batch(batch, f"a batch of {self.name}")
        _check_given(number, self.length, self.name)

    def few(self, samples: int, seed: int = 0) -> Batch:
        """Take the beginning of a first batch."""
        with separate_randomness(seed):
            few = next(self.in_order()).take(slice(samples))
        return few.change(torch.clone)  # which an augmentation may change in place

    def load(self, order: Sequence[Tensor], share: Share, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Take the batches as they come, with inputs that an augmentation may change in place."""
        for batch in self.in_order():
            yield replace(batch, inputs=map_tensors(torch.clone, batch.inputs))


class _Seeded:
    """A data set whose draws follow from a seed and the first row that is asked for.

    In all else it is the data set, which a ``worker_init_fn`` finds in its place.
    """

    _dataset: Any
    _seed: tuple[int, ...]
    _collate: Callable[[list[Any]], Any]

    def __init__(
        self, dataset: Any, seed: tuple[int, ...], collate: Callable[[list[Any]], Any]
    ) -> None:
        vars(self).update(_dataset=dataset, _seed=seed, _collate=collate)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, rows: list[int]) -> Any:
        with separate_randomness(*self._seed, rows[0]):
            several = getattr(self._dataset, "__getitems__", None)
            return self._collate(several(rows) if several else [self._dataset[r] for r in rows])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dataset, name, value)

    def __reduce__(self) -> tuple[Any, ...]:  # to a worker that is spawned
        return _Seeded, (self._dataset, self._seed, self._collate)


def _as_it_is(batch: Any) -> Any:
    return batch


def _collated(samples: list[Any]) -> Any:
    """Put samples together as torch does; labels may be None."""
    return collate(samples, collate_fn_map={**default_collate_fn_map, type(None): _nothing})


def _nothing(values: list[Any], *, collate_fn_map: Any = None) -> None:
    if any(value is not None for value in values):
        raise TypeError(
            "one sample has None where another of its batch has a value: give labels to all "
            "samples or to none; tokens without one are labeled -100."
        )


def _of_loader(loader: DataLoader, name: str) -> Samples:
    is_own = type(loader).__iter__ is not DataLoader.__iter__  # and gives what it likes
    if is_own or isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return Stream(loader, name)
    return OnDisk(loader.dataset, name, loader)


def _samplers(loader: DataLoader) -> list[Any]:
    """Return a loader's samplers, those inside them, and the generators that they draw from."""
    found: list[Any] = []
    left: list[Any] = [loader.batch_sampler, loader.sampler, loader.generator]
    while left:
        part = left.pop()
        # What gives samples by number is the data set: what that draws is not the order.
        inside = hasattr(part, "__iter__") and not hasattr(part, "__getitem__")
        if (inside or isinstance(part, Generator)) and not any(part is one for one in found):
            found.append(part)
            left += vars(part).values() if hasattr(part, "__dict__") else ()
    return found


def _length(batches: Any, name: str) -> int:
    try:
        length = len(batches)
    except TypeError:
        raise ValueError(
            f"{name} is a {type(batches).__name__} without a length, which the schedule needs: "
            "give it a __len__ (a loader: its sampler) that says how many batches an epoch has."
        ) from None
    if length == 0:
        dropped = isinstance(batches, DataLoader) and batches.drop_last
        why = "its loader drops the last one, the only one" if dropped else "expected at least one"
        raise ValueError(f"{name} has no batch: {why}.")
    return length


def _check_given(batches: int, length: int, name: str) -> None:
    if batches != length:
        more = "more" if batches > length else f"{batches}"
        raise ValueError(
            f"{name} has a length of {length} batches and gave {more}: the schedule would be "
            "wrong; mend its __len__."
        )


def _row_numbers(rows: Any, name: str) -> Tensor:
    try:
        numbers = torch.as_tensor(rows)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.empty(0)
    if numbers.dim() != 1 or len(numbers) == 0 or numbers.is_floating_point():
        raise TypeError(
            f"the sampler of {name} gives {rows!r:.60} as a batch: expected a list of row "
            "numbers, at least one."
        )
    return numbers


def _check_form(data: Any, name: str) -> None:
    """Refuse what would be read as something else than it is meant for."""
    if hasattr(data, "iloc"):
        raise TypeError(
            f"{name} is a {type(data).__name__} of pandas: expected (inputs, labels), convert its "
            "columns with torch.as_tensor(frame[columns].to_numpy())."
        )
    parts = data if isinstance(data, tuple | list) else []
    kinds = {(part.dim(), part.dtype) if isinstance(part, Tensor) else None for part in parts}
    if len(kinds) > 1 and None not in kinds:
        raise TypeError(
            f"{name} is a {type(data).__name__} of {len(parts)} tensors of different kinds, which "
            "are no batches of inputs: expected (inputs, labels), a tuple of two."
        )
