"""The grader as an MCP server, so that an assistant can coach: task, hints, checks, no solution."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kdlearn.drills import desk
from kdlearn.drills.grader.drill import IMPORTS
from kdlearn.drills.order import find, names


def drills() -> list[dict[str, str | int]]:
    """List all drills in order, with their level and minutes."""
    found = [find(name) for name in names()]
    return [
        {"name": one.id, "title": one.title, "level": one.level, "minutes": one.minutes}
        for one in found
    ]


def task(name: str) -> str:
    """Return a drill's task and the function to complete."""
    return desk.starter(find(name))


def hint(name: str) -> str:
    """Return the next of a drill's three hints; give one only when the learner asks."""
    return desk.next_hint(name)


def check(name: str, source: str) -> str:
    """Grade a learner's function, given as source text, and return what holds and what is wrong."""
    find(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name.replace('-', '_')}.py"
        file.write_text(f"{IMPORTS}\n\n{source}\n", encoding="utf-8")
        return str(desk.graded(name, file))


def serve() -> None:
    """Run the server on standard input and output, until the assistant hangs up.

    Raises:
        ImportError: the package mcp is not installed.
    """
    from mcp.server import MCPServer  # an extra: who has no assistant needs no server

    server = MCPServer(
        "kdlearn drills",
        instructions=(
            "Programming drills about knowledge distillation. Coach the learner: give the task, "
            "let them write, check what they wrote, explain what the grader found, give a hint "
            "when they ask. Do not write the solution."
        ),
    )
    for tool in (drills, task, hint, check):
        server.add_tool(tool)
    server.run()
