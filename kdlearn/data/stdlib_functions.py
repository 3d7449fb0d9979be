"""Questions and documents that every Python has on its disk: functions of its standard library."""

from __future__ import annotations

import ast
import re
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from kdlearn.core.checks import check_sizes
from kdlearn.core.randomness import generator_of

FOLDERS = ("", "asyncio", "email", "http", "importlib", "logging", "unittest")
STOP = frozenset(
    [
        "all",
        "and",
        "any",
        "are",
        "but",
        "can",
        "def",
        "each",
        "else",
        "false",
        "for",
        "from",
        "has",
        "into",
        "its",
        "may",
        "none",
        "not",
        "other",
        "return",
        "returns",
        "self",
        "than",
        "that",
        "the",
        "then",
        "this",
        "true",
        "was",
        "when",
        "which",
        "will",
        "with",
        "you",
    ]
)
LENGTH = 60


@dataclass(frozen=True)
class Function:
    """A function as a search engine sees it: words, in lower case.

    Attributes:
        question: of the first line of its docstring.
        name: of its name.
        body: the first 60 of its source with comments, without name and docstring.
    """

    question: tuple[str, ...]
    name: tuple[str, ...]
    body: tuple[str, ...]


def words(text: str) -> list[str]:
    """Cut text or source into lower-case words of three letters or more, common ones left out.

    Example:
        >>> words("def make_HTTPServer(self): returns the oldValue")
        ['make', 'httpserver', 'old', 'value']
    """
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    found = re.findall(r"[a-z]{3,}", apart.lower())
    return [word for word in found if word not in STOP]


def stdlib_functions(count: int = 1500) -> list[Function]:
    """Return functions with docstrings from the library of the Python that is running.

    Files are parsed, never imported. Kept are functions whose docstring begins with three words
    or more and whose source has eight or more; then a draw that is the same each time. Another
    version of Python has other functions: what was measured holds for the version it was measured
    with.

    Args:
        count: how many.

    Raises:
        ValueError: ``count`` is smaller than 1.
        FileNotFoundError: this Python comes without the sources of its library, or with fewer
            such functions.

    Example:
        >>> functions = stdlib_functions()
        >>> len(functions), len(functions[0].body) <= 60
        (1500, True)
    """
    check_sizes(count=count)
    root = Path(sysconfig.get_paths()["stdlib"])
    found = _found(root)
    if len(found) < count:
        raise FileNotFoundError(
            f"{root} has {len(found)} functions with docstrings, and {count} were asked for: "
            "ask for fewer, or use a Python that comes with the sources of its library."
        )
    order = torch.randperm(len(found), generator=generator_of(0))
    return [found[i] for i in order[:count].tolist()]


@lru_cache(maxsize=1)
def _found(root: Path) -> tuple[Function, ...]:
    files = [file for folder in FOLDERS for file in sorted((root / folder).glob("*.py"))]
    return tuple(function for file in files for function in _functions_of(file))


def _functions_of(file: Path) -> list[Function]:
    functions, source = [], file.read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and (said := ast.get_docstring(node)):
            code = " ".join(lines[node.body[0].end_lineno : node.end_lineno])
            question, body = words(said.split("\n")[0]), words(code)[:LENGTH]
            if len(question) >= 3 and len(body) >= 8:
                name = tuple(words(node.name))
                functions.append(Function(tuple(question), name, tuple(body)))
    return functions
