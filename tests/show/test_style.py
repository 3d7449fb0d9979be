"""The one style: a figure fits a phone, and the site knows its colors."""

from __future__ import annotations

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from kdlearn.show import style

PHONE = 358  # CSS pixels of text on a phone of 390
# Machado, Oliveira and Fernandes (2009): what readers without one kind of cone see, severity 1.
DEFICIENCIES = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def linear(color: str) -> np.ndarray:
    parts = np.array(to_rgb(color))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.clip(np.array(to_xyz) @ rgb / [0.9505, 1, 1.089], 0, None)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_letters_on_a_phone_are_at_least_ten_pixels_high() -> None:
    with style.drawing(height=2) as (figure, [[axes]]):
        axes.set_xlabel("epoch")
    shrunk = PHONE / (style.WIDTH * 96)
    for text in (axes.xaxis.label, axes.title, axes.get_xticklabels()[0]):
        assert text.get_fontsize() * 96 / 72 * shrunk >= 10
    assert figure.get_figwidth() == style.WIDTH


def test_pyplot_forgets_a_figure_even_if_drawing_fails() -> None:
    before = plt.get_fignums()
    with pytest.raises(RuntimeError, match="halfway"), style.drawing(height=2):
        raise RuntimeError("halfway")
    assert plt.get_fignums() == before


def test_the_first_three_colors_stand_out_on_white() -> None:
    for color in list(style.PALETTE.values())[:3]:
        assert 1.05 / (luminance(color) + 0.05) >= 3  # WCAG 2.1, 1.4.11


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_color_blind_readers_can_tell_the_colors_apart(deficiency: str) -> None:
    seen = {
        name: lab(np.clip(np.array(DEFICIENCIES[deficiency]) @ linear(color), 0, 1))
        for name, color in style.PALETTE.items()
    }
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 10, (one, other)
