"""The EPUB of the built site in each language, as a reading system opens it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import catalogs
import contents
import epub
import interface
import pytest
import repository
import yaml
from bs4 import BeautifulSoup

from kdlearn.interview import questions_folder, read_bank
from tests.book.built_site import NO_SITE, ROOT, SITE, pages

built = pytest.mark.skipif(not pages(), reason=NO_SITE)
XHTML = "{http://www.w3.org/1999/xhtml}"
OPF = "{http://www.idpf.org/2007/opf}"
DC = "{http://purl.org/dc/elements/1.1/}"
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
HAN = re.compile("[\u4e00-\u9fff]")
OPENED = {
    "svg": "{http://www.w3.org/2000/svg}svg",
    "mathml": "{http://www.w3.org/1998/Math/MathML}math",
}


@pytest.fixture(scope="module", params=epub.BOOKS, ids=lambda made: made.file)
def made(request: pytest.FixtureRequest) -> epub.Book:
    found: epub.Book = request.param
    return found


@pytest.fixture(scope="module")
def book(made: epub.Book, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    target = tmp_path_factory.mktemp("epub") / made.file
    try:
        epub.write(made, SITE, target)
    finally:
        interface.speak(interface.ENGLISH, {})
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


def spoken(
    element: ElementTree.Element, around: str = ""
) -> Iterator[tuple[ElementTree.Element, str]]:
    """Every element, with the language in which it stands."""
    language = element.get(XML_LANG, around)
    yield element, language
    for part in element:
        yield from spoken(part, language)


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
    made: epub.Book, package: ElementTree.Element, parsed: dict[str, ElementTree.Element]
) -> None:
    places = {item.attrib["id"]: item.attrib["href"] for item in package.iter(f"{OPF}item")}
    spine = [places[item.attrib["idref"]] for item in package.iter(f"{OPF}itemref")]
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in contents.pages(ROOT)]
    expected = [
        f"{made.folder}{name}.xhtml"
        for name in names
        if (SITE / made.folder / f"{name}.html").exists() and "book/reference/api" not in name
    ]
    assert spine == expected
    folder = f"{made.folder}book/interview/questions"
    for question in read_bank(questions_folder()):
        assert f"{folder}/{question.head.id}.xhtml" in spine
    listed = list(parsed["nav.xhtml"].iter(f"{XHTML}a"))
    assert [link.attrib["href"] for link in listed] == expected
    for link in listed:
        assert link.text == parsed[link.attrib["href"]].findtext(f".//{XHTML}title")


@built
def test_title_and_parts_are_those_of_the_site(
    made: epub.Book, package: ElementTree.Element, parsed: dict[str, ElementTree.Element]
) -> None:
    html = (SITE / made.folder / "book/index.html").read_text(encoding="utf-8")
    site = BeautifulSoup(html, "html.parser")
    parts = [part.get_text() for part in site.select("#chapters .caption-text")]
    assert [part.text for part in parsed["nav.xhtml"].iter(f"{XHTML}span")] == parts
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    chinese = catalogs.texts(catalogs.SITE)[title]
    assert package.findtext(f".//{DC}title") == (chinese if made.folder else title)


@built
def test_the_book_and_its_parts_say_their_language(
    made: epub.Book, package: ElementTree.Element, parsed: dict[str, ElementTree.Element]
) -> None:
    site = BeautifulSoup((SITE / made.folder / "book/index.html").read_bytes(), "html.parser")
    assert site.html is not None
    language = site.html["lang"]
    assert [x.text for x in package.iter(f"{DC}language")] == [language]
    assert package.attrib[XML_LANG] == language
    for name, page in parsed.items():
        assert page.attrib["lang"] == language
        for element in page.iter():
            assert element.get("lang") == element.get(XML_LANG), name
        heading = page.find(f".//{XHTML}h1")
        assert heading is not None
        assert bool(HAN.search("".join(heading.itertext()))) == (language == "zh-CN"), name


@built
def test_code_and_sources_are_marked_as_english_and_nothing_chinese_is_in_the_chinese_book(
    made: epub.Book, parsed: dict[str, ElementTree.Element]
) -> None:
    for name, page in parsed.items():
        for element, language in spoken(page):
            if made.folder and HAN.search(element.text or ""):
                assert language.startswith("zh"), (name, element.text)
            tag, kind = element.tag.removeprefix(XHTML), element.get("class")
            if tag in ("pre", "dt") or kind == "citation":
                assert language == "en", (name, tag)


@built
def test_every_link_leads_to_a_place_of_the_book_or_to_an_address(
    book: zipfile.ZipFile, parsed: dict[str, ElementTree.Element]
) -> None:
    public = repository.read_address().pages
    inside = {f"{name.removesuffix('.xhtml')}.html" for name in parsed}
    anchors = {name: set(ids(page)) for name, page in parsed.items()}
    broken = []
    for name, page in parsed.items():
        written = [element.get(x) for element in page.iter() for x in ("href", "src")]
        for link in filter(None, written):
            parts = urlsplit(link)
            path = normpath(join(dirname(name), unquote(parts.path))) if parts.path else name
            if link.startswith(public):
                # What the book lacks is on the site.
                path = unquote(urlsplit(link.removeprefix(public)).path)
                there = (SITE / path).exists() and path not in inside
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
    inside = {"book/a.html", "book/b.html"}
    page = epub.article(html, "book/a.html", "en", inside, "https://s.org/")
    assert (page.name, page.title) == ("book/a.xhtml", "A & B")
    assert page.files == {"_images/d.png"}
    assert page.properties() == "mathml svg"
    root = ElementTree.fromstring(page.text)
    links = [x.attrib["href"] for x in root.iter(f"{XHTML}a")]
    assert links == ["https://s.org/c.zip", "b.xhtml#y"]
    (drawn,) = root.iter(OPENED["svg"])
    assert drawn.attrib["viewBox"] == "0 0 1 1"
    assert "Because" in "".join(root.itertext()) and "run()" not in page.text


def test_a_chinese_page_leads_to_chinese_pages_to_english_ones_and_keeps_what_is_english() -> None:
    html = """<body><article><h1>甲</h1><p lang="en">A</p><pre>a()</pre><p><code>a</code></p>
    <a href="../b/c.html#d">丙</a><a href="../../../book/b/e.html#f" hreflang="en">戊</a>
    <img src="../../../_static/g.png" alt="己"></article></body>"""
    inside = {"zh/book/a/a.html", "zh/book/b/c.html"}
    page = epub.article(html, "zh/book/a/a.html", "zh-CN", inside, "https://s.org/")
    assert (page.name, page.files) == ("zh/book/a/a.xhtml", {"_static/g.png"})
    root = ElementTree.fromstring(page.text)
    said = {x.tag.removeprefix(XHTML): x.get(XML_LANG) for x in root.iter() if x.get(XML_LANG)}
    assert said == {"html": "zh-CN", "p": "en", "pre": "en"}
    links = [x.attrib["href"] for x in root.iter(f"{XHTML}a")]
    assert links == ["../b/c.xhtml#d", "https://s.org/book/b/e.html#f"]


def test_without_a_site_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(epub, "SITE", tmp_path / "none")
    assert epub.main() == 1
    assert "make book" in capsys.readouterr().out
