"""The dress of a chapter on the site: its header, its known headings, its components, its cells.

The notebook's Markdown stays plain. What a heading says by its words is known here by its words;
what no heading can say is a directive. CONTRIBUTING.md has the list, `editions.py` says the same in
Markdown for a notebook in Jupyter or on Colab.
"""

import ast
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from drill_links import drill_link
from interface import _, english
from messages import ANCHOR
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

# The headings that every chapter has; their sections get a class, which site.css dresses.
PARTS = {
    "The question": "question",
    "Your bet": "your-bet",
    "In 30 seconds": "thirty-seconds",
    "In two minutes": "two-minutes",
    "The picture": "picture",
    "The mathematics": "mathematics",
    "The code": "the-code",
    "The experiment": "experiment",
    "What goes wrong": "goes-wrong",
    "Follow-ups": "follow-ups",
    "Drill": "the-drill",
    "Sources": "sources",
}
# How long an answer is that is said aloud, for its clock.
SECONDS = {"thirty-seconds": 30, "two-minutes": 120}
TITLES = {
    "wrong-answer": "A common wrong answer",
    "symptom": "The symptom",
    "verdict": "The verdict",
}


class Component(nodes.General, nodes.Element):
    """A `div` with a class and data; what is in it is read without scripts too."""


def visit_component(translator: HTML5Translator, node: Component) -> None:
    """Open it, with its title if it has one."""
    data = "".join(f' data-{name}="{escape(text)}"' for name, text in node["data"].items())
    translator.body.append(f'<div class="{" ".join(node["classes"])}"{data}>\n')
    if node["title"]:
        translator.body.append(f'<p class="callout-title">{escape(node["title"])}</p>\n')


def depart_component(translator: HTML5Translator, node: Component) -> None:
    """Close it."""
    translator.body.append("</div>\n")


def component(*classes: str, title: str = "", **data: str) -> Component:
    """Make an empty component."""
    return Component(classes=list(classes), title=title, data=data)


class Callout(SphinxDirective):
    """`wrong-answer`, `symptom`, `verdict`: a titled box around Markdown."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Parse what is inside."""
        node = component("callout", self.name, title=_(TITLES[self.name]))
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


class Bet(SphinxDirective):
    """`bet`: a question to which a reader bets a number, which the browser keeps."""

    has_content = True
    required_arguments = 1
    option_spec = {"unit": directives.unchanged, "question": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Parse the question; site.js adds the field."""
        node = component("bet", bet=self.arguments[0], unit=self.options.get("unit", ""))
        if "question" in self.options:
            node["data"]["question"] = self.options["question"]
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


class BetAnswer(SphinxDirective):
    """`bet-answer`: what it is, beside what the reader said."""

    has_content = True
    required_arguments = 1
    option_spec = {"value": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Parse the answer; site.js adds the reader's number."""
        if "value" not in self.options:
            raise self.error(f"bet-answer {self.arguments[0]} has no :value:, the number it is")
        data = {"answers": self.arguments[0], "value": self.options["value"]}
        node = component("callout", "bet-answer", title=_("The answer to the bet"), **data)
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


class DrillCard(SphinxDirective):
    """`drill`: a card that leads to a drill, with its title and minutes from the drill itself."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the card."""
        link = drill_link(self.arguments[0])
        # Drills stand in English pages; Chinese ones are in a folder of their own.
        depth = self.env.docname.count("/")
        folder = "../" * (depth - 1) if english() else "../" * (depth + 1) + "book/"
        language, mark = "", ""
        if not english():
            language, mark = ' hreflang="en"', f'<span class="in-english">{_("in English")}</span>'
        said = _(
            "A drill of {minutes} minutes, with a grader that names your mistake",
            minutes=link.minutes,
        )
        card = (
            f'<a class="drill-card" href="{folder}{link.address}"{language}>'
            f'<b lang="en">{escape(link.title)}</b>{mark}<span>{said}</span></a>'
        )
        return [nodes.raw("", card, format="html")]


def metadata(source: Path) -> dict[str, Any]:
    """Return what a notebook says about itself, or nothing for another page."""
    if source.suffix != ".ipynb":
        return {}
    found = json.loads(source.read_text(encoding="utf-8"))["metadata"].get("kdlearn", {})
    return dict(found)


def header(about: dict[str, Any], colab: str, download: str) -> str:
    """Return the lines under a chapter's title: time, needs, aims, and where to run it."""
    facts = []
    if "minutes" in about:
        about_minutes = _("About {n} minutes", n=about["minutes"])
        facts.append(f"<p class='minutes'>{about_minutes}</p>")
    if about.get("needs"):
        needs = escape(_(", ").join(about["needs"]))
        facts.append(f"<p><b>{_('You need')}</b> {needs}{_('.')}</p>")
    if about.get("say"):
        points = "".join(f"<li>{escape(point)}</li>" for point in about["say"])
        facts.append(f"<p><b>{_('You will be able to say')}</b></p><ul>{points}</ul>")
    run = (
        f'<p class="run-it"><a href="{colab}">{_("Run it on Colab")}</a>'
        f'<a href="{download}" download>{_("Download the notebook")}</a></p>'
    )
    return f'<div class="chapter-head">{"".join(facts)}{run}</div>'


def dress(app: Sphinx, document: nodes.document) -> None:
    """Give a page its header and its sections their classes, when it has been read."""
    name = app.env.docname
    source = Path(app.env.doc2path(name))
    if source.suffix == ".ipynb":
        file = Path(name).relative_to("book").with_suffix(".ipynb").as_posix()
        if english():
            up = "../" * name.count("/")
        else:
            # Beside the English ones, one folder above the Chinese pages.
            up, file = "../" * (name.count("/") + 1), f"zh/{file}"
        colab = f"{app.config['kdlearn_colab']}/book/{file}"
        head = header(metadata(source), colab, f"{up}notebooks/{file}")
        title = next(iter(document.findall(nodes.title)))
        title.parent.insert(title.parent.index(title) + 1, nodes.raw("", head, format="html"))
    parts = {_(title): part for title, part in PARTS.items()}
    for section in document.findall(nodes.section):
        title = section.next_node(nodes.title)
        part = parts.get(title.astext()) if title is not None else None
        if part:
            section["classes"] += ["part", part]
        if part in SECONDS:
            clock = component("clock", seconds=str(SECONDS[part]))
            section.insert(1, clock)


class Anchors(SphinxTransform):
    """Give a translated section the address that it has in English."""

    # Before anything looks at the names of sections.
    default_priority = 5

    def apply(self, **_kwargs: Any) -> None:
        """Take the address from the class that stands for it."""
        for section in self.document.findall(nodes.section):
            marked = [name for name in section["classes"] if name.startswith(ANCHOR)]
            for name in marked:
                section["classes"].remove(name)
                wanted, had = name.removeprefix(ANCHOR), section["ids"][0]
                if wanted not in self.document.ids:
                    section["ids"][0] = wanted
                    self.document.ids[wanted] = self.document.ids.pop(had)
                    for known, target in self.document.nameids.items():
                        if target == had:
                            self.document.nameids[known] = wanted


def asserted(source: str) -> int:
    """Count the claims of a cell: its assert statements.

    Example:
        >>> asserted("assert a < b; assert c")
        2
    """
    return sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source)))


def cells(document: nodes.document) -> Iterator[nodes.container]:
    """Return the code cells of a page."""
    for node in document.findall(nodes.container):
        if node.get("nb_element") == "cell_code":
            yield node


def code_of(cell: nodes.container) -> str:
    """Return the source of a cell."""
    block = cell.next_node(nodes.literal_block)
    return block.astext() if block is not None else ""


class FoldCells(SphinxPostTransform):
    """Say what is behind the fold of a cell; fold the claims, which myst-nb does not know."""

    # Before myst-nb folds, at 199.
    default_priority = 190
    formats = ("html",)

    def run(self, **_kwargs: Any) -> None:
        """Look at each cell of the page."""
        for cell in cells(self.document):
            code = code_of(cell)
            prompt = _("The code of this output")
            if "tag_claims" in cell["classes"]:
                count = asserted(code)
                prompt = _("1 claim checked") if count == 1 else _("{n} claims checked", n=count)
                fold = HideCodeCellNode(prompt_show=prompt, prompt_hide=prompt)
                fold["classes"].append("claims")
                fold.extend(cell.children)
                cell.children = [fold]
            elif code.startswith("# Set-up."):
                prompt = _("Set-up")
                cell["classes"].append("set-up")
            elif cell.get("hide_mode") == "all":
                prompt = _("Code, with its output")
            cell["prompt_show"] = cell["prompt_hide"] = prompt


def visit_fold(translator: HTML5Translator, node: nodes.Element) -> None:
    """Open a fold with one line that says what is in it."""
    classes = " ".join(["fold", *node["classes"]])
    summary = escape(node["prompt_show"])
    translator.body.append(f'<details class="{classes}">\n<summary>{summary}</summary>\n')


def depart_fold(translator: HTML5Translator, node: nodes.Element) -> None:
    """Close it."""
    translator.body.append("</details>\n")


def setup(app: Sphinx) -> None:
    """Register the directives, the transforms and how they are written."""
    for name in TITLES:
        app.add_directive(name, Callout)
    app.add_directive("bet", Bet)
    app.add_directive("bet-answer", BetAnswer)
    app.add_directive("drill", DrillCard)
    app.add_node(Component, html=(visit_component, depart_component))
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, depart_fold))
    app.add_transform(Anchors)
    app.add_post_transform(FoldCells)
    app.add_config_value("kdlearn_colab", "", "env")
    app.connect("doctree-read", dress)
