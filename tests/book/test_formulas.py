"""Formulas as MathML: what a browser gets to lay out."""

from __future__ import annotations

from xml.etree import ElementTree

import formulas
import pytest


def tree(latex: str, display: bool = True) -> ElementTree.Element:
    return ElementTree.fromstring(formulas.mathml(latex, display))


def test_a_sum_on_its_own_line_has_its_limits_above_and_below() -> None:
    latex = r"\sum_{i=1}^B x_i + \max_j y_j"
    assert [x.tag for x in tree(latex).iter() if x.tag.startswith("munder")] == [
        "munderover",
        "munder",
    ]
    assert not [x.tag for x in tree(latex, display=False).iter() if x.tag == "munderover"]


def test_a_name_of_letters_is_one_identifier() -> None:
    assert [x.text for x in tree(r"\mathrm{KL}(p)").iter("mi")] == ["KL", "p"]


@pytest.mark.parametrize(
    "latex",
    [
        r"\bigl\lVert a \bigr\rVert_2",
        r"\Bigl\langle a \Bigr\rangle",
        r"\arg\max_c z_c",
        r"\bigl\{ a \bigr\}",
    ],
)
def test_fences_and_operators_are_characters(latex: str) -> None:
    assert "\\" not in "".join(tree(latex).itertext())


def test_a_command_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match=r"\\unheardof in the formula"):
        formulas.mathml(r"x + \unheardof{y}", display=False)
