"""What an assistant gets: task, hints and checks, never the solution."""

import asyncio
import os
import sys

import pytest

from kdlearn.drills import find, names, served


def test_an_assistant_can_coach():
    assert [one["name"] for one in served.drills()] == names()
    assert "def kd_loss(" in served.task("kd-loss")
    assert served.hint("kd-loss").startswith("Hint 1 of 3")
    wrong = "def kd_loss(s, t, *, temperature):\n    return s.sum()"
    assert "Diagnosis" in served.check("kd-loss", wrong)


def test_the_solution_is_never_told():
    body = find("kd-loss").source().splitlines()[-1].strip()
    told = [served.task("kd-loss"), *(served.hint("kd-loss") for _ in range(4))]
    assert not any(body in text for text in told)


def test_the_server_speaks_the_protocol():
    mcp = pytest.importorskip("mcp")

    async def talk():
        how = mcp.StdioServerParameters(
            command=sys.executable,
            args=["-c", "from kdlearn.cli import app; app()", "drill", "serve"],
            env=dict(os.environ),
        )
        async with mcp.stdio_client(how) as streams, mcp.ClientSession(*streams) as session:
            await session.initialize()
            tools = await session.list_tools()
            told = await session.call_tool("task", {"name": "kd-loss"})
            return [tool.name for tool in tools.tools], told.content[0].text

    tools, told = asyncio.run(talk())
    assert tools == ["drills", "task", "hint", "check"] and "def kd_loss(" in told
