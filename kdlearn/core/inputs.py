"""What goes into a model and comes out of it, for any kind of model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | Mapping[str, Tensor]
"""One tensor, or the named tensors that a model takes as keyword arguments (Hugging Face)."""


def named(inputs: Inputs) -> Mapping[str, Tensor]:
    """Give inputs by name; a single tensor has the empty name.

    Example:
        >>> list(named(torch.zeros(1)))
        ['']
    """
    return inputs if isinstance(inputs, Mapping) else {"": inputs}


def count(inputs: Inputs) -> int:
    """Count the samples: the first dimension, which named inputs share.

    Raises:
        TypeError: there is something else than tensors.
        ValueError: there are no named inputs, or their first dimensions differ.

    Example:
        >>> count({"input_ids": torch.zeros(3, 8), "attention_mask": torch.ones(3, 8)})
        3
    """
    if not isinstance(inputs, Mapping):
        if not isinstance(inputs, Tensor):
            raise TypeError(
                f"the inputs are a {type(inputs).__name__}: expected a tensor, convert with torch.as_tensor."
            )
        return len(inputs)
    others = [name for name, value in inputs.items() if not isinstance(value, Tensor)]
    if others:
        raise TypeError(
            f"the inputs {', '.join(map(repr, others))} are no tensors: expected a tensor for each name, e.g. from "
            "tokenizer(texts, padding=True, return_tensors='pt')."
        )
    lengths = {name: len(value) for name, value in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"named inputs have the lengths {lengths}: expected one length for all.")
    return next(iter(lengths.values()))


def take(inputs: Inputs, rows: Tensor | slice) -> Inputs:
    """Give some of the samples.

    Example:
        >>> take({"input_ids": torch.arange(6).view(3, 2)}, slice(0, 1))
        {'input_ids': tensor([[0, 1]])}
    """
    if isinstance(inputs, Mapping):
        return {name: value[rows] for name, value in inputs.items()}
    return inputs[rows]


def join(pieces: Sequence[Inputs]) -> Inputs:
    """Put samples behind each other.

    Example:
        >>> join([torch.zeros(2, 3), torch.zeros(1, 3)]).shape
        torch.Size([3, 3])
    """
    first = pieces[0]
    if isinstance(first, Mapping):
        return {name: torch.cat([piece[name] for piece in pieces]) for name in first}  # type: ignore[index]
    return torch.cat([piece for piece in pieces if isinstance(piece, Tensor)])


def place(inputs: Inputs, device: torch.device) -> Inputs:
    """Move inputs to a device.

    Example:
        >>> place(torch.zeros(2), torch.device("cpu")).device
        device(type='cpu')
    """
    if isinstance(inputs, Mapping):
        return {name: value.to(device) for name, value in inputs.items()}
    return inputs.to(device)


def device_of(inputs: Inputs) -> torch.device:
    """Say where inputs are.

    Example:
        >>> device_of({"input_ids": torch.zeros(1)})
        device(type='cpu')
    """
    return next(iter(named(inputs).values())).device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a ``with`` block; afterwards each module has its own mode again.

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
        for module, training in modes.items():
            module.training = training


def run(model: Callable[..., Any], inputs: Inputs) -> Any:
    """Run a model and give what it returns: one tensor is its first argument, named tensors its keyword arguments.

    Example:
        >>> run(nn.Linear(2, 3), torch.ones(4, 2)).shape
        torch.Size([4, 3])
    """
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def call(model: nn.Module, inputs: Inputs) -> Tensor:
    """Run a model and give its logits.

    Convention
        Inputs go in as `run` has them. Logits are the output itself, its entry ``"logits"`` or its
        attribute ``logits``, as Hugging Face models with a head have them.

    Raises:
        TypeError: the output has no logits; the message says what it has.

    Example:
        >>> call(nn.Linear(2, 3), torch.ones(4, 2)).shape
        torch.Size([4, 3])
    """
    output = run(model, inputs)
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else None
    logits = getattr(output, "logits", None) if logits is None else logits
    if isinstance(logits, Tensor):
        return logits
    raise TypeError(
        f"{type(model).__name__} returns {_described(output)}: expected logits, as a tensor or under the name "
        "'logits'. Use a model with a head (...ForSequenceClassification, ...ForImageClassification, ...ForCausalLM), "
        "or wrap it in a module whose forward returns them."
    )


def _described(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with {', '.join(map(str, output))}"
    return f"a {type(output).__name__}"
