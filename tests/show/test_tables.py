"""Tables of results: what is shown of a frame, on a page and as text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from kdlearn.show.tables import table

FRAME = pd.DataFrame(
    {
        "n": [5, 5],
        "accuracy": ["75.9 ± 4.3", "100.0 ± 0.0"],
        "weights": [2594, 25978],
        "note": ["a<b", ""],
    },
    index=pd.Index(["labels", "KD"], name="method"),
)


def cells(frame: pd.DataFrame, **options: object) -> list[list[str]]:
    html = table(frame, caption="What it is.", **options)._repr_html_()
    rows = BeautifulSoup(html, "html.parser").find_all("tr")
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in rows]


def test_columns_are_those_asked_for_under_their_new_names_in_their_order() -> None:
    names = {"method": "trained from", "weights": "weights", "accuracy": "accuracy (%)"}
    assert cells(FRAME, columns=names) == [
        ["trained from", "weights", "accuracy (%)"],
        ["labels", "2,594", "75.9 ± 4.3"],
        ["KD", "25,978", "100.0 ± 0.0"],
    ]


def test_without_names_every_column_is_shown() -> None:
    assert cells(FRAME)[0] == ["method", "n", "accuracy", "weights", "note"]
    assert cells(FRAME)[1][-1] == "a<b"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123456, "0.1235"), (float("nan"), "–"), (None, "–"), (True, "True"), (1e6, "1,000,000")],
)
def test_a_value_is_shown_as_people_write_it(value: object, shown: str) -> None:
    assert cells(pd.DataFrame({"x": pd.Series([value], dtype=object)}))[1][1] == shown


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "Float32", "longdouble"])
def test_numbers_of_any_precision_are_rounded_alike(kind: str) -> None:
    frame = pd.DataFrame({"x": [0.123456, 2000.0, np.nan]}).astype(kind)
    assert [row[1] for row in cells(frame)[1:]] == ["0.1235", "2,000", "–"]


def test_columns_and_rows_may_be_named_by_numbers() -> None:
    frame = pd.DataFrame({1: [5], 2: [6]}, index=pd.Index([4], name=0))
    assert cells(frame) == [["0", "1", "2"], ["4", "5", "6"]]
    assert cells(frame, columns={0: "k", 2: "two"}) == [["k", "two"], ["4", "6"]]
    with pytest.raises(KeyError, match=r"no column \[3\]: it has 1, 2"):
        cells(frame, columns={3: "three"})


def test_numbers_stand_to_the_right_and_do_not_break() -> None:
    html = table(FRAME, caption="What it is.")._repr_html_()
    soup = BeautifulSoup(html, "html.parser")
    styles = [cell["style"] for cell in soup.find_all("tr")[1].find_all("td")]
    assert ["right" in style and "nowrap" in style for style in styles] == [True, True, True, False]
    assert soup.caption.get_text() == "What it is."


@pytest.mark.parametrize(
    ("column", "right"),
    [
        (["1 - cosine", "squared distance", "sum"], False),
        (["2 * x", "x"], False),
        (["5.1", None, "–"], True),
        (["", ""], False),
    ],
)
def test_words_that_begin_with_a_digit_are_words(column: list[str | None], right: bool) -> None:
    html = table(pd.DataFrame({"it": column}), caption="What it is.")._repr_html_()
    assert ("right" in BeautifulSoup(html, "html.parser").find("td")["style"]) is right


def test_the_text_form_has_the_same_cells_below_one_another() -> None:
    lines = repr(table(FRAME, caption="What it is.", columns={"accuracy": "accuracy (%)"})).split(
        "\n"
    )
    assert lines == [
        "What it is.",
        "method  accuracy (%)",
        "labels    75.9 ± 4.3",
        "KD       100.0 ± 0.0",
    ]


def test_what_cannot_be_shown_is_said() -> None:
    with pytest.raises(ValueError, match="caption is empty"):
        table(FRAME, caption=" ")
    with pytest.raises(
        KeyError, match=r"no column \['recall'\]: it has n, accuracy, weights, note"
    ):
        table(FRAME, caption="What it is.", columns={"recall": "recall"})
