"""The bibliography holds what is cited, and nothing else."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
KEY = re.compile(r"^@\w+\{([^,]+),", re.MULTILINE)


def texts() -> list[str]:
    """Return what may cite: cells, pages, claims, docstrings."""
    notebooks = [nbformat.read(path, as_version=4) for path in (ROOT / "book").rglob("*.ipynb")]
    cells = [cell.source for notebook in notebooks for cell in notebook.cells]
    folders = [(ROOT / "book", "md"), (ROOT / "book", "toml"), (ROOT / "kdlearn", "py")]
    return cells + [
        path.read_text(encoding="utf-8")
        for folder, kind in folders
        for path in folder.rglob(f"*.{kind}")
    ]


def test_every_source_is_cited_somewhere() -> None:
    keys = KEY.findall((ROOT / "book/references.bib").read_text(encoding="utf-8"))
    words = {word for text in texts() for word in re.findall(r"\w+", text)}
    assert [key for key in keys if key not in words] == []
