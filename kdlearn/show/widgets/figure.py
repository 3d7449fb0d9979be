"""The frame of every HTML figure: style, fallback, data and script in one piece of text."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor


class HTMLFigure:
    """A figure of HTML and script that shows itself wherever a notebook or a page does.

    The text is the same for the same data, byte for byte. It holds no ids: the script looks for
    figures of its kind that no script has drawn yet, so any number of them share a page.

    Args:
        kind: the name of the script beside this file, without ``.js``.
        data: what the script gets, as JSON.
        fallback: HTML that shows until the script runs, and where scripts are off.
        text: what the figure shows and its numbers at the start, for readers of plain text.

    Example:
        >>> figure = HTMLFigure("temperature", {"a": 1}, "<p>1 nat</p>", "An example: 1 nat.")
        >>> figure
        An example: 1 nat.
        >>> "<p>1 nat</p>" in figure.html
        True
    """

    def __init__(self, kind: str, data: dict[str, Any], fallback: str, text: str) -> None:
        # "<" would let a class name such as "</script>" end the data early.
        packed = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")
        self.text = text
        self.html = (
            f'<div class="kdfig" data-kdfig="{kind}">\n'
            f"<style>\n{_asset('figure.css')}</style>\n"
            f'<div class="kd-static">{fallback}</div>\n'
            f'<script type="application/json">{packed}</script>\n'
            f"</div>\n"
            f"<script>(function () {{\n{_asset('figure.js')}{_asset(kind + '.js')}}})();</script>"
        )

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def _asset(name: str) -> str:
    return (files("kdlearn.show.widgets") / name).read_text(encoding="utf-8")


def static_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table whose first column names the rows; every text is escaped.

    Args:
        caption: one sentence that says what the table shows.
        columns: the heads of all columns, that of the row names first.
        rows: for each row its name, then its cells.

    Example:
        >>> static_table("Sizes.", ["model", "size"], [["a<b", "3"]])
        '<table><caption>Sizes.</caption><tr><th scope="col">model</th><th scope="col">size</th></tr><tr><th scope="row">a&lt;b</th><td>3</td></tr></table>'
    """  # noqa: E501
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{body}</table>"


def pack(values: Tensor, levels: int = 256) -> str:
    """Return numbers in [0, 1] as base64, a byte each, or half a byte for ``levels=16``.

    Args:
        values: any shape; read in row-major order.
        levels: 256 or 16.

    Example:
        >>> pack(torch.tensor([0.0, 1.0])), pack(torch.tensor([0.0, 1.0, 1.0]), levels=16)
        ('AP8=', 'D/A=')
    """
    steps = (values.flatten() * (levels - 1)).round().to(torch.uint8)
    if levels == 16:
        steps = torch.nn.functional.pad(steps, (0, len(steps) % 2))
        steps = steps[0::2] * 16 + steps[1::2]
    return base64.b64encode(bytes(steps.tolist())).decode("ascii")
