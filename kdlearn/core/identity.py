"""Names for things that tell one run from another: functions, settings, tensors."""

from __future__ import annotations

import dis
import hashlib
import re
import sys
import sysconfig
from argparse import Namespace
from collections import deque
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdlearn.core.inputs import map_tensors, tensors_in

_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)
_NAMESPACES = (SimpleNamespace, Namespace)
_PARTS_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def described(value: Any) -> str:
    """Return a text that is equal for equal settings, in this process and the next.

    Convention
        A function counts by its name, its code and its defaults, the values it closes over, and
        the globals that it reads: values, functions of the same file, values of another module
        (``config.TEMPERATURE``). What it assigns itself (``global``, ``nonlocal``) is no setting.
        An object counts by its class and all its attributes, and a class of your own by its
        functions and constants too. A module counts so as well, with its layers; of what is trained
        or saved with it (parameters, buffers) only types and shapes. Arrays and other tensors count
        by every number.
        Random generators, open files and other objects without values of their own count by their
        class. What is installed (Python's library, torch, any package) counts by its name, not by
        what its code does. Order in sets and dicts does not count.

    Example:
        >>> described(partial(max, default=2.0))
        'builtins.max(default=2.0)'
        >>> described(lambda x: x + 1) == described(lambda x: x + 2)
        False
    """
    return _Description().of(value)


class _Description:
    """One walk through a value, that visits each function once and ends where it meets itself."""

    def __init__(self) -> None:
        self._inside: list[Any] = []
        self._functions: dict[int, Any] = {}

    def of(self, value: Any) -> str:
        if isinstance(value, Enum):
            return _text(value)
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if isinstance(value, np.generic):
            return repr(value.item())
        if isinstance(value, type):
            return _name(value)
        for depth, outer in enumerate(self._inside):
            if outer is value:
                return f"<itself, {depth}>"
        self._inside.append(value)
        try:
            return self._of_parts(value)
        finally:
            self._inside.pop()

    def _of_parts(self, value: Any) -> str:
        kind = type(value)
        if isinstance(value, Tensor):
            trained = value.requires_grad or isinstance(value, nn.Parameter)
            return _form(value) if trained else digest_of(value)
        if isinstance(value, np.ndarray):
            whole = self.of(value.tolist()) if value.dtype.hasobject else _sha(value.tobytes())
            return f"{value.dtype.str} {value.shape} {whole}"
        if isinstance(value, Mapping):
            pairs = sorted((self.of(key), self.of(part)) for key, part in value.items())
            inside = ", ".join(f"{key}: {part}" for key, part in pairs)
            return f"{'' if kind is dict else kind.__qualname__}{{{inside}}}"
        if isinstance(value, tuple | list | deque):
            inside = ", ".join(self.of(part) for part in value)
            return f"{'' if kind in (tuple, list) else kind.__qualname__}[{inside}]"
        if isinstance(value, set | frozenset):
            return f"{{{', '.join(sorted(self.of(part) for part in value))}}}"
        if callable(value) and (text := self._of_callable(value)):
            return text
        if isinstance(value, nn.Module):
            return f"{_name(kind)} {_sha(self._of_module(value))}"
        return self._of_object(value)

    def _of_callable(self, value: Any) -> str:
        if isinstance(value, partial):
            parts = [self.of(part) for part in value.args]
            parts += [f"{name}={self.of(part)}" for name, part in sorted(value.keywords.items())]
            return f"{self.of(value.func)}({', '.join(parts)})"
        if isinstance(value, torch.jit.ScriptFunction | torch.jit.ScriptModule):
            graph: Any = value.graph
            return f"{type(value).__qualname__} {_sha(graph.str(False))}"  # without lines of files
        # torch.compile and functools.cache keep books of their own around what they were given.
        held = getattr(value, "__dict__", {})
        for name in ("_torchdynamo_orig_callable", "__wrapped__"):
            if name in held and (name[:2] != "__" or not isinstance(value, FunctionType)):
                return self.of(held[name])
        if isinstance(value, nn.Module) and "_orig_mod" in value._modules:
            return self.of(value._modules["_orig_mod"])
        if isinstance(value, FunctionType):
            return self._of_function(value)
        if isinstance(value, MethodType):
            return f"{self.of(value.__self__)}.{self.of(value.__func__)}"
        if isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            if owner is None or isinstance(owner, ModuleType | type):
                return f"{value.__module__}.{value.__qualname__}"
            return f"{self.of(owner)}.{value.__name__}"
        return ""

    def _of_function(self, function: FunctionType) -> str:
        name = f"{function.__module__}.{function.__qualname__}"
        if id(function) in self._functions:
            return name
        self._functions[id(function)] = function
        parts = [self._of_code(function.__code__), self.of(function.__defaults__)]
        parts += [self.of(function.__kwdefaults__), self.of(vars(function))]
        read, stored = _names(function.__code__)
        cells = function.__closure__ or ()
        for free, cell in zip(function.__code__.co_freevars, cells, strict=True):
            if free not in stored:
                parts.append(f"{free}={self._of_cell(cell)}")
        if not _installed(function.__module__):
            space = function.__globals__
            found = dict(_found(names, space) for names in read if names[0] not in stored)
            parts += [f"{place}={self._of_global(part, space)}" for place, part in found.items()]
        return f"{name} {_sha(' '.join(parts))}"

    def _of_cell(self, cell: Any) -> str:
        try:
            return self.of(cell.cell_contents)
        except ValueError:
            return "<empty>"

    def _of_global(self, value: Any, here: Mapping[str, Any]) -> str:
        if isinstance(value, FunctionType) and value.__globals__ is not here:
            return f"{value.__module__}.{value.__qualname__}"
        return self.of(value)

    def _of_code(self, code: CodeType) -> str:
        consts = [
            self._of_code(part) if isinstance(part, CodeType) else self.of(part)
            for part in code.co_consts
        ]
        return f"{code.co_code.hex()} {code.co_names} {consts}"

    def _of_module(self, module: nn.Module) -> str:
        parts = [module.extra_repr(), self._of_class(type(module))]
        for name, part in sorted(vars(module).items()):
            if name not in _PARTS_OF_EVERY_MODULE:
                parts.append(f"{name}={self.of(part)}")
        for name, parameter in module._parameters.items():
            parts.append(f"{name}={None if parameter is None else _form(parameter)}")
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                parts.append(f"{name}={_form(buffer)}")
            else:
                parts.append(f"{name}={self.of(buffer)}")
        parts += [f"{name}={self.of(child)}" for name, child in module._modules.items()]
        return " ".join(parts)

    def _of_object(self, value: Any) -> str:
        kind = type(value)
        settings = callable(value) or is_dataclass(value)
        if _installed(kind.__module__) and not settings and not isinstance(value, _NAMESPACES):
            # Other packages put paths and versions in their texts, as configurations of models do.
            shown = kind.__module__.partition(".")[0] in (
                *sys.stdlib_module_names,
                "torch",
                "numpy",
            )
            telling = shown and any("__repr__" in vars(owner) for owner in kind.__mro__[:-1])
            return _text(value) if telling else _name(kind)
        held = dict(getattr(value, "__dict__", {}))
        for owner in kind.__mro__:
            slots = vars(owner).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                    held[name] = getattr(value, name)
        parts = [f"{name}={self.of(part)}" for name, part in sorted(held.items())]
        return f"{kind.__qualname__}({', '.join(parts)}){self._of_class(kind)}"

    def _of_class(self, kind: type) -> str:
        """Describe what you wrote into a class and those it inherits from."""
        parts = []
        for owner in kind.__mro__:
            if _installed(owner.__module__):
                continue
            for name, part in sorted(vars(owner).items()):
                inner = getattr(part, "__func__", None) or getattr(part, "fget", None) or part
                if isinstance(inner, FunctionType):
                    parts.append(self.of(inner))
                elif not name.startswith("__") and not name.startswith("_abc_"):
                    parts.append(f"{name}={self.of(inner)}")
        return f" {_sha(' '.join(parts))}" if parts else ""


def _names(code: CodeType) -> tuple[list[tuple[str, ...]], set[str]]:
    """Return which globals code reads, with the attributes asked of them, and what it assigns."""
    read: dict[tuple[str, ...], None] = {}
    stored: set[str] = set()
    chain: tuple[str, ...] = ()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            chain = (step.argval,)
        elif chain and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            read.pop(chain, None)
            chain = (*chain, step.argval)
        else:
            chain = ()
            if step.opname in ("STORE_GLOBAL", "STORE_DEREF"):
                stored.add(step.argval)
        if chain:
            read[chain] = None
    for part in code.co_consts:
        if not isinstance(part, CodeType):
            continue
        more, assigned = _names(part)
        read |= dict.fromkeys(more)
        stored |= assigned - set(part.co_cellvars)
    return sorted(read), stored


def _found(names: tuple[str, ...], space: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what a global is: of ``config.T`` the number, of ``settings.T`` the whole settings."""
    value, known = space.get(names[0]), 1
    while isinstance(value, ModuleType) and known < len(names) and not _installed(value.__name__):
        value, known = getattr(value, names[known], None), known + 1
    return ".".join(names[:known]), None if isinstance(value, ModuleType) else value


@lru_cache
def _installed(module: str | None) -> bool:
    """Return whether a module is of Python or another package, neither a file of yours nor ours."""
    top = (module or "").partition(".")[0]
    if top in ("__main__", "kdlearn"):
        return False
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:  # built into Python, or made by exec
        return top in sys.stdlib_module_names
    return any(Path(file).resolve().is_relative_to(folder) for folder in _INSTALLED)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _text(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _sha(content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(raw).hexdigest()[:16]


def digest_of(*values: Any) -> str:
    """Return the SHA-256 of the tensors in some trees; names, types and shapes count too.

    Example:
        >>> digest_of(torch.zeros(2)) == digest_of(torch.zeros(2, 1))
        False
    """
    form = map_tensors(_form, values)
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
