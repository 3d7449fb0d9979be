"""The built site without a browser: links, anchors, images, what is and is not there."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import docstrings
import notebooks
import pytest
import repository
import yaml
from bs4 import BeautifulSoup

import kdlearn
from kdlearn import losses
from tests.book.built_site import NO_SITE, ROOT, SITE, pages

pytestmark = pytest.mark.skipif(not pages(), reason=NO_SITE)
PREFIX = f"/{repository.read_address().name}/"


@lru_cache(maxsize=32)  # enough for the pages of the API
def parsed(name: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser")


class Ids(HTMLParser):
    """The ids of a page, without the tree, which takes six times as long."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.update(value for name, value in attributes if name == "id" and value)


@cache
def anchors(name: str) -> Counter[str]:
    ids = Ids()
    ids.feed((SITE / name).read_text(encoding="utf-8"))
    return ids.found


def internal(page: str, attribute: str) -> list[tuple[str, Path, str]]:
    """Return links of a page into the site: as written, the file, and the anchor."""
    found = []
    for tag in parsed(page).find_all(**{attribute: True}):
        written = str(tag[attribute])
        parts = urlsplit(written)
        if parts.scheme or parts.netloc or written.startswith(("javascript:", "data:")):
            continue
        path = unquote(parts.path)
        if path.startswith(PREFIX):
            target = SITE / path.removeprefix(PREFIX)
        else:
            target = (SITE / page).parent / path if path else SITE / page
        found.append((written, target.resolve(), unquote(parts.fragment)))
    return found


def links_to_nowhere(page: str) -> Iterator[str]:
    for attribute in ("href", "src"):
        for written, target, anchor in internal(page, attribute):
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file() or not target.is_relative_to(SITE):
                yield f"{written}: no such file"
            elif (
                anchor
                and target.suffix == ".html"
                and anchor not in anchors(target.relative_to(SITE).as_posix())
            ):
                yield f"{written}: no such anchor"


def images_without_a_text_of_their_own(page: str) -> Iterator[str]:
    for image in parsed(page).select("article img:not(.thumb)"):
        text = str(image.get("alt", "")).strip()
        if not text:
            yield f"{image['src']} has no alt"
        if Path(str(image["src"])).stem in text:
            yield f"{text}: a file name is no text"


def what_is_loaded_from_elsewhere(page: str) -> Iterator[str]:
    soup = parsed(page)
    loaded = [tag["src"] for tag in soup.find_all(["script", "img", "iframe"], src=True)]
    loaded += [tag["href"] for tag in soup.find_all("link", rel="stylesheet")]
    yield from (f"loads {url}" for url in map(str, loaded) if urlsplit(url).netloc)


def markup_that_is_left_over(page: str) -> Iterator[str]:
    article = parsed(page).find("article")
    if article is None:
        return
    code = ["pre", "code", "script"]
    text = "".join(part for part in article.strings if part.find_parent(code) is None)
    yield from (f"{mark} in the text" for mark in ("{cite", "{term", ":::", "```") if mark in text)
    yield from (str(formula) for formula in article("math") if "\\" in formula.get_text())


def anchors_of_two_places(page: str) -> Iterator[str]:
    yield from (f"#{name} twice" for name, times in anchors(page).items() if times > 1)


def lists_on_one_line(page: str) -> Iterator[str]:
    for item in parsed(page).select("article li"):
        own = "".join(x for x in item.strings if x.find_parent(["li", "pre", "code"]) is item)
        if re.search(r"[?.\"”] [2-9]\. [\"“A-Z]", own):
            yield f"a list on one line: {own}"


def tables_without_heads_or_gaps(page: str) -> Iterator[str]:
    for table in parsed(page).select("article table"):
        heads = table.find_all("th")
        if not all(head.get_text(strip=True) for head in heads):
            yield f"a column without a head: {table.get_text()[:200]}"
        if not (table.find_parent(class_="scroll") or table.find_parent(class_="kdfig")):
            yield f"a table that cannot be scrolled: {table.get_text()[:200]}"


FAULTS = [
    links_to_nowhere,
    images_without_a_text_of_their_own,
    what_is_loaded_from_elsewhere,
    markup_that_is_left_over,
    anchors_of_two_places,
    lists_on_one_line,
    tables_without_heads_or_gaps,
]


@pytest.mark.parametrize("page", pages())
def test_a_page_has_no_fault(page: str) -> None:
    assert [fault for faults in FAULTS for fault in faults(page)] == []


BROKEN = {
    links_to_nowhere: ["<a href='nowhere.html'>a</a>", "<a href='#nowhere'>a</a>"],
    images_without_a_text_of_their_own: ["<img src='dog.png'>", "<img src='dog.png' alt='a dog'>"],
    what_is_loaded_from_elsewhere: ["<script src='https://example.org/x.js'></script>"],
    markup_that_is_left_over: ["<p>{cite}`x`</p>", "<math><mi>\\frac</mi></math>"],
    anchors_of_two_places: ["<p id='a'>a</p><p id='a'>b</p>"],
    lists_on_one_line: ["<ul><li>1. One is this. 2. Two is that.</li></ul>"],
    tables_without_heads_or_gaps: [
        "<div class='scroll'><table><tr><th></th></tr></table></div>",
        "<table><tr><th>head</th></tr></table>",
    ],
}


@pytest.mark.parametrize("faults", FAULTS)
def test_a_fault_is_told(
    faults: Callable[[str], Iterator[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.book.test_site.SITE", tmp_path)
    for number, broken in enumerate(BROKEN[faults]):
        page = f"{faults.__name__}-{number}.html"  # since what was parsed is kept
        (tmp_path / page).write_text(f"<article>{broken}</article>")
        assert len(list(faults(page))) == 1


def test_every_notebook_is_a_page_that_leads_to_its_edition() -> None:
    address = repository.read_address()
    for path in notebooks.find([]):
        name = path.relative_to(ROOT)
        page = name.with_suffix(".html").as_posix()
        assert page in pages(), f"{name} is not in _toc.yml"
        colab = f"https://colab.research.google.com/github/{address.owner}/{address.name}"
        links = [str(tag["href"]) for tag in parsed(page).select(".chapter-head a")]
        assert f"{colab}/blob/notebooks/{name.as_posix()}" in links
        assert any(link.endswith(f"notebooks/{path.relative_to(ROOT / 'book')}") for link in links)


def test_links_of_an_edition_lead_to_places_of_the_site() -> None:
    address = repository.read_address()
    for path in (SITE / "notebooks").rglob("*.ipynb"):
        text = "\n".join(
            cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown"
        )
        for url in set(re.findall(re.escape(address.pages) + r"([^)\s\]]+)", text)):
            page, _, anchor = url.rstrip(".").partition("#")
            assert page in pages(), f"{path.name}: {url}"
            assert not anchor or anchor in anchors(page), f"{path.name}: {url}"


def test_the_archive_has_every_notebook_as_it_is_downloaded() -> None:
    with zipfile.ZipFile(SITE / "notebooks/kdlearn-notebooks.zip") as archive:
        stored = {name.removeprefix("kdlearn/"): archive.read(name) for name in archive.namelist()}
    folder = SITE / "notebooks"
    there = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.ipynb")}
    there = {name: notebook for name, notebook in there.items() if not name.startswith("zh/")}
    assert stored == there and len(stored) == len(notebooks.find([]))


def test_every_page_of_the_contents_was_built() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    assert len(files) == len(set(files))
    for file in [contents["root"], *files]:
        assert f"{file}.html" in pages()


def test_the_first_page_leads_to_the_book() -> None:
    assert 'url=book/index.html"' in (SITE / "index.html").read_text(encoding="utf-8")


def test_the_search_knows_every_page_and_every_term() -> None:
    index = json.loads((SITE / "search.json").read_text(encoding="utf-8"))
    assert {entry["p"] for entry in index} == {p for p in pages() if p.startswith("book/")}
    for entry in index:
        assert not entry["a"] or entry["a"] in anchors(entry["p"]), entry
    terms = {entry["a"] for entry in index if entry["a"].startswith("term-")}
    assert terms == {x for x in anchors("book/interview/glossary.html") if x.startswith("term-")}


def test_the_styles_leave_gaps_between_cells_and_load_no_stranger() -> None:
    style = (ROOT / "book/static/site/site.css").read_text(encoding="utf-8")
    cell = re.search(r"^th, td \{[^}]*padding: 0\.4rem (1\.\drem)", style, re.MULTILINE)
    assert cell
    assert not re.search(r"url\(\"?(?:https?:)?//", style)


def test_the_typefaces_are_small_and_free() -> None:
    fonts = ROOT / "book/static/site/fonts"
    assert sum(path.stat().st_size for path in fonts.glob("*.woff2")) <= 120_000
    assert "SIL OPEN FONT LICENSE Version 1.1" in (fonts / "OFL.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", [name for name in pages() if name.startswith("book/")], scope="module"
)
def test_a_page_says_what_it_is_to_those_who_share_and_cite_it(page: str) -> None:
    soup = parsed(page)
    image = str(soup.find("meta", property="og:image")["content"])
    address = repository.read_address()
    assert (SITE / image.removeprefix(address.pages)).is_file(), image
    foot = soup.select_one("footer.foot").get_text(" ", strip=True)
    assert kdlearn.__version__ in foot and "CC BY 4.0" in foot
    links = [str(tag["href"]) for tag in soup.select("footer.foot a")]
    assert any("/edit/main/book/" in link for link in links)
    assert any("/issues/new" in link for link in links)


API = [page for page in pages() if page.startswith("book/reference/api/")]
each_page_of_the_api = pytest.mark.parametrize("page", API, scope="module")


@each_page_of_the_api
def test_every_point_of_a_convention_is_whole_sentences(page: str) -> None:
    for head in parsed(page).find_all(class_="rubric", string="Convention"):
        points = head.find_next_sibling("ul")
        assert points is not None, head.find_previous("dt")
        for point in points.find_all("li"):
            assert point.get_text().strip().endswith("."), point
            first = (point.p or point).contents[0]
            assert not (isinstance(first, str) and first[0].islower()), point


@each_page_of_the_api
def test_only_objects_and_their_fields_are_definition_lists(page: str) -> None:
    for found in parsed(page).select("article dl"):
        assert {"py", "field-list"} & set(found["class"]), found.get_text()[:200]


@each_page_of_the_api
def test_an_api_page_says_nothing_of_its_machinery(page: str) -> None:
    text = parsed(page).select_one("article").get_text()
    assert "Bases: object" not in text and "Configuration for the model" not in text
    for signature in parsed(page).select("article dt.sig"):
        assert not re.search(r"~|<function| object at ", signature.get_text()), signature["id"]


@each_page_of_the_api
def test_a_name_of_ours_in_a_docstring_is_a_link(page: str) -> None:
    assert parsed(page).select("article cite") == []
    places = [name for other in API for name in anchors(other) if not name.startswith("module-")]
    ours = {name.rpartition(".")[2] for name in places}
    plain = parsed(page).select("article code.py-obj")
    lonely = {code.get_text() for code in plain if code.find_parent("a") is None}
    assert {name for name in lonely if name.rpartition(".")[2] in ours} == set()


@pytest.mark.parametrize("loss", losses.__all__)
def test_a_loss_leads_to_where_it_is_taught(loss: str) -> None:
    found = [parsed(page).find(id=f"kdlearn.losses.{loss}") for page in API]
    (entry,) = [entry for entry in found if entry]
    links = [str(tag["href"]) for tag in entry.find_parent("dl").find_all("a", href=True)]
    for text, address in docstrings.taught(loss):
        assert f"../../{address}" in links, text
