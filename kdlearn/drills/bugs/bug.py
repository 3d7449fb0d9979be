"""What an exercise in finding a bug is: a symptom, the code that shows it, and the line."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bug:
    """Code that runs, looks right, and is wrong in one line.

    Attributes:
        id: its name.
        title: a few words that do not tell.
        symptom: what was noticed.
        label: what `measure` measures.
        measure: runs a function on small data and gives one number.
        wrong: from that number to whether it shows the symptom.
        broken: the function with the fault.
        fixed: the same with the line mended.
        faulty: the text of the line, stripped.
        explanation: why that line, and how one finds it.
        seen: where it was published and as what: "in code: ...", "proposed: ...", "asked: ...",
            empty for a fault that is merely common.
    """

    id: str
    title: str
    symptom: str
    label: str
    measure: Callable[[Callable[..., Any]], float]
    wrong: Callable[[float], bool]
    broken: Callable[..., Any]
    fixed: Callable[..., Any]
    faulty: str
    explanation: str
    seen: str

    def source(self) -> str:
        """The text of the broken function."""
        return textwrap.dedent(inspect.getsource(self.broken))

    def numbered(self) -> str:
        """The text of the broken function with the number of each line."""
        lines = self.source().rstrip().splitlines()
        return "\n".join(f"{number:2d}  {line}".rstrip() for number, line in enumerate(lines, 1))

    def line(self) -> int:
        """The number of the faulty line."""
        lines = [line.strip() for line in self.source().splitlines()]
        return lines.index(self.faulty) + 1

    def mended(self) -> str:
        """What the fixed function has in that place: the lines that the broken one has not."""
        before = {line.strip() for line in self.source().splitlines()[1:]}
        after = textwrap.dedent(inspect.getsource(self.fixed)).splitlines()[1:]
        new = [line for line in after if line.strip() not in before | {""}]
        return textwrap.dedent("\n".join(line for line in new if '"""' not in line))
