"""What a drill is: a task, a reference solution, and the wrong solutions that readers really write."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Generator

Case = dict[str, Any]
"""Arguments of a solution by name."""

Solution = Callable[..., Any]
Cases = Callable[[Generator], Iterable[Case]]


@dataclass(frozen=True)
class Mistake:
    """A wrong solution, and what to say to who wrote it.

    Attributes:
        id: short name; that of a general finding (see `kdlearn.drills.grader.grade`) where it is one.
        diagnosis: what is wrong, why the numbers show it, and what to do; may hold ``{B}`` and other sizes of a case.
        solution: the wrong solution.
        seen: where it was published: repository and issue, commit or page; empty for what is merely common.
    """

    id: str
    diagnosis: str
    solution: Solution
    seen: str = ""


@dataclass(frozen=True)
class Property:
    """Something that must hold for every right solution, whatever numbers it gives.

    Attributes:
        id: short name of the mistake that its absence is.
        title: what holds, as a sentence: "gives the same loss for features three times as large".
        diagnosis: what to say if it does not hold.
        holds: from (solution, generator) to whether it does.
    """

    id: str
    title: str
    diagnosis: str
    holds: Callable[[Solution, Generator], bool]


@dataclass(frozen=True)
class Drill:
    """A programming task of an interview with all that is needed to practice it alone.

    Attributes:
        id: its name, such as "kd-loss".
        title: a few words.
        task: what the interviewer says, in Markdown.
        minutes: how long a prepared candidate takes.
        level: "warm-up", "core" or "hard".
        hints: three, each saying more than the one before.
        explanation: how the reference works: cost, numerics, and what the interviewer listens for; in Markdown.
        reference: the right solution; its signature and docstring are the starter.
        cases: makes the inputs on which solutions are compared, float64 where they are real.
        extremes: makes further inputs, at the edge of what numbers can hold.
        sizes: from a case to the numbers that a wrong factor could consist of, such as ``{"B": 8, "C": 10}``.
        gradients: arguments whose gradient must be the reference's; tensors, or lists of tensors.
        detached: arguments that must get no gradient; the same.
        changes: arguments that a solution is asked to change.
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
        ...     hints=("Add?", "Multiply?", "2 * x"),
        ...     explanation="One multiplication.",
        ...     reference=double,
        ...     cases=lambda generator: [{"x": 3.0}],
        ... )
        >>> @drill.mistake("square", "{x} was squared.")
        ... def square(x: float) -> float:
        ...     return x * x
        >>> [wrong.id for wrong in drill.mistakes]
        ['square']
    """

    id: str
    title: str
    task: str
    minutes: int
    level: Literal["warm-up", "core", "hard"]
    hints: tuple[str, str, str]
    explanation: str
    reference: Solution
    cases: Cases
    extremes: Cases | None = None
    sizes: Callable[[Case], Mapping[str, float]] = lambda case: {}
    gradients: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    observe: Callable[[Case, Any], Mapping[str, Any]] = lambda case, result: {"value": result}
    mistakes: list[Mistake] = field(default_factory=list)
    alternatives: list[Solution] = field(default_factory=list)
    properties: list[Property] = field(default_factory=list)

    def mistake(self, id: str, diagnosis: str, *, seen: str = "") -> Callable[[Solution], Solution]:
        """Add the decorated function as a wrong solution."""

        def add(solution: Solution) -> Solution:
            self.mistakes.append(Mistake(id, diagnosis, solution, seen))
            return solution

        return add

    def alternative(self, solution: Solution) -> Solution:
        """Add the decorated function as a right solution that is written differently."""
        self.alternatives.append(solution)
        return solution

    def must(
        self, title: str, id: str, diagnosis: str
    ) -> Callable[[Callable[[Solution, Generator], bool]], Callable[[Solution, Generator], bool]]:
        """Add the decorated test of a solution as something that must hold."""

        def add(
            holds: Callable[[Solution, Generator], bool],
        ) -> Callable[[Solution, Generator], bool]:
            self.properties.append(Property(id, title, diagnosis, holds))
            return holds

        return add

    @property
    def function(self) -> str:
        """The name of the function to write."""
        return self.reference.__name__

    def call(self, solution: Solution, case: Case) -> Any:
        """Call a solution as the reference is called: by position, and by name what must be named."""
        kinds = inspect.signature(self.reference).parameters
        named = {name for name, kind in kinds.items() if kind.kind is kind.KEYWORD_ONLY}
        return solution(
            *(case[name] for name in kinds if name not in named),
            **{name: case[name] for name in kinds if name in named},
        )

    def source(self) -> str:
        """The reference solution as text."""
        return textwrap.dedent(inspect.getsource(self.reference))

    def starter(self) -> str:
        """The reference's signature and docstring, without its body."""
        text = self.source()
        function = ast.parse(text).body[0]
        assert isinstance(function, ast.FunctionDef)
        return "\n".join(text.splitlines()[: function.body[0].end_lineno]) + "\n"
