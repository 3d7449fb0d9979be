"""Save a training run so that it can go on after any interruption, bit for bit."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdlearn.core.checks import check_number, check_whole
from kdlearn.core.files import digest, flush, locked, read_json, reason, write_json

FORMAT = "kdlearn checkpoint 4"
_MODEL, _TRAINING, _STATE = "model.safetensors", "training.safetensors", "state.json"
_PARTIAL = ".partial-"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or cannot be trusted; the message says what to do.

    Example:
        >>> str(CheckpointError("runs/a holds no checkpoint"))
        'runs/a holds no checkpoint'
    """


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often `kdlearn.training.fit` saves, and how to find what it saved.

    Convention
        A checkpoint is a folder ``step-00000120`` with ``model.safetensors`` (the weights, to be
        used alone), ``training.safetensors`` (optimizer, random states) and ``state.json``
        (counters, history, checksums). It is written under another name, flushed to the disk, and
        renamed: a folder with the right name is complete. Older ones are removed only after the
        newer one stands. Nothing is pickled.

    Args:
        folder: of one run; made when it does not exist. A relative one counts from where the
            program is when this is made.
        every_steps: save after so many optimizer steps; None for never by steps.
        every_minutes: save when so many minutes passed since the last time; None for never by time.
        keep: how many of the newest checkpoints stay, at least 1.

    Raises:
        TypeError: ``every_minutes`` is no number.
        ValueError: an interval or ``keep`` is below its minimum.
        CheckpointError: in reading: none there, damaged or foreign; in writing: the disk is full or
            closed.

    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = Checkpoints(folder, every_steps=100)
        ...     _ = checkpoints.save(100, {"weight": torch.ones(2)}, {"epoch": 3})
        ...     state = checkpoints.load(checkpoints.latest())
        >>> state["model"]["weight"], state["training"]
        (tensor([1., 1.]), {'epoch': 3})
    """

    folder: str | os.PathLike[str]
    every_steps: int | None = None
    every_minutes: float | None = 10.0
    keep: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder).absolute())
        if self.every_steps is not None:
            check_whole(self.every_steps, "every_steps")
        check_whole(self.keep, "keep")
        if self.every_minutes is not None:
            check_number(self.every_minutes, "every_minutes")
            if not self.every_minutes >= 0:
                raise ValueError(
                    f"every_minutes is {self.every_minutes!r}: expected a number >= 0."
                )

    def saved(self) -> list[Path]:
        """List the complete checkpoints of the folder, oldest first."""
        return sorted(path for path in Path(self.folder).glob("step-*") if path.is_dir())

    def latest(self) -> Path:
        """Return the newest checkpoint.

        Raises:
            CheckpointError: there is none.
        """
        found = self.saved()
        if not found:
            raise CheckpointError(
                f"{self.folder} holds no checkpoint: name the folder of a run that saved one, or "
                f"start without resume."
            )
        return found[-1]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out of the folder for a ``with`` block; sweep what a killed one left.

        Raises:
            CheckpointError: the folder cannot be written, or another run is at work in it.
        """
        folder = Path(self.folder)
        with ExitStack() as lock:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(locked(folder))
            except BlockingIOError:
                raise CheckpointError(
                    f"another run is at work in {folder}: name another folder."
                ) from None
            except OSError as error:
                raise CheckpointError(
                    f"checkpoints cannot be written to {folder}: {reason(error)}. Name another "
                    "folder."
                ) from error
            for left in folder.glob(f"{_PARTIAL}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def is_due(self, step: int, seconds: float) -> bool:
        """Return whether to save after ``step`` steps, ``seconds`` after the last time."""
        by_steps = self.every_steps is not None and step % self.every_steps == 0
        return by_steps or (self.every_minutes is not None and seconds >= 60 * self.every_minutes)

    def check(self, model: Mapping[str, Any], training: Any) -> None:
        """Raise the TypeError that `save` would, without writing anything."""
        _encode(dict(model), {}, "")
        _encode(training, {}, "")

    def save(self, step: int, model: Mapping[str, Any], training: Any) -> Path:
        """Write one checkpoint, all of it or nothing, then remove those that are too old.

        Args:
            step: optimizer steps taken so far.
            model: a ``state_dict()``.
            training: anything made of dicts, lists, tuples, numbers, texts, None, tensors and
                NumPy's numbers and arrays.

        Raises:
            CheckpointError: it could not be written; what was there before stays.
            TypeError: ``training`` holds something else; nothing is written.
        """
        folder = Path(self.folder)
        final = folder / f"step-{step:08d}"
        partial = folder / f"{_PARTIAL}{final.name}-{os.getpid()}"
        weights: dict[str, Tensor] = {}
        tensors: dict[str, Tensor] = {}
        state = {
            "format": FORMAT,
            "step": step,
            "saved": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "model": _encode(dict(model), weights, ""),
            "training": _encode(training, tensors, ""),
        }
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file(_copied(weights), partial / _MODEL)
            save_file(_copied(tensors), partial / _TRAINING)
            state["sha256"] = {name: digest(partial / name) for name in (_MODEL, _TRAINING)}
            write_json(partial / _STATE, state)
            for path in (partial / _MODEL, partial / _TRAINING, partial):
                flush(path)
            if final.exists():
                _remove(final)
            os.replace(partial, final)
            flush(folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            kept = [path.name for path in self.saved()]
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {folder}: {reason(error)}. "
                + (f"{kept[-1]} is whole and stays. " if kept else "")
                + "Free some space or name another folder, then run again with resume=True."
            ) from error
        for old in self.saved()[: -self.keep]:
            if old != final:
                with suppress(OSError):
                    _remove(old)
        return final

    def load(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Read a checkpoint: a dict with ``step``, ``model`` and ``training``, as they were saved.

        Raises:
            CheckpointError: the folder is missing, damaged or of another program.
        """
        path = Path(path)
        try:
            state = read_json(path / _STATE)
            if not isinstance(state, dict) or state.get("format") != FORMAT:
                raise self._refused(path, f"is not a {FORMAT!r}")
            for name, known in state["sha256"].items():
                if digest(path / name) != known:
                    raise self._refused(path, f"is damaged: {name} is not what was written")
            weights, tensors = load_file(path / _MODEL), load_file(path / _TRAINING)
            return {
                "step": state["step"],
                "model": _decode(state["model"], weights),
                "training": _decode(state["training"], tensors),
            }
        except FileNotFoundError as error:
            missing = Path(error.filename).name if error.filename else "a file"
            raise self._refused(path, f"is no checkpoint: {missing} is not there") from None
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, OSError) as error:
            raise self._refused(path, f"cannot be read: {reason(error)}") from error

    def _refused(self, path: Path, why: str) -> CheckpointError:
        others = [str(other) for other in self.saved() if other != path]
        advice = (
            f"an older one is {others[-1]}: pass resume={others[-1]!r}"
            if others
            else "no other is there"
        )
        return CheckpointError(f"{path} {why}. It was left as it is; {advice}.")


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint, which loses its name first: what has one is complete, also if killed."""
    partial = checkpoint.with_name(f"{_PARTIAL}old-{checkpoint.name}")
    shutil.rmtree(partial, ignore_errors=True)
    os.replace(checkpoint, partial)
    shutil.rmtree(partial, ignore_errors=True)


def _encode(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """Turn a tree into JSON, its tensors moved to ``tensors`` under their path."""
    if isinstance(value, Tensor) and value.dtype == torch.complex128:  # no type of safetensors
        pairs = torch.view_as_real(value.detach().resolve_conj())
        return {"$complex": _encode(pairs, tensors, path)}
    if isinstance(value, Tensor):
        name = path if path not in tensors else f"{path}#{len(tensors)}"
        tensors[name] = value.detach()
        return {"$tensor": name}
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufc":
        # Also a float64, which is a float: beside numbers of NumPy it counts as 64 bits.
        return {"$array": _encode(torch.from_numpy(np.array(value)), tensors, path)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_encode(item, tensors, f"{path}/{place}") for place, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        items = [
            [
                _encode(_plain(key), {}, path),
                _encode(item, tensors, f"{path}/{key}" if path else str(key)),
            ]
            for key, item in value.items()
        ]
        plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
        return dict(items) if plain else {"$pairs": items}
    raise TypeError(
        f"a {type(value).__name__} at {path or 'the top'!r} cannot be saved without pickle: "
        "expected tensors, numbers, texts, None, or lists, tuples and dicts of them. Give the "
        "model, optimizer or schedule a state_dict() of these."
    )


def _plain(key: Any) -> Any:
    """Return a key of a dict as a number of Python's, which is equal and finds the same."""
    return key.item() if isinstance(key, np.generic) else key


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory, as tied weights do.
    return {name: value.to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$complex" in value:
        return torch.view_as_complex(_decode(value["$complex"], tensors))
    if "$array" in value:
        return _decode(value["$array"], tensors).numpy()[()]
    if "$tuple" in value:
        return tuple(_decode(value["$tuple"], tensors))
    if "$pairs" in value:
        return {_decode(key, tensors): _decode(item, tensors) for key, item in value["$pairs"]}
    return {key: _decode(item, tensors) for key, item in value.items()}
