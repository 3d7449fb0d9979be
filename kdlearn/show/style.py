"""One style for every figure of the book: narrow, few lines, colors that all can tell apart.

A figure is 4.8 inches wide with letters of 10 points: on a phone it shrinks to three quarters and
can still be read. `make notebooks` stores it as SVG, and the site writes its colors anew in the
dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which white paper swallows.
PALETTE = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
}
GRAY = "#808080"
GRID = "#dddddd"
WIDTH = 4.8

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def drawing(
    rows: int = 1, columns: int = 1, *, height: float, sharex: bool = False
) -> Iterator[tuple[Figure, list[list[Axes]]]]:
    """Make a figure in the style of the book; pyplot forgets it, so no notebook shows it twice.

    Args:
        rows: of panels.
        columns: of panels; two are the most that a phone can show.
        height: in inches; the width is always 4.8.
        sharex: whether the panels share their horizontal axis.

    Yields:
        The figure, and its axes as rows of columns. Draw inside the ``with``, and make the figure
        the last value of the cell.

    Example:
        >>> with drawing(height=2.5) as (figure, [[axes]]):
        ...     _ = axes.plot([1, 2, 3], color=PALETTE["blue"])
        >>> len(figure.axes)
        1
    """
    with plt.style.context(["default", _STYLE]):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(WIDTH, height),
            layout="constrained",
            sharex=sharex,
            squeeze=False,
        )
        try:
            yield figure, axes.tolist()
        finally:
            plt.close(figure)
