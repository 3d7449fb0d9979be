"""What a training step gets: inputs, and all that may be known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdlearn.core.inputs import Inputs, count, map_tensors, taking, tensors_in

LABELS = ("labels", "label")
_PER_SAMPLE = ("labels", "rows", "mask", "weight")


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples with what is known of them; a whole data set may be one batch too.

    Convention
        The first dimension of every tensor is the sample. What is not known is None.

    Attributes:
        inputs: one tensor, or the named tensors that a model takes as keyword arguments.
        labels: class numbers, numbers, probabilities, token numbers with -100 for what does not
            count, or a tuple or dict of such tensors.
        rows: the places of the samples in the training data, int64, shape (B,).
        mask: True where a position counts, such as a token; shape (B, ...).
        weight: how much each sample counts, shape (B,).
        whole: where several processes share a batch and this is one share, the samples of all.

    Raises:
        TypeError: the inputs are no tensors.
        ValueError: the parts have different lengths.

    Example:
        >>> batch = Batch(torch.zeros(3, 8), torch.tensor([0, 2, 1]))
        >>> len(batch), batch.take(slice(1, 3)).labels
        (3, tensor([2, 1]))
    """

    inputs: Inputs
    labels: Any = None
    rows: Tensor | None = None
    mask: Tensor | None = None
    weight: Tensor | None = None
    whole: int | None = None

    def __post_init__(self) -> None:
        samples = count(self.inputs)
        for name, part in self._known().items():
            for tensor in tensors_in(part):
                _check_length(tensor, name, samples)

    def __len__(self) -> int:
        return count(self.inputs)

    def _known(self) -> dict[str, Any]:
        return {name: part for name in _PER_SAMPLE if (part := getattr(self, name)) is not None}

    def change(self, change: Any) -> Batch:
        """Return a batch with each tensor changed."""
        parts = {name: map_tensors(change, part) for name, part in self._known().items()}
        return Batch(map_tensors(change, self.inputs), **parts, whole=self.whole)

    def take(self, rows: Tensor | slice) -> Batch:
        """Return some of the samples."""
        return self.change(taking(rows))

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        parts = (self.inputs, *self._known().values())
        if all(tensor.device == device for part in parts for tensor in tensors_in(part)):
            return self
        return self.change(lambda tensor: tensor.to(device))


def as_batch(value: Any, name: str) -> Batch:
    """Return what a reader calls data as a `Batch`.

    Args:
        value: a batch; (inputs, labels), where the labels may be None; a dict of tensors, in which
            ``labels`` or ``label`` are the labels; an object with ``images`` and ``labels``; or a
            tensor of inputs alone.
        name: what to call it in a message.

    Raises:
        TypeError: it is none of these, or holds something else than tensors.
        ValueError: lengths differ.

    Example:
        >>> as_batch(
        ...     {"input_ids": torch.zeros(2, 5), "labels": torch.tensor([0, 1])}, "train"
        ... ).labels
        tensor([0, 1])
    """
    if isinstance(value, Batch):
        return value
    if hasattr(value, "images") and hasattr(value, "labels"):
        value = (value.images, value.labels)
    if isinstance(value, Tensor):
        value = (value, None)
    if isinstance(value, Mapping):
        labels = [key for key in LABELS if key in value]
        rest = {key: part for key, part in value.items() if key not in labels}
        value = (rest, value[labels[0]] if labels else None)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(
            f"{name} is {_described(value)}: expected (inputs, labels), a dict of named inputs "
            "with 'labels', or a kdlearn.data.Batch."
        )
    inputs, labels = value
    if not isinstance(inputs, Tensor | Mapping):
        raise TypeError(
            f"{name} holds {_described(inputs)} as inputs: expected a tensor or named tensors, "
            "convert with torch.as_tensor."
        )
    _check_labels(labels, name)
    try:
        return Batch(dict(inputs) if isinstance(inputs, Mapping) else inputs, labels)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_labels(labels: Any, name: str) -> None:
    found = tensors_in(labels)
    for tensor in found:
        if tensor.dtype != torch.int64 and not tensor.is_floating_point():
            raise TypeError(
                f"the labels of {name} are {tensor.dtype}: expected torch.int64 for class numbers, "
                "call .long() on them, or floating point for numbers and probabilities."
            )
    if labels is not None and not found:
        raise TypeError(
            f"{name} holds {_described(labels)} as labels: expected a tensor, a tuple or dict of "
            "tensors, or None; convert with torch.as_tensor."
        )


def _check_length(tensor: Tensor, name: str, samples: int) -> None:
    if tensor.dim() == 0 or tensor.shape[0] != samples:
        raise ValueError(
            f"{samples} samples and {name} of shape {tuple(tensor.shape)}: expected one per sample."
        )


def _described(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} parts"
    return f"a {type(value).__name__}"
