"""Figures opened in a browser, and the numbers that are read from them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from kdlearn.show.widgets import HTMLFigure


class Pages:
    """Opens figures as a page from disk; remembers what went wrong on any of them."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.browser, self.folder, self.problems = browser, folder, list[str]()

    def open(
        self,
        *figures: HTMLFigure,
        width: int = 1280,
        theme: str = "light",
        scripts: bool = True,
        touch: bool = False,
    ) -> Any:
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "page.html"
        body = "\n".join(figure.html for figure in figures)
        file.write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>Figures</title></head>'
            f"<body><main><h1>Figures</h1>{body}</main></body></html>",
            encoding="utf-8",
        )
        context = self.browser.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=scripts, has_touch=touch
        )
        page = context.new_page()
        page.on(
            "console",
            lambda message: self.problems.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url == file.as_uri() else self.problems.append(request.url)
            ),
        )
        page.goto(file.as_uri())
        return page


def data_of(figure: HTMLFigure) -> dict[str, Any]:
    """What Python wrote into a figure."""
    found = re.search(r'<script type="application/json">(.*?)</script>', figure.html, re.S)
    assert found
    return json.loads(found[1])


def numbers(page: Any, css: str = "data.kd-value") -> torch.Tensor:
    """Every number that a figure shows, in full."""
    values = page.locator(css).evaluate_all(
        "nodes => nodes.map(node => node.getAttribute('value'))"
    )
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def press(page: Any, role: str, name: str, *keys: str) -> Any:
    """Bring the focus to a control and press keys; return the control."""
    control = page.get_by_role(role, name=name, exact=True)
    control.focus()
    for key in keys:
        page.keyboard.press(key)
    return control


def tap(page: Any, role: str, name: str, across: float = 0.5) -> Any:
    """Tap a control at a fraction of its width; return the control."""
    control = page.get_by_role(role, name=name, exact=True)
    control.scroll_into_view_if_needed()
    box = control.bounding_box()
    page.touchscreen.tap(box["x"] + across * box["width"], box["y"] + box["height"] / 2)
    return control


def pull(page: Any, css: str, start: float, end: float) -> None:
    """Drag along a drawing, from one fraction of its width to another."""
    drawing = page.locator(css)
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=4)
    page.mouse.up()


def said(page: Any) -> str:
    """The sentence that is spoken."""
    return page.locator("[aria-live=polite]").text_content()
