"""Names for things that tell one run from another: functions, settings, tensors."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from kdlearn.core.inputs import map_tensors, tensors_in


def described(value: Any) -> str:
    """Return a text that is equal for equal settings, in this process and the next.

    A function counts by its name and its code, a module by its layers, an object by its class and
    its public attributes. Values that a function closes over do not count.

    Example:
        >>> described(partial(max, default=2.0))
        'builtins.max(default=2.0)'
        >>> described(lambda x: x + 1) == described(lambda x: x + 2)
        False
    """
    if isinstance(value, partial):
        parts = [described(part) for part in value.args]
        parts += [f"{name}={described(part)}" for name, part in sorted(value.keywords.items())]
        return f"{described(value.func)}({', '.join(parts)})"
    if isinstance(value, FunctionType):
        name = f"{value.__module__}.{value.__qualname__}"
        return f"{name} {_code(value.__code__)} {described(value.__defaults__)}"
    if isinstance(value, MethodType):
        return f"{described(value.__self__)}.{value.__name__}"
    if isinstance(value, Tensor):
        return digest_of(value)
    if isinstance(value, nn.Module | type) or callable(value) and hasattr(value, "__qualname__"):
        named = hasattr(value, "__qualname__")
        return f"{value.__module__}.{value.__qualname__}" if named else repr(value)
    if dataclasses.is_dataclass(value):
        parts = [f"{f.name}={described(getattr(value, f.name))}" for f in dataclasses.fields(value)]
        return f"{type(value).__qualname__}({', '.join(parts)})"
    if isinstance(value, Mapping):
        return repr({described(key): described(part) for key, part in value.items()})
    if isinstance(value, tuple | list):
        return repr([described(part) for part in value])
    if "__repr__" in vars(type(value)) or not hasattr(value, "__dict__"):
        return repr(value)
    kept = {name: part for name, part in vars(value).items() if not name.startswith("_")}
    return f"{type(value).__qualname__} {described(kept)}"


def _code(code: CodeType) -> str:
    inner = [_code(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    text = f"{code.co_code.hex()} {code.co_names} {inner}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of(*values: Any) -> str:
    """Return the SHA-256 of the tensors in some trees; names, types and shapes count too.

    Example:
        >>> digest_of(torch.zeros(2)) == digest_of(torch.zeros(2, 1))
        False
    """
    form = map_tensors(lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)}", values)
    total = hashlib.sha256(repr(form).encode())
    for tensor in tensors_in(values):
        # Piece by piece, and the buffer itself: a copy would double the memory of a data set.
        for piece in tensor.detach().split(1024) if tensor.dim() else [tensor.detach()]:
            numbers: Any = piece.cpu().contiguous().flatten().view(torch.uint8).numpy()
            total.update(numbers)
    return total.hexdigest()


def digest_of_model(model: nn.Module) -> str:
    """Return the SHA-256 of a model's layers, their settings and all its weights and buffers.

    Example:
        >>> first = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> other = nn.Sequential(first[0], nn.Sigmoid())
        >>> digest_of_model(first) == digest_of_model(other)
        False
    """
    total = hashlib.sha256()
    for name, part in model.named_modules():
        # Without their settings, a ReLU and a sigmoid between the same weights would be one model.
        total.update(f"{name} {type(part).__qualname__} {part.extra_repr()}\n".encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            total.update(f"{name} {digest_of(value)}".encode())
    return total.hexdigest()
