"""Name each `raise` of the package that no test reached; run by `make unit`.

`make unit` measures which lines run (pytest-cov) and ends with this. A refusal that nobody has ever
seen is a promise that nobody has tried.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parents[1]

# Raises that a test process cannot reach, with the reason.
ELSEWHERE: dict[str, str] = {}


def raises(source: str) -> Iterator[ast.Raise]:
    """Every raise of a module; not those in examples that are only shown."""
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise))


def unreached(data: coverage.CoverageData) -> list[str]:
    """Return file, line and text of each raise that was never run."""
    found = []
    for path in sorted((ROOT / "kdlearn").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        run = set(data.lines(str(path)) or ())
        name = path.relative_to(ROOT).as_posix()
        for node in raises(source):
            text = source.splitlines()[node.lineno - 1].strip()
            if node.lineno not in run and f"{name}: {text}" not in ELSEWHERE:
                found.append(f"{name}:{node.lineno}: {text}")
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
