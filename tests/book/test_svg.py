"""Figures in the page: lighter than matplotlib wrote them, and the same picture."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import notebooks
import numpy as np
import pytest
import svg

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DOTS = 60


@pytest.fixture(scope="module")
def written() -> str:
    """Rows of dots with axes and a legend, as a notebook stores them."""
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kdlearn"}):
        figure, axis = plt.subplots()
        for row in range(3):
            axis.plot(range(DOTS // 3), np.full(DOTS // 3, row), "o", label=f"row {row}")
        axis.scatter([1.0, 2.0], [0.5, 1.5])
        axis.legend()
        stored = io.StringIO()
        figure.savefig(stored, format="svg")
        plt.close(figure)
    return notebooks.SVG_HEAD.sub("", stored.getvalue()).strip()


def nodes(text: str) -> int:
    return len(re.findall(r"<\w", text))


def test_no_dot_and_no_word_is_lost(written: str) -> None:
    made = svg.inline(written, "dots", 1)
    for part in ("<use ", "<path ", "<text ", "<clipPath ", "row 2"):
        assert made.count(part) == written.count(part), part


def test_a_figure_is_half_of_its_nodes(written: str) -> None:
    made = svg.inline(written, "dots", 1)
    assert nodes(made) < 0.65 * nodes(written)
    assert made.count("<defs>") == 1


def test_every_name_that_is_used_is_defined_once(written: str) -> None:
    made = svg.inline(written, "dots", 7)
    for name in re.findall(r'url\(#([^)]*)\)|xlink:href="#([^"]*)"', made):
        assert made.count(f'id="{"".join(name)}"') == 1


def test_the_picture_stays_the_same_to_the_pixel(browser: Browser, written: str) -> None:
    # Without the colors and typefaces that the page gives, there is nothing but the structure.
    bare = svg.join_definitions(svg.join_dots(svg.without_bare_groups(written)))
    page = browser.new_page(viewport={"width": 700, "height": 520})
    shots = []
    for text in (written, bare):
        page.set_content(text)
        shots.append(page.screenshot())
    assert shots[0] == shots[1]
