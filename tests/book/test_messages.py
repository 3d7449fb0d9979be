"""Messages: what is cut out of a page, what stays, and that nothing is lost."""

from __future__ import annotations

import re

import catalogs
import messages
import nbformat
import notebooks
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

from kdlearn.interview import read


def cut(markdown: str) -> list[str]:
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    messages.translated(markdown, note)
    return found


def html(markdown: str) -> str:
    parser = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin)
    rendered = parser.use(colon_fence_plugin).render(messages.COMMENT.sub("", markdown))
    return " ".join(str(rendered).split())


@pytest.mark.parametrize("page", catalogs.pages())
def test_a_page_put_together_from_its_own_messages_reads_the_same(page: str) -> None:
    path = catalogs.source(page)
    if path.suffix == ".ipynb":
        cells = notebooks.read(path).cells
        texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    elif catalogs.is_question(page):
        question = read(path.read_text(encoding="utf-8"), path.stem)
        pairs = question.follow_ups + question.wrong_answers
        texts = [*question.parts.values(), *question.rubric]
        texts += [text for pair in pairs for text in (pair.title, pair.body)]
    else:
        texts = [path.read_text(encoding="utf-8")]
    for text in texts:
        assert html(messages.translated(text, lambda said: said)) == html(text)


@pytest.mark.parametrize(
    ("markdown", "found"),
    [
        ("Two lines\nof one paragraph.", ["Two lines of one paragraph."]),
        ("- one\n- two\n  goes on\n\n1. three", ["one", "two goes on", "three"]),
        ("> said\n> aloud", ["said aloud"]),
        ("| a | b |\n| --- | --- |\n| 1 | 2 |\n| c | 3 |", ["| a | b |", "| c | 3 |"]),
        ("```python\nx = 1  # one\n```\nafter", ["after"]),
        ("before\n$$\nx = y\n$$\nafter", ["before", "after"]),
        ("$$x = y$$", []),
        ("(a-label)=\n## A title", ["A title"]),
        (":::{bet} id\n:unit: points\n:question: How many?\n\nBody.\n:::", ["points", "How many?"]),
        (":::{bet-answer} id\n:value: 4.8\n\nIt is.\n:::", ["It is."]),
        ("<details><summary>Why\nnot?</summary>\n\nNo.\n\n</details>", ["Why not?", "No."]),
        ('<img src="x.jpg" alt="A picture.">', ["A picture."]),
        ('<form>\n<label for="a">Find a "word"</label>\n</form>', ['Find a "word"']),
        (
            "```{glossary}\n:sorted:\n\nhint\n  **Hint.** A layer\n  of it.\n```",
            ["**Hint.** A layer of it."],
        ),
        ("A number.<!-- not measured here --> Another.", ["A number. Another."]),
        ("{cite:t}`gou2021knowledge`, $T$ and `x`", ["{cite:t}`gou2021knowledge`, $T$ and `x`"]),
        ("- {cite:t}`gou2021knowledge`\n- $T$", []),
    ],
)
def test_a_message_is_what_is_read_at_once(markdown: str, found: list[str]) -> None:
    assert cut(markdown)[: len(found) or None] == found


def test_a_translated_heading_keeps_the_address_of_the_english_one() -> None:
    done = messages.translated("# Why `T`, and {term}`what <x>` *else*?", lambda _: "为什么？")
    assert done == "{.anchor--why-t-and-what-else}\n# 为什么？"


def test_of_a_notebook_code_stays_and_what_figures_say_is_translated() -> None:
    code = nbformat.v4.new_code_cell("x = 1  # one")
    code.metadata["mystnb"] = {"figure": {"caption": "a\ncaption"}, "image": {"alt": "a text"}}
    words = nbformat.v4.new_markdown_cell("# title")
    notebook = nbformat.v4.new_notebook(cells=[words, code])
    notebook.metadata["kdlearn"] = {"minutes": 5, "needs": ["a need"], "say": ["an aim"]}
    messages.translate_notebook(notebook, str.upper)
    assert code.source == "x = 1  # one"
    assert code.metadata["mystnb"] == {
        "figure": {"caption": "A CAPTION"},
        "image": {"alt": "A TEXT"},
    }
    assert notebook.metadata["kdlearn"] == {"minutes": 5, "needs": ["A NEED"], "say": ["AN AIM"]}
    assert re.fullmatch(r"\{\.anchor--title\}\n# TITLE", words.source)
