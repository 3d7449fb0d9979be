"""PDF of the site by Chromium: one file a page, and the whole book in each language: `make pdf`.

Each page prints as its style says for paper, with what was folded open. The files are written into
_build/pdf; a book has the pages in the order of _toc.yml, without those of the API, with a bookmark
for each. Chinese needs a font that has it, such as Noto Sans CJK.
"""

import sys
from pathlib import Path

import catalogs
import chromium
import contents
from playwright.sync_api import Page, PdfMargins, sync_playwright
from pypdf import PdfWriter

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build/html"
TARGET = ROOT / "_build/pdf"
MARGIN: PdfMargins = {"top": "15mm", "bottom": "18mm", "left": "15mm", "right": "15mm"}
FOOT = (
    '<div style="font: 8px sans-serif; width: 100%; padding: 0 15mm; display: flex; '
    'justify-content: space-between"><span class="title"></span><span class="pageNumber"></span>'
    "</div>"
)


def printed(page: Page, names: list[str], site: Path, target: Path) -> PdfWriter:
    """Print pages of a site, in their order; return them as one book."""
    book = PdfWriter()
    for name in names:
        file = target / f"{name}.pdf"
        file.parent.mkdir(parents=True, exist_ok=True)
        page.goto((site / "book" / f"{name}.html").as_uri())
        page.pdf(
            path=file,
            format="A4",
            margin=MARGIN,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
            print_background=True,
        )
        if not contents.in_api(Path(name)):
            book.append(file, outline_item=page.locator("h1").first.inner_text().rstrip("#"))
        print(file.relative_to(ROOT), flush=True)
    # Each page brings its letters along, mostly the same ones: a third is left of the Chinese book.
    book.compress_identical_objects()
    return book


def main() -> int:
    """Print every page of the contents, in each language that has it."""
    browser_path = chromium.find()
    if browser_path is None or not SITE.exists():
        print(chromium.MISSING if browser_path is None else "there is no site: make book")
        return 1
    sources = [file.relative_to(ROOT / "book") for file in contents.pages(ROOT)]
    names = [source.with_suffix("").as_posix() for source in sources]
    chinese = list(filter(catalogs.translated, names))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=[*chromium.FLAGS, "--allow-file-access-from-files"]
        )
        page = browser.new_page(color_scheme="light")
        for book, listed, site, target in (
            ("kdlearn.pdf", names, SITE, TARGET),
            ("kdlearn-zh.pdf", chinese, SITE / "zh", TARGET / "zh"),
        ):
            printed(page, listed, site, target).write(TARGET / book)
            print((TARGET / book).relative_to(ROOT))
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
