"""The order of the book, and what every page owes to it: _toc.yml, the first page, "Next:".

The routes of the first page lead through every chapter, each route in the order of the book, and
a time beside a chapter is the one in its header.
"""

import re
from itertools import pairwise
from pathlib import Path

import nbformat

FILE = re.compile(r"^(?:root| *- (?:file|glob)): *(\S+)", re.MULTILINE)
NEXT = re.compile(r"^(?:\*\*)?Next:(?:\*\*)?[^[]*\[[^\]]*\]\(([^)#]*)", re.MULTILINE)
ROUTES = "## Choose your route"
ROUTE = '<div class="route">'
STEP = re.compile(r"\]\(([\w/-]+\.ipynb)\)(?:, (\d+) min)?")


def pages(root: Path) -> list[Path]:
    """Return the files of the book in the order of _toc.yml, the first page first."""
    found: list[Path] = []
    for name in FILE.findall((root / "_toc.yml").read_text(encoding="utf-8")):
        notebook, page = root / f"{name}.ipynb", root / f"{name}.md"
        found += (
            sorted(root.glob(f"{name}.md"))
            if "*" in name
            else [notebook if notebook.exists() else page]
        )
    return found


def in_api(page: Path) -> bool:
    """Tell whether a page is one of the API, to look up in on the site, not to read in a book."""
    return page.parent.name == "api"


def successor(chapter: Path) -> Path | None:
    """Return the page to which the last cell of a chapter sends its reader."""
    last = nbformat.read(chapter, as_version=4).cells[-1]
    links = NEXT.findall(last.source) if last.cell_type == "markdown" else []
    return (chapter.parent / links[0]).resolve() if len(links) == 1 else None


def route_faults(root: Path, listed: list[Path]) -> list[str]:
    """Return chapters in no route, routes out of order, and times that are not the chapter's."""
    text = listed[0].read_text(encoding="utf-8").partition(ROUTES)[2].partition("\n## ")[0]
    found, led_to = [], set()
    for route in text.split(ROUTE)[1:]:
        steps = [(listed[0].parent / name, minutes) for name, minutes in STEP.findall(route)]
        led_to |= {page for page, _ in steps}
        for (page, _), (following, _) in pairwise(steps):
            if listed.index(page) > listed.index(following):
                found.append(
                    f"a route of book/index.md has {page.stem} before {following.stem}, "
                    "which comes first in _toc.yml"
                )
        for page, minutes in steps:
            header = nbformat.read(page, as_version=4).metadata.get("kdlearn", {})
            if minutes and int(minutes) != header.get("minutes", int(minutes)):
                found.append(
                    f"book/index.md gives {page.stem} {minutes} min, its header says "
                    f"{header['minutes']}"
                )
    for page in listed:
        if page.suffix == ".ipynb" and page not in led_to:
            found.append(f"{page.relative_to(root)} is in no route of book/index.md")
    return found


def faults(root: Path) -> list[str]:
    """Return what the contents lack: pages, cards and routes on the first page, their "Next:"."""
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
    return found + route_faults(root, listed)
