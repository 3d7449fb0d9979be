"""What a drill is: a task, its answer, and the answer's family, the function with switches."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, nn

Case = dict[str, Any]
"""Arguments of a solution by name."""

IMPORTS = """import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
"""
"""What a solution may use without importing it, in the book and in a file."""

CITED = re.compile(r"\[([^\]]+)\]\(cite:(\w+)\)")
"""A source in an explanation: words, and its key in the book's bibliography."""

Solution = Callable[..., Any]
Wrong = frozenset[str]
"""The names of the faults that are switched on."""


@dataclass(frozen=True)
class Fault:
    """One wrong setting of a switch, and what to say to who chose it.

    Attributes:
        id: short name.
        text: what is wrong, why the numbers show it, and what to do; may hold ``{B}`` and other
            sizes of a case.
        seen: where it was published and as what: "in code: ...", "proposed: ...", "asked: ...",
            "claimed: ..." or "withdrawn: ..."; empty for what is merely common.
    """

    id: str
    text: str
    seen: str = ""


def switches(text: str) -> dict[str, tuple[Fault, ...]]:
    """Read switches with their faults from text.

    A switch begins with ``# name``, a fault with ``- id: sentences``, its source with ``Seen``;
    lines may go on.

    Example:
        >>> switches('''
        ...     # reduction
        ...     - sum-reduction: the rows are summed, not
        ...       averaged.
        ...       Seen in code: somebody/something
        ... ''')["reduction"][0].text
        'the rows are summed, not averaged.'
    """
    found: dict[str, tuple[Fault, ...]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name = next(reversed(found), "")
        if line.startswith("# "):
            found[line[2:]] = ()
        elif line.startswith("- "):
            id, words = line[2:].split(": ", 1)
            found[name] += (Fault(id, words),)
        else:
            *others, last = found[name]
            if line.startswith("Seen "):
                last = replace(last, seen=line[5:])
            elif last.seen:
                last = replace(last, seen=f"{last.seen} {line}")
            else:
                last = replace(last, text=f"{last.text} {line}")
            found[name] = (*others, last)
    return found


@dataclass(frozen=True)
class Edge:
    """An input at the edge of what is allowed; always the same one.

    Attributes:
        title: what is special about it, to follow "for": "a batch of one row".
        case: the input.
        hint: what usually fails there.
        without: what plays no part there, such as "the temperature": where a solution is right
            there and wrong elsewhere, that is where to look.
        kink: whether the right function has no derivative there; of gradients it is then only asked
            that they are finite.
    """

    title: str
    case: Case
    hint: str = ""
    without: str = ""
    kink: bool = False


class Call(NamedTuple):
    """One forward pass of a network that was handed over.

    Attributes:
        of: the argument's name; "" for a network that was not handed over, such as a copy.
        rows: size of the batch.
        training: whether any part of the network was in training mode.
        grad: whether a graph was recorded.
    """

    of: str
    rows: int
    training: bool
    grad: bool


@dataclass(frozen=True, eq=False)
class Drill:
    """A programming task of an interview with all that is needed to practice it alone.

    Attributes:
        id: its name, such as "kd-loss".
        title: a few words.
        task: what the interviewer says, in Markdown.
        minutes: how long a prepared candidate takes.
        level: "warm-up", "core" or "hard".
        hints: three, each saying more than the one before; none holds the solution.
        explanation: how the reference works: cost, numerics, and what the interviewer listens for;
            in Markdown; a source as ``[Hinton et al., 2015](cite:hinton2015distilling)``.
        reference: the right solution; its signature and docstring are the starter.
        example: makes the smallest input that is worth showing, of round numbers.
        cases: makes the inputs on which solutions are compared, float64 where they are real.
        edges: makes the edges.
        family: called with the faults that are on and then as the reference; with none it does what
            the reference does.
        knobs: by the name of the switch, its wrong settings; two settings of one switch exclude
            each other.
        effects: faults that no number shows; ``watch`` tells them.
        watch: from (case, calls of its networks) to the effects that are seen there.
        sizes: from a case to the numbers that a wrong factor could consist of, such as ``{"B": 8,
            "C": 10}``.
        gradients: arguments whose gradient must be the reference's; tensors, or lists of tensors.
        detached: arguments that must get no gradient; the same.
        changes: arguments that a solution is asked to change.
        free: what it may leave otherwise than the reference, such as "requires_grad of the
            teacher".
        forbidden: names of functions that the task does not allow.
        plain: whether numbers must be Python's own, not tensors.
        any_kind: whether ``observe`` takes results of any kind.
        observe: from (case, result) to what counts, by name; the default is the result.

    Example:
        >>> def double(x: float) -> float:
        ...     "Return twice x."
        ...     return 2 * x
        >>> drill = Drill(
        ...     id="double",
        ...     title="Twice",
        ...     task="Double a number.",
        ...     minutes=1,
        ...     level="warm-up",
        ...     hints=("Add?", "Multiply?", "By which number?"),
        ...     explanation="One multiplication.",
        ...     reference=double,
        ...     example=lambda: {"x": 3.0},
        ...     cases=lambda generator: [{"x": 4.0}],
        ...     family=lambda wrong, x: x * x if "square" in wrong else 2 * x,
        ...     knobs={"operation": (Fault("square", "the number was squared."),)},
        ... )
        >>> drill.call(drill.member({"square"}), {"x": 3.0})
        9.0
    """

    id: str
    title: str
    task: str
    minutes: int
    level: Literal["warm-up", "core", "hard"]
    hints: tuple[str, str, str]
    explanation: str
    reference: Solution
    example: Callable[[], Case]
    cases: Callable[[Generator], Iterable[Case]]
    family: Solution
    knobs: Mapping[str, tuple[Fault, ...]]
    edges: Callable[[], Iterable[Edge]] = tuple
    effects: tuple[Fault, ...] = ()
    watch: Callable[[Case, list[Call]], Iterable[str]] = lambda case, calls: ()
    sizes: Callable[[Case], Mapping[str, float]] = lambda case: {}
    gradients: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    free: frozenset[str] = frozenset()
    forbidden: tuple[str, ...] = ()
    plain: bool = False
    any_kind: bool = False
    observe: Callable[[Case, Any], Mapping[str, Any]] = lambda case, result: {"value": result}
    faults: Mapping[str, Fault] = field(init=False)
    positions: tuple[str, ...] = field(init=False)
    keywords: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Collect all faults by name, and the names of the arguments."""
        every = [fault for knob in self.knobs.values() for fault in knob] + list(self.effects)
        object.__setattr__(self, "faults", {fault.id: fault for fault in every})
        kinds = inspect.signature(self.reference).parameters
        named = tuple(name for name, kind in kinds.items() if kind.kind is kind.KEYWORD_ONLY)
        object.__setattr__(self, "keywords", named)
        object.__setattr__(self, "positions", tuple(name for name in kinds if name not in named))

    @property
    def function(self) -> str:
        """The name of the function to write."""
        return self.reference.__name__

    def member(self, wrong: Iterable[str]) -> Solution:
        """Return the solution with these faults."""
        return partial(self.family, frozenset(wrong))

    def settings(self, number: int, given: Wrong = frozenset()) -> list[Wrong]:
        """Return all sets of ``number`` faults beside those given, at most one of each switch."""
        taken = {knob for knob, faults in self.knobs.items() if given & {one.id for one in faults}}
        chosen = []
        for knobs in combinations([knob for knob in self.knobs if knob not in taken], number):
            sets: list[Wrong] = [given]
            for knob in knobs:
                sets = [one | {fault.id} for one in sets for fault in self.knobs[knob]]
            chosen += sets
        return chosen

    def call(self, solution: Solution, case: Case) -> Any:
        """Call a solution as the reference is: by position, and by name what must be named."""
        return solution(
            *(case[name] for name in self.positions),
            **{name: case[name] for name in self.keywords},
        )

    def source(self) -> str:
        """Return the reference solution as text."""
        return textwrap.dedent(inspect.getsource(self.reference))

    def starter(self) -> str:
        """Return the reference's signature and docstring, without its body."""
        text = self.source()
        function = ast.parse(text).body[0]
        assert isinstance(function, ast.FunctionDef)
        return "\n".join(text.splitlines()[: function.body[0].end_lineno]) + "\n"


class Network(nn.Sequential):
    """Layers whose forward passes the grader sees, also those of a copy.

    Example:
        >>> Network.calls.clear()
        >>> _ = Network(nn.Linear(2, 3))(torch.zeros(4, 2))
        >>> Network.calls[0][1:]
        (4, True, True)
    """

    calls: list[tuple[nn.Module, int, bool, bool]] = []

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Run the layers, and note how."""
        noted(self, input)
        output: torch.Tensor = super().forward(input)
        return output


def noted(network: nn.Module, input: torch.Tensor) -> None:
    """Note a forward pass."""
    training = any(module.training for module in network.modules())
    Network.calls.append((network, len(input), training, torch.is_grad_enabled()))
