"""Where a teacher's outputs come from: the seam that lets losses work alike, live or from a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdlearn.core.inputs import Inputs, call
from kdlearn.distill.taps import Taps


@dataclass(frozen=True)
class Outputs:
    """What one model says of one batch.

    Attributes:
        logits: the model's output, shape (B, C) for a classifier.
        taps: recorded layers, by name.
        sparse: log-probabilities of a few classes and their indices, where only these were stored.

    Example:
        >>> Outputs(torch.zeros(2, 10)).logits.shape
        torch.Size([2, 10])
    """

    logits: Tensor
    taps: Mapping[str, Any] = field(default_factory=dict)
    sparse: tuple[Tensor, Tensor] | None = None


@runtime_checkable
class TeacherOutputs(Protocol):
    """Anything that gives a teacher's outputs for a batch, such as `LiveTeacher` or a cache.

    A loss sees `Outputs` and cannot tell where they come from.
    """

    @property
    def needs_indices(self) -> bool:
        """Whether `outputs` must be told the rows of the training data."""

    def check(self, layers: Iterable[str]) -> None:
        """Raise a KeyError that names the first of the layers that cannot be given."""

    def check_student(self, layer: str, features: Any) -> None:
        """Raise a ValueError where the student's features cannot be compared with this layer."""

    def outputs(self, inputs: Inputs, indices: Tensor | None) -> Outputs:
        """Give the outputs for a batch, without gradient."""


class LiveTeacher:
    """A teacher that runs on every batch, in ``eval()`` and without gradient.

    Args:
        model: the trained model; it is put into ``eval()`` before each batch.
        layers: names of the layers to record, see `kdlearn.distill.Taps`.

    Raises:
        KeyError: the model has no such layer.

    Example:
        >>> teacher = LiveTeacher(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), ["0"])
        >>> outputs = teacher.outputs(torch.ones(5, 2), None)
        >>> outputs.logits.shape, outputs.taps["0"].shape
        (torch.Size([5, 4]), torch.Size([5, 3]))
    """

    needs_indices = False

    def __init__(self, model: nn.Module, layers: Iterable[str] = ()) -> None:
        self.model = model
        self._layers = tuple(dict.fromkeys(layers))
        self._taps = Taps(model, self._layers) if self._layers else None

    def check(self, layers: Iterable[str]) -> None:
        """Raise a KeyError for a layer that is not recorded."""
        for layer in layers:
            if layer not in self._layers:
                raise KeyError(f"{layer!r} is not recorded: name it when making the LiveTeacher.")

    def check_student(self, layer: str, features: Any) -> None:
        """Accept all: live features have their full size."""

    @torch.no_grad()
    def outputs(self, inputs: Inputs, indices: Tensor | None = None) -> Outputs:
        """Run the teacher on a batch; the rows do not matter."""
        self.model.eval()
        return run(self.model, self._taps, inputs)


def run(model: nn.Module, taps: Taps | None, inputs: Inputs) -> Outputs:
    """Run a model on a batch and record its tapped layers.

    Example:
        >>> run(nn.Linear(2, 3), None, torch.ones(1, 2)).logits.shape
        torch.Size([1, 3])
    """
    if taps is None:
        return Outputs(call(model, inputs))
    with taps:
        logits = call(model, inputs)
    return Outputs(logits, taps)
