"""English text that every Python has on its disk: the docstrings of its own standard library."""

from __future__ import annotations

import ast
import sysconfig
from dataclasses import dataclass
from pathlib import Path

TRAIN = """argparse ast bdb calendar cmd codecs configparser contextlib copy csv dataclasses
datetime decimal difflib dis doctest email/message enum fractions ftplib functools gettext heapq
imaplib inspect io locale mailbox numbers optparse os pathlib pdb pickle pickletools platform
plistlib poplib pprint random sched shutil smtplib socketserver statistics subprocess tarfile
threading trace traceback turtle typing urllib/request uuid xmlrpc/client zipfile"""
HELD_OUT = """bisect collections/__init__ fnmatch getopt glob graphlib ipaddress logging/__init__
queue shlex string tempfile textwrap timeit webbrowser zipapp"""


@dataclass(frozen=True)
class StdlibText:
    """Docstrings of the standard library.

    Attributes:
        train: those of some fifty modules.
        held_out: those of others.
    """

    train: str
    held_out: str


def python_docstrings() -> StdlibText:
    """Read the docstrings of fixed modules of the Python that is running.

    The sources are parsed, never imported. Kept are printable ASCII characters and line ends, each
    docstring without its indentation; so there are 96 different symbols at most, see
    `kdlearn.data.tokenizers.Characters`.

    Two runs of one Python read the same. Another version of Python has other docstrings, and may
    lack a module: what was measured on this text holds for the version it was measured with.

    Raises:
        FileNotFoundError: this Python comes without the sources of its library.

    Example:
        >>> text = python_docstrings()
        >>> len(text.train) > 300_000, "heap queue" in text.train.lower()
        (True, True)
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    return StdlibText(_docstrings(folder, TRAIN.split()), _docstrings(folder, HELD_OUT.split()))


def _docstrings(folder: Path, modules: list[str]) -> str:
    files = [folder / f"{module}.py" for module in modules]
    found = [file for file in files if file.exists()]
    if len(found) < len(files) / 2:
        raise FileNotFoundError(
            f"{folder} has {len(found)} of {len(files)} sources of the standard library: use a "
            "Python that comes with them."
        )
    texts = []
    for file in found:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                texts.append(ast.get_docstring(node) or "")
    joined = "\n\n".join(text for text in texts if text)
    return "".join(letter for letter in joined if letter == "\n" or " " <= letter <= "~")
