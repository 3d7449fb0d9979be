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
from operator import attrgetter, itemgetter, methodcaller
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

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
        the globals that it reads: values, functions and classes of the same file, values of another
        module or class (``config.TEMPERATURE``). What it assigns itself (``global``, ``nonlocal``)
        is no setting.
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


def described_parts(value: Any) -> dict[str, str]:
    """Return what `described` says as a digest for each part, under the place of the part.

    What is told of a part is not told of those around it, so that a part that changes (a list of
    what a loss has seen) leaves the others as they are.

    Example:
        >>> half, more = (described_parts(nn.Sequential(nn.Dropout(p))) for p in (0.5, 0.6))
        >>> sorted(place for place in half if half[place] != more[place])
        ['/0/<shown>', '/0/p']
    """
    walk = _Parts()
    return {"": _sha(walk.of(value)), **walk.found}


class _Description:
    """One walk through a value, that visits each function once and ends where it meets itself."""

    def __init__(self) -> None:
        self._inside: list[Any] = []
        self._visited: dict[int, Any] = {}

    def of(self, value: Any) -> str:
        if isinstance(value, Enum):
            return _text(value)
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if isinstance(value, np.generic):
            return repr(value.item())
        if isinstance(value, type):
            return self._of_type(value)
        for depth, outer in enumerate(self._inside):
            if outer is value:
                return f"<itself, {depth}>"
        self._inside.append(value)
        try:
            return self._of_parts(value)
        finally:
            self._inside.pop()

    def _at(self, name: str, value: Any) -> str:
        """Describe what stands at a place of its own."""
        return self.of(value)

    def _whole(self, value: Any) -> str:
        """Describe what has no place of its own, such as an element of a set."""
        before, self._visited = self._visited, dict(self._visited)  # in whatever order it comes
        try:
            return self.of(value)
        finally:
            self._visited = before

    def _told(self, name: str, text: str) -> str:
        """Return what the text around a part says of it."""
        return text

    def _part(self, name: str, value: Any) -> str:
        return self._told(name, self._at(name, value))

    def _of_parts(self, value: Any) -> str:
        kind = type(value)
        if isinstance(value, Tensor):
            trained = value.requires_grad or isinstance(value, nn.Parameter)
            return _form(value) if trained else digest_of(value)
        if isinstance(value, np.ndarray):
            whole = self.of(value.tolist()) if value.dtype.hasobject else _sha(value.tobytes())
            return f"{value.dtype.str} {value.shape} {whole}"
        if isinstance(value, Mapping):
            keys = ((self._whole(key), part) for key, part in value.items())
            pairs = sorted((key, self._at(key, part)) for key, part in keys)
            inside = ", ".join(f"{key}: {part}" for key, part in pairs)
            return f"{'' if kind is dict else kind.__qualname__}{{{inside}}}"
        if isinstance(value, tuple | list | deque):
            inside = ", ".join(self._at(str(place), part) for place, part in enumerate(value))
            return f"{'' if kind in (tuple, list) else kind.__qualname__}[{inside}]"
        if isinstance(value, set | frozenset):
            return f"{{{', '.join(sorted(self._whole(part) for part in value))}}}"
        if callable(value) and (text := self._of_callable(value)):
            return text
        if isinstance(value, nn.Module):
            return f"{_name(kind)} {_sha(self._of_module(value))}"
        return self._of_object(value)

    def _of_callable(self, value: Any) -> str:
        if isinstance(value, partial):
            parts = [self._part(str(place), part) for place, part in enumerate(value.args)]
            named = sorted(value.keywords.items())
            parts += [f"{name}={self._part(name, part)}" for name, part in named]
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
            return f"{self.of(value.__self__)}.{self._at('<method>', value.__func__)}"
        if isinstance(value, MethodDescriptorType | WrapperDescriptorType):
            return f"{_name(value.__objclass__)}.{value.__name__}"
        if isinstance(value, methodcaller | attrgetter | itemgetter):  # without attributes
            return f"{type(value).__name__} {value.__reduce__()[1]}"
        if isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            if owner is None or isinstance(owner, ModuleType | type):
                return f"{value.__module__}.{value.__qualname__}"
            return f"{self.of(owner)}.{value.__name__}"
        return ""

    def _of_function(self, function: FunctionType) -> str:
        name = f"{function.__module__}.{function.__qualname__}"
        if id(function) in self._visited:
            return name
        self._visited[id(function)] = function
        parts = [self._told("<code>", self._of_code(function.__code__))]
        parts.append(self._part("<defaults>", function.__defaults__))
        parts.append(self._part("<named defaults>", function.__kwdefaults__))
        parts.append(self._part("<attributes>", vars(function)))
        read, stored = _names(function.__code__)
        cells = function.__closure__ or ()
        for free, cell in zip(function.__code__.co_freevars, cells, strict=True):
            if free not in stored:
                parts.append(f"{free}={self._told(free, self._of_cell(free, cell))}")
        if not _installed(function.__module__):
            space = function.__globals__
            found = dict(_found(names, space) for names in read if names[0] not in stored)
            for place, part in found.items():
                parts.append(f"{place}={self._told(place, self._of_global(place, part, space))}")
        return f"{name} {_sha(' '.join(parts))}"

    def _of_cell(self, name: str, cell: Any) -> str:
        try:
            return self._at(name, cell.cell_contents)
        except ValueError:
            return "<empty>"

    def _of_global(self, name: str, value: Any, here: Mapping[str, Any]) -> str:
        if isinstance(value, FunctionType) and value.__globals__ is not here:
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, type) and value.__module__ != here.get("__name__"):
            return _name(value)
        return self._at(name, value)

    def _of_type(self, kind: type) -> str:
        known = id(kind) in self._visited or not _is_yours(kind)
        return f"{_name(kind)}{'' if known else self._of_class(kind)}"

    def _of_code(self, code: CodeType) -> str:
        consts = [
            self._of_code(part) if isinstance(part, CodeType) else self.of(part)
            for part in code.co_consts
        ]
        return f"{code.co_code.hex()} {code.co_names} {consts}"

    def _of_module(self, module: nn.Module) -> str:
        parts = [self._told("<shown>", module.extra_repr()), self._of_class(type(module))]
        for name, part in sorted(vars(module).items()):
            if name not in _PARTS_OF_EVERY_MODULE:
                parts.append(f"{name}={self._part(name, part)}")
        for name, parameter in module._parameters.items():
            form = "None" if parameter is None else _form(parameter)
            parts.append(f"{name}={self._told(name, form)}")
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                parts.append(f"{name}={self._told(name, _form(buffer))}")
            else:
                parts.append(f"{name}={self._part(name, buffer)}")
        layers = [f"{name}={self._part(name, child)}" for name, child in module._modules.items()]
        if text := self._told("<layers>", " ".join(layers)):
            parts.append(text)
        return " ".join(parts)

    def _of_object(self, value: Any) -> str:
        kind = type(value)
        settings = callable(value) or is_dataclass(value) or isinstance(value, Distribution)
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
        parts = [f"{name}={self._part(name, part)}" for name, part in sorted(held.items())]
        return f"{kind.__qualname__}({', '.join(parts)}){self._of_class(kind)}"

    def _of_class(self, kind: type) -> str:
        """Describe what you wrote into a class and those it inherits from."""
        parts = []
        owners = [owner for owner in kind.__mro__ if not _installed(owner.__module__)]
        self._visited |= {id(owner): owner for owner in owners}
        for owner in owners:
            for name, part in sorted(vars(owner).items()):
                inner = getattr(part, "__func__", None) or getattr(part, "fget", None) or part
                place = f"<{owner.__qualname__}> {name}"
                if isinstance(inner, FunctionType):
                    parts.append(self._at(place, inner))
                elif not name.startswith("__") and not name.startswith("_abc_"):
                    parts.append(f"{name}={self._part(place, inner)}")
        return self._told("<class>", f" {_sha(' '.join(parts))}" if parts else "")


class _Parts(_Description):
    """A walk that takes each part out of the text around it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._place: str | None = ""

    def _at(self, name: str, value: Any) -> str:
        before = self._place
        self._place = None if before is None else f"{before}/{name}"
        try:
            return super()._at(name, value)
        finally:
            self._place = before

    def _whole(self, value: Any) -> str:
        before, self._place = self._place, None
        try:
            return super()._whole(value)
        finally:
            self._place = before

    def _told(self, name: str, text: str) -> str:
        if self._place is None:
            return text
        self.found[f"{self._place}/{name}"] = _sha(text)
        return ""


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
    while known < len(names) and _holds_settings(value):
        value, known = getattr(value, names[known], None), known + 1
    return ".".join(names[:known]), None if isinstance(value, ModuleType) else value


def _holds_settings(value: Any) -> bool:
    """Return whether single values are read from something: a module of yours, or a class."""
    if isinstance(value, ModuleType):
        return not _installed(value.__name__)
    return isinstance(value, type) and _is_yours(value)


def _is_yours(kind: type) -> bool:
    # What is stored under a name of today would not be found again if ours told of their code.
    return not _installed(kind.__module__) and kind.__module__.partition(".")[0] != "kdlearn"


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
