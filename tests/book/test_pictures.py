"""Formulas as pictures: nothing is cut off, and a line's letters stand on its base."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from formulas import mathml
from pictures import Picture, picture, with_pictures


def frame(one: Picture) -> tuple[float, float, float, float]:
    view = ElementTree.fromstring(one.svg).attrib["viewBox"].split()
    left, top, width, height = map(float, view)
    return left, top, left + width, top + height


@pytest.mark.parametrize(
    "latex",
    [
        r"\frac1K + \underbrace{\sum_k x_k}_{\text{disagreement}}",
        r"a \xrightarrow{T\to\infty} b",
        r"\begin{cases} 1 & x > 0 \\ 0 & \text{else} \end{cases}",
        r"\hat Q^{\,j}",
    ],
)
def test_what_is_drawn_lies_inside_the_frame(latex: str) -> None:
    one = picture(mathml(latex, display=True))
    left, top, right, bottom = frame(one)
    seen = 0
    for part in ElementTree.fromstring(one.svg).iter():
        # A path has moves, lines and curves, all absolute: pairs of numbers.
        words = part.attrib.get("d", "").replace(",", " ").split()
        numbers = [float(word) for word in words if word not in "MLQZ"]
        seen += len(numbers)
        assert all(left <= x <= right for x in numbers[::2])
        assert all(top <= y <= bottom for y in numbers[1::2])
    assert seen


def test_a_letter_without_a_tail_stands_on_the_line_and_one_with_a_tail_hangs_below() -> None:
    standing, hanging = (picture(mathml(letter, display=False)) for letter in "Tp")
    assert abs(standing.depth) < 0.1 < hanging.depth < hanging.height


def test_an_expectation_is_not_a_plain_letter() -> None:
    struck, plain = (picture(mathml(x, display=False)) for x in (r"\mathbb E", "E"))
    assert struck.svg != plain.svg


def test_a_formula_becomes_one_picture_however_often_it_stands_there() -> None:
    made: dict[str, Picture] = {}
    formula = mathml("T < 2", display=False)
    html = with_pictures(f"<p>{formula} and {formula}</p>", made)
    (one,) = made.values()
    assert html.count(f'src="{one.name}"') == 2 and "<math" not in html
    assert 'alt="T&lt;2"' in html
