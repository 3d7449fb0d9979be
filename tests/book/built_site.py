"""The built site as the tests of this folder see it."""

from __future__ import annotations

from pathlib import Path

from kdlearn.interview import questions_folder, read_bank

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
NO_SITE = "there is no site to look at: make book"


def pages() -> list[str]:
    """Return every page of the site, but not the templates among its static files."""
    found = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    return [name for name in found if not name.startswith("_static/")]


def opened() -> list[str]:
    """Return the pages to open in a browser: of the questions, which are alike, one a format."""
    first = {question.head.format: question.head.id for question in read_bank(questions_folder())}
    return [
        page for page in pages() if "/questions/" not in page or Path(page).stem in first.values()
    ]
