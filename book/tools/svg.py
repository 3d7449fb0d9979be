"""Figures that matplotlib drew, put into the page: in its typeface, in its colors, light and dark.

A figure that a notebook stored as SVG is text, so that the page's style reaches it. Its colors are
those of `kdlearn.show.style`; each becomes the variable of the same name in site.css.
"""

import re
from html import escape

from kdlearn.show.style import GRAY, GRID, PALETTE

VARIABLES = {color.lower(): f"var(--{name})" for name, color in PALETTE.items()} | {
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
    "#999999": "var(--edge)",
    "#555555": "var(--soft)",
    GRAY: "var(--edge)",
    GRID: "var(--grid)",
}
COLOR = re.compile(r"(?<=[: ])#[0-9a-f]{6}\b")
FONT = re.compile(r"font-family: [^;\"]*(?:; )?|(?<=px) 'DejaVu Sans'[^;\"]*")
SIZE = re.compile(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', re.DOTALL)
NAME = re.compile(r' id="([^"]*)"')
LINE_ENDS = re.compile(r"\s*\n\s*")
TAG = re.compile(r"<g(?P<attributes>(?: [^>]*)?)>|</g>")
# matplotlib puts each dot of a plot into a group of its own, all cut off at the same frame.
DOTS = re.compile(r'(<g clip-path="[^"]*">) ?<use [^>]*/> ?</g>(?: ?\1 ?<use [^>]*/> ?</g>)+')
USE = re.compile(r"<use [^>]*/>")
DEFINED = re.compile(r"<defs/>|<defs>(.*?)</defs>", re.DOTALL)


def inline(svg: str, alt: str, number: int) -> str:
    """Return a figure as part of a page.

    Args:
        svg: what matplotlib wrote, with text as text.
        alt: its text alternative.
        number: its place on the page, for names that no other figure has.
    """
    used = set(re.findall(r"url\(#([^)]*)\)|xlink:href=\"#([^\"]*)\"", svg))
    names = {name for pair in used for name in pair if name}
    svg = NAME.sub(lambda match: match[0] if match[1] in names else "", svg)
    for name in names:
        svg = re.sub(rf'(?<=["#]){re.escape(name)}(?=["\)])', f"f{number}-{name}", svg)
    svg = COLOR.sub(lambda match: VARIABLES.get(match[0], match[0]), FONT.sub("", svg))
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    head = rf'<svg class="plot" role="img" aria-label="{escape(alt)}" viewBox="\1">'
    svg = LINE_ENDS.sub(" ", SIZE.sub(head, svg, count=1)).strip()
    return join_definitions(join_dots(without_bare_groups(svg)))


def without_bare_groups(svg: str) -> str:
    """Return a figure without the groups that say nothing: they are half of its nodes."""
    bare: list[bool] = []

    def kept(match: re.Match[str]) -> str:
        if match["attributes"] is None:
            return "" if bare.pop() else match[0]
        bare.append(not match["attributes"].strip())
        return "" if bare[-1] else match[0]

    return re.sub(r"> +<", "> <", TAG.sub(kept, svg))


def join_dots(svg: str) -> str:
    """Return a figure in which neighboring dots of one frame share a group."""
    return DOTS.sub(lambda match: match[1] + "".join(USE.findall(match[0])) + "</g>", svg)


def join_definitions(svg: str) -> str:
    """Return a figure with all its definitions at its end, which is where they may stand too."""
    defined = "".join(match[1] or "" for match in DEFINED.finditer(svg)).strip()
    end = f"<defs>{defined}</defs></svg>" if defined else "</svg>"
    return DEFINED.sub("", svg).removesuffix("</svg>") + end
