"""The notebook edition: what Jupyter and Colab show of a chapter."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import catalogs
import chinese
import editions
import interface
import notebooks
import pytest

SITE = editions.site()
RAW = re.compile(r"\{[a-z:-]+\}`|^ *(?::::|`{3,}\{)", re.MULTILINE)


def shown(text: str) -> str:
    return editions.markdown(text, PurePosixPath("foundations"))


@pytest.mark.parametrize(
    "path", notebooks.find([]), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_no_edition_has_a_raw_role_or_directive_and_all_keep_code_and_outputs(path: Path) -> None:
    source, edition = notebooks.read(path), editions.edition(path)
    for cell in edition.cells:
        if cell.cell_type == "markdown":
            assert not RAW.search(cell.source), cell.source
            assert "<!--" not in cell.source
            links = re.findall(
                r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", cell.source, flags=re.S)
            )
            assert all(link.startswith(("https:", "http:", "#")) for link in links), links
    assert notebooks.code_cells(edition) == notebooks.code_cells(source)
    assert edition.cells[0].source.startswith(source.cells[0].source)


def test_a_chinese_edition_is_whole_and_leads_to_the_chinese_site(tmp_path: Path) -> None:
    try:
        chinese.write(tmp_path / "tree")
        chinese.write_editions(tmp_path / "made", tmp_path / "tree")
    finally:
        interface.speak("en", {})
    translated = [name for name in catalogs.pages() if catalogs.source(name).suffix == ".ipynb"]
    made = [tmp_path / f"made/{name}.ipynb" for name in translated]
    assert set((tmp_path / "made").rglob("*.ipynb")) == set(made)
    for path, name in zip(made, translated, strict=True):
        edition, source = notebooks.read(path), notebooks.read(catalogs.source(name))
        text = "\n".join(x.source for x in edition.cells if x.cell_type == "markdown")
        assert not RAW.search(text) and "anchor--" not in text and "hreflang" not in text
        assert f"{SITE.replace('/book/', '/zh/book/')}{name}.html" in text
        code = [(cell.source, cell.outputs) for cell in notebooks.code_cells(edition)]
        assert code == [(cell.source, cell.outputs) for cell in notebooks.code_cells(source)]


def test_a_term_leads_to_the_glossary_under_either_form() -> None:
    link = f"{SITE}interview/glossary.html#term-soft-target"
    assert shown("A {term}`soft target`.") == f"A [soft target]({link})."
    assert shown("Two {term}`soft\n  targets <soft target>`.") == f"Two [soft\n  targets]({link})."


def test_a_citation_is_read_as_in_a_paper() -> None:
    hinton = f"({SITE}references.html#cite-hinton2015distilling)"
    ba = f"({SITE}references.html#cite-ba2014deep)"
    assert shown("{cite:t}`hinton2015distilling` say") == f"[Hinton et al. (2015)]{hinton} say"
    assert shown("so {cite:p}`hinton2015distilling,ba2014deep`.") == (
        f"so ([Hinton et al., 2015]{hinton}; [Ba and Caruana, 2014]{ba})."
    )
    assert shown("{cite:t}`trl` has").startswith("[von Werra et al.](") or "(None" not in shown(
        "{cite:t}`trl` has"
    )


def test_a_link_to_another_chapter_leads_to_the_site() -> None:
    assert shown("[x](the-process.ipynb#a)") == f"[x]({SITE}foundations/the-process.html#a)"
    assert shown("[x](../interview/glossary.md)") == f"[x]({SITE}interview/glossary.html)"
    assert shown("[x](https://arxiv.org/abs/1)") == "[x](https://arxiv.org/abs/1)"


def test_a_component_is_a_quotation_that_begins_in_bold() -> None:
    assert shown(":::{bet} gain\n:unit: points\n:question: Hm?\n\nBy how many?\n:::") == (
        "> **Your bet, in points.** By how many?\n>\n> *Hm?*"
    )
    assert shown(':::{wrong-answer}\n"Copied."\n\nNo.\n:::\nAfter.') == (
        '> **A common wrong answer.** "Copied."\n>\n> No.\nAfter.'
    )
    card = shown(":::{drill} kd-loss\n:::")
    assert card.startswith("> **Drill:** [The distillation loss](") and card.endswith("8 minutes.")


def test_code_that_shows_a_role_stays_as_it_is() -> None:
    text = "```text\n:::{bet} x\n{term}`y` [z](z.ipynb)\n```"
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{doc}`x`", "role '{doc}`x`' has no form"),
        (":::{note}\nx\n:::", "directive 'note' has no form"),
    ],
)
def test_what_has_no_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        shown(text)
