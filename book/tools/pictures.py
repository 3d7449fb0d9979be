"""Formulas as pictures, for readers that do not lay out MathML: Anki on some phones.

ziamath sets MathML with the letters of STIX Two Math as paths, so that a picture needs no typeface.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from xml.etree import ElementTree

from ziamath.config import config
from ziamath.zmath import Math

SIZE = 20.0  # units of a picture that are one em
MARGIN = 1.0
# Letters that have places of their own in Unicode, for which ziamath asks.
DOUBLE_STRUCK = {"E": "𝔼", "R": "ℝ", "N": "ℕ", "P": "ℙ"}
STRUCK = re.compile(r'<mi mathvariant="double-struck">(\w)</mi>')
MATH = re.compile(r"<math\b.*?</math>", re.DOTALL)


class Picture(NamedTuple):
    """A formula's picture: its file's name, its content, and how it stands in a line, in em."""

    name: str
    svg: str
    height: float
    depth: float

    def tag(self, text: str) -> str:
        """Return the picture as HTML; `text` is read aloud."""
        words = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        style = f"height: {self.height:.3f}em; vertical-align: {-self.depth:.3f}em"
        return f'<img class="formula" src="{self.name}" alt="{words}" style="{style}">'


def picture(mathml: str) -> Picture:
    """Return the picture of a formula; the same formula has the same name in each build.

    Example:
        >>> picture("<math><mi>T</mi></math>").name == picture("<math><mi>T</mi></math>").name
        True
    """
    config.svg2 = False
    struck = STRUCK.sub(lambda found: f"<mi>{DOUBLE_STRUCK[found[1]]}</mi>", mathml)
    drawn = ElementTree.fromstring(Math(struck, size=SIZE).svg())
    left, top, right, bottom = ink(drawn)
    width, height = right - left + 2 * MARGIN, bottom - top + 2 * MARGIN
    view = " ".join(f"{x:.2f}" for x in (left - MARGIN, top - MARGIN, width, height))
    parts = "".join(ElementTree.tostring(part, encoding="unicode") for part in drawn)
    parts = re.sub(r' xmlns(?::\w+)?="[^"]+"', "", parts).replace("ns0:", "")
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.2f}" height="{height:.2f}" '
        f'viewBox="{view}">{parts}</svg>'
    )
    name = f"kdlearn-{hashlib.sha256(mathml.encode()).hexdigest()[:16]}.svg"
    return Picture(name, svg, height / SIZE, (bottom + MARGIN) / SIZE)


def ink(drawn: ElementTree.Element) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of what is drawn; ziamath's frame cuts braces off.

    Example:
        >>> ink(ElementTree.fromstring('<svg><rect x="1" y="-2" width="3" height="4" /></svg>'))
        (1.0, -2.0, 4.0, 2.0)
    """
    xs: list[float] = []
    ys: list[float] = []
    for part in drawn.iter():
        if part.tag.endswith("path"):
            numbers = [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?", part.attrib["d"])]
            xs += numbers[::2]
            ys += numbers[1::2]
        elif part.tag.endswith("rect"):
            x, y, width, height = (float(part.attrib[k]) for k in ("x", "y", "width", "height"))
            xs += [x, x + width]
            ys += [y, y + height]
    return min(xs), min(ys), max(xs), max(ys)


def with_pictures(html: str, made: dict[str, Picture]) -> str:
    """Return HTML with pictures in the place of formulas, and add them to those that are made."""

    def put(found: re.Match[str]) -> str:
        mathml = found[0]
        if mathml not in made:
            made[mathml] = picture(mathml)
        text = " ".join("".join(ElementTree.fromstring(mathml).itertext()).split())
        return made[mathml].tag(text)

    return MATH.sub(put, html)
