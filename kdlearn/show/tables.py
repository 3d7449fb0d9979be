"""Tables of results, as people read them: named columns, a caption, numbers below one another."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from numbers import Integral
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

_NUMBER = "text-align: right; white-space: nowrap"
_TEXT = "text-align: left"


class Table:
    """A table that shows itself as HTML on a page and as text in a terminal."""

    def __init__(self, caption: str, head: list[str], rows: list[list[str]], text: list[bool]):
        self.caption = caption
        self.head = head
        self.rows = rows
        self._text = text

    def _repr_html_(self) -> str:
        styles = [_TEXT if text else _NUMBER for text in self._text]
        head = "".join(
            f'<th scope="col" style="{style}">{escape(name)}</th>'
            for name, style in zip(self.head, styles, strict=True)
        )
        body = "".join(
            f'<tr><th scope="row" style="{_TEXT}">{escape(name)}</th>'
            + "".join(
                f'<td style="{style}">{escape(cell)}</td>'
                for cell, style in zip(cells, styles[1:], strict=True)
            )
            + "</tr>"
            for name, *cells in self.rows
        )
        return (
            f"<table><caption>{escape(self.caption)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def __repr__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.head))]
        shown = [
            "  ".join(
                cell.ljust(width) if text else cell.rjust(width)
                for cell, width, text in zip(line, widths, self._text, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([fill(self.caption, 72), *shown])


def table(frame: pd.DataFrame, *, caption: str, columns: Mapping[Any, str] | None = None) -> Table:
    """Return a data frame as a table to read.

    Text stays as it is, whole numbers get thousands separators, other numbers four significant
    digits, and a missing value is a dash. Columns of numbers stand to the right.

    Args:
        frame: a row each for what the index names, such as the methods of
            :func:`kdlearn.measure.summary`.
        caption: one sentence: what the table shows, and over how many seeds.
        columns: column of the frame to the head that is shown; only these, in this order. The name
            of the index can be among them. By default all columns under their own names.

    Raises:
        ValueError: the caption is empty.
        KeyError: the frame has no such column.

    Example:
        >>> frame = pd.DataFrame({"n": [5, 5], "accuracy": ["75.9 ± 4.3", "80.6 ± 2.6"]})
        >>> frame.index = pd.Index(["labels", "KD"], name="method")
        >>> table(frame, caption="Test accuracy.", columns={"accuracy": "accuracy (%)"})
        Test accuracy.
        method  accuracy (%)
        labels    75.9 ± 4.3
        KD        80.6 ± 2.6
    """
    if not caption.strip():
        raise ValueError("the caption is empty: say in one sentence what the table shows.")
    index = "" if frame.index.name is None else frame.index.name
    names = list(frame)
    heads = {name: str(name) for name in names} if columns is None else dict(columns)
    unknown = [name for name in heads if name not in names and name != index]
    if unknown:
        raise KeyError(f"the frame has no column {unknown}: it has {', '.join(map(str, names))}.")
    shown = [name for name in heads if name != index]
    rows = [
        [_cell(label), *(_cell(frame[name].iloc[k]) for name in shown)]
        for k, label in enumerate(frame.index)
    ]
    text = [True] + [not _are_numbers([row[k + 1] for row in rows]) for k in range(len(shown))]
    head = [heads.get(index, str(index)), *(heads[name] for name in shown)]
    return Table(caption, head, rows, text)


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:,.0f}" if number.is_integer() and abs(number) >= 1000 else f"{number:.4g}"
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return f"{value:,}" if whole else str(value)


def _are_numbers(column: list[str]) -> bool:
    # A few words such as "1 - cosine" begin with a digit and make no column of numbers.
    told = [cell for cell in column if cell not in ("", "–")]
    return 2 * sum(cell.lstrip("+-−<")[:1].isdigit() for cell in told) > len(told)
