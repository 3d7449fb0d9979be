"""Name each `raise` of the package that no test reached; run by `make test`.

`make test` measures which lines run (pytest-cov) and ends with this. A refusal that nobody has ever
seen is a promise that nobody has tried.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parents[1]

SEVERAL = "in several processes, tests/training/test_engine.py"
APART = "in a process of its own, tests/test_cli.py"
WORKER = "in the grader's own process, tests/drills/grader/test_run.py"
FAMILY = "an error of a wrong program, made on purpose in tests/drills/test_families.py"
# Functions whose raises happen where nobody counts lines, with the test that makes them happen.
ELSEWHERE = {
    "kdlearn/cli.py: _terminate": APART,
    "kdlearn/cli.py: _told": APART,
    "kdlearn/drills/grader/run.py: ask": WORKER,
    "kdlearn/drills/grader/run.py: _started": WORKER,
    "kdlearn/drills/grader/worker.py: load": WORKER,
    "kdlearn/drills/tasks/generalized_jsd.py: family": FAMILY,
    "kdlearn/training/fit.py: _check_together": SEVERAL,
}


def raises(tree: ast.AST, inside: str = "") -> Iterator[tuple[int, str]]:
    """Line and function of every raise of a module; not those in examples that are only shown."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise):
            yield node.lineno, inside
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from raises(node, node.name if is_function else inside)


def unreached(data: coverage.CoverageData) -> list[str]:
    """Return file, line and text of each raise that was never run."""
    found = []
    for path in sorted((ROOT / "kdlearn").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        run = set(data.lines(str(path)) or ())
        name = path.relative_to(ROOT).as_posix()
        for line, function in raises(ast.parse(source)):
            if line not in run and f"{name}: {function}" not in ELSEWHERE:
                found.append(f"{name}:{line}: {source.splitlines()[line - 1].strip()}")
    return found


def main() -> int:
    """Print them, and fail if there are any."""
    data = coverage.CoverageData(str(ROOT / ".coverage"))
    data.read()
    found = unreached(data)
    print("\n".join(found) if found else "every raise of the package was reached by a test")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
