"""Formulas as MathML, made when the site is built, so that no page needs a script for them.

latex2mathml does nearly all of it. What is added: argmax, big fences that have a name, and limits
above and below sums in displayed formulas.
"""

import re
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
SPELLINGS = {
    r"\arg\max": r"\operatorname*{argmax}",
    r"\arg\min": r"\operatorname*{argmin}",
}
FENCES = {
    r"\|": "‖",
    r"\lVert": "‖",
    r"\rVert": "‖",
    r"\Vert": "‖",
    r"\lvert": "|",
    r"\rvert": "|",
    r"\vert": "|",
    r"\langle": "⟨",
    r"\rangle": "⟩",
    r"\lfloor": "⌊",
    r"\rfloor": "⌋",
    r"\lceil": "⌈",
    r"\rceil": "⌉",
    r"\{": "{",
    r"\}": "}",
}
LIMITS = {"msubsup": "munderover", "msub": "munder", "msup": "mover"}
LARGE = {"∑", "∏", "max", "min", "argmax", "argmin", "lim"}


def mathml(latex: str, display: bool) -> str:
    """Return a formula as MathML.

    Raises:
        ValueError: a command is not known; the message has the command and the formula.

    Example:
        >>> mathml("T^2", display=False)
        '<math display="inline"><msup><mi>T</mi><mn>2</mn></msup></math>'
    """
    text = latex.strip()
    for old, new in SPELLINGS.items():
        text = text.replace(old, new)
    root = ElementTree.fromstring(convert(text, display="block" if display else "inline"))
    for element in list(root.iter()):
        element.tag = element.tag.removeprefix(f"{{{NAMESPACE}}}")
        if display and element.tag in LIMITS and _name(element[0]) in LARGE:
            element.tag = LIMITS[element.tag]
        _join_letters(element)
        _mend_fence(element)
    for element in root.iter():
        _drop_rows(element)
    if [child.tag for child in root] == ["mrow"]:
        root[:] = list(root[0])
    unknown = [x.text for x in root.iter() if re.match(r"\\[a-zA-Z]", x.text or "")]
    if unknown:
        raise ValueError(f"{unknown[0]} in the formula {latex!r} is not known to latex2mathml")
    return ElementTree.tostring(root, encoding="unicode")


def _name(element: ElementTree.Element) -> str:
    return "".join(element.itertext()).replace("\u2009", "").strip()


def _join_letters(element: ElementTree.Element) -> None:
    """Make one identifier of the upright letters of a name such as KL."""
    previous = None
    for child in list(element):
        upright = child.tag.endswith("mi") and child.get("mathvariant") == "normal"
        if upright and previous is not None:
            previous.text = (previous.text or "") + (child.text or "")
            element.remove(child)
        else:
            previous = child if upright else None
    for child in element:
        if child.get("mathvariant") == "normal" and len(child.text or "") > 1:
            del child.attrib["mathvariant"]


def _mend_fence(element: ElementTree.Element) -> None:
    """Write a fence as its character; only one that was made big or paired may grow."""
    if element.tag == "mo":
        element.text = FENCES.get(element.text or "", element.text)
        if element.text in ("‖", "|") and "stretchy" not in element.attrib:
            element.set("stretchy", "false")


def _drop_rows(element: ElementTree.Element) -> None:
    """Put in the place of a row of one element that element."""
    for place, child in enumerate(element):
        while child.tag == "mrow" and len(child) == 1:
            child = child[0]
            element[place] = child


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula in a line."""
    translator.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on lines of its own, which scrolls inside itself if it is too wide."""
    formula = mathml(node.astext(), display=True)
    translator.body.append(f'<div class="formula" tabindex="0">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Let Sphinx write formulas this way."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config["html_math_renderer"] = "mathml"
