"""The built site without a browser: links, anchors, images, what is and is not there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import docstrings
import pytest
import repository
import yaml
from bs4 import BeautifulSoup

from kdlearn import losses
from tests.book.built_site import NO_SITE, ROOT, SITE, pages

pytestmark = pytest.mark.skipif(not pages(), reason=NO_SITE)
PREFIX = f"/{repository.read_address().name}/"


@cache
def parsed(name: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(name: str) -> set[str]:
    return {str(tag["id"]) for tag in parsed(name).find_all(id=True)}


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


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page: str) -> None:
    broken = []
    for attribute in ("href", "src"):
        for written, target, anchor in internal(page, attribute):
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file() or not target.is_relative_to(SITE):
                broken.append(f"{written}: no such file")
            elif anchor and target.suffix == ".html":
                name = target.relative_to(SITE).as_posix()
                if anchor not in anchors(name):
                    broken.append(f"{written}: no such anchor")
    assert broken == []


@pytest.mark.parametrize("page", pages())
def test_every_image_has_a_text_of_its_own(page: str) -> None:
    for image in parsed(page).select("article img"):
        text = str(image.get("alt", "")).strip()
        assert text, f"{image['src']} has no alt"
        assert Path(str(image["src"])).stem not in text, f"{text}: a file name is no text"


@pytest.mark.parametrize("page", pages())
def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    soup = parsed(page)
    loaded = [tag["src"] for tag in soup.find_all(["script", "img", "iframe"], src=True)]
    loaded += [tag["href"] for tag in soup.find_all("link", rel="stylesheet")]
    assert [url for url in map(str, loaded) if urlsplit(url).netloc] == []


@pytest.mark.parametrize("page", pages())
def test_no_markup_is_left_over(page: str) -> None:
    article = parsed(page).find("article")
    if article is None:
        return
    code = ["pre", "code", "script"]
    text = "".join(part for part in article.strings if part.find_parent(code) is None)
    assert "{cite" not in text and "{term" not in text and ":::" not in text
    assert "```" not in text


def test_every_notebook_is_a_page_with_a_colab_button() -> None:
    address = repository.read_address()
    notebooks = sorted((ROOT / "book").rglob("*.ipynb"))
    for path in notebooks:
        name = path.relative_to(ROOT)
        page = name.with_suffix(".html").as_posix()
        assert page in pages(), f"{name} is not in _toc.yml"
        colab = f"https://colab.research.google.com/github/{address.owner}/{address.name}"
        links = [str(tag["href"]) for tag in parsed(page).find_all("a", href=True)]
        assert f"{colab}/blob/main/{name.as_posix()}" in links


def test_every_page_of_the_contents_was_built() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    assert len(files) == len(set(files))
    for file in [contents["root"], *files]:
        assert f"{file}.html" in pages()


def test_the_first_page_leads_to_the_book() -> None:
    assert 'url=book/index.html"' in (SITE / "index.html").read_text(encoding="utf-8")


def test_the_search_knows_the_words_of_the_book() -> None:
    index = (SITE / "searchindex.js").read_text(encoding="utf-8")
    assert '"distill"' in index and '"temperatur"' in index


API = [page for page in pages() if page.startswith("book/reference/api/")]


@pytest.mark.parametrize("page", API)
def test_every_point_of_a_convention_is_whole_sentences(page: str) -> None:
    for head in parsed(page).find_all(class_="rubric", string="Convention"):
        points = head.find_next_sibling("ul")
        assert points is not None, head.find_previous("dt")
        for point in points.find_all("li"):
            assert point.get_text().strip().endswith("."), point
            first = point.find("p").contents[0]
            assert not (isinstance(first, str) and first[0].islower()), point


@pytest.mark.parametrize("page", API)
def test_only_objects_and_their_fields_are_definition_lists(page: str) -> None:
    for found in parsed(page).select("article dl"):
        assert {"py", "field-list"} & set(found["class"]), found.get_text()[:200]


@pytest.mark.parametrize("page", API)
def test_an_api_page_says_nothing_of_its_machinery(page: str) -> None:
    text = parsed(page).select_one("article").get_text()
    assert "Bases: object" not in text and "Configuration for the model" not in text
    for signature in parsed(page).select("article dt.sig"):
        assert not re.search(r"~|<function| object at ", signature.get_text()), signature["id"]


@pytest.mark.parametrize("page", API)
def test_a_name_of_ours_in_a_docstring_is_a_link(page: str) -> None:
    assert parsed(page).select("article cite") == []
    places = [name for other in API for name in anchors(other) if not name.startswith("module-")]
    ours = {name.rpartition(".")[2] for name in places}
    plain = parsed(page).select("article code.py-obj")
    lonely = {code.get_text() for code in plain if code.find_parent("a") is None}
    assert {name for name in lonely if name.rpartition(".")[2] in ours} == set()


@pytest.mark.parametrize("loss", losses.__all__)
def test_a_loss_leads_to_where_it_is_taught(loss: str) -> None:
    entry = parsed("book/reference/api/losses.html").find(id=f"kdlearn.losses.{loss}")
    links = [str(tag["href"]) for tag in entry.find_parent("dl").find_all("a", href=True)]
    for text, address in docstrings.taught(loss):
        assert f"../../{address}" in links, text
