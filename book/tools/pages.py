"""What a finished page gets beside its text: contents, tidy tables, code and signatures."""

import re
from html import unescape
from typing import NamedTuple

from bs4 import BeautifulSoup, Tag
from interface import _

HEADING = re.compile(
    r'<section[^>]* id="([^"]+)"[^>]*>(?:\s*<span id="[^"]*"></span>)*\s*<h([23])>(.*?)</h\2>',
    re.DOTALL,
)
HEADERLINK = re.compile(r'<a class="headerlink".*?</a>', re.DOTALL)
MARKUP = re.compile(r"<[^>]+>")
TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
SCOPED = re.compile(r"<style scoped>.*?</style>", re.DOTALL)
SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)
# Tokens that no color tells apart: their spans are most of the nodes of a page with code.
PLAIN = re.compile(
    r'<span class="(?:w|n|p|nn|o|fm|bp|si|py|nv|vm|_|m|mi|mf|mh|mb|mo)">([^<]*)</span>'
)
# An f-string is a dozen tokens of one color.
TEXT_TOKEN = re.compile(r'<span class="(?:s1|s2|sd|sa|se|sx|sr)">')
# Assertions and plumbing, behind a fold; a solution there keeps its colors.
QUIET = re.compile(
    r'<details class="fold[^"]*">\s*<summary>(?P<prompt>[^<]*)</summary>.*?</details>', re.DOTALL
)
SPAN = re.compile(r"</?span[^>]*>")
SEAM = '</span><span class="s">'
LITERAL = re.compile(r'<span class="pre">([^<]*)</span>')
CODE = re.compile(r'<div class="highlight">.*?</pre>', re.DOTALL)
TYPES = re.compile(r'<span class="(?:w|n|p|o|pre|sig-paren)">((?:[^<]|<a [^>]*>[^<]*</a>)*)</span>')
ITEM = re.compile(r"<li>\s*<p>((?:(?!</?(?:p|ul|ol|dl|div|pre|li)\b).)*)</p>\s*</li>", re.DOTALL)
CITATION = re.compile(r'<span class="bibtex-citation"[^>]*>((?:(?!</?span).)*)</span>', re.DOTALL)
NUMBER = re.compile(r"^[+\-−]?[\d.,]+(?: ?(?:%|±.*|x|×|MB|kB|ms|s))?$")
DRAWING = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
ARTICLE = re.compile(r"<article\b.*</article>", re.DOTALL)


class Entry(NamedTuple):
    """A line of a page's contents."""

    anchor: str
    level: int
    title: str


def article_of(html: str) -> Tag | None:
    """Return the text of a page; what surrounds it, which takes as long to parse, is not read."""
    found = ARTICLE.search(html)
    return BeautifulSoup(found[0], "html.parser").article if found else None


def page_contents(body: str) -> list[Entry]:
    """Return the headings of a page below its title."""
    return [
        Entry(anchor, int(level), unescape(MARKUP.sub("", HEADERLINK.sub("", title))).strip())
        for anchor, level, title in HEADING.findall(body)
    ]


def mend(body: str) -> str:
    """Return the text of a page with tables and code that suit any width and any reader."""
    body = SCOPED.sub("", body)
    body = TABLE.sub(lambda match: table(match[0]), body)
    body = body.replace("<pre>", '<pre tabindex="0">')
    body = LITERAL.sub(r"\1", body).replace('<pre tabindex="0"><span></span>', '<pre tabindex="0">')
    body = CODE.sub(lambda match: colored(match[0]), body)
    body = QUIET.sub(quiet, body)
    body = CITATION.sub(lambda match: re.sub("</?em>", "", match[1]), body)
    body = ITEM.sub(r"<li>\1</li>", body)
    return SIGNATURE.sub(lambda match: signature(match[0]), body)


def quiet(fold: re.Match[str]) -> str:
    """Return a fold whose code has no colors, unless it is a solution."""
    if fold["prompt"] == _("Code, with its output"):
        return fold[0]
    return CODE.sub(lambda code: SPAN.sub("", code[0]), fold[0])


def colored(code: str) -> str:
    """Return code whose spans are those that have a color of their own, joined where they meet."""
    return TEXT_TOKEN.sub('<span class="s">', PLAIN.sub(r"\1", code)).replace(SEAM, "")


def signature(text: str) -> str:
    """Return a signature whose lines are no list; Sphinx's has descriptions without terms."""
    text = text.replace("<dl>", '<div class="sig-lines">').replace("</dl>", "</div>")
    text = text.replace("<dd>", "<div>").replace("</dd>", "</div>")
    return PLAIN.sub(r"\1", TYPES.sub(r"\1", text))


def table(text: str) -> str:
    """Return a table that scrolls inside itself, with one head row and numbers to the right."""
    soup = BeautifulSoup(text, "html.parser")
    found = soup.table
    assert found is not None
    for name in ("border", "tabindex"):
        found.attrs.pop(name, None)
    head = found.thead
    rows = head.find_all("tr", recursive=False) if head else []
    if len(rows) == 2 and not any(cell.get_text(strip=True) for cell in rows[1].find_all("th")[1:]):
        _join_heads(rows[0], rows[1])
    for corner in found.find_all("th"):
        if not corner.get_text(strip=True):
            corner.name = "td"
            corner.attrs.pop("scope", None)
    _align(found)
    return f'<div class="scroll" tabindex="0">{found}</div>'


def _join_heads(names: Tag, index: Tag) -> None:
    """Write the name of the rows, which pandas gives a row of its own, beside the columns'."""
    for above, below in zip(names.find_all("th"), index.find_all("th"), strict=True):
        if below.get_text(strip=True):
            above.string = below.get_text(strip=True)
    index.decompose()


def _align(found: Tag) -> None:
    """Mark columns of numbers, which stand to the right and never break at their ±."""
    rows = [row.find_all(["td", "th"], recursive=False) for row in found.find_all("tr")]
    width = max((len(row) for row in rows), default=0)
    for column in range(width):
        cells = [row[column] for row in rows if len(row) == width]
        texts = [x.get_text(strip=True) for x in cells if x.find_parent("thead") is None]
        if texts and all(NUMBER.match(x) or x in ("", "-", "–", "NaN") for x in texts):
            for cell in cells:
                classes = filter(None, cell.get_attribute_list("class"))
                cell["class"] = " ".join([*classes, "number"])
