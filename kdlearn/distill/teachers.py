"""Where a teacher's outputs come from; losses work alike, live or from a store."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdlearn.core.identity import digest_of_model
from kdlearn.core.inputs import Inputs, device_of, map_tensors, tensors_in, unchanged
from kdlearn.data.batch import Batch
from kdlearn.data.samples import Samples
from kdlearn.data.views import Views
from kdlearn.distill.outputs import LOGITS, Outputs, Want, run
from kdlearn.distill.taps import Taps


@runtime_checkable
class TeacherOutputs(Protocol):
    """Anything that gives a teacher's outputs for a batch, such as `LiveTeacher` or a cache.

    A loss sees `Outputs` and cannot tell where they come from.
    """

    def check(self, wants: Iterable[Want]) -> None:
        """Raise a KeyError that names the first of the wants that cannot be given."""

    def check_run(self, samples: Samples, views: Views) -> None:
        """Raise a ValueError where the outputs do not belong to these samples and views."""

    def identity(self, samples: Samples) -> dict[str, Any]:
        """Return plain values that tell this teacher from another, see `same_teacher`."""

    def outputs(self, batch: Batch) -> Outputs:
        """Return the outputs for a batch, without gradient."""


class NoTeacher:
    """The teacher of a student that learns from labels alone.

    Example:
        >>> NoTeacher().outputs(Batch(torch.zeros(1, 2))).logits is None
        True
    """

    def check(self, wants: Iterable[Want]) -> None:
        """Raise a KeyError if anything is wanted."""
        for want in wants:
            raise KeyError(f"there is none, and a term reads its {want}: pass a teacher.")

    def check_run(self, samples: Samples, views: Views) -> None:
        """Accept all."""

    def identity(self, samples: Samples) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def outputs(self, batch: Batch) -> Outputs:
        """Return nothing."""
        return Outputs(None, batch=batch)


class LiveTeacher:
    """A teacher that runs on every batch, in ``eval()`` and without gradient.

    Convention
        It stays on its own device and in its own precision: inputs are taken there, and outputs
        come back in float32 on the device of the batch.

    Args:
        model: the trained model; it is put into ``eval()`` before each batch.
        wants: what to record of which layer.
        adapt: from the inputs of the student to those of the teacher, where these differ (size,
            normalization, names).

    Raises:
        KeyError: the model has no such layer.

    Example:
        >>> teacher = LiveTeacher(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), [Want("0")])
        >>> outputs = teacher.outputs(Batch(torch.ones(5, 2)))
        >>> outputs.logits.shape, outputs.taps["0"].shape
        (torch.Size([5, 4]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        wants: Iterable[Want] = (),
        adapt: Callable[[Inputs], Inputs] | None = None,
    ) -> None:
        self.model = model
        self.adapt = adapt
        self.wants = tuple(dict.fromkeys(wants))
        layers = list(dict.fromkeys(want.layer for want in self.wants if want.layer != LOGITS))
        self._taps = Taps(model, layers) if layers else None

    def check(self, wants: Iterable[Want]) -> None:
        """Raise a KeyError for what is not recorded."""
        for want in wants:
            if want not in self.wants:
                raise KeyError(f"{want} is not recorded: name it when making the LiveTeacher.")

    def check_run(self, samples: Samples, views: Views) -> None:
        """Accept all: it runs on whatever is shown."""

    def identity(self, samples: Samples) -> dict[str, Any]:
        """Return the digest of its weights and what it answers to a few of the samples."""
        try:
            answers = self.outputs(samples.few(4))
        except Exception:  # whatever a model says to bytes, or to images of another size
            answers = Outputs(torch.empty(0))
        return identity_of(self.model, answers)

    def answers(self, batch: Batch) -> Tensor:
        """Return some of the logits for a batch; none where it must be augmented to be taken."""
        try:
            return some_of(self.outputs(batch).logits)
        except Exception:
            return torch.empty(0)

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Outputs:
        """Run the teacher on a batch."""
        if _trains(self.model):
            self.model.eval()
        home = device_of(batch.inputs)
        inputs = batch.inputs
        if self.adapt is not None:
            with unchanged(inputs, "teacher_input"):
                inputs = self.adapt(inputs)
        like = _a_parameter(self.model)
        if like is not None:
            inputs = map_tensors(lambda tensor: _for_model(tensor, like), inputs)
        shown = batch if inputs is batch.inputs else replace(batch, inputs=inputs)
        answers = run(self.model, self._taps, shown)
        logits = _for_loss(answers.logits, home)
        taps = map_tensors(lambda tensor: _for_loss(tensor, home), answers.taps)
        kept = {
            want: want.keep.reduce(logits if want.layer == LOGITS else taps[want.layer])
            for want in self.wants
            if want.keep is not None
        }
        return Outputs(logits, taps, kept, batch)


def _trains(module: nn.Module) -> bool:
    # Asked before each batch, and modules() takes twice as long.
    parts = module._modules.values()
    return module.training or any(part is not None and _trains(part) for part in parts)


def _a_parameter(module: nn.Module) -> Tensor | None:
    """Return the first parameter of floating point, as ``parameters()`` has it, only sooner."""
    for parameter in module._parameters.values():
        if parameter is not None and parameter.is_floating_point():
            return parameter
    for part in module._modules.values():
        if part is not None and (found := _a_parameter(part)) is not None:
            return found
    return None


def _for_model(tensor: Tensor, like: Tensor) -> Tensor:
    if not tensor.is_floating_point() or torch.is_autocast_enabled(like.device.type):
        return tensor.to(like.device)
    return tensor.to(like.device, like.dtype)


def _for_loss(tensor: Tensor, device: torch.device) -> Tensor:
    # A forward under inference_mode returns tensors that autograd refuses to save; a copy is plain.
    plain = tensor.clone() if tensor.is_inference() else tensor
    half = plain.dtype in (torch.float16, torch.bfloat16)
    return plain.to(device, torch.float32) if half else plain.to(device)


def identity_of(model: nn.Module, answers: Outputs) -> dict[str, Any]:
    """Return plain values that tell a model from another one, see `same_teacher`.

    Weights and layers alone do not tell: what ``forward`` does between them (the number of heads,
    the kind of pooling, a factor) shows in the answers and in what layers were recorded.

    Example:
        >>> batch = Batch(torch.ones(1, 2))
        >>> model = nn.Linear(2, 1)
        >>> list(identity_of(model, run(model, None, batch)))
        ['weights', 'answers', 'layers']
    """
    return {
        "weights": digest_of_model(model),
        "answers": _rounded(answers.logits),
        "layers": {
            name: [_rounded(tensor) for tensor in tensors_in(value)]
            for name, value in answers.taps.items()
        },
    }


def _rounded(tensor: Tensor) -> list[float]:
    # Six digits of each, since layers have scales of their own.
    return [float(f"{value:.6g}") for value in some_of(tensor).tolist()]


def some_of(logits: Tensor) -> Tensor:
    """Return at most 256 numbers from all over the answers to a few samples.

    Example:
        >>> some_of(torch.arange(1000.0).view(4, 250))[-1].item()
        999.0
    """
    real = torch.view_as_real(logits) if logits.is_complex() else logits
    numbers = real.detach().flatten().cpu().double()
    places = torch.linspace(0, len(numbers) - 1, min(256, len(numbers)), dtype=torch.float64)
    return numbers[places.long()]


def same_teacher(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two identities are of one teacher: equal weights, answers equal to rounding.

    Example:
        >>> first = {"weights": "a", "answers": [1.0, 2.0]}
        >>> same_teacher(first, {"weights": "a", "answers": [1.0, 2.000001]})
        True
        >>> same_teacher(first, {"weights": "a", "answers": [1.0, 2.1]})
        False
    """
    numbers = ("answers", "layers")
    rest = [{k: v for k, v in side.items() if k not in numbers} for side in (one, other)]
    here, there = (side.get("layers", {}) for side in (one, other))
    # Which layers are recorded is a matter of the terms.
    return (
        rest[0] == rest[1]
        and _close(one.get("answers", []), other.get("answers", []), largest=1e-4)
        and all(
            len(parts) == len(there[name]) and all(map(_close, parts, there[name]))
            for name, parts in here.items()
            if name in there
        )
    )


def _close(one: list[float], other: list[float], largest: float = math.inf) -> bool:
    """Whether numbers are equal up to rounding, on another device too."""
    here, there = (torch.tensor(side, dtype=torch.float64) for side in (one, other))
    sizes = there.abs()
    # What rounding leaves of a number near 0 is a share of its neighbors; -1e4 stands for a mask.
    scale = sizes.masked_fill(~(sizes < 1e4), 0).amax().item() if len(sizes) else 0.0
    return here.shape == there.shape and torch.allclose(
        here, there, rtol=1e-3, atol=min(largest, 1e-3 * scale), equal_nan=True
    )
