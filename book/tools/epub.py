"""EPUB 3 of the site: one file a language, for a phone or an e-reader: `make epub`.

The pages of the built site in the order of _toc.yml, without those of the API, become XHTML:
formulas stay MathML, figures SVG or PNG, folded answers stand open, nothing runs. Links between
pages stay inside the book, all others lead to the site. Written into _build/epub.

No library makes it. What EPUB asks for beside the pages is three small files; ebooklib is under
the AGPL, and pandoc would read the pages anew and write formulas of its own.
"""

import mimetypes
import re
import sys
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from html import escape
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import catalogs
import chinese
import contents
import interface
import repository
import svg
import yaml
from interface import _
from pages import DRAWING, article_of

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build/html"
TARGET = ROOT / "_build/epub"
# What only works on the site, as in print.
LEFT_OUT = (
    ".headerlink, .clock, .run-it, .set-up, .copy, .thumb, .kd-controls, .bet-form, "
    "script, style, form"
)
# What is English on every page: code and what it printed, sources, the names of terms.
IN_ENGLISH = "pre, .output, .citation, .glossary dt"
MATHML = "http://www.w3.org/1998/Math/MathML"
COLORS = {variable: color for color, variable in svg.VARIABLES.items()}
VARIABLE = re.compile(r"var\(--[\w-]+\)")

STYLE = """\
body { line-height: 1.5; }
h1, h2, h3, h4, .summary { break-after: avoid; line-height: 1.2; }
pre { background: #f4f2ec; color: #1d2127; font-size: 0.8em; line-height: 1.35; padding: 0.5em; }
pre { white-space: pre-wrap; }
code, pre { font-family: monospace; }
img, svg { height: auto; max-width: 100%; }
svg { background: #ffffff; font-family: sans-serif; }
figure { break-inside: avoid; margin: 1em 0; }
figcaption, caption { font-size: 0.9em; text-align: left; }
table { border-collapse: collapse; font-size: 0.85em; margin: 1em 0; }
td, th { border-bottom: 1px solid #858a92; padding: 0.25em 0.9em 0.25em 0; text-align: left; }
td, th { vertical-align: top; }
td p, th p, li > p { margin: 0; }
.number { text-align: right; }
.callout, .bet, .fold, .drill-card { border-left: 3px solid #858a92; padding-left: 0.8em; }
.callout, .bet, .fold, .drill-card { margin: 1em 0; }
.drill-card, .drill-card b { display: block; }
.callout-title, .summary, .k, .kn { font-weight: bold; }
.c1 { font-style: italic; }
.formula { margin: 1em 0; }
.formula, .scroll, .output { overflow-x: auto; }
.external, code { overflow-wrap: anywhere; }
body:lang(zh) { line-height: 1.75; }
h1:lang(zh), h2:lang(zh), h3:lang(zh), h4:lang(zh) { font-family: sans-serif; }
.summary:lang(zh), .callout-title:lang(zh), th:lang(zh) { font-family: sans-serif; }
em:lang(zh), i:lang(zh) { font-style: normal; font-weight: bold; }
td:lang(zh) { min-width: 3em; }
.in-english { font-size: 0.7em; margin-left: 0.25em; vertical-align: 0.35em; white-space: nowrap; }
"""
PAGE = """\
<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="{language}" xml:lang="{language}"
 xmlns:epub="http://www.idpf.org/2007/ops">
<head>
<meta charset="utf-8"/>
<title>{title}</title>
<link rel="stylesheet" href="{up}style.css"/>
</head>
<body>
{body}
</body>
</html>
"""
CONTAINER = """\
<?xml version="1.0" encoding="utf-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles>
<rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/>
</rootfiles>
</container>
"""
PACKAGE = """\
<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" xml:lang="{language}"
 unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">{identifier}</dc:identifier>
<dc:title>{title}</dc:title>
<dc:creator xml:lang="en">{author}</dc:creator>
<dc:language>{language}</dc:language>
<dc:rights>{rights}</dc:rights>
<meta property="dcterms:modified">{modified}</meta>
<meta property="schema:accessMode">textual</meta>
<meta property="schema:accessMode">visual</meta>
<meta property="schema:accessModeSufficient">textual</meta>
<meta property="schema:accessibilityFeature">alternativeText</meta>
<meta property="schema:accessibilityFeature">MathML</meta>
<meta property="schema:accessibilityFeature">tableOfContents</meta>
<meta property="schema:accessibilityHazard">none</meta>
<meta property="schema:accessibilitySummary">{accessibility}</meta>
</metadata>
<manifest>
{manifest}
</manifest>
<spine>
{spine}
</spine>
</package>
"""


@dataclass(frozen=True)
class Book:
    """A book to make: its file, its sources, its folder in the site, its language as in gettext."""

    file: str
    sources: Path
    folder: str
    locale: str

    @property
    def language(self) -> str:
        """Return the language as XHTML names it."""
        return self.locale.replace("_", "-")


BOOKS = (
    Book("kdlearn.epub", ROOT, "", interface.ENGLISH),
    Book("kdlearn-zh.epub", chinese.TREE, "zh/", catalogs.LANGUAGE),
)


@dataclass(frozen=True)
class Page:
    """A page of the book: its place, its title, its XHTML, the files that it shows."""

    name: str
    title: str
    text: str
    files: frozenset[str]

    def properties(self) -> str:
        """Return what a reading system must be able to do for the page."""
        return " ".join(
            kind for kind, tag in (("mathml", "<math"), ("svg", "<svg")) if tag in self.text
        )


def figure(source: str) -> str:
    """Return an SVG of a page as XML of its own, with colors that need no style.

    Example:
        >>> figure('<svg viewBox="0 0 1 1"><path stroke="var(--paper)"/></svg>')
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path stroke="#ffffff"/></svg>'
    """
    names = ' xmlns="http://www.w3.org/2000/svg"'
    if "xlink:" in source:
        names += ' xmlns:xlink="http://www.w3.org/1999/xlink"'
    source = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", source)
    source = source.replace("<svg", f"<svg{names}", 1)
    return VARIABLE.sub(lambda match: COLORS.get(match[0], "#000000"), source)


def article(html: str, name: str, language: str, inside: set[str], site: str) -> Page:
    """Return a page of the site as a page of the book, where it keeps its place.

    Args:
        html: the page.
        name: its place in the site, such as book/index.html.
        language: its language.
        inside: the places of all pages of the book.
        site: the public address of the site, for links to what is not in the book.
    """
    figures: list[str] = []

    def cut(match: re.Match[str]) -> str:
        # The parser would write its names in small letters, and SVG tells viewBox from viewbox.
        figures.append(figure(match[0]))
        return f'<i data-figure="{len(figures) - 1}"></i>'

    body = article_of(DRAWING.sub(cut, html))
    assert body is not None and body.h1 is not None, f"{name} has no article with a heading"
    for left_out in body.select(LEFT_OUT):
        left_out.decompose()
    for noscript in body.select("noscript"):
        noscript.unwrap()
    for fold in body.select("details"):
        fold.name = "div"
        fold["class"] = "fold"
    for summary in body.select("summary"):
        summary.name = "p"
        summary["class"] = "summary"
    for formula in body.select("math"):
        formula["xmlns"] = MATHML
    for tag in body.find_all(True):
        for attribute in ("tabindex", "valign", "download"):
            del tag[attribute]
    for part in body.select(IN_ENGLISH) if language != interface.ENGLISH else []:
        part["lang"] = interface.ENGLISH
    for part in body.select("[lang]"):
        part["xml:lang"] = part["lang"]
    files = set()
    for image in body.select("img[src]"):
        files.add(normpath(join(dirname(name), str(image["src"]).partition("?")[0])))
    for link in body.select("a[href]"):
        link["href"] = address(str(link["href"]), name, inside, site)
    text = re.sub(
        r'<i data-figure="(\d+)"></i>', lambda match: figures[int(match[1])], body.decode()
    )
    title = " ".join(body.h1.get_text().split())
    text = PAGE.format(
        language=language, title=escape(title), up="../" * name.count("/"), body=text
    )
    return Page(name.removesuffix(".html") + ".xhtml", title, text, frozenset(files))


def address(href: str, name: str, inside: set[str], site: str) -> str:
    """Return where a link of a page leads from the book.

    Example:
        >>> address("../b/c.html#d", "a/x.html", {"b/c.html"}, "https://s.org/")
        '../b/c.xhtml#d'
        >>> address("../b.zip", "a/x.html", {"b/c.html"}, "https://s.org/")
        'https://s.org/b.zip'
    """
    parts = urlsplit(href)
    if parts.scheme or not parts.path:
        return href
    path = normpath(join(dirname(name), parts.path))
    anchor = f"#{parts.fragment}" if parts.fragment else ""
    if path not in inside:
        return f"{site}{path}{anchor}"
    return relpath(path, dirname(name)).removesuffix(".html") + f".xhtml{anchor}"


def navigation(book: Book, pages: dict[str, Page]) -> str:
    """Return the list of contents: the first page, and the parts with their chapters."""
    toc = yaml.safe_load((book.sources / "_toc.yml").read_text(encoding="utf-8"))

    def entries(listed: list[dict[str, Any]]) -> str:
        """Return the pages of a list of _toc.yml, with those below each."""
        found = [
            f'<li><a href="{page.name}">{escape(page.title)}</a>{below}</li>'
            for entry in listed
            for name, page in pages.items()
            if fnmatch(name, entry.get("file") or entry["glob"])
            for below in [entries(entry.get("sections", []))]
        ]
        return "<ol>\n" + "\n".join(found) + "\n</ol>" if found else ""

    parts = [
        f"<li><span>{escape(part['caption'])}</span>{below}</li>"
        for part in toc["parts"]
        if (below := entries(part["chapters"]))
    ]
    first = pages[toc["root"]]
    listed = "\n".join([f'<li><a href="{first.name}">{escape(first.title)}</a></li>', *parts])
    title = _("Contents")
    body = f'<nav epub:type="toc"><h1>{title}</h1><ol>\n{listed}\n</ol></nav>'
    return PAGE.format(language=book.language, title=title, up="", body=body)


def package(book: Book, pages: list[Page], files: list[str], modified: datetime) -> str:
    """Return the description of the book: what it is, what it holds, in which order."""
    config = yaml.safe_load((book.sources / "_config.yml").read_text(encoding="utf-8"))
    items = [
        '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>',
        '<item id="style" href="style.css" media-type="text/css"/>',
    ]
    for number, page in enumerate(pages):
        kind = 'media-type="application/xhtml+xml"'
        properties = f' properties="{page.properties()}"' if page.properties() else ""
        items.append(f'<item id="p{number}" href="{page.name}" {kind}{properties}/>')
    for number, file in enumerate(files):
        kind = f'media-type="{mimetypes.guess_type(file)[0]}"'
        items.append(f'<item id="f{number}" href="{file}" {kind}/>')
    return PACKAGE.format(
        identifier=repository.read_address().pages + book.folder,
        language=book.language,
        title=escape(config["title"]),
        author=escape(config["author"]),
        rights=_("Text and figures: CC BY 4.0, code: MIT"),
        accessibility=_("Formulas are MathML, figures have a text."),
        modified=modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
        manifest="\n".join(items),
        spine="\n".join(f'<itemref idref="p{number}"/>' for number in range(len(pages))),
    )


def write(book: Book, site: Path, target: Path) -> None:
    """Write a book of a built site."""
    interface.speak(book.locale, catalogs.texts(catalogs.SITE, book.locale))
    names = [
        path.relative_to(book.sources).with_suffix("").as_posix()
        for path in contents.pages(book.sources)
        if not contents.in_api(path)
    ]
    places = {name: f"{book.folder}{name}.html" for name in names}
    inside = set(places.values())
    public = repository.read_address().pages
    pages = {}
    for name, place in places.items():
        html = (site / place).read_text(encoding="utf-8")
        pages[name] = article(html, place, book.language, inside, public)
        ElementTree.fromstring(pages[name].text)  # what is not well-formed stops here
    files = sorted({file for page in pages.values() for file in page.files})
    built = datetime.fromtimestamp((site / places["book/index"]).stat().st_mtime, UTC)
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        # First and not packed: so a reader knows the format by the first bytes.
        packed.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        packed.writestr("META-INF/container.xml", CONTAINER)
        packed.writestr("EPUB/package.opf", package(book, [*pages.values()], files, built))
        packed.writestr("EPUB/nav.xhtml", navigation(book, pages))
        packed.writestr("EPUB/style.css", STYLE)
        for page in pages.values():
            packed.writestr(f"EPUB/{page.name}", page.text)
        for file in files:
            packed.write(site / file, f"EPUB/{file}")


def main() -> int:
    """Write the books beside the site."""
    if not all((SITE / book.folder).exists() and book.sources.exists() for book in BOOKS):
        print("there is no site: make book")
        return 1
    for book in BOOKS:
        target = TARGET / book.file
        write(book, SITE, target)
        print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.1f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
