"""The search's index: every section of every page, as its words are read.

Written from the finished pages, so that an excerpt is what stands there: without what surrounds the
text, without code that is folded away, and without the answers of bugs to find. site/search.js
ranks the sections.
"""

import json
import re
from pathlib import Path
from typing import Any

from bs4 import Tag
from interface import _
from pages import DRAWING, article_of

# A selector that names all of them takes ten times as long.
LEFT_OUT = {"script", "style", "nav"}
CLASSES_LEFT_OUT = {
    "headerlink",
    "section-number",
    "chapter-head",
    "clock",
    "fold",
    "set-up",
    "drill-card",
    "kd-controls",
    "kd-verdicts",
}
# Pages that list what other pages say.
LISTS = ("/interview/bank.html", "/interview/ledger.html")
# Other words under which an interview question is asked, Chinese ones too.
WORDINGS = ".chapter-head [lang=zh]:not(q), .chapter-head q"
# What is found of an interview question.
SPOKEN = ("The scenario", "The question", "In 30 seconds", "30 秒")
# A space that Chinese text does not have: it stood between two elements of the page.
BETWEEN_HAN = re.compile(
    r"(?<=[“（\u3001-\u303f\u4e00-\u9fff\uff01-\uff5e]) (?=[\u4e00-\u9fff“（])"
)
LONGEST, LONGEST_CODE = 3000, 800  # characters of a section that are kept


Section = dict[str, Any]


def sections(page: str, html: str) -> list[Section]:
    """Return the sections of a page: page, anchor, title of the page, heading, text, code.

    An interview question has its other wordings as well.

    Example:
        >>> html = '<article><section id="a"><h1>One</h1><p>Two.</p></section></article>'
        >>> sections("x.html", html)
        [{'p': 'x.html', 'a': '', 't': 'One', 'h': '', 'x': 'Two.', 'c': ''}]
    """
    article = article_of(DRAWING.sub("", html))  # most of the tags of some pages
    if article is None:
        return []
    asked = article.select(WORDINGS) if "/questions/" in page else []
    wordings = [" ".join(words.get_text().split()) for words in asked]
    for tag in article.find_all(_is_left_out):
        tag.decompose()
    found: list[Section] = []
    heading = article.find("h1")
    title = " ".join(heading.get_text().split()) if heading else page
    for section in article.find_all("section", id=True):
        head = section.find(["h1", "h2", "h3", "h4"], recursive=False)
        if head is None:
            continue
        text, code = _own_text(section)
        name = " ".join(head.get_text().split())
        first = head.name == "h1"
        found.append(
            {
                "p": page,
                "a": "" if first else str(section["id"]),
                "t": title,
                "h": "" if first else name,
                "x": text[:LONGEST],
                "c": code[:LONGEST_CODE],
            }
        )
    if "/questions/" in page:
        return _question(found, wordings)
    if page.endswith(LISTS):
        return found[:1]
    return found + _entries(page, title, article)


def _is_left_out(tag: Tag) -> bool:
    return (
        tag.name in LEFT_OUT
        or not CLASSES_LEFT_OUT.isdisjoint(tag.get_attribute_list("class"))
        or (tag.name == "details" and tag.has_attr("data-bug"))
    )


def _question(found: list[Section], wordings: list[str]) -> list[Section]:
    """Return one entry for an interview question: a bank must not crowd out the chapters."""
    spoken = {*SPOKEN, *map(_, SPOKEN)}
    texts = [found[0]["x"], *(part["x"] for part in found if part["h"] in spoken)]
    return [found[0] | {"x": " ".join(texts)[:LONGEST], "w": wordings}]


def _own_text(section: Tag) -> tuple[str, str]:
    """Return text and code of a section, without its heading and the sections in it."""
    parts: list[str] = []
    code: list[str] = []
    for child in section.children:
        if isinstance(child, Tag) and child.name not in ("section", "h1", "h2", "h3", "h4"):
            code += [block.extract().get_text() for block in child.find_all("pre")]
            parts.append(child.get_text(" "))
    return _plain(parts), _plain(code)


def _plain(parts: list[str]) -> str:
    return BETWEEN_HAN.sub("", " ".join(" ".join(parts).split()))


def _entries(page: str, title: str, article: Tag) -> list[Section]:
    """Return the entries of a glossary, each with its own anchor."""
    found = []
    for term in article.select("dl.glossary dt[id]"):
        meaning = term.find_next_sibling("dd")
        text = " ".join(meaning.get_text(" ").split()) if meaning else ""
        name = " ".join(term.get_text().split())
        found.append({"p": page, "a": str(term["id"]), "t": title, "h": name, "x": text, "c": ""})
    return found


def write(site: Path) -> None:
    """Write the index of a built site beside its pages; the Chinese one has its own."""
    index = []
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        if not name.startswith(("_static/", "zh/", "search", "404", "index", "genindex")):
            index += sections(name, path.read_text(encoding="utf-8"))
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    (site / "search.json").write_text(text, encoding="utf-8")
