"""Copy inputs, run a solution on them, and say whether two outcomes are the same."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from kdlearn.drills.grader.drill import Case, Drill, Solution

TOLERANCE = 1e-6
"""Relative; solutions are compared in float64, and may be written in any order of operations."""


@dataclass(frozen=True)
class Raised:
    """An exception in place of a result.

    Attributes:
        kind: the exception's class.
        message: its first line.
        line: of the solution's own source, from 1; 0 if it was not in there.
    """

    kind: str
    message: str
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Observation:
    """What a solution did with one case.

    Attributes:
        aspects: what is compared, by name; an exception is the aspect "value".
        reached: the arguments that got a gradient although they must not.
        changed: the arguments that were changed although they must not be.
    """

    aspects: Mapping[str, Any]
    reached: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def observe(drill: Drill, solution: Solution, case: Case) -> Observation:
    """Run a solution on a copy of a case.

    The global random state of torch is the same for each run, and gradients are taken of one fixed weighted sum of the
    result's elements.
    """
    given = copied(case)
    followed = drill.gradients + drill.detached
    leaves = {name: _leaves(given[name]) for name in followed}
    for name in followed:
        # Clones, as work in place on a leaf would raise instead of showing as a change.
        clones = [leaf.clone() for leaf in leaves[name]]
        given[name] = clones if isinstance(given[name], list) else clones[0]
    kept = copied({name: case[name] for name in case if name not in drill.changes})
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        try:
            result = drill.call(solution, given)
            aspects = dict(drill.observe(given, result))
            reached: tuple[str, ...] = ()
            if followed:
                found = iter(
                    _gradients(result, [leaf for name in followed for leaf in leaves[name]])
                )
                by_name = {name: [next(found) for _ in leaves[name]] for name in followed}
                aspects |= {
                    f"gradient of {name}": by_name[name]
                    if len(leaves[name]) > 1
                    else by_name[name][0]
                    for name in drill.gradients
                }
                reached = tuple(
                    name for name in drill.detached if any(g is not None for g in by_name[name])
                )
        except (Exception, SystemExit) as error:
            return Observation({"value": described(error, solution)})
    changed = tuple(name for name, before in kept.items() if not same(before, given[name]))
    return Observation(aspects, reached, changed)


def described(error: BaseException, solution: Solution) -> Raised:
    """Say what was raised, and in which line of the solution."""
    code = getattr(solution, "__code__", None)
    line = 0
    for frame in traceback.extract_tb(error.__traceback__):
        if code is not None and frame.filename == code.co_filename and frame.lineno:
            line = frame.lineno - code.co_firstlineno + 1
    message = str(error).strip() or "no message"
    return Raised(type(error).__name__, message.splitlines()[0], max(line, 0))


def copied(case: Case) -> Case:
    """Copy a case so that nothing done to the copy is seen in the original; what is shared stays shared."""
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
        return same(_state_of(one), _state_of(other))
    if isinstance(one, Optimizer) and isinstance(other, Optimizer):
        return same(one.state_dict(), other.state_dict())
    if isinstance(one, Generator) and isinstance(other, Generator):
        return torch.equal(one.get_state(), other.get_state())
    if _is_number(one) and _is_number(other):
        return _close(torch.as_tensor(one), torch.as_tensor(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same(left, right) for left, right in pairs)
    if type(one) is not type(other):
        return False
    if isinstance(one, str | set | Raised | None):
        return bool(one == other)
    if type(one).__eq__ is object.__eq__:  # type: ignore[comparison-overlap]
        return (
            True  # a function or an object without a value of its own: there is nothing to compare
        )
    return bool(one == other)


def shown(value: Any) -> str:
    """Show a value in a few characters.

    Example:
        >>> shown(torch.tensor([0.25, 0.75])), shown(torch.zeros(8, 8)), shown(1.5)
        ('[0.25, 0.75]', '[0, 0, 0, ...] of shape (8, 8)', '1.5')
    """
    if isinstance(value, Raised):
        return f"{value.kind} ({value.message})"
    if isinstance(value, Tensor):
        if value.numel() > 4:
            first = ", ".join(shown(number) for number in value.detach().flatten()[:3].tolist())
            return f"[{first}, ...] of shape {tuple(value.shape)}"
        value = value.detach().tolist()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(shown(part) for part in value) + "]"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def numbers_of(value: Any) -> Tensor | None:
    """The numbers in a value as one float64 vector; None if it is not a number or a tensor of numbers."""
    if not _is_number(value):
        return None
    return torch.as_tensor(value).detach().double().flatten()


def _leaves(value: Tensor | list[Tensor]) -> list[Tensor]:
    parts = value if isinstance(value, list) else [value]
    return [part.detach().clone().requires_grad_() for part in parts]


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor | Real | np.ndarray | np.generic)


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    one, other = one.detach().double(), other.detach().double()
    return torch.allclose(one, other, rtol=TOLERANCE, atol=1e-9, equal_nan=True)


def _state_of(module: nn.Module) -> dict[str, Any]:
    return {
        "state": module.state_dict(),
        "training": [part.training for part in module.modules()],
        "trained": [parameter.requires_grad for parameter in module.parameters()],
        "hooks": [len(part._forward_hooks) for part in module.modules()],
    }


def _gradients(result: Any, inputs: list[Tensor]) -> list[Tensor | None]:
    parts = [part for part in _tensors(result) if part.requires_grad]
    if not parts:
        return [None] * len(inputs)
    total = sum((_weights(part) * part).sum() for part in parts)
    assert isinstance(total, Tensor)
    return list(torch.autograd.grad(total, inputs, allow_unused=True))


def _weights(part: Tensor) -> Tensor:
    if part.dim() == 0:
        return torch.ones_like(part)
    return torch.linspace(0.5, 1.5, part.numel(), dtype=part.dtype).reshape(part.shape)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [part for one in value.values() for part in _tensors(one)]
    if isinstance(value, list | tuple):
        return [part for one in value for part in _tensors(one)]
    return []
