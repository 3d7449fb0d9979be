"""The order of the book, and what every page owes to it: _toc.yml, the first page, "Next:"."""

import re
from itertools import pairwise
from pathlib import Path

import nbformat

FILE = re.compile(r"^(?:root| *- file): *(\S+)", re.MULTILINE)
NEXT = re.compile(r"^(?:\*\*)?Next:(?:\*\*)?[^[]*\[[^\]]*\]\(([^)#]*)", re.MULTILINE)


def pages(root: Path) -> list[Path]:
    """Return the files of the book in the order of _toc.yml, the first page first."""
    names = FILE.findall((root / "_toc.yml").read_text(encoding="utf-8"))
    found = [[root / f"{name}{suffix}" for suffix in (".ipynb", ".md")] for name in names]
    return [notebook if notebook.exists() else page for notebook, page in found]


def successor(chapter: Path) -> Path | None:
    """Return the page to which the last cell of a chapter sends its reader."""
    last = nbformat.read(chapter, as_version=4).cells[-1]
    links = NEXT.findall(last.source) if last.cell_type == "markdown" else []
    return (chapter.parent / links[0]).resolve() if len(links) == 1 else None


def faults(root: Path) -> list[str]:
    """Return what the contents lack: pages, their cards on the first page, their "Next:"."""
    listed = pages(root)
    book = root / "book"
    there = [path for kind in ("*.ipynb", "*.md") for path in sorted(book.rglob(kind))]
    found = [
        f"{path.relative_to(root)} is not in _toc.yml: add it where it belongs"
        for path in there
        if path not in listed
        and path.name != "README.md"
        and ".ipynb_checkpoints" not in path.parts
    ]
    first = listed[0].read_text(encoding="utf-8")
    for page in listed[1:]:
        name = page.relative_to(book).with_suffix("").as_posix()
        if page.suffix == ".ipynb" and not re.search(rf"[( ]{re.escape(name)}(\.ipynb)?\b", first):
            found.append(f"{page.relative_to(root)} is not in book/index.md: link to it there")
    for page, following in pairwise(listed):
        if page.suffix == ".ipynb" and successor(page) != following.resolve():
            found.append(
                f"{page.relative_to(root)} does not end with **Next:** and a link to "
                f"{following.relative_to(root)}, which follows it in _toc.yml"
            )
    return found
