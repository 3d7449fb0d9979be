"""Run a solution once, and look at everything that it did: its numbers, and what it left behind."""

from __future__ import annotations

import linecache
import random
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from kdlearn.drills.grader.compare import Raised, copied, is_number, same, shown
from kdlearn.drills.grader.drill import Call, Case, Drill, Network, Solution, Wrong

EFFECTS = {
    "inputs-changed": (
        "your function changes its argument {name}: work on a copy, and avoid operations that end "
        "in _ and assignments to a part."
    ),
    "teacher-gradient": (
        "a gradient reaches {name}, which is a constant here: use {name}.detach(), or no_grad() "
        "around what it goes through."
    ),
    "weights-changed": (
        "the weights or statistics of the {name} are others after your call: nothing of it may "
        "change."
    ),
    "hook-left": (
        "a hook is left on the {name}: it runs in every later call and keeps its tensors alive. "
        "Remove its handle, in a finally block."
    ),
    "model-patched": (
        "something is left on the {name}, a forward that you replaced or an attribute that you "
        "added: it stays for every later caller. Put back what was there."
    ),
    "mode-not-put-back": (
        "the {name} is left in another mode (training or evaluation) than it may be: put back each "
        "module's own."
    ),
    "requires-grad-changed": (
        "requires_grad of the {name}'s parameters is another after your call: whoever trains it "
        "next finds it frozen or thawed."
    ),
    "gradient-left": (
        "the {name}'s parameters hold gradients after your call that the right solution does not "
        "leave there: the next step would add to them."
    ),
    "optimizer-changed": (
        "the optimizer's settings (learning rate, momentum, parameters) are others after your "
        "call: you were asked for a step with it as it is."
    ),
    "generator-unused": (
        "the generator that you were given was not used: nobody can repeat your draws. Pass "
        "generator=generator."
    ),
    "generator-differs": (
        "the generator was used, and not as often as the task says: count the draws."
    ),
    "global-random": (
        "your function draws from the global random state: nobody can repeat it, and every later "
        "draw of the program is another. Draw from a generator that you were given, or not at all."
    ),
    "grad-mode-left": (
        "gradients are switched off after your call: use no_grad() as a context, not "
        "set_grad_enabled(False)."
    ),
    "global-changed": (
        "your function leaves {name} of torch changed for the whole program: put it back."
    ),
    "live-graph": (
        "what you return still hangs in the graph: it keeps every activation of the step alive. "
        "Return {name}."
    ),
    "copied-model": (
        "your function runs a copy of a network: the copy's statistics, gradients and memory are "
        "not those of the network that you were given."
    ),
    "forbidden": "your function calls {name}, which the task does not allow.",
}
"""What can be said of what a solution does besides its numbers."""


@dataclass(frozen=True)
class Observation:
    """What a solution did with one case.

    Attributes:
        result: what it returned, or the exception that it raised.
        numbers: what a family must reproduce, by name: results, gradients, weights that were to
            change.
        state: what it left behind, as pairs of before and after.
        effects: what is seen in how it was done, as sentences by name.
    """

    result: Any
    numbers: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[tuple[str, str], tuple[Any, Any]] = field(default_factory=dict)
    effects: Mapping[str, str] = field(default_factory=dict)


def observe(
    drill: Drill,
    solution: Solution,
    case: Case,
    like: Observation | None = None,
    *,
    kink: bool = False,
) -> Observation:
    """Run a solution on a copy of a case, and look at all that it does.

    The global random state of torch is the same for each run, and gradients are taken of one fixed
    weighted sum of the result's elements.

    Args:
        drill: the drill.
        solution: what to run.
        case: its input.
        like: the right solution's observation; where the result is of another kind, nothing else is
            looked at.
        kink: whether gradients count only as finite or not.
    """
    given, leaves = _prepared(drill, case)
    names = {
        id(part): name
        for name, value in given.items()
        if isinstance(value, nn.Module)
        for part in value.modules()
    }
    before = _state(drill, given, case)
    Network.calls.clear()
    trap = Trap(drill.forbidden)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        before |= _surroundings(drill)
        try:
            with trap if drill.forbidden else nullcontext():
                result = drill.call(solution, given)
        except (Exception, SystemExit) as error:
            result = described(error, solution)
        after = _state(drill, given, case) | _surroundings(drill)
        _put_back(before)
        state = {key: (before[key], after[key]) for key in before}
        calls = [
            Call(names.get(id(network), ""), rows, training, grad)
            for network, rows, training, grad in Network.calls
        ]
        effects = {effect: drill.faults[effect].text for effect in drill.watch(case, calls)}
        if any(not call.of for call in calls):
            effects["copied-model"] = EFFECTS["copied-model"]
        if trap.seen:
            effects["forbidden"] = EFFECTS["forbidden"].format(name=trap.seen[0])
        if isinstance(result, Raised):
            return Observation(result, {"result": result}, state, effects)
        if like is not None and misfit(drill, like.result, result):
            return Observation(result, {}, state, effects)
        try:
            numbers, reached = _numbers(drill, given, result, leaves, kink)
        except Exception as error:  # the gradient of a result can fail, as after work in place
            raised = described(error, solution)
            return Observation(raised, {"result": raised}, state, effects)
    for name in reached:
        effects["teacher-gradient"] = EFFECTS["teacher-gradient"].format(name=name)
    return Observation(result, numbers, state, effects)


class Bench:
    """A copy of a case on which members of the family are run; each run finds it as it was.

    Members change nothing but what they are asked to change, so only that is put back. What a
    member gave is kept, as many solutions are compared with it.
    """

    def __init__(self, drill: Drill, case: Case, *, kink: bool = False) -> None:
        self.drill, self.kink = drill, kink
        self.given, self.leaves = _prepared(drill, case)
        values = self.given.values()
        self.networks = [value for value in values if isinstance(value, nn.Module)]
        self.kept = [
            (tensor, tensor.detach().clone(), None if tensor.grad is None else tensor.grad.clone())
            for network in self.networks
            for tensor in (*network.parameters(), *network.buffers())
        ]
        self.modes = [(part, part.training) for net in self.networks for part in net.modules()]
        self.generators = [(v, v.get_state()) for v in values if isinstance(v, Generator)]
        self.optimizers = [value for value in values if isinstance(value, Optimizer)]
        self.known: dict[tuple[Wrong, bool], Mapping[str, Any]] = {}

    def result(self, solution: Solution) -> Any:
        """Return what a member returns."""
        self._restore()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.default_generator.manual_seed(0)
            try:
                return self.drill.call(solution, self.given)
            except (Exception, SystemExit) as error:
                return described(error, solution)

    def numbers(self, other: Solution | Wrong, *, gradients: bool = True) -> Mapping[str, Any]:
        """Return the numbers of the member with these faults, or of what changes as little."""
        if not isinstance(other, frozenset):
            return self._numbers(other, gradients)
        if (other, gradients) not in self.known:
            self.known[other, gradients] = self._numbers(self.drill.member(other), gradients)
        return self.known[other, gradients]

    def _numbers(self, solution: Solution, gradients: bool) -> Mapping[str, Any]:
        self._restore()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.default_generator.manual_seed(0)
            try:
                result = self.drill.call(solution, self.given)
                leaves = self.leaves if gradients else {}
                return _numbers(self.drill, self.given, result, leaves, self.kink)[0]
            except (Exception, SystemExit) as error:
                return {"result": described(error, solution)}

    def _restore(self) -> None:
        with torch.no_grad():
            for tensor, before, gradient in self.kept:
                tensor.copy_(before)
                tensor.grad = None if gradient is None else gradient.clone()
        for part, mode in self.modes:
            part.training = mode
        for generator, state in self.generators:
            generator.set_state(state)
        for optimizer in self.optimizers:
            optimizer.state.clear()


def _prepared(drill: Drill, case: Case) -> tuple[Case, dict[str, list[Tensor]]]:
    """A copy of a case, and the leaves whose gradients are looked at."""
    given = copied(case)
    followed = drill.gradients + drill.detached
    leaves = {name: _leaves(given[name]) for name in followed}
    for name in followed:
        # Clones, as work in place on a leaf would raise instead of showing as a change.
        clones = [leaf.clone() for leaf in leaves[name]]
        given[name] = clones if isinstance(given[name], list) else clones[0]
    return given, leaves


def left_behind(mine: Observation, right: Observation) -> dict[str, str]:
    """Return what a solution did besides its numbers, unlike the right one: sentences by name."""
    found = {name: text for name, text in mine.effects.items() if name not in right.effects}
    for (effect, name), (before, after) in mine.state.items():
        unchanged = same(after, before)
        if same(after, right.state[effect, name][1]):
            continue
        if effect == "generator-unused":
            effect = effect if unchanged else "generator-differs"
        elif unchanged:
            continue
        found.setdefault(effect, EFFECTS[effect].format(name=name))
    if _live(mine.result) and not (_live(right.result) or isinstance(right.result, Raised)):
        instead = "its .item()" if isinstance(right.result, float | int) else "its .detach()"
        found["live-graph"] = EFFECTS["live-graph"].format(name=instead)
    return found


def misfit(drill: Drill, right: Any, given: Any) -> tuple[str, str] | None:
    """Say how a solution's result is of another kind than the right one: a name and a sentence."""
    if given is None and right is not None:
        return (
            "nothing-returned",
            "your function returns None: is a return missing, in a branch or at the end?",
        )
    return None if drill.any_kind else other_kind(right, given, plain=drill.plain)


def other_kind(right: Any, given: Any, *, plain: bool = False) -> tuple[str, str] | None:
    """Say how a value is of another kind than it should be: a name and a sentence.

    Example:
        >>> other_kind(torch.tensor(1.0), (torch.tensor(1.0),))[0]
        'tuple-returned'
    """
    if isinstance(right, Raised) or isinstance(given, Raised):
        return None
    if isinstance(right, Mapping):
        return _other_keys(right, given, plain)
    if isinstance(right, list | tuple):
        kind = type(right).__name__
        if not isinstance(given, list | tuple):
            return (
                "wrong-kind",
                f"your function returns {_kind(given)}, expected a {kind} of {len(right)}.",
            )
        if len(given) != len(right):
            return "wrong-length", f"your {kind} has {len(given)} entries, expected {len(right)}."
        return next(filter(None, map(other_kind, right, given)), None)
    if isinstance(given, tuple | list) and len(given) == 1 and is_number(given[0]):
        return (
            "tuple-returned",
            f"your function returns a {type(given).__name__} with one entry: is there a comma or "
            "a bracket too many in the line with return?",
        )
    if isinstance(right, Tensor):
        return _no_tensor(right, given)
    if isinstance(right, str | bool):
        if isinstance(right, bool) and is_number(given) and _count(given) == 1:
            return None
        if type(given) is not type(right):
            return "wrong-kind", f"your function returns {_kind(given)}, expected {_kind(right)}."
    elif isinstance(right, float | int):
        if not is_number(given):
            return "wrong-kind", f"your function returns {_kind(given)}, expected a number."
        if _count(given) != 1:
            return "wrong-shape", f"your function returns {_kind(given)}, expected one number."
        if plain and not isinstance(given, float | int):
            return (
                "tensor-for-number",
                f"{_kind(given)} stands where the task asks for a Python number: call .item().",
            )
    return None


def described(error: BaseException, solution: Solution) -> Raised:
    """Say what was raised, and in which line of the reader's code."""
    kinds = tuple(kind.__name__ for kind in type(error).__mro__ if kind is not object)
    own = getattr(getattr(solution, "__code__", None), "co_filename", None)
    line = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == own:
            line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    message = (str(error).strip() or "no message").splitlines()[0]
    return Raised(kinds, message, line)


class Trap(TorchFunctionMode):
    """Note calls of functions that a task does not allow.

    Example:
        >>> with Trap(("softmax",)) as trap:
        ...     _ = torch.ones(2).softmax(0)
        >>> trap.seen
        ['softmax']
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note a forbidden call, and make it."""
        name = getattr(func, "__name__", "").strip("_")
        if name in self.names:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class Origin(TorchFunctionMode):
    """Find the operation that makes the first NaN or infinity of finite numbers.

    Args:
        file: the file of the reader's code, to tell its line.

    Example:
        >>> with Origin("") as origin:
        ...     _ = torch.zeros(1).log() * 0
        >>> origin.story()
        'log gives an infinity, and mul makes NaN of it'
    """

    ON_PURPOSE = (
        "masked_fill",
        "where",
        "full",
        "scatter",
        "tensor",
        "index_put",
        "setitem",
        "fill",
    )

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file
        self.infinite: tuple[str, str] | None = None
        self.nan: tuple[str, str] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make the call, and look at what comes out."""
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").strip("_")
        if self.nan is None and isinstance(out, Tensor) and out.is_floating_point():
            put_in = [one for one in (*args, *(kwargs or {}).values()) if isinstance(one, Tensor)]
            if out.isnan().any() and not any(one.isnan().any() for one in put_in):
                self.nan = name, self._line()
            new = out.isinf().any() and not any(one.isinf().any() for one in put_in)
            if new and not any(purpose in name for purpose in self.ON_PURPOSE):
                self.infinite = self.infinite or (name, self._line())
        return out

    def story(self) -> str:
        """Return what was found in a few words; nothing if all was finite."""
        where = " (in: {})"
        if self.infinite and self.nan:
            one, other = self.infinite, self.nan
            line = where.format(one[1]) if one[1] else ""
            return f"{one[0]} gives an infinity{line}, and {other[0]} makes NaN of it"
        if self.nan or self.infinite:
            name, line = self.nan or self.infinite or ("", "")
            what = "NaN" if self.nan else "an infinity"
            said = f"{name} gives {what}" + (where.format(line) if line else "")
            if name == "kl_div":
                said += (
                    ", as it takes the logarithm of its target: give it probabilities, or "
                    "log_target=True"
                )
            return said
        return ""

    def _line(self) -> str:
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename != self.file:
            frame = frame.f_back  # type: ignore[assignment]
        return "" if frame is None else linecache.getline(self.file, frame.f_lineno).strip()


def _no_tensor(right: Tensor, given: Any) -> tuple[str, str] | None:
    if not isinstance(given, Tensor):
        if is_number(given) and not right.requires_grad and right.dim() == 0:
            return None
        cut = (
            ": .item() or float() cuts the graph, and nothing can be trained on it"
            if is_number(given)
            else ""
        )
        return "no-tensor", f"your function returns {_kind(given)}, expected a tensor{cut}."
    if given.shape != right.shape:
        told = f"{tuple(given.shape)}, expected {tuple(right.shape)}"
        lost = given.numel() == right.numel()
        more = (
            ", which broadcasts in silence in what follows" if lost and right.numel() == 1 else ""
        )
        return "wrong-shape", f"your result has shape {told}{more}."
    if given.is_complex() or (given.is_floating_point() != right.is_floating_point()):
        return "wrong-kind", f"your result has dtype {given.dtype}, expected {right.dtype}."
    return None


def _other_keys(right: Mapping[str, Any], given: Any, plain: bool) -> tuple[str, str] | None:
    if not isinstance(given, Mapping):
        return "wrong-kind", f"your function returns {_kind(given)}, expected a dict."
    missing = [key for key in right if key not in given]
    more = [key for key in given if key not in right]
    alike = [key for key in more if str(key).strip().lower() in missing]
    if alike:
        meant = str(alike[0]).strip().lower()
        said = f"the key {alike[0]!r} should be {meant!r}: keys are compared letter by letter."
        return "other-keys", said
    if missing or more:
        parts = [f"the key {key!r} is missing" for key in missing]
        parts += [f"nobody asked for the key {key!r}" for key in more]
        return "other-keys", f"{', '.join(parts)}: expected {', '.join(map(repr, right))}."
    for key in right:
        found = other_kind(right[key], given[key], plain=plain)
        if found:
            return found[0], f"under {key!r}: {found[1]}"
    return None


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"the number {shown(value)}"
    return f"{shown(value)} (a {type(value).__name__})"


def _count(value: Any) -> int:
    return int(np.size(value.detach().numpy() if isinstance(value, Tensor) else value))


def _leaves(value: Tensor | list[Tensor]) -> list[Tensor]:
    parts = value if isinstance(value, list) else [value]
    return [part.detach().clone().requires_grad_() for part in parts]


def _numbers(
    drill: Drill, given: Case, result: Any, leaves: Mapping[str, list[Tensor]], kink: bool
) -> tuple[dict[str, Any], list[str]]:
    """What counts, and the detached arguments that a gradient reaches."""
    numbers = dict(drill.observe(given, result))
    for name in drill.changes:
        if isinstance(given[name], nn.Module):
            numbers[f"weights of the {name}"] = _copies(given[name].named_parameters())
            buffers = _copies(given[name].named_buffers())
            if buffers:
                numbers[f"running statistics of the {name}"] = buffers
    if not leaves:
        return numbers, []
    slopes = _gradients(result, [leaf for parts in leaves.values() for leaf in parts])
    # Where there is no derivative, any finite number is as good as another: 0 stands for all.
    found = iter([None if one is None else 0 * one for one in slopes] if kink else slopes)
    by_name = {name: [next(found) for _ in parts] for name, parts in leaves.items()}
    for name in drill.gradients:
        parts = by_name[name]
        numbers[f"gradient of {name}"] = parts if isinstance(given[name], list) else parts[0]
    reached = [n for n in drill.detached if any(g is not None for g in by_name[n])]
    return numbers, reached


def _copies(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named}


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
    if isinstance(value, Mapping | list | tuple):
        parts = value.values() if isinstance(value, Mapping) else value
        return [part for one in parts for part in _tensors(one)]
    return []


def alike(one: Any, other: Any) -> bool:
    """Say whether two results are the same, also in whether they hang in a graph."""
    return same(one, other) and _live(one) == _live(other)


def _live(result: Any) -> bool:
    return any(part.requires_grad and not part.is_leaf for part in _tensors(result))


def _state(drill: Drill, given: Case, case: Case) -> dict[tuple[str, str], Any]:
    """All that a call may leave behind on its arguments, by what it would be and where."""
    found: dict[tuple[str, str], Any] = {}
    for name, value in given.items():
        if isinstance(value, nn.Module):
            parts = list(value.modules())
            found["hook-left", name] = [len(_hooks(part)) for part in parts]
            found["model-patched", name] = [_attributes(part) for part in parts]
            if f"mode of the {name}" not in drill.free:
                found["mode-not-put-back", name] = [part.training for part in parts]
            if f"requires_grad of the {name}" not in drill.free:
                needs = [parameter.requires_grad for parameter in value.parameters()]
                found["requires-grad-changed", name] = needs
            if f"gradients of the {name}" not in drill.free:
                held = [parameter.grad is not None for parameter in value.parameters()]
                found["gradient-left", name] = held
            if name not in drill.changes:
                weights = {key: one.clone() for key, one in value.state_dict().items()}
                found["weights-changed", name] = weights
        elif isinstance(value, Optimizer):
            groups = [
                {key: one if key != "params" else len(one) for key, one in group.items()}
                for group in value.param_groups
            ]
            found["optimizer-changed", name] = groups
        elif isinstance(value, Generator):
            state: Any = value.get_state()
            if f"draws of the {name}" in drill.free:
                state = torch.equal(state, case[name].get_state())
            found["generator-unused", name] = state
        elif name not in drill.changes and not callable(value):
            found["inputs-changed", name] = _kept(value)
    return found


def _attributes(part: nn.Module) -> dict[str, Any]:
    """The names of all that hangs on a module, and the values of what is simple."""
    kept = {name: value for name, value in vars(part).items() if name != "training"}
    return {n: v if isinstance(v, bool | int | float | str | None) else n for n, v in kept.items()}


def _kept(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return [_kept(part) for part in value] if isinstance(value, list) else value


def _hooks(part: nn.Module) -> list[Any]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [hook for kind in kinds for hook in getattr(part, kind).values()]


GLOBALS: dict[str, Callable[[], Any]] = {
    "the default dtype": lambda: str(torch.get_default_dtype()),
    "a function of torch.nn.functional": lambda: str([id(one) for one in vars(F).values()]),
    "a method of nn.Module": lambda: str([id(one) for one in vars(nn.Module).values()]),
    "a global hook": lambda: (
        len(nn.modules.module._global_forward_hooks)
        + len(nn.modules.module._global_forward_pre_hooks)
    ),
}
"""What belongs to the whole program."""


def _surroundings(drill: Drill) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {
        ("global-changed", name): look() for name, look in GLOBALS.items()
    }
    found["grad-mode-left", ""] = torch.is_grad_enabled()
    if "global random state" not in drill.free:
        found["global-random", ""] = [torch.get_rng_state(), _draws()]
    return found


def _draws() -> list[int]:
    """Where the generators of NumPy and of Python stand."""
    return [int(np.random.get_state(legacy=False)["state"]["pos"]), random.getstate()[1][-1]]


def _put_back(before: Mapping[tuple[str, str], Any]) -> None:
    """Let the next run find what this one found, as far as that goes."""
    torch.set_grad_enabled(True)
    torch.set_default_dtype(
        torch.float64 if "64" in before["global-changed", "the default dtype"] else torch.float32
    )
