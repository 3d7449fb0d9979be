"""The EPUB of the built site, as a reading system opens it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import contents
import epub
import pytest
import repository

from tests.book.built_site import NO_SITE, ROOT, SITE, pages

built = pytest.mark.skipif(not pages(), reason=NO_SITE)
XHTML = "{http://www.w3.org/1999/xhtml}"
OPF = "{http://www.idpf.org/2007/opf}"
OPENED = {
    "svg": "{http://www.w3.org/2000/svg}svg",
    "mathml": "{http://www.w3.org/1998/Math/MathML}math",
}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    target = tmp_path_factory.mktemp("epub") / "kdlearn.epub"
    epub.write(SITE, target)
    with zipfile.ZipFile(target) as opened:
        yield opened


@pytest.fixture(scope="module")
def parsed(book: zipfile.ZipFile) -> dict[str, ElementTree.Element]:
    """Every XHTML page, which a strict parser reads."""
    return {
        name.removeprefix("EPUB/"): ElementTree.fromstring(book.read(name))
        for name in book.namelist()
        if name.endswith(".xhtml")
    }


@pytest.fixture(scope="module")
def package(book: zipfile.ZipFile) -> ElementTree.Element:
    return ElementTree.fromstring(book.read("EPUB/package.opf"))


def ids(page: ElementTree.Element) -> list[str]:
    return [element.attrib["id"] for element in page.iter() if "id" in element.attrib]


@built
def test_the_first_bytes_say_what_the_file_is(book: zipfile.ZipFile) -> None:
    first = book.infolist()[0]
    assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
    assert not first.extra
    assert book.read("mimetype") == b"application/epub+zip"
    container = ElementTree.fromstring(book.read("META-INF/container.xml"))
    (root,) = container.iter("{urn:oasis:names:tc:opendocument:xmlns:container}rootfile")
    assert root.attrib["full-path"] in book.namelist()


@built
def test_the_manifest_names_each_file_once_with_what_it_needs(
    book: zipfile.ZipFile,
    package: ElementTree.Element,
    parsed: dict[str, ElementTree.Element],
) -> None:
    items = list(package.iter(f"{OPF}item"))
    listed = [f"EPUB/{item.attrib['href']}" for item in items]
    described = {"mimetype", "META-INF/container.xml", "EPUB/package.opf"}
    assert sorted(listed) == sorted(set(book.namelist()) - described)
    assert len(set(ids(package))) == len(ids(package))
    for item in items:
        page = parsed.get(item.attrib["href"])
        if page is None:
            assert item.attrib["media-type"] in ("image/png", "image/jpeg", "text/css")
            continue
        needed = {kind for kind, tag in OPENED.items() if page.find(f".//{tag}") is not None}
        assert set(item.attrib.get("properties", "").split()) - {"nav"} == needed


@built
def test_the_contents_lead_through_the_pages_in_the_order_of_the_book(
    package: ElementTree.Element, parsed: dict[str, ElementTree.Element]
) -> None:
    places = {item.attrib["id"]: item.attrib["href"] for item in package.iter(f"{OPF}item")}
    spine = [places[item.attrib["idref"]] for item in package.iter(f"{OPF}itemref")]
    expected = [
        path.relative_to(ROOT).with_suffix(".xhtml").as_posix()
        for path in contents.pages(ROOT)
        if "book/reference/api" not in path.as_posix()
    ]
    assert spine == expected
    assert [link.attrib["href"] for link in parsed["nav.xhtml"].iter(f"{XHTML}a")] == expected
    parts = re.findall(r"caption: (.+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert [part.text for part in parsed["nav.xhtml"].iter(f"{XHTML}span")] == parts


@built
def test_every_link_leads_to_a_place_of_the_book_or_to_an_address(
    book: zipfile.ZipFile, parsed: dict[str, ElementTree.Element]
) -> None:
    public = repository.read_address().pages
    anchors = {name: set(ids(page)) for name, page in parsed.items()}
    broken = []
    for name, page in parsed.items():
        written = [element.get(x) for element in page.iter() for x in ("href", "src")]
        for link in filter(None, written):
            parts = urlsplit(link)
            path = normpath(join(dirname(name), unquote(parts.path))) if parts.path else name
            if link.startswith(public):
                # What the book lacks is on the site.
                there = (SITE / unquote(urlsplit(link.removeprefix(public)).path)).exists()
            elif parts.scheme:
                there = parts.scheme in ("http", "https")
            elif path in parsed:
                there = not parts.fragment or unquote(parts.fragment) in anchors[path]
            else:
                there = f"EPUB/{path}" in book.namelist()
            if not there:
                broken.append(f"{name}: {link}")
    assert broken == []


@built
def test_an_anchor_names_one_place(parsed: dict[str, ElementTree.Element]) -> None:
    for name, page in parsed.items():
        assert len(set(ids(page))) == len(ids(page)), name


@built
def test_nothing_runs_nothing_is_folded_and_no_formula_or_figure_is_lost(
    parsed: dict[str, ElementTree.Element],
) -> None:
    for name, page in parsed.items():
        tags = [element.tag.rpartition("}")[2] for element in page.iter()]
        assert not {"script", "noscript", "details", "button", "input", "form"} & set(tags), name
        assert not [x for element in page.iter() for x in element.attrib if x.startswith("on")]
        if name == "nav.xhtml":
            continue
        html = (SITE / name).with_suffix(".html").read_text(encoding="utf-8")
        text = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
        assert tags.count("math") == len(re.findall(r"<math\b", text)), name
        assert tags.count("svg") == len(re.findall(r'<svg class="plot"', text)), name
        assert "var(--" not in ElementTree.tostring(page, encoding="unicode"), name


def test_a_page_keeps_its_figure_its_formula_and_its_folded_answer() -> None:
    html = """<body><article><h1>A &amp; B<a class="headerlink" href="#a">#</a></h1>
    <details><summary>Why?</summary><p>Because<br>so.</p></details>
    <svg viewBox="0 0 1 1"><image xlink:href="data:image/png;base64,AA"/></svg>
    <math><mspace width="1em"></mspace></math><a href="../c.zip">c</a><a href="b.html?x#y">b</a>
    <img src="../_images/d.png?1" alt="d"><script>run()</script></article></body>"""
    page = epub.article(html, "book/a.html", {"book/a.html", "book/b.html"}, "https://s.org/")
    assert (page.name, page.title) == ("book/a.xhtml", "A & B")
    assert page.files == {"_images/d.png"}
    assert page.properties() == "mathml svg"
    root = ElementTree.fromstring(page.text)
    links = [x.attrib["href"] for x in root.iter(f"{XHTML}a")]
    assert links == ["https://s.org/c.zip", "b.xhtml#y"]
    (drawn,) = root.iter(OPENED["svg"])
    assert drawn.attrib["viewBox"] == "0 0 1 1"
    assert "Because" in "".join(root.itertext()) and "run()" not in page.text


def test_without_a_site_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(epub, "SITE", tmp_path / "none")
    assert epub.main() == 1
    assert "make book" in capsys.readouterr().out
