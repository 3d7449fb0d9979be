"""What a model says of a batch, and what a term may want of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Generator, Tensor, nn

from kdlearn.core.errors import noting
from kdlearn.core.inputs import call
from kdlearn.data.batch import Batch
from kdlearn.distill.taps import Taps

LOGITS = ""
"""Stands for a model's logits where the name of a layer is expected."""


class Keep(Protocol):
    """What is kept of a teacher's layer instead of the whole, such as `kdlearn.store.AttentionMap`.

    A term that names one gets ``restore(reduce(features))``, whether the teacher runs or its
    outputs were stored, and so the same number.
    """

    def reduce(self, output: Any, generator: Generator | None = None) -> Any:
        """Return what is kept: one or several tensors with a row per sample."""

    def restore(self, kept: Any, student: Any = None) -> Any:
        """Return what takes the place of the output in a loss, beside the student's."""


class Want(NamedTuple):
    """A layer of the teacher that a term reads, and what is kept of it.

    Attributes:
        layer: its name, see `kdlearn.distill.Taps`; empty for the logits.
        keep: what is kept of it; None for all.
    """

    layer: str
    keep: Keep | None = None

    def __str__(self) -> str:
        name = self.layer or "logits"
        return name if self.keep is None else f"{name} as {self.keep}"


@dataclass(frozen=True)
class Outputs:
    """What one model says of one batch.

    Attributes:
        logits: the model's output, shape (B, C) for a classifier; None where it was not stored.
        taps: layers as they are, by name.
        kept: what is kept of layers, by `Want`.
        batch: what it was computed from.

    Example:
        >>> import torch
        >>> Outputs(torch.zeros(2, 10)).logits.shape
        torch.Size([2, 10])
    """

    logits: Any
    taps: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[Want, Any] = field(default_factory=dict)
    batch: Batch | None = None


def run(model: nn.Module, taps: Taps | None, batch: Batch) -> Outputs:
    """Run a model on a batch and record its tapped layers; nothing of it stays in the taps.

    Example:
        >>> import torch
        >>> run(nn.Linear(2, 3), None, Batch(torch.ones(1, 2))).logits.shape
        torch.Size([1, 3])
    """
    with noting(f"in the forward pass of {type(model).__name__}"):
        if taps is None:
            return Outputs(call(model, batch.inputs), batch=batch)
        try:
            with taps:
                logits: Tensor = call(model, batch.inputs)
            return Outputs(logits, dict(taps), batch=batch)
        finally:
            taps.forget()
