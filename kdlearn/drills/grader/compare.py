"""Copy inputs, say whether two outcomes are the same, and show them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from kdlearn.drills.grader.drill import Case

TOLERANCE = {
    torch.float64: (1e-6, 1e-9),
    torch.float32: (2e-3, 1e-5),
    torch.float16: (2e-2, 2e-3),
}
"""Relative and absolute, by precision; solutions may be written in any order of operations."""


@dataclass(frozen=True)
class Raised:
    """An exception in place of a result.

    Attributes:
        kinds: the names of the exception's class and of those above it; the first is its own.
        message: its first line.
        line: the text of the line of the solution where it came from.
    """

    kinds: tuple[str, ...]
    message: str
    line: str = field(default="")

    def __str__(self) -> str:
        return f"{self.kinds[0]}: {self.message}"


def copied(case: Case) -> Case:
    """Copy a case so that nothing done to it is seen in the original; what is shared stays so."""
    if not any(isinstance(value, nn.Module | Optimizer) for value in case.values()):
        return {name: _copy(value) for name, value in case.items()}
    generators = {name: value for name, value in case.items() if isinstance(value, Generator)}
    rest = {name: value for name, value in case.items() if name not in generators}
    twins = {name: Generator().set_state(g.get_state()) for name, g in generators.items()}
    given = copy.deepcopy(rest) | twins
    for name, value in rest.items():
        if isinstance(value, nn.Module):
            # deepcopy leaves gradients behind, and a forgotten zero_grad() would not show.
            for old, new in zip(value.parameters(), given[name].parameters(), strict=True):
                new.grad = None if old.grad is None else old.grad.clone()
    return {name: given[name] for name in case}


def same(one: Any, other: Any) -> bool:
    """Say whether two values are the same up to rounding, whatever they are made of.

    Example:
        >>> same({"loss": torch.tensor(1.0)}, {"loss": 1.0})
        True
        >>> same([1.0, float("nan")], [1.0, float("nan")])
        True
        >>> same(torch.ones(2), torch.ones(2, 1))
        False
    """
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        return same(dict(one.state_dict()), dict(other.state_dict()))
    if isinstance(one, Optimizer) and isinstance(other, Optimizer):
        return same(one.state_dict(), other.state_dict())
    if isinstance(one, Generator) and isinstance(other, Generator):
        return torch.equal(one.get_state(), other.get_state())
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    if is_number(one) and is_number(other):
        return _close(_tensor(one), _tensor(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same(left, right) for left, right in pairs)
    if isinstance(one, Raised) and isinstance(other, Raised):
        return one.kinds[0] in other.kinds or other.kinds[0] in one.kinds
    if type(one) is not type(other):
        return False
    if isinstance(one, str | set | frozenset | None):
        return bool(one == other)
    if type(one).__eq__ is object.__eq__:  # type: ignore[comparison-overlap]
        # A function or an object without a value of its own: there is nothing to compare.
        return True
    return bool(one == other)


def shown(value: Any) -> str:
    """Show a value in a few characters.

    Example:
        >>> shown(torch.tensor([[0.25, 0.75]])), shown(torch.zeros(8, 8)), shown(1.5)
        ('[[0.25, 0.75]]', '[0, 0, 0, ...] of shape (8, 8)', '1.5')
    """
    if isinstance(value, Raised):
        return str(value)
    if isinstance(value, Tensor):
        if value.numel() > 12:
            first = ", ".join(shown(number) for number in value.detach().flatten()[:3].tolist())
            return f"[{first}, ...] of shape {tuple(value.shape)}"
        value = value.detach().tolist()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(shown(part) for part in value) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(shown(part) for part in value) + ")"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(part)}" for key, part in value.items()) + "}"
    if isinstance(value, nn.Module | Generator | Optimizer) or callable(value):
        return f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def numbers_of(value: Any) -> Tensor | None:
    """Return all numbers in a value as one float64 vector; None if it holds none.

    Example:
        >>> numbers_of({"a": 1, "b": [2.0]}).tolist()
        [1.0, 2.0]
    """
    if is_number(value):
        return _tensor(value).double().flatten()
    parts = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list | tuple):
        return None
    vectors = [vector for vector in map(numbers_of, parts) if vector is not None]
    return torch.cat(vectors) if vectors else None


def is_finite(value: Any) -> bool:
    """Say whether all numbers in a value are finite.

    Example:
        >>> is_finite({"a": 1.0}), is_finite(math.nan)
        (True, False)
    """
    vector = numbers_of(value)
    return vector is None or bool(vector.isfinite().all())


def is_number(value: Any) -> bool:
    """Say whether a value is a number or an array of numbers."""
    return isinstance(value, Tensor | Real | np.ndarray | np.generic)


def size_of(case: Case) -> float:
    """Return how many numbers a case shows; infinity where it holds what cannot be shown.

    Example:
        >>> size_of({"x": torch.zeros(2, 3), "T": 2.0})
        7.0
    """
    vectors = [numbers_of(value) for value in case.values()]
    return float(sum(math.inf if vector is None else len(vector) for vector in vectors))


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Generator):
        return Generator().set_state(value.get_state())
    return [_copy(part) for part in value] if isinstance(value, list) else value


def _tensor(value: Any) -> Tensor:
    precise = torch.float64 if isinstance(value, float) else None
    return torch.as_tensor(value, dtype=precise).detach()


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype == other.dtype == torch.float64:
        return torch.allclose(one, other, *TOLERANCE[torch.float64], equal_nan=True)
    if one.dtype == other.dtype and not one.is_floating_point():
        return torch.equal(one, other)
    coarse = one.dtype if one.dtype == other.dtype and one.dtype in TOLERANCE else torch.float64
    relative, absolute = TOLERANCE[coarse]
    return torch.allclose(
        one.double(), other.double(), rtol=relative, atol=absolute, equal_nan=True
    )
