"""Numbers in prose against the outputs of their chapter: planted false ones are found."""

from pathlib import Path

import nbformat
import prose
import pytest

v4 = nbformat.v4
OUTPUT = """over labels: +4.8 ± 2.0 points, n = 5 (95 % interval +2.3 to +7.2)
scratch 75.6 %, KD 80.64 %, loss 0.0146, 25,978 weights
"""


def chapter(shown: str = OUTPUT, code: str = "weight = 0.9") -> nbformat.NotebookNode:
    cell = v4.new_code_cell(code, outputs=[v4.new_output("stream", text=shown)])
    shown_code = v4.new_markdown_cell("A solution:\n\n```python\nshare = 0.35\n```\n\nA bet: 0.36.")
    return v4.new_notebook(cells=[cell, shown_code])


def found(text: str, path: Path = Path("chapter.ipynb")) -> list[str]:
    faults = prose.unfounded(text, path, [prose.Evidence.of(chapter())])
    return [fault.split(" stands in no output")[0] for fault in faults]


@pytest.mark.parametrize(
    ("text", "false"),
    [
        ("It gains 4.8 ± 2.1 points.", ["4.8 ± 2.1"]),
        ("It gains 4.7 ± 2.0 points (5 seeds).", ["4.7 ± 2.0"]),
        ("It gains 75.6 ± 2.0 points.", ["75.6 ± 2.0"]),
        ("From labels it is 57.6 %.", ["57.6"]),
        ("From labels 75.6 %, with the teacher 80.7 per cent.", ["80.7"]),
        ("It gains 6 points.", ["6"]),
        ("It gains 5 or 6 points.", ["6"]),
        ("It gains 9 and 5 points.", ["9"]),
        ("The loss is 0.0147, the share 0.36.", ["0.0147", "0.36"]),
        ("- a list\n- with 12.5 % in it", ["12.5"]),
        ("| a | table |\n|---|---|\n| with | 12.5 % |", ["12.5"]),
        (
            "<details><summary>Folded: 12.5 %?</summary>\n\nAnd 13.5 %.\n\n</details>",
            ["12.5", "13.5"],
        ),
        ("A measured 12.5 %. Another has 13.5 % {cite:p}`someone`.", ["12.5"]),
        ("An example: 12.5 %. <!-- not measured here --> Measured: 13.5 %.", ["13.5"]),
        ("```{glossary}\nA word\n  Of 12.5 %.\n```\n\nOf 13.5 %.", ["12.5", "13.5"]),
        ("````{grid}\n```{card} One\nOf 12.5 %.\n```\n````\n\nOf 13.5 %.", ["12.5", "13.5"]),
        ("```text\n14.5 %\n```\n\nOf 13.5 %.", ["13.5"]),
        ("```\n14.5 %\n```\n\nOf 13.5 %.", ["13.5"]),
        ("Python 3.11 to 3.13 at 13.5 %.", ["13.5"]),
        # Weights, labels, and points are not taken for one another.
        ("It gains 75.6 points.", ["75.6"]),
        ("Of all images 0.9 % are wrong.", ["0.9"]),
    ],
)
def test_a_false_number_is_found(text: str, false: list[str]) -> None:
    assert found(text) == false


@pytest.mark.parametrize(
    "text",
    [
        "It gains 4.8 ± 2.0 points, between 2.3 and 7.2 points, so about 5 points.",
        "From 75.6 % to 80.6 per cent, a loss of 0.015, with weight 0.9, a share of 0.35.",
        "The code has `0.123` and $x = 0.456$.\n\n```python\nrate = 0.789\n```\n\n$$y = 0.321$$",
        "See sections 5.2 and 5.3, on Python 3.11 to 3.13, arXiv 1503.02531 and version 2.10.1.",
        "Their student has 64.60 % {cite:p}`someone`.",
        "An example: 12.5 %. <!-- not measured here -->",
        "Two of 3 students, at 16 x 16.",
    ],
)
def test_what_is_shown_cited_or_said_to_be_no_measurement_passes(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (":::{bet} gain\n:unit: points\n\nHow many?\n:::", "bet 'gain' has no bet-answer"),
        (":::{bet-answer} gain\n:value: 4.8\n\nSo.\n:::", "bet 'gain' has no bet-answer"),
        (
            ":::{bet} a\n:unit: points\n\n?\n:::\n:::{bet-answer} a\n:value: 4.9\n\nSo.\n:::",
            "4.9, the value",
        ),
        (
            ":::{bet} a\n:unit: points\n\n?\n:::\n:::{bet-answer} a\n:value: 80.64\n\nSo.\n:::",
            "80.64",
        ),
        (":::{bet} a\n\n?\n:::\n:::{bet-answer} a\n:value: some\n\nSo.\n:::", "no number"),
    ],
)
def test_a_bet_without_its_answer_or_with_a_false_one_is_found(text: str, says: str) -> None:
    (fault,) = prose.unfounded_bets(text, prose.Evidence.of(chapter()))
    assert says in fault


@pytest.mark.parametrize(
    ("unit", "value"), [("points", "+4.8"), ("%", "80.6"), ("weights", "25,978")]
)
def test_the_value_of_a_bet_that_is_shown_passes(unit: str, value: str) -> None:
    text = (
        f":::{{bet}} a\n:unit: {unit}\n\n?\n:::\n\n:::{{bet-answer}} a\n:value: {value}\n\nSo.\n:::"
    )
    assert prose.unfounded_bets(text, prose.Evidence.of(chapter())) == []


def test_only_the_last_place_is_rounded_away() -> None:
    assert found("The loss is 0.01.") == ["0.01"]
    assert found("The loss is 0.015.") == []


def test_a_number_of_another_chapter_is_looked_up_where_the_sentence_links_to(
    tmp_path: Path,
) -> None:
    nbformat.write(chapter("accuracy 61.4 %"), tmp_path / "other.ipynb")
    here = tmp_path / "chapter.ipynb"
    assert found("In [another chapter](other.ipynb) it is 61.4 %.", here) == []
    assert found("In [another chapter](other.ipynb#there) it is 61.5 %.", here) == ["61.5"]
    assert found("It is 61.4 %. See [another chapter](other.ipynb).", here) == ["61.4"]


def test_the_message_names_the_number_and_its_sentence() -> None:
    (fault,) = prose.unfounded("All is well. It is 12.5 % here.", Path("a.md"), [])
    assert fault == "12.5 stands in no output: “It is 12.5 % here.”"
