"""Compute a teacher's outputs once, keep them on disk, and train students from there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from kdlearn.core.checks import check_whole
from kdlearn.core.files import digest, flush, reason
from kdlearn.core.inputs import Inputs, count, device_of, join, named, place, take
from kdlearn.distill.teachers import LiveTeacher, Outputs
from kdlearn.losses.maps import activation_map

FORMAT = "kdlearn teacher cache 1"
_INDEX = "index.json"


class CacheError(RuntimeError):
    """A cache that is foreign, stale or damaged, or could not be written; says what to do.

    Example:
        >>> str(CacheError("cache/a was made by another teacher"))
        'cache/a was made by another teacher'
    """


class Stored(Protocol):
    """How a layer is kept: what is stored of its features, and what losses get back."""

    def reduce(self, features: Any) -> Tensor:
        """Give what is stored, shape (B, ...)."""

    def restore(self, stored: Tensor) -> Any:
        """Give what takes the place of the features in a loss."""


@dataclass(frozen=True)
class Features:
    """Keep a layer as it is: embeddings, hidden states, attention scores.

    Example:
        >>> Features().restore(Features().reduce(torch.ones(2, 3))).shape
        torch.Size([2, 3])
    """

    def reduce(self, features: Tensor) -> Tensor:
        """Keep all."""
        return features

    def restore(self, stored: Tensor) -> Tensor:
        """Give it back."""
        return stored


@dataclass(frozen=True)
class AttentionMap:
    r"""Keep the normalized attention map of a layer instead of its features.

    Convention
        Stored is :math:`\hat Q`, shape (B, \*spatial). Losses get :math:`\hat Q^{1/p}` as features
        of one channel, whose attention map is :math:`\hat Q` again, so
        `kdlearn.losses.attention_transfer_loss` with the same ``p`` gives the number that the
        features give, up to rounding. Where the student's layer is smaller than the teacher's, that
        loss pools the teacher's features *before* the power, which a map cannot undo: store with
        ``size``, the student's.

    Args:
        p: the power, as in the loss.
        size: pool the features to this spatial size first; None for their own.

    Example:
        >>> features = torch.rand(2, 3, 4, 4)
        >>> kind = AttentionMap()
        >>> again = kind.restore(kind.reduce(features))
        >>> again.shape, torch.allclose(activation_map(again), activation_map(features))
        (torch.Size([2, 1, 4, 4]), True)
    """

    p: float = 2
    size: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.p >= 1:
            raise ValueError(f"p is {self.p}: expected a number from 1, the p of the loss.")

    def reduce(self, features: Tensor) -> Tensor:
        """Give the map, shape (B, *spatial)."""
        if self.size is not None:
            pools: dict[int, Callable[..., Tensor]] = {
                1: F.adaptive_avg_pool1d,
                2: F.adaptive_avg_pool2d,
                3: F.adaptive_avg_pool3d,
            }
            features = pools[len(self.size)](features, self.size)
        return activation_map(features, p=self.p)

    def restore(self, stored: Tensor) -> Tensor:
        """Give features of one channel with this map, shape (B, 1, *spatial)."""
        return stored.pow(1 / self.p).unsqueeze(1)


@dataclass(frozen=True)
class Relation:
    r"""Keep the scores of MiniLM's relation of a layer, (B, heads, L, L), instead of its states.

    Convention
        Stored are :math:`R_a = X_a X_a^\top/\sqrt{d_r}` for queries, keys or values X; for a pair
        :math:`X_a Y_a^\top/\sqrt{d_r}`. Losses get the pair :math:`(\sqrt{L}\,R_a, I)`, whose
        relation is R again, so `kdlearn.losses.relation_loss` with the same heads gives the number
        that the states give.

    Args:
        heads: relation heads; they divide the width of the states.

    Example:
        >>> states = torch.rand(2, 5, 12)
        >>> stored = Relation(4).reduce(states)
        >>> stored.shape, Relation(4).restore(stored)[0].shape
        (torch.Size([2, 4, 5, 5]), torch.Size([2, 5, 20]))
    """

    heads: int

    def __post_init__(self) -> None:
        check_whole(self.heads, "heads")

    def reduce(self, features: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Give the scores, shape (B, heads, L, L)."""
        first, second = (features, features) if isinstance(features, Tensor) else features
        if first.shape[-1] % self.heads:
            raise ValueError(
                f"the states have width {first.shape[-1]}, which {self.heads} heads do not divide."
            )
        first, second = (
            side.unflatten(2, (self.heads, -1)).transpose(1, 2) for side in (first, second)
        )
        return first @ second.mT / first.shape[-1] ** 0.5

    def restore(self, stored: Tensor) -> tuple[Tensor, Tensor]:
        """Give a pair of states (B, L, heads L) with these scores."""
        length = stored.shape[-1]
        identity = torch.eye(length, dtype=stored.dtype, device=stored.device)
        second = identity.expand(len(stored), self.heads, length, length)
        first = stored * length**0.5
        return tuple(side.transpose(1, 2).flatten(2) for side in (first, second))  # type: ignore[return-value]


@dataclass(frozen=True)
class TopK:
    """Keep the k most probable classes or tokens instead of all logits.

    Convention
        Stored are log-probabilities at temperature 1 and indices, shape (..., k). Losses get both
        as ``Outputs.sparse``; ``Outputs.logits`` are log-probabilities with the rest spread evenly
        over the tail.

    Args:
        k: how many, at least 1.

    Example:
        >>> log_probs, indices = TopK(2).reduce(torch.tensor([[0.0, 2.0, 1.0]]), None)
        >>> indices.tolist()
        [[1, 2]]
    """

    k: int

    def __post_init__(self) -> None:
        check_whole(self.k, "k")

    def reduce(self, logits: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Give log-probabilities and indices of the k largest."""
        if self.k > logits.shape[-1]:
            raise ValueError(
                f"k is {self.k} and there are {logits.shape[-1]} classes: keep at most so many."
            )
        log_probs, indices = logits.log_softmax(-1).topk(self.k, dim=-1)
        return log_probs, indices

    def dense(self, log_probs: Tensor, indices: Tensor, classes: int) -> Tensor:
        """Give log-probabilities of all classes, the tail even."""
        rest = torch.log1p(-log_probs.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-7))
        each = rest - torch.log(torch.tensor(max(classes - self.k, 1), dtype=rest.dtype))
        return each.expand(*each.shape[:-1], classes).scatter(-1, indices, log_probs)


@dataclass(frozen=True)
class Sampled:
    """Keep tokens drawn from the teacher, for an estimate that is right on average.

    Convention
        Stored are draws with replacement from the teacher's probabilities at temperature 1:
        log-probabilities and indices, shape (..., draws), for `kdlearn.losses.sampled_kl`.
        ``Outputs.logits`` are the logarithms of their frequencies, minus infinity for what was not
        drawn.

    Args:
        draws: how many, at least 1.
        seed: fixes the draws.

    Example:
        >>> generator = Generator().manual_seed(0)
        >>> log_probs, indices = Sampled(5).reduce(torch.tensor([[0.0, 9.0]]), generator)
        >>> indices.tolist()
        [[1, 1, 1, 1, 1]]
    """

    draws: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self.draws, "draws")

    def reduce(self, logits: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Give log-probabilities and indices of the draws."""
        log_probs = logits.log_softmax(-1).cpu()
        rows = log_probs.flatten(0, -2).exp()
        drawn = torch.multinomial(rows, self.draws, replacement=True, generator=generator)
        indices = drawn.view(*log_probs.shape[:-1], self.draws)
        return log_probs.gather(-1, indices), indices

    def dense(self, log_probs: Tensor, indices: Tensor, classes: int) -> Tensor:
        """Give the logarithm of the frequency of each class among the draws."""
        counts = log_probs.new_zeros(*log_probs.shape[:-1], classes)
        counts.scatter_add_(-1, indices, torch.ones_like(log_probs))
        return (counts / self.draws).log()


@dataclass(frozen=True)
class FixedCopies:
    """A few fixed augmented copies of the data, so that a cache can serve augmented training.

    Convention
        Copy c is the whole data set in its order, augmented in blocks of 1,024 by one generator
        with seed c of ``seeds``: student and teacher see the same views, at any time ("consistent
        teacher"). `kdlearn.training.fit` takes it as ``augment`` and uses copy ``(epoch - 1) % K``.

    Args:
        augment: from (images, generator) to images; a dataclass or a function of a module, so that
        it has a name. seeds: one a copy, all different.

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

    augment: Callable[[Tensor, Generator], Tensor]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not callable(self.augment):
            raise TypeError(f"augment is {self.augment!r}: expected a function, as RandomShift().")
        if not isinstance(self.seeds, Iterable):
            raise TypeError(f"seeds is {self.seeds!r}: expected one a copy, such as range(3).")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}: expected at least one, all different.")

    def __len__(self) -> int:
        return len(self.seeds)

    def copy(self, images: Inputs, number: int) -> Tensor:
        """Give the whole data set as copy ``number``, counted from 0."""
        if not isinstance(images, Tensor):
            raise ValueError(
                "fixed copies are made of one tensor of images, and named inputs were given: augment them before, or "
                "do without copies."
            )
        generator = Generator().manual_seed(self.seeds[number])
        return torch.cat([self.augment(block, generator) for block in images.split(1024)])


class CachedTeacher:
    """A teacher's outputs read from disk; takes the teacher's place in a `kdlearn.distill.Distiller`.

    Made by `cache_teacher` and `open_cache`. Shards are memory-mapped: only the rows asked for are
    read.

    Attributes:
        folder: where it lies.
        copies: the fixed copies it was made with, or None.
        samples: rows of the training data; the cache has so many for each copy.

    Example:
        >>> import tempfile
        >>> teacher, images = nn.Linear(4, 3), torch.rand(10, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cached = cache_teacher(teacher, images, folder, progress=False)
        ...     logits = cached.outputs(images[:2], torch.tensor([0, 1])).logits
        >>> torch.allclose(logits, teacher(images[:2]))
        True
    """

    needs_indices = True

    def __init__(
        self,
        folder: Path,
        index: Mapping[str, Any],
        layers: Mapping[str, Stored],
        logits: TopK | Sampled | None,
        copies: FixedCopies | None,
    ) -> None:
        self.folder, self.copies = folder, copies
        self.samples: int = index["samples"]
        self._data: str = index["fingerprint"]["data"]
        self._classes: int = index["classes"]
        self._rows: int = index["shard_rows"]
        self._layers, self._logits = layers, logits
        self._names: list[str] = sorted(index["shards"])
        self._shards: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return self.samples * (len(self.copies) if self.copies else 1)

    def bytes_per_row(self) -> dict[str, float]:
        """How much each entry takes on disk, in bytes a row."""
        shard = self._shard(0)
        return {
            name: value.element_size() * value[0].numel() for name, value in sorted(shard.items())
        }

    def check_data(self, inputs: Inputs) -> None:
        """Raise a ValueError where these are not the inputs it was made of, in their order."""
        if count(inputs) != self.samples:
            raise ValueError(
                f"the stored teacher saw {self.samples} samples and train has {count(inputs)}: pass the same data."
            )
        if _digest_of(inputs) != self._data:
            raise ValueError(
                "the stored teacher saw other samples than train has, or in another order: pass the same data, "
                "or make a cache of these."
            )

    def check(self, layers: Iterable[str]) -> None:
        """Raise a KeyError for a layer that was not stored."""
        for layer in layers:
            if layer not in self._layers:
                known = ", ".join(map(repr, self._layers)) or "none"
                raise KeyError(f"{layer!r} is not in the cache, which has {known}: make it anew.")

    def check_student(self, layer: str, features: Any) -> None:
        """Raise a ValueError where the student's layer is smaller than a stored map."""
        if not isinstance(self._layers[layer], AttentionMap):
            return
        stored, own = self._shard(0)[f"layer/{layer}"].shape[1:], features.shape[2:]
        if any(here < there for here, there in zip(own, stored, strict=False)):
            raise ValueError(
                f"the student's layer for {layer!r} is {_by(own)} and the stored map {_by(stored)}: the loss would "
                f"pool the teacher's features before the power. Store AttentionMap(size={tuple(own)})."
            )

    def outputs(self, inputs: Inputs, indices: Tensor | None) -> Outputs:
        """Give the stored outputs of these rows, on the device of the inputs, in float32."""
        if indices is None:
            raise ValueError(
                "a cached teacher is asked by rows: call distiller(inputs, labels, indices), or fit on tensors."
            )
        if len(indices) != count(inputs):
            raise ValueError(
                f"{count(inputs)} inputs and {len(indices)} indices: expected as many."
            )
        if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < len(self)):
            raise ValueError(
                f"row {int(indices.max())} is not in the cache, which has {len(self)} rows: indices are "
                "copy * samples + row."
            )
        read = {name: self._read(name, indices.cpu()) for name in self._shard(0)}
        read = {
            name: (value.float() if value.is_floating_point() else value.long()).to(
                device_of(inputs)
            )
            for name, value in read.items()
        }
        taps = {name: kind.restore(read[f"layer/{name}"]) for name, kind in self._layers.items()}
        if self._logits is None:
            return Outputs(read["logits"], taps)
        sparse = read["log_probs"], read["indices"]
        return Outputs(self._logits.dense(*sparse, self._classes), taps, sparse)

    def _read(self, name: str, indices: Tensor) -> Tensor:
        first = self._shard(0)[name]
        result = first.new_empty(len(indices), *first.shape[1:])
        shards = indices // self._rows
        for number in shards.unique().tolist():
            here = shards == number
            result[here] = self._shard(number)[name][indices[here] - number * self._rows]
        return result

    def _shard(self, number: int) -> dict[str, Tensor]:
        if number not in self._shards:
            with safe_open(self.folder / self._names[number], framework="pt") as file:
                self._shards[number] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return self._shards[number]


def cache_teacher(
    teacher: nn.Module,
    inputs: Inputs,
    folder: str | os.PathLike[str],
    *,
    layers: Mapping[str, Stored] | None = None,
    logits: TopK | Sampled | None = None,
    copies: FixedCopies | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 256,
    shard_rows: int = 4096,
    progress: bool = True,
) -> CachedTeacher:
    """Run the teacher once over the data and store what losses need; or go on where that stopped.

    Convention
        Rows are in the order of ``inputs``; with K copies, row ``c * samples + i`` is sample i of
        copy c. The teacher runs in ``eval()`` without gradient. Shards are written under another
        name, flushed and renamed; the index lists a shard after it stands, with its digest. A run
        that was killed goes on at the first shard that is not listed, and ends with the same bytes.
        A cache belongs to the teacher's weights and modules with their settings, the inputs,
        ``layers``, ``logits``, ``copies`` and ``dtype``; any other is refused. What ``forward``
        does between the modules is not compared.

    Args:
        teacher: the trained model.
        inputs: the training inputs, as the student will see them, shape (N, ...); or named tensors
        of N rows each. folder: made when it does not exist.
        layers: what to store of which layer, e.g. ``{"group1": AttentionMap()}``.
        logits: None to store all logits, or `TopK` or `Sampled` for large vocabularies.
        copies: fixed augmented copies to store instead of the plain data.
        dtype: of what is stored: torch.float32, torch.float16 or torch.bfloat16.
        batch_size: samples the teacher sees at once.
        shard_rows: rows a file.
        progress: show a bar.

    Raises:
        CacheError: the folder has a cache of another teacher, data or setting; a file is damaged;
        or the disk is full. TypeError: the inputs are no tensor, or a layer is not kept as one of
        this module's kinds. ValueError: no data, a number out of its range, or outputs that are NaN
        or too large for ``dtype``. KeyError: the teacher has no such layer.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cached = cache_teacher(nn.Linear(4, 3), torch.rand(10, 4), folder, progress=False)
        ...     len(cached), cached.bytes_per_row()
        (10, {'logits': 12})
    """
    if not isinstance(inputs, Tensor | Mapping):
        raise TypeError(
            f"inputs are a {type(inputs).__name__}: pass the images alone, as a tensor."
        )
    for name, kind in (layers or {}).items():
        if isinstance(kind, type) or not hasattr(kind, "reduce"):
            raise TypeError(
                f"layer {name!r} is kept as {kind!r}: expected AttentionMap() or a like."
            )
    if count(inputs) == 0:
        raise ValueError("inputs are empty: there is nothing to store.")
    for name, value in (("batch_size", batch_size), ("shard_rows", shard_rows)):
        check_whole(value, name)
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype is {dtype}: expected torch.float32, float16 or bfloat16.")
    folder, layers = Path(folder), dict(layers or {})
    live = LiveTeacher(teacher, layers)
    marks = _fingerprint(teacher, inputs, layers, logits, copies, dtype)
    index = _index_to_continue(folder, marks, shard_rows, count(inputs))
    total = count(inputs) * (len(copies) if copies else 1)
    bar = tqdm(total=total, unit="row", disable=not progress)
    device = next((p.device for p in teacher.parameters()), torch.device("cpu"))
    with bar:
        for start, block in _blocks(inputs, copies, shard_rows):
            name = f"{start // shard_rows:06d}.safetensors"
            bar.update(count(block))
            if name in index["shards"]:
                continue
            # Seeded by place, so that a run that goes on draws what it would have drawn.
            generator = Generator().manual_seed(getattr(logits, "seed", 0) + start)
            parts: dict[str, list[Tensor]] = {}
            for at in range(0, count(block), batch_size):
                batch = take(block, slice(at, at + batch_size))
                outputs = live.outputs(place(batch, device))
                index["classes"] = outputs.logits.shape[-1]
                for key, tensor in _reduced(outputs, layers, logits, generator):
                    parts.setdefault(key, []).append(_kept(key, tensor, dtype).cpu())
            shard = {key: torch.cat(values).contiguous() for key, values in parts.items()}
            index["shards"][name] = _write(folder / name, shard)
            _write_text(folder / _INDEX, json.dumps(index))
    return CachedTeacher(folder, index, layers, logits, copies)


def open_cache(
    folder: str | os.PathLike[str],
    *,
    teacher: nn.Module,
    inputs: Inputs,
    layers: Mapping[str, Stored] | None = None,
    logits: TopK | Sampled | None = None,
    copies: FixedCopies | None = None,
    dtype: torch.dtype = torch.float32,
) -> CachedTeacher:
    """Open a finished cache without running the teacher; arguments as for `cache_teacher`.

    Raises:
        CacheError: there is none, it is not finished, damaged, or of another teacher, data or
            setting.

    Example:
        >>> import tempfile
        >>> teacher, images = nn.Linear(4, 3), torch.rand(10, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = cache_teacher(teacher, images, folder, progress=False)
        ...     len(open_cache(folder, teacher=teacher, inputs=images))
        10
    """
    folder, layers = Path(folder), dict(layers or {})
    index = _read_index(folder)
    if index is None:
        raise CacheError(f"{folder} has no teacher cache: make it with cache_teacher(...).")
    _check_marks(folder, index, _fingerprint(teacher, inputs, layers, logits, copies, dtype))
    _check_shards(folder, index)
    rows = index["samples"] * (len(copies) if copies else 1)
    if len(index["shards"]) < -(-rows // index["shard_rows"]):
        raise CacheError(
            f"{folder} is not finished: call cache_teacher with the same arguments, it goes on from where it stopped."
        )
    return CachedTeacher(folder, index, layers, logits, copies)


def _reduced(
    outputs: Outputs,
    layers: Mapping[str, Stored],
    logits: TopK | Sampled | None,
    generator: Generator,
) -> Iterator[tuple[str, Tensor]]:
    if logits is None:
        yield "logits", outputs.logits
    else:
        yield from zip(
            ("log_probs", "indices"), logits.reduce(outputs.logits, generator), strict=True
        )
    for name, kind in layers.items():
        yield f"layer/{name}", kind.reduce(outputs.taps[name])


def _kept(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    if not values.is_floating_point():
        return values.int()
    if bool(values.isnan().any()):
        raise ValueError(f"the teacher gives NaN in {name!r}: look at its weights and inputs.")
    kept = values.to(dtype)
    if not torch.equal(kept.isinf(), values.isinf()):
        largest = values.abs().masked_fill(values.isinf(), 0).max().item()
        raise ValueError(
            f"{name!r} reaches {largest:.3g}, which {dtype} cannot hold: store torch.bfloat16 or torch.float32."
        )
    return kept


def _blocks(
    inputs: Inputs, copies: FixedCopies | None, shard_rows: int
) -> Iterator[tuple[int, Inputs]]:
    """Cut all copies, one behind the other, into the rows of the shards."""
    held, start = take(inputs, slice(0)), 0
    for number in range(len(copies) if copies else 1):
        held = join([held, copies.copy(inputs, number) if copies else inputs])
        while count(held) >= shard_rows:
            yield start, take(held, slice(shard_rows))
            held, start = take(held, slice(shard_rows, None)), start + shard_rows
    if count(held):
        yield start, held


def _fingerprint(
    teacher: nn.Module,
    inputs: Inputs,
    layers: Mapping[str, Stored],
    logits: TopK | Sampled | None,
    copies: FixedCopies | None,
    dtype: torch.dtype,
) -> dict[str, str]:
    weights = hashlib.sha256()
    for name, part in teacher.named_modules():
        # Without their settings, a ReLU and a sigmoid between the same weights would be one
        # teacher.
        weights.update(f"{name} {type(part).__qualname__} {part.extra_repr()}\n".encode())
    for name, value in sorted(teacher.state_dict().items()):
        if isinstance(value, Tensor):
            weights.update(name.encode())
            _add_tensor(weights, value)
    return {
        "teacher": weights.hexdigest(),
        "data": _digest_of(inputs),
        "augmentation": "none" if copies is None else f"{_name(copies.augment)} {copies.seeds}",
        "layers": repr(sorted(layers.items())),
        "logits": repr(logits),
        "dtype": str(dtype),
    }


def _digest_of(inputs: Inputs) -> str:
    data = hashlib.sha256()
    for name, value in named(inputs).items():
        data.update(name.encode())
        _add_tensor(data, value)
    return data.hexdigest()


def _add_tensor(total: Any, value: Tensor) -> None:
    total.update(f"{value.dtype} {tuple(value.shape)}".encode())
    flat = value.detach().cpu().contiguous().flatten()
    total.update(flat.view(torch.uint8).numpy().tobytes())


def _name(function: Any) -> str:
    if dataclasses.is_dataclass(function):
        return repr(function)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    if "<" in name or name.endswith("."):
        raise ValueError(
            f"the augmentation {function!r} has no name that lasts: make it a dataclass or a function of a module."
        )
    return name


def _index_to_continue(
    folder: Path, marks: dict[str, str], shard_rows: int, samples: int
) -> dict[str, Any]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"{folder} cannot be made: {reason(error)}.") from error
    index = _read_index(folder)
    if index is None:
        others = [path.name for path in folder.iterdir() if not path.name.endswith(".partial")]
        if others:
            raise CacheError(
                f"{folder} has files that are no teacher cache, such as {others[0]}: name an empty folder."
            )
        return {
            "format": FORMAT,
            "fingerprint": marks,
            "samples": samples,
            "classes": 0,
            "shard_rows": shard_rows,
            "shards": {},
        }
    _check_marks(folder, index, marks)
    if index["shard_rows"] != shard_rows:
        raise CacheError(
            f"{folder} was begun with shard_rows={index['shard_rows']}: pass the same number."
        )
    _check_shards(folder, index)
    return index


def _read_index(folder: Path) -> dict[str, Any] | None:
    try:
        index = json.loads((folder / _INDEX).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CacheError(
            f"{folder / _INDEX} cannot be read ({error}): remove the folder and make the cache anew."
        ) from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise CacheError(f"{folder} is not a {FORMAT!r}: name another folder.")
    return index


def _check_marks(folder: Path, index: Mapping[str, Any], marks: Mapping[str, str]) -> None:
    differs = [name for name in marks if index["fingerprint"].get(name) != marks[name]]
    if differs:
        raise CacheError(
            f"{folder} was made with another {', '.join(differs)}: use another folder, or remove this one and make the "
            "cache anew."
        )


def _check_shards(folder: Path, index: Mapping[str, Any]) -> None:
    for name, known in index["shards"].items():
        path = folder / name
        if not path.is_file():
            raise CacheError(f"{path} is missing: remove the folder and make the cache anew.")
        if path.stat().st_size != known["bytes"] or digest(path) != known["sha256"]:
            raise CacheError(
                f"{path} is damaged, it is not what was written: remove the folder and make the cache anew."
            )


def _write(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, partial)
        flush(partial)
        known = {"bytes": partial.stat().st_size, "sha256": digest(partial)}
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise CacheError(
            f"{path} could not be written: {reason(error)}. What was written before stays: "
            "free some space and call again."
        ) from error
    return known


def _write_text(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(text)
        flush(partial)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CacheError(f"{path} could not be written: {reason(error)}. Call again.") from error


def _by(size: Iterable[int]) -> str:
    return "x".join(map(str, size))
