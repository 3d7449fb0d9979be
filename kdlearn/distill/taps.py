"""Read intermediate tensors of any module by path, without editing the model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdlearn.core.inputs import map_tensors, tensors_in

_NAME = re.compile(r"(?P<path>[^\[\]]*)(?P<picks>(\[[^\[\]]+\])*)")
_COMPILED_PREFIX = "_orig_mod."


class Taps(Mapping[str, Any]):
    """Record the outputs of named modules during a forward pass.

    A name is a module path, as ``model.named_modules()`` lists it: ``"group1"``,
    ``"layers.2.attention"``. Where a module returns a tuple or a dict, brackets pick inside:
    ``"attention[1]"``, ``"encoder[states][0]"``.

    Convention
        A recorded tensor is the module's output as it was when the module returned. Later modules
        get another one than is recorded, so an in-place successor (``nn.ReLU(inplace=True)``)
        cannot change it, and the model computes what it does without taps. The graph to the logits
        is whole: gradients of anything computed from either reach the layers below. Each forward
        pass of the model forgets the values of the one before. A module that runs twice in one pass
        keeps its last output. Nothing is detached: run the model under ``torch.no_grad()`` for a
        teacher. Under `torch.utils.checkpoint` with ``use_reentrant=True`` no layer inside the
        piece carries a gradient; the output of the piece does, unless something wrote into it. The
        hooks exist inside the ``with`` block alone; the values stay readable after it, until
        `forget` or the next run, and it can be entered again. With ``torch.compile``, enter the
        block before the first call: later hooks are not seen by compiled code.

    Args:
        model: any module, plain or compiled.
        names: what to record, at least one name.

    Raises:
        TypeError: the model is no module.
        ValueError: no name is given, or a name has no such form.
        KeyError: no module has this path (the message lists the close ones); at reading, nothing
            was recorded or the output has no such part.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True))
        >>> with Taps(model, ["0"]) as taps:
        ...     output = model(torch.ones(1, 2))
        >>> taps["0"].shape
        torch.Size([1, 3])
        >>> torch.equal(taps["0"].clamp(min=0), output)
        True
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        if isinstance(names, str):
            raise ValueError(f"names is the string {names!r}: pass a list, [{names!r}].")
        self.model = model
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is {model!r}: expected a module, such as SmallCNN(8).")
        self._picks = {name: _parse(name) for name in names}
        if not self._picks:
            raise ValueError("no name to tap: pass at least one module path.")
        modules = {
            path.replace(_COMPILED_PREFIX, ""): module
            for path, module in model.named_modules()
            if path
        }
        self._modules = {path: _find(modules, path) for path, _ in self._picks.values()}
        self._outputs: dict[str, Any] = {}
        self._handed_on: dict[str, Any] = {}
        self._wants_graph = False
        self._handles: list[Any] = []

    def __enter__(self) -> Taps:
        if self._handles:
            raise RuntimeError("these taps are open already: leave the first `with` block first.")
        self.forget()
        self._handles.append(self.model.register_forward_pre_hook(self._begin))
        for path, module in self._modules.items():
            hook = self._recorder(path)
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __getitem__(self, name: str) -> Any:
        if name not in self._picks:
            raise KeyError(f"{name!r} is not tapped: tapped are {', '.join(map(repr, self))}.")
        path, picks = self._picks[name]
        if path not in self._outputs:
            raise KeyError(
                f"nothing recorded for {name!r}: the module has not run since these taps were "
                "opened. Call the model inside the `with` block; a compiled model must meet its "
                "taps before its first call."
            )
        value = self._value(path)
        for pick in picks:
            value = _pick(value, pick, name)
        if value is None:
            raise KeyError(
                f"{name!r} is None: the module did not compute it. Attention maps exist in eager "
                "attention alone: call kdlearn.distill.attention_layers(model, example) before, "
                "or load a Hugging Face model with attn_implementation='eager'."
            )
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._picks)

    def __len__(self) -> int:
        return len(self._picks)

    def forget(self) -> None:
        """Let go of what was recorded, and of the graph behind it."""
        self._outputs.clear()
        self._handed_on.clear()

    def _begin(self, module: nn.Module, arguments: Any) -> None:
        self.forget()
        self._wants_graph = torch.is_grad_enabled()

    def _value(self, path: str) -> Any:
        handed_on = tensors_in(self._handed_on.get(path))
        if any(t.requires_grad for t in handed_on) and not any(t._version for t in handed_on):
            return self._handed_on[path]
        return self._outputs[path]

    def _recorder(self, path: str) -> Callable[[nn.Module, Any, Any, Any], Any]:
        def record(module: nn.Module, arguments: Any, named: Any, output: Any) -> Any:
            # A module may return its own input or a view of it, which the caller can still change
            # in place: that goes on, and the copy is kept.
            held = tensors_in([*arguments, *named.values()])
            shared = [_is_shared(tensor, held) for tensor in tensors_in(output)]
            kept, passed = iter(shared), iter(shared)
            self._outputs[path] = map_tensors(
                lambda tensor: tensor.clone() if next(kept) else tensor, output
            )
            if self._wants_graph and not torch.is_grad_enabled():
                # A checkpoint that re-enters gives its gradient to these very tensors, later.
                handed_on = map_tensors(lambda tensor: tensor.clone(), output)
                self._handed_on[path] = handed_on
                return handed_on
            return map_tensors(lambda tensor: tensor if next(passed) else tensor.clone(), output)

        return record


def _parse(name: str) -> tuple[str, list[str]]:
    match = _NAME.fullmatch(name)
    if not match or not match["path"]:
        raise ValueError(
            f"{name!r} is not a module path with optional picks, like 'layers.0' or 'attention[1]'."
        )
    return match["path"], re.findall(r"\[([^\[\]]+)\]", match["picks"])


def _find(modules: Mapping[str, nn.Module], path: str) -> nn.Module:
    if path in modules:
        return modules[path]
    close = difflib.get_close_matches(path, modules, n=5, cutoff=0.4) or list(modules)[:5]
    known = ", ".join(map(repr, close)) or "nothing: the model has no submodule"
    raise KeyError(f"the model has no module {path!r}: close are {known}.")


def _pick(value: Any, pick: str, name: str) -> Any:
    if isinstance(value, Mapping):
        keys: list[Any] = list(value)
        if pick in value:
            return value[pick]
    elif isinstance(value, tuple | list):
        keys = list(range(len(value)))
        if pick.isdigit() and int(pick) < len(value):
            return value[int(pick)]
    else:
        raise KeyError(
            f"{name!r}: [{pick}] picks inside a {type(value).__name__}, which has no parts."
        )
    raise KeyError(
        f"{name!r}: the output has no part [{pick}], it has {', '.join(map(str, keys))}."
    )


def _is_shared(tensor: Tensor, inputs: list[Tensor]) -> bool:
    """Whether others have the numbers of a tensor too: as an input, or by a view."""
    if tensor._is_view() or any(tensor is one for one in inputs):
        return True
    if torch.compiler.is_compiling():
        return False
    place = _place(tensor)  # views made in inference mode or by .data are none
    return place is not None and any(_place(one) == place for one in inputs)


def _place(tensor: Tensor) -> int | None:
    """Where the numbers lie; a sparse tensor, or one under torch.func, has no such place."""
    try:
        return tensor.untyped_storage()._cdata
    except RuntimeError:  # or NotImplementedError, which is one
        return None
