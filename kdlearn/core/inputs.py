"""What goes into a model and comes out of it, for any kind of model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | Mapping[str, Tensor]
"""One tensor, or the named tensors that a model takes as keyword arguments (Hugging Face)."""


def count(inputs: Inputs) -> int:
    """Count the samples: the first dimension, which named inputs share.

    Raises:
        TypeError: there is something else than tensors.
        ValueError: there are no named inputs, or their first dimensions differ.

    Example:
        >>> count({"input_ids": torch.zeros(3, 8), "attention_mask": torch.ones(3, 8)})
        3
    """
    if isinstance(inputs, Tensor) and inputs.dim():
        return inputs.shape[0]
    if any(tensor.dim() == 0 for tensor in tensors_in(inputs)):
        raise ValueError("the inputs hold one number: expected a dimension of samples in front.")
    if not isinstance(inputs, Mapping):
        raise TypeError(
            f"the inputs are a {type(inputs).__name__}: expected a tensor, convert with "
            "torch.as_tensor."
        )
    others = [name for name, value in inputs.items() if not isinstance(value, Tensor)]
    if others:
        raise TypeError(
            f"the inputs {', '.join(map(repr, others))} are no tensors: expected a tensor for each "
            "name, e.g. from tokenizer(texts, padding=True, return_tensors='pt')."
        )
    lengths = {name: len(value) for name, value in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"named inputs have the lengths {lengths}: expected one length for all.")
    return next(iter(lengths.values()))


def map_tensors(change: Callable[..., Any], value: Any, *others: Any) -> Any:
    """Change each tensor in a tree of tuples, lists, dicts and dataclasses; keep the rest as it is.

    With ``others``, trees of the same form, ``change`` gets the tensors of one place from all.

    Example:
        >>> map_tensors(lambda tensor: tensor + 1, {"a": torch.zeros(1), "b": None})
        {'a': tensor([1.]), 'b': None}
    """
    if isinstance(value, Tensor):
        return change(value, *others)
    if value is None:  # often: asking whether it is a mapping takes longer than all the rest
        return None
    if isinstance(value, Mapping):
        # A shallow copy keeps the type, which may be a dict with attributes (Hugging Face outputs).
        changed: Any = copy.copy(value)
        for key, part in value.items():
            changed[key] = map_tensors(change, part, *(other[key] for other in others))
        return changed
    if isinstance(value, tuple | list):
        parts = [map_tensors(change, *same) for same in zip(value, *others, strict=True)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        held = copy.copy(value)
        for name in (field.name for field in fields(value) if hasattr(value, field.name)):
            same = (getattr(other, name) for other in others)
            object.__setattr__(held, name, map_tensors(change, getattr(value, name), *same))
        return held
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """List the tensors of a tree of tuples, lists, dicts and dataclasses.

    Example:
        >>> len(tensors_in({"a": torch.zeros(1), "b": (torch.zeros(2), None)}))
        2
    """
    if isinstance(value, Tensor):
        return [value]
    found: list[Tensor] = []
    map_tensors(found.append, value)
    return found


def take(inputs: Any, rows: Tensor | slice) -> Any:
    """Take some of the samples.

    Example:
        >>> take({"input_ids": torch.arange(6).view(3, 2)}, slice(0, 1))
        {'input_ids': tensor([[0, 1]])}
    """
    return map_tensors(taking(rows), inputs)


def taking(rows: Tensor | slice) -> Callable[[Tensor], Tensor]:
    """Return what takes some of the rows of a tensor, on whatever device that is.

    Example:
        >>> taking(torch.tensor([1]))(torch.arange(6).view(3, 2))
        tensor([[2, 3]])
    """
    if isinstance(rows, slice):
        return lambda tensor: tensor[rows]
    # Several times faster than tensor[rows], and the same.
    return lambda tensor: tensor.index_select(0, rows.to(tensor.device))


def place(inputs: Any, device: torch.device) -> Any:
    """Move inputs to a device.

    Example:
        >>> place(torch.zeros(2), torch.device("cpu")).device
        device(type='cpu')
    """
    return map_tensors(lambda tensor: tensor.to(device), inputs)


def join(pieces: Sequence[Any]) -> Any:
    """Put the samples of equal trees behind each other, tensor by tensor.

    Example:
        >>> join([{"a": torch.zeros(2, 3)}, {"a": torch.zeros(1, 3)}])["a"].shape
        torch.Size([3, 3])
    """
    return map_tensors(lambda *parts: torch.cat(parts), *pieces)


def device_of(inputs: Inputs) -> torch.device:
    """Return where inputs are.

    Example:
        >>> device_of({"input_ids": torch.zeros(1)})
        device(type='cpu')
    """
    return tensors_in(inputs)[0].device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a ``with`` block; then each module has its own mode again.

    Example:
        >>> model = nn.Dropout()
        >>> with evaluating(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        model.train(modes[model])  # which may do more, such as taking merged weights apart
        for module, training in modes.items():
            module.training = training


class Buffers:
    """A model's buffers (running statistics) with the numbers they have now, to go back to.

    One that comes later goes again; one that takes another's place gives it back.

    Example:
        >>> model = nn.BatchNorm1d(1)
        >>> before = Buffers(model)
        >>> _ = model(torch.ones(2, 1))
        >>> before.put_back()
        >>> model.num_batches_tracked.item()
        0
    """

    def __init__(self, model: nn.Module) -> None:
        self._held = [(module, dict(module._buffers)) for module in model.modules()]
        self._numbers = [(b, b.clone()) for b in model.buffers() if not _is_expanded(b)]

    def put_back(self) -> None:
        """Give the model the buffers it had, with the numbers they had."""
        for module, held in self._held:
            module._buffers.clear()
            module._buffers.update(held)
        with torch.no_grad():
            for buffer, numbers in self._numbers:
                buffer.copy_(numbers)


def _is_expanded(tensor: Tensor) -> bool:
    """Return whether one number stands for several, so that nobody can write to them."""
    return any(
        step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    )


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put a model's buffers (running statistics) back as they were before a ``with`` block.

    Example:
        >>> model = nn.BatchNorm1d(1)
        >>> with buffers_kept(model):
        ...     _ = model(torch.ones(2, 1))
        >>> model.num_batches_tracked.item()
        0
    """
    before = Buffers(model)
    try:
        yield
    finally:
        before.put_back()


def run(model: Callable[..., Any], inputs: Inputs) -> Any:
    """Run a model: one tensor is its first argument, named tensors are its keyword arguments.

    Raises:
        ValueError: the model changed its inputs in place, and the next to see them would be given
            something else.

    Example:
        >>> run(nn.Linear(2, 3), torch.ones(4, 2)).shape
        torch.Size([4, 3])
    """
    with unchanged(inputs, type(model).__name__):
        if isinstance(inputs, Tensor):
            return model(inputs)
        _check_decoder(model, inputs)
        return model(**inputs)


def _check_decoder(model: Any, inputs: Mapping[str, Tensor]) -> None:
    """Refuse an encoder and decoder without inputs of the decoder: some make up wrong ones."""
    given = ("decoder_input_ids", "decoder_inputs_embeds", "labels")
    if hasattr(model, "prepare_decoder_input_ids_from_labels") and not any(
        name in inputs for name in given
    ):
        raise ValueError(
            f"{type(model).__name__} has a decoder and gets no decoder_input_ids, which it would "
            "make of the labels, and these are for the loss: add decoder_input_ids="
            "model.prepare_decoder_input_ids_from_labels(labels) to the inputs."
        )


class unchanged:
    """Refuse what a ``with`` block changes in place in inputs that others will see too.

    Args:
        inputs: that must stay as they are, in any tree.
        who: what to call the one who may change them.

    Raises:
        ValueError: they were changed.

    Example:
        >>> inputs = torch.ones(2)
        >>> with unchanged(inputs, "teacher_input"):
        ...     _ = inputs.mul_(2)
        Traceback (most recent call last):
        ...
        ValueError: teacher_input changes its inputs in place, so that the next to see them ...
    """

    def __init__(self, inputs: Any, who: str) -> None:
        self._tensors, self._who = tensors_in(inputs), who
        self._before = self._versions()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None and self._versions() != self._before:
            raise ValueError(
                f"{self._who} changes its inputs in place, so that the next to see them would be "
                "given something else: leave inplace=True out of a first layer, and clone() before "
                "a change."
            )

    def _versions(self) -> list[int]:
        # Of tensors made in inference mode nothing is counted.
        return [0 if t.is_inference() else t._version for t in self._tensors]


def logits_of(output: Any, model: nn.Module) -> Tensor:
    """Return the logits in what a model returned: itself, or what it has under the name ``logits``.

    Raises:
        TypeError: there are none; the message says what there is.

    Example:
        >>> logits_of({"logits": torch.zeros(2, 3), "hidden": None}, nn.Identity()).shape
        torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else None
    logits = getattr(output, "logits", None) if logits is None else logits
    if isinstance(logits, Tensor):
        return logits
    raise TypeError(
        f"{type(model).__name__} returns {_described(output)}: expected logits, as a tensor or "
        "under the name 'logits'. Use a model with a head (...ForSequenceClassification, "
        "...ForImageClassification, ...ForCausalLM), or wrap it in a module whose forward returns "
        "them."
    )


def call(model: nn.Module, inputs: Inputs) -> Tensor:
    """Run a model and return its logits.

    Convention
        Inputs go in as `run` has them. Logits are the output itself, its entry ``"logits"`` or its
        attribute ``logits``, as Hugging Face models with a head have them.

    Raises:
        TypeError: the output has no logits; the message says what it has.

    Example:
        >>> call(nn.Linear(2, 3), torch.ones(4, 2)).shape
        torch.Size([4, 3])
    """
    return logits_of(run(model, inputs), model)


def _described(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with {', '.join(map(str, output))}"
    return f"a {type(output).__name__}"
