"""Components of a chapter, on a page that Sphinx makes of them."""

from __future__ import annotations

from pathlib import Path

import dress
import nbformat
import pytest
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

v4 = nbformat.v4
CONF = """
extensions = ["myst_nb", "dressed"]
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence"]
html_theme = "basic"
"""
# What sphinx_book.py does, without the rest of the book.
EXTENSION = "import dress\n\n\ndef setup(app):\n    dress.setup(app)\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "conf.py").write_text(CONF)
    (tmp_path / "dressed.py").write_text(EXTENSION)
    book = tmp_path / "book/part"
    book.mkdir(parents=True)
    (tmp_path / "index.md").write_text("# Book\n\n```{toctree}\nbook/part/chapter\n```\n")

    def build(*cells: nbformat.NotebookNode, **about: object) -> BeautifulSoup:
        title = v4.new_markdown_cell("# A chapter")
        language = {"language_info": {"name": "python", "pygments_lexer": "python"}}
        notebook = v4.new_notebook(cells=[title, *cells], metadata=language | {"kdlearn": about})
        nbformat.write(notebook, book / "chapter.ipynb")
        out = tmp_path / "out"
        # Several applications in one process must not see each other's nodes.
        with patch_docutils(), docutils_namespace():
            options = {"status": None, "warningiserror": True}
            Sphinx(tmp_path, tmp_path, out, out / "trees", "html", **options).build()
        html = (out / "book/part/chapter.html").read_text(encoding="utf-8")
        return BeautifulSoup(html, "html.parser")

    return build


def markdown(text: str) -> nbformat.NotebookNode:
    return v4.new_markdown_cell(text)


def test_a_chapter_says_at_its_head_what_it_takes_and_gives(page) -> None:
    head = page(minutes=25, needs=["softmax", "a loop"], say=["why T² <stands> there"]).select_one(
        "h1 + .chapter-head"
    )
    text = head.get_text(" ", strip=True)
    assert "About 25 minutes" in text and "softmax, a loop." in text
    assert [item.get_text() for item in head.select("li")] == ["why T² <stands> there"]
    assert head.select_one("a[download]")["href"] == "../../notebooks/part/chapter.ipynb"


def test_a_known_heading_dresses_its_section_and_another_does_not(page) -> None:
    soup = page(markdown('## In 30 seconds\n\n"Said."'), markdown("## Another\n\nText."))
    assert soup.select_one("section.part.thirty-seconds .clock")["data-seconds"] == "30"
    assert not soup.select("section.part #another") and soup.select("#another")


def test_a_bet_and_its_answer_carry_what_the_script_needs_and_read_without_it(page) -> None:
    bet = ":::{bet} gain\n:unit: points\n:question: How many?\n\nBy **how many** points?\n:::"
    answer = ":::{bet-answer} gain\n:value: 4.8\n\nThe student wins.\n:::"
    soup = page(markdown(f"## Your bet\n\n{bet}\n\n{answer}"))
    asked = soup.select_one(".bet")
    assert (asked["data-bet"], asked["data-unit"], asked["data-question"]) == (
        "gain",
        "points",
        "How many?",
    )
    assert asked.strong.get_text() == "how many"
    answered = soup.select_one(".bet-answer")
    assert (answered["data-answers"], answered["data-value"]) == ("gain", "4.8")
    assert "The student wins." in answered.get_text()


@pytest.mark.parametrize("name", dress.TITLES)
def test_a_callout_has_its_title_and_its_markdown(page, name: str) -> None:
    soup = page(markdown(f'## A\n\n:::{{{name}}}\n"So."\n\nBecause *not*.\n:::'))
    box = soup.select_one(f".callout.{name}")
    assert box.select_one(".callout-title").get_text() == dress.TITLES[name]
    assert box.em.get_text() == "not"


def test_a_drill_card_leads_to_the_drill(page) -> None:
    soup = page(markdown("## Drill\n\n:::{drill} kd-loss\n:::"))
    card = soup.select_one("a.drill-card")
    assert card["href"] == "../implement/drills-logits.html#the-distillation-loss"
    assert "The distillation loss" in card.get_text() and "8 minutes" in card.get_text()


def test_claims_are_folded_and_counted(page) -> None:
    cell = v4.new_code_cell("assert 1 < 2\nassert 2 < 3, 'so'", metadata={"tags": ["claims"]})
    one = v4.new_code_cell("for x in [1]:\n    assert x", metadata={"tags": ["claims"]})
    plain = v4.new_code_cell("assert True")
    folds = page(cell, one, plain).select("details.claims > summary")
    assert [fold.get_text() for fold in folds] == ["2 claims checked", "1 claim checked"]


def test_an_answer_without_its_number_is_refused(page) -> None:
    with pytest.raises(Exception, match="gain has no :value:"):
        page(markdown("## A\n\n:::{bet-answer} gain\nIt wins.\n:::"))
