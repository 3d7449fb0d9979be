"""Compute a teacher's outputs once, keep them on disk, and train students from there."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm.auto import tqdm

from kdlearn.core.checks import check_whole
from kdlearn.core.files import PARTIAL, digest, locked, read_json, reason, sweep, whole, write_json
from kdlearn.core.identity import described
from kdlearn.core.inputs import Inputs, device_of
from kdlearn.core.randomness import separate_randomness
from kdlearn.data.batch import Batch
from kdlearn.data.samples import ALONE, Samples
from kdlearn.data.views import FixedCopies, PlainViews, Views, shown
from kdlearn.distill.outputs import LOGITS, Outputs, Want
from kdlearn.distill.teachers import LiveTeacher, identity_of, same_teacher, some_of
from kdlearn.distill.terms import Term

FORMAT = "kdlearn teacher cache 2"
_INDEX = "index.json"


class CacheError(RuntimeError):
    """A cache that is foreign, stale or damaged, or could not be written; says what to do.

    Example:
        >>> str(CacheError("cache/a was made by another teacher"))
        'cache/a was made by another teacher'
    """


class CachedTeacher:
    """A teacher's outputs on disk; takes the teacher's place in a `kdlearn.distill.Distiller`.

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
        ...     logits = cached.outputs(Batch(images[:2], rows=torch.tensor([0, 1]))).logits
        >>> torch.allclose(logits, teacher(images[:2]))
        True
    """

    def __init__(
        self,
        folder: Path,
        index: Mapping[str, Any],
        wants: Sequence[Want],
        copies: FixedCopies | None,
    ) -> None:
        self.folder, self.copies = folder, copies
        self.samples: int = index["samples"]
        self._marks: dict[str, Any] = index["marks"]
        self._rows: int = index["shard_rows"]
        self._entries = _entries(wants)
        self._names: list[str] = sorted(index["shards"])
        self._shards: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return self.samples * (len(self.copies) if self.copies else 1)

    def __deepcopy__(self, memo: Any) -> CachedTeacher:
        return self

    def bytes_per_row(self) -> dict[str, float]:
        """Return how much each entry takes on disk, in bytes per row."""
        shard = self._shard(0)
        return {
            name: value.element_size() * value[0].numel() for name, value in sorted(shard.items())
        }

    def check(self, wants: Iterable[Want]) -> None:
        """Raise a KeyError for what was not stored."""
        for want in wants:
            if want not in self._entries:
                known = ", ".join(map(str, self._entries)) or "nothing"
                raise KeyError(
                    f"{want} is not in the cache, which has {known}: make it anew with these terms."
                )

    def check_run(self, samples: Samples, views: Views) -> None:
        """Raise a ValueError where these are not the samples and views it was made of."""
        if not samples.has_rows:
            raise ValueError(
                f"the teacher's outputs are stored by row and {samples.name} is a stream: pass "
                "tensors or a data set."
            )
        if self.copies is None and views != PlainViews():
            raise ValueError(
                "the stored teacher saw the plain images and augment would change them: train "
                "without augment, or store fixed copies, cache_teacher(..., "
                "copies=FixedCopies(augment, seeds))."
            )
        if self.copies is not None and views != self.copies:
            raise ValueError(
                f"the teacher was stored for augment={self.copies}: pass the same to fit, not "
                f"{views}."
            )
        if len(samples) != self.samples:
            raise ValueError(
                f"the stored teacher saw {self.samples} samples and {samples.name} has "
                f"{len(samples)}: pass the same data."
            )
        whole = _fixed(samples)
        if whole.digest(inputs_alone=True) != self._marks["data"]:
            raise ValueError(
                f"the stored teacher saw other samples than {samples.name} has, in another order "
                "or form (tensors, a data set): pass the same data, or make a cache of these."
            )
        if not _same_augmentation(self._marks["augmentation"], _augmentation(whole, self.copies)):
            raise ValueError(
                "augment changes the samples otherwise than when the teacher was stored: pass the "
                "same function with the same settings, or make a cache with this one."
            )

    def identity(self, samples: Samples) -> dict[str, Any]:
        """Return the identity of the teacher that was stored, and how it was stored."""
        rest = {name: mark for name, mark in self._marks.items() if name != "teacher"}
        return {**self._marks["teacher"], "stored": rest}

    def outputs(self, batch: Batch) -> Outputs:
        """Return the stored outputs of a batch's rows, on its device, in float32."""
        if batch.rows is None:
            raise ValueError(
                "a cached teacher is asked by rows: call distiller(inputs, labels, rows), or fit."
            )
        rows = batch.rows.cpu()
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise ValueError(
                f"row {int(rows.max())} is not in the cache, which has {len(self)} rows: rows are "
                "copy * samples + row."
            )
        home = device_of(batch.inputs)
        values: dict[Want, Any] = {}
        for want, entry in self._entries.items():
            parts = [entry] if entry in self._shard(0) else self._parts(entry)
            read = [_usable(self._read(name, rows)).to(home) for name in parts]
            values[want] = read[0] if parts == [entry] else tuple(read)
        return Outputs(
            values.get(Want(LOGITS)),
            {want.layer: value for want, value in values.items() if want.keep is None},
            {want: value for want, value in values.items() if want.keep is not None},
            batch,
        )

    def _parts(self, entry: str) -> list[str]:
        names = [name for name in self._shard(0) if name.startswith(f"{entry}#")]
        return sorted(names, key=lambda name: int(name.rpartition("#")[2]))

    def _read(self, name: str, rows: Tensor) -> Tensor:
        first = self._shard(0)[name]
        result = first.new_empty(len(rows), *first.shape[1:])
        shards = rows // self._rows
        for number in shards.unique().tolist():
            here = shards == number
            result[here] = self._shard(number)[name][rows[here] - number * self._rows]
        return result

    def _shard(self, number: int) -> dict[str, Tensor]:
        if number not in self._shards:
            with safe_open(self.folder / self._names[number], framework="pt") as file:
                names = sorted(file.keys())
                self._shards[number] = {name: file.get_tensor(name) for name in names}
        return self._shards[number]


def cache_teacher(
    teacher: nn.Module,
    inputs: Any,
    folder: str | os.PathLike[str],
    terms: Sequence[Term] | None = None,
    *,
    copies: FixedCopies | None = None,
    dtype: torch.dtype = torch.float32,
    teacher_input: Callable[[Inputs], Inputs] | None = None,
    batch_size: int = 256,
    shard_rows: int = 4096,
    progress: bool = True,
) -> CachedTeacher:
    """Run the teacher once over the data and store what terms need; or go on where that stopped.

    Convention
        What is stored is what the terms read of the teacher: its logits, whole layers, or what a
        term keeps of them. Rows are in the order of ``inputs``; with K copies, row
        ``c * samples + i`` is sample i of copy c. All rows of a data set are stored, also those
        that a loader's sampler leaves out. The teacher runs in ``eval()`` without gradient, on its
        own device.
        The folder names its contents from the start, and a shard counts once its digest is listed.
        A run that was killed goes on at the first shard that is missing or damaged, and ends with
        the same bytes. One process writes; of several that were launched together the first one
        does, and the others wait.
        A cache belongs to the teacher (weights, layers, and its answers to a few samples), the
        inputs, what the terms read, ``copies`` (and what they make of a few samples) and ``dtype``;
        any other is refused.

    Args:
        teacher: the trained model.
        inputs: the training inputs, as the student will see them: a tensor (N, ...), named tensors,
            or any data with rows that `kdlearn.data.Samples` takes.
        folder: made when it does not exist.
        terms: those of the `kdlearn.distill.Distiller`; None to store the logits.
        copies: fixed augmented copies to store instead of the plain data.
        dtype: of what is stored: torch.float32, torch.float16 or torch.bfloat16.
        teacher_input: as in the `kdlearn.distill.Distiller`.
        batch_size: samples the teacher sees at once.
        shard_rows: rows per file.
        progress: show a bar.

    Raises:
        CacheError: the folder has a cache of another teacher, data or setting, another process
            works in it, or the disk is full.
        TypeError: the inputs are no data.
        ValueError: no data, data that are drawn anew each time they are loaded, a number out of its
            range, nothing to store, or outputs that are NaN, too large for ``dtype``, or of another
            shape in each batch.
        KeyError: the teacher has no such layer.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cached = cache_teacher(nn.Linear(4, 3), torch.rand(10, 4), folder, progress=False)
        ...     len(cached), cached.bytes_per_row()
        (10, {'logits': 12})
    """
    samples = _samples(inputs)
    for name, value in (("batch_size", batch_size), ("shard_rows", shard_rows)):
        check_whole(value, name)
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype is {dtype}: expected torch.float32, float16 or bfloat16.")
    folder, wants = Path(folder).absolute(), _wants(terms)
    live = LiveTeacher(teacher, wants, teacher_input)
    marks = _marks(live, samples, copies, dtype)
    # One process may have the number that an earlier launch left in its environment.
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0:
        return _wait_for(folder, marks, wants, copies)
    total = len(samples) * (len(copies) if copies else 1)
    starts = range(0, total, shard_rows)

    held: dict[int, Samples] = {}  # one, since a copy of the data is large

    def copy(number: int) -> Samples:
        if copies is None:
            return samples
        if number not in held:
            held.clear()
            held[number] = copies.of_epoch(samples, number + 1)
        return held[number]

    bar = tqdm(total=total, unit="row", disable=not progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_free(folder)
        with bar, locked(folder):
            index = _begun(folder, marks, shard_rows, len(samples))
            for start in starts:
                name = f"{start // shard_rows:06d}.safetensors"
                rows = range(start, min(start + shard_rows, total))
                if name not in index["shards"]:
                    loaded = _batches(copy, len(samples), rows, batch_size)
                    shard = _computed(live, loaded, rows, dtype, _shapes(folder, index))
                    index["shards"][name] = _write(folder / name, shard)
                    index["shards"] = dict(sorted(index["shards"].items()))
                    write_json(folder / _INDEX, index)
                bar.update(len(rows))
    except BlockingIOError:
        raise CacheError(f"another process is making a cache in {folder}: wait for it.") from None
    except (OSError, SafetensorError) as error:
        raise CacheError(
            f"{folder} could not be written: {reason(error)}. What was written before stays: free "
            "some space, or name another folder, and call again."
        ) from error
    return CachedTeacher(folder, index, wants, copies)


def open_cache(
    folder: str | os.PathLike[str],
    *,
    teacher: nn.Module,
    inputs: Any,
    terms: Sequence[Term] | None = None,
    copies: FixedCopies | None = None,
    dtype: torch.dtype = torch.float32,
    teacher_input: Callable[[Inputs], Inputs] | None = None,
) -> CachedTeacher:
    """Open a finished cache; arguments as for `cache_teacher`. The teacher answers a few samples.

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
    wants = _wants(terms)
    live = LiveTeacher(teacher, wants, teacher_input)
    marks = _marks(live, _samples(inputs), copies, dtype)
    return _opened(Path(folder).absolute(), marks, wants, copies)


def _opened(
    folder: Path, marks: Mapping[str, Any], wants: Sequence[Want], copies: FixedCopies | None
) -> CachedTeacher:
    index = _read_index(folder)
    if index is None:
        raise CacheError(f"{folder} has no teacher cache: make it with cache_teacher(...).")
    _check_marks(folder, index, marks)
    broken = _broken(folder, index)
    if broken:
        raise CacheError(
            f"{folder / broken[0]} is missing or damaged, it is not what was written: call "
            "cache_teacher with the same arguments, it makes this file anew."
        )
    rows = index["samples"] * (len(copies) if copies else 1)
    if len(index["shards"]) < -(-rows // index["shard_rows"]):
        raise CacheError(
            f"{folder} is not finished: call cache_teacher with the same arguments, it goes on "
            "from where it stopped."
        )
    return CachedTeacher(folder, index, wants, copies)


def _wait_for(
    folder: Path, marks: Mapping[str, Any], wants: Sequence[Want], copies: FixedCopies | None
) -> CachedTeacher:
    # Not a barrier: that would end after half an hour, and a cache may take longer.
    while True:
        if folder.exists():  # what the first process refuses at once, none of the others awaits
            _check_free(folder)
            index = _read_index(folder)
            if index is not None:
                _check_marks(folder, index, marks)
        with suppress(CacheError):
            return _opened(folder, marks, wants, copies)
        time.sleep(0.2)


def _samples(inputs: Any) -> Samples:
    samples = Samples.of(inputs, "inputs")
    if not samples.has_rows:
        raise ValueError("inputs are a stream, and rows are stored: pass tensors or a data set.")
    return _fixed(samples)


def _fixed(samples: Samples) -> Samples:
    """Return all rows of the samples, if they are the same each time they are loaded."""
    whole = samples.whole()
    if whole.changes():
        raise ValueError(
            f"{samples.name} changes each time it is loaded, so the student would see other "
            "samples than the stored teacher saw: let the data set give plain samples and store "
            "fixed copies, cache_teacher(..., copies=FixedCopies(augment, seeds)), or train with a "
            "teacher that runs live."
        )
    return whole


def _wants(terms: Sequence[Term] | None) -> tuple[Want, ...]:
    if terms is None:
        return (Want(LOGITS),)
    wants = tuple(dict.fromkeys(want for term in terms for want in term.wants or ()))
    if not wants:
        raise ValueError("no term reads the teacher: there is nothing to store.")
    return wants


def _entries(wants: Sequence[Want]) -> dict[Want, str]:
    """Name what is wanted in the files; two kinds of one layer get numbers."""
    names = ["logits" if want.layer == LOGITS else f"layer/{want.layer}" for want in wants]
    several = {name for name, times in Counter(names).items() if times > 1}
    return {
        want: f"{name}/{number}" if name in several else name
        for number, (want, name) in enumerate(zip(wants, names, strict=True))
    }


def _computed(
    live: LiveTeacher,
    batches: Iterable[Batch],
    rows: range,
    dtype: torch.dtype,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Tensor]:
    """Let the teacher answer the rows of a shard, each of the shape that those before have."""
    parts: dict[str, list[Tensor]] = {}
    seeds = [getattr(want.keep, "seed", 0) for want in live.wants]
    # Seeded by place, so that a run that goes on draws what it would have drawn.
    with separate_randomness(*seeds, rows.start):
        for batch in batches:
            outputs = live.outputs(batch)
            for want, entry in _entries(live.wants).items():
                if want.keep is None:
                    value = outputs.logits if want.layer == LOGITS else outputs.taps[want.layer]
                else:
                    value = outputs.kept[want]
                for name, tensor in _named(entry, value):
                    parts.setdefault(name, []).append(_storable(name, tensor, dtype))
    for name, values in parts.items():
        _check_rows(name, values, len(rows), shapes.get(name, tuple(values[0].shape[1:])))
    return {name: torch.cat(values).contiguous() for name, values in parts.items()}


def _named(entry: str, value: Any) -> list[tuple[str, Tensor]]:
    """Name a tensor, or each of a tuple, for the files."""
    if isinstance(value, Tensor):
        return [(entry, value)]
    if isinstance(value, tuple | list) and value and all(isinstance(v, Tensor) for v in value):
        return [(f"{entry}#{number}", tensor) for number, tensor in enumerate(value)]
    inside = f" of {', '.join(type(v).__name__ for v in value)}" if isinstance(value, tuple) else ""
    raise ValueError(
        f"the teacher gives a {type(value).__name__}{inside} as {entry!r}, and a tensor or a tuple "
        "of tensors is stored: name the part that is wanted, as in 'layer[0]' or 'layer[states]'."
    )


def _check_rows(name: str, values: list[Tensor], rows: int, shape: tuple[int, ...]) -> None:
    found = sum(map(len, values))
    if found != rows:
        raise ValueError(
            f"the teacher gives {found} rows of {name!r} for {rows} samples: expected one each, "
            "the first dimension of what is stored must be the sample."
        )
    for value in values:
        if tuple(value.shape[1:]) != shape:
            raise ValueError(
                f"the teacher gives {name!r} of shape {shape} for the samples of one batch and "
                f"{tuple(value.shape[1:])} for those of another, and rows are stored in one shape: "
                "pad all samples to one length."
            )


def _shapes(folder: Path, index: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of a row of each entry, as the first shard that is there has it."""
    for shard in index["shards"]:
        with safe_open(folder / shard, framework="pt") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()[1:]) for name in names}
    return {}


def _batches(
    shown: Callable[[int], Samples], size: int, rows: range, batch_size: int
) -> Iterator[Batch]:
    """Load rows that may run over the end of a copy of so many samples into the next one."""
    start = rows.start
    while start < rows.stop:
        number, first = divmod(start, size)
        last = min(size, first + rows.stop - start)
        order = torch.arange(first, last).split(batch_size)
        yield from shown(number).load(order, ALONE, (0,))
        start += last - first


def _storable(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    if not values.is_floating_point():
        whole = None if values.is_complex() else values.int().cpu()
        if whole is None or not torch.equal(whole.long(), values.long().cpu()):
            raise ValueError(
                f"the teacher gives {values.dtype} in {name!r} that no 32 bits hold: leave it out."
            )
        return whole
    if bool(values.isnan().any()):
        raise ValueError(f"the teacher gives NaN in {name!r}: look at its weights and inputs.")
    if bool((values == torch.inf).any()):
        raise ValueError(f"the teacher gives inf in {name!r}: no loss of it is finite.")
    kept = values.to(dtype)
    if not torch.equal(kept.isinf(), values.isinf()):
        largest = values.abs().masked_fill(values.isinf(), 0).max().item()
        raise ValueError(
            f"{name!r} reaches {largest:.3g}, which {dtype} cannot hold: store torch.bfloat16 or "
            "torch.float32."
        )
    return kept.cpu()


def _usable(stored: Tensor) -> Tensor:
    return stored.float() if stored.is_floating_point() else stored.long()


def _marks(
    live: LiveTeacher, samples: Samples, copies: FixedCopies | None, dtype: torch.dtype
) -> dict[str, Any]:
    with separate_randomness(0):
        few = samples.few(4)
        try:
            answers = live.outputs(few)
        except Exception:
            if copies is None:
                raise
            answers = live.outputs(shown(copies, few))  # of bytes, say, copies may make numbers
        teacher = identity_of(live.model, answers)
    return {
        "teacher": teacher,
        "data": samples.digest(inputs_alone=True),
        "augmentation": _augmentation(samples, copies),
        "teacher_input": described(live.adapt),
        "terms": [_told(want) for want in live.wants],
        "dtype": str(dtype),
    }


def _told(want: Want) -> str:
    """Name what is wanted; what your own class keeps is told by its code and settings."""
    if want.keep is None or type(want.keep).__module__.partition(".")[0] == "kdlearn":
        return str(want)
    return f"{want} {described(want.keep)}"


def _augmentation(samples: Samples, copies: FixedCopies | None) -> str | dict[str, Any]:
    """Return what tells an augmentation from another, see `_same_augmentation`.

    Its settings alone do not tell: what a function closes over shows in the images only.
    """
    if copies is None:
        return described(copies)
    with separate_randomness(0):
        made = some_of(copies.copy(samples.few(8).inputs, 0)).tolist()
    return {"settings": described(copies), "answers": [round(value, 6) for value in made]}


def _same_augmentation(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return same_teacher(one, other)
    return bool(one == other)


def _check_free(folder: Path) -> None:
    """Refuse a folder with files of somebody else, before anything is written there."""
    names = [path.name for path in folder.iterdir()]
    others = [name for name in names if name != ".lock" and PARTIAL not in name]
    # Asked last: while this process looks, another one may begin.
    if others and not (folder / _INDEX).exists():
        raise CacheError(
            f"{folder} has files that are no teacher cache, such as {others[0]}: name an empty "
            "folder."
        )


def _begun(folder: Path, marks: dict[str, Any], shard_rows: int, samples: int) -> dict[str, Any]:
    """Return the index to go on with; a new one names the folder's contents before they come."""
    sweep(folder)
    index = _read_index(folder)
    if index is None:
        index = {"format": FORMAT, "marks": marks, "samples": samples, "shard_rows": shard_rows}
        index["shards"] = {}
        write_json(folder / _INDEX, index)
        return index
    _check_marks(folder, index, marks)
    if index["shard_rows"] != shard_rows:
        raise CacheError(
            f"{folder} was begun with shard_rows={index['shard_rows']}: pass the same number."
        )
    for name in _broken(folder, index):
        del index["shards"][name]
    return index


def _read_index(folder: Path) -> dict[str, Any] | None:
    try:
        index = read_json(folder / _INDEX)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CacheError(
            f"{folder / _INDEX} cannot be read ({reason(error)}): remove the folder and make the "
            "cache anew."
        ) from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise CacheError(f"{folder} is not a {FORMAT!r}: name another folder.")
    return index


def _check_marks(folder: Path, index: Mapping[str, Any], marks: Mapping[str, Any]) -> None:
    there = index["marks"]
    same = {name: there.get(name, described(None)) == mark for name, mark in marks.items()}
    same["teacher"] = same_teacher(there["teacher"], marks["teacher"])
    same["augmentation"] = _same_augmentation(there["augmentation"], marks["augmentation"])
    differs = [name for name in marks if not same[name]]
    if differs:
        raise CacheError(
            f"{folder} was made with another {', '.join(differs)}: use another folder, or remove "
            "this one and make the cache anew."
        )


def _broken(folder: Path, index: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, known in index["shards"].items()
        if not (folder / name).is_file() or digest(folder / name) != known
    ]


def _write(path: Path, tensors: dict[str, Tensor]) -> str:
    with whole(path) as partial:
        partial.write_bytes(save(tensors))
        known = digest(partial)
    return known
