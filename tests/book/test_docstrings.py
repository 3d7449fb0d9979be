"""Docstrings on their way to the API pages, and the table of where each loss is taught."""

import docstrings
import pytest
import yaml
from notebooks import BOOK, ROOT, read

from kdlearn import losses
from kdlearn.drills import names


def test_an_item_goes_on_below_itself_and_after_a_line_that_ends_no_sentence() -> None:
    block = [
        "Order: student, teacher; the",
        "teacher is detached.",
        "Range [0, inf):",
        "    0 when both agree.",
        "``seed`` fixes the order.",
        "Sizes (B, C)",
        "are kept.",
    ]
    assert docstrings.items(block) == [
        "Order: student, teacher; the teacher is detached.",
        "Range [0, inf): 0 when both agree.",
        "``seed`` fixes the order.",
        "Sizes (B, C) are kept.",
    ]


def test_a_table_in_a_convention_stays_a_table() -> None:
    lines = ["Convention", "    A point.", "", "    ==== ====", "    a    b", "    ==== ===="]
    written = docstrings.sections(lines)
    assert written[:4] == ["Convention:", "", "    * A point.", ""]
    assert written[4:7] == ["    ==== ====", "    a    b", "    ==== ===="]


def test_blocks_become_sections_that_nothing_hangs_out_of() -> None:
    docstring = [
        "Compare.",
        "",
        "Convention",
        "    Order: student,",
        "        teacher.",
        "",
        "Args:",
        "    x: shape (B, *spatial), or (B, *spatial, C).",
        "",
        "Source: Hinton, 2015,",
        "    section 2.",
    ]
    assert docstrings.sections(docstring) == [
        "Compare.",
        "",
        "Convention:",
        "",
        "    * Order: student, teacher.",
        "",
        "Args:",
        r"    x: shape (B, \*spatial), or (B, \*spatial, C).",
        "",
        "Source:",
        "    Hinton, 2015, section 2.",
        "",
    ]


def source(chapter: str) -> str:
    return "\n".join(cell.source for cell in read(BOOK / f"{chapter}.ipynb").cells)


@pytest.mark.parametrize("loss", losses.__all__)
def test_every_loss_has_an_entry_below_its_heading_in_the_atlas(loss: str) -> None:
    *_, (_, address) = docstrings.taught(loss)
    heading = next(
        h for h in docstrings.FAMILIES.values() if address.endswith(docstrings.make_id(h))
    )
    section = source(docstrings.ATLAS).split(f"### {heading}\n")[1].split("\n### ")[0]
    assert f"**`{loss}`**" in section


@pytest.mark.parametrize("loss", docstrings.table())
def test_a_loss_is_sent_to_chapters_and_drills_that_exist_and_name_it(loss: str) -> None:
    assert loss in losses.__all__
    entry = docstrings.table()[loss]
    assert set(entry) <= {"chapter", "drill"} and entry
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [page["file"] for part in contents["parts"] for page in part["chapters"]]
    if "chapter" in entry:
        assert f"book/{entry['chapter']}" in pages
        assert loss in source(entry["chapter"])
    if "drill" in entry:
        assert entry["drill"] in names()


def test_a_default_that_is_no_python_is_left_out() -> None:
    given = "(a: int = 1, b: list = <factory>, c: ~typing.Any = <function Drill.<lambda>>)"
    shown, _ = docstrings.mend_signature(None, "class", "Drill", None, None, given, None)
    assert shown == "(a: int = 1, b: list = ..., c: ~typing.Any = ...)"
