"""Name each `raise` of the package that no test reached: `pytest -p tests.raises`.

A refusal that nobody has ever seen is a promise that nobody has tried. Each `raise` notes that it
ran; measuring every line for that would take a sixth more of the tests' time.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

SEVERAL = "in several processes, tests/training/test_engine.py"
APART = "in a process of its own, tests/test_cli.py"
WORKER = "in the grader's own process, tests/drills/grader/test_run.py"
# Functions whose raises happen in processes that tell nobody, with the test that makes them happen.
ELSEWHERE = {
    "kdlearn/cli.py: _terminate": APART,
    "kdlearn/cli.py: _told": APART,
    "kdlearn/drills/grader/run.py: ask": WORKER,
    "kdlearn/drills/grader/run.py: _started": WORKER,
    "kdlearn/drills/grader/worker.py: load": WORKER,
    "kdlearn/training/fit.py: _check_together": SEVERAL,
}
SEEN: set[tuple[str, int]] = set()
"""File and line of each raise that ran, in this process and in those that told it theirs."""


def note(place: tuple[str, int]) -> None:
    """Note a raise; a function, since what fit describes of a loss must not grow with the list."""
    SEEN.add(place)


class Noting(ast.NodeTransformer):
    """Put before each raise of a file a call that notes it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def visit_Raise(self, node: ast.Raise) -> list[ast.stmt]:
        (note,) = ast.parse(f"__raised__(({self.name!r}, {node.lineno}))").body
        for part in ast.walk(note):
            ast.copy_location(part, node)
        return [note, node]


class Loader(SourceFileLoader):
    """Load a module whose raises are noted."""

    def get_code(self, fullname: str) -> CodeType:
        path = Path(self.get_filename(fullname))
        name = path.relative_to(ROOT).as_posix()
        tree = Noting(name).visit(ast.parse(path.read_bytes()))
        return compile(tree, str(path), "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__raised__"] = note
        super().exec_module(module)


class Finder:
    """Find the package's own modules, before anybody else does."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] != "kdlearn":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = Loader(name, spec.origin)
        return spec


def pytest_configure() -> None:
    """Begin before a test imports the package."""
    assert "kdlearn" not in sys.modules, "the package was imported before its raises are noted"
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]


def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist saw."""
    SEEN.update(map(tuple, getattr(node, "workeroutput", {}).get("raised", ())))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the main process; there, fail where a raise is left."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["raised"] = sorted(SEEN)
    elif unreached(SEEN) and session.exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what is left."""
    found = unreached(SEEN)
    terminalreporter.section("raises of the package that no test reached")
    terminalreporter.line("\n".join(found) if found else "none")
    if found:
        terminalreporter.line("Write the test beside its module that makes each of them happen.")


def raises(tree: ast.AST, inside: str = "") -> Iterator[tuple[int, str]]:
    """Line and function of every raise of a module; not those in examples that are only shown."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise):
            yield node.lineno, inside
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from raises(node, node.name if is_function else inside)


def unreached(seen: set[tuple[str, int]]) -> list[str]:
    """Return file, line and text of each raise that is not among those that ran."""
    found = []
    for path in sorted((ROOT / "kdlearn").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        for line, function in raises(ast.parse(source)):
            if (name, line) not in seen and f"{name}: {function}" not in ELSEWHERE:
                found.append(f"{name}:{line}: {source.splitlines()[line - 1].strip()}")
    return found
