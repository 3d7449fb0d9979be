"""A book of three chapters, and what is said when one is left out somewhere."""

from pathlib import Path

import contents
import nbformat
import pytest

v4 = nbformat.v4
TOC = """root: book/index
parts:
  - caption: All
    chapters:
      - file: book/part/one
      - file: book/part/two
      - file: book/words
"""
FIRST = """:link: part/one

## Choose your route

<div class="route">

1. [One](part/one.ipynb), 20 min
2. [Two](part/two.ipynb)

</div>
"""


def write(path: Path, following: str) -> None:
    cells = [
        v4.new_markdown_cell("# A chapter"),
        v4.new_markdown_cell(f"## Sources\n\n{following}"),
    ]
    nbformat.write(v4.new_notebook(cells=cells), path)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    (tmp_path / "_toc.yml").write_text(TOC)
    (tmp_path / "book/part").mkdir(parents=True)
    (tmp_path / "book/index.md").write_text(FIRST)
    (tmp_path / "book/words.md").write_text("# Words\n")
    write(tmp_path / "book/part/one.ipynb", "**Next:** [two](two.ipynb), and on.")
    write(tmp_path / "book/part/two.ipynb", "Next: the [words](../words.md#top).")
    return tmp_path


def test_a_whole_book_has_no_fault(book: Path) -> None:
    assert contents.faults(book) == []


def test_a_chapter_outside_the_contents_is_named(book: Path) -> None:
    write(book / "book/part/three.ipynb", "Next: [words](../words.md).")
    (book / "book/loose.md").write_text("# Loose\n")
    assert [fault.split(":")[0] for fault in contents.faults(book)] == [
        "book/part/three.ipynb is not in _toc.yml",
        "book/loose.md is not in _toc.yml",
    ]


def test_a_chapter_that_the_first_page_does_not_lead_to_is_named(book: Path) -> None:
    (book / "book/index.md").write_text(FIRST.replace("part/two.ipynb", "part/twofold"))
    assert contents.faults(book) == [
        "book/part/two.ipynb is not in book/index.md: link to it there",
        "book/part/two.ipynb is in no route of book/index.md",
    ]


def test_a_chapter_that_is_linked_but_in_no_route_is_named(book: Path) -> None:
    elsewhere = FIRST.replace("2. [Two]", "</div>\n\n## Look things up\n\n[Two]")
    (book / "book/index.md").write_text(elsewhere)
    assert contents.faults(book) == ["book/part/two.ipynb is in no route of book/index.md"]


def test_a_route_that_leaves_the_order_of_the_contents_is_named(book: Path) -> None:
    one, two = "1. [One](part/one.ipynb), 20 min\n", "2. [Two](part/two.ipynb)\n"
    (book / "book/index.md").write_text(FIRST.replace(one + two, two + one))
    (fault,) = contents.faults(book)
    assert fault.startswith("a route of book/index.md has two before one")


def test_a_time_that_is_not_that_of_the_chapter_is_named(book: Path) -> None:
    page = book / "book/part/one.ipynb"
    notebook = nbformat.read(page, as_version=4)
    notebook.metadata["kdlearn"] = {"minutes": 20}
    nbformat.write(notebook, page)
    assert contents.faults(book) == []
    notebook.metadata["kdlearn"] = {"minutes": 45}
    nbformat.write(notebook, page)
    assert contents.faults(book) == ["book/index.md gives one 20 min, its header says 45"]


@pytest.mark.parametrize(
    "end",
    [
        "The end.",
        "**Next:** [words](../words.md), too far.",
        "**Next:** two, without a link.",
        "What comes next: [two](two.ipynb).",
    ],
)
def test_a_chapter_that_does_not_lead_to_the_following_one_is_named(book: Path, end: str) -> None:
    write(book / "book/part/one.ipynb", end)
    (fault,) = contents.faults(book)
    assert fault.startswith("book/part/one.ipynb does not end with **Next:**")
    assert "book/part/two.ipynb" in fault


def test_another_order_of_the_contents_asks_for_another_next(book: Path) -> None:
    one, two = "      - file: book/part/one\n", "      - file: book/part/two\n"
    (book / "_toc.yml").write_text(TOC.replace(one + two, two + one))
    assert [fault.split()[0] for fault in contents.faults(book)] == [
        "book/part/two.ipynb",
        "book/part/one.ipynb",
        "a",
    ]


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("/api/book/reference/api/losses.md", True),
        ("reference/api/losses", True),
        ("/api/book/reference/conventions.md", False),
        ("/home/book/references.md", False),
    ],
)
def test_a_page_of_the_api_is_told_by_its_folder(page: str, told: bool) -> None:
    assert contents.in_api(Path(page)) == told
