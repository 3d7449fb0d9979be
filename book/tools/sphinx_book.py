"""The book's own Sphinx extension: what `_config.yml` cannot say.

* The look is the theme in book/theme with the files of book/static/site; nothing comes from
  another theme or another server. `dress.py` makes the components, `formulas.py` the formulas,
  `pages.py` tidies what is finished, `search_index.py` and `editions.py` write what stands beside.
* The repository's address comes from pyproject.toml, its one place.
* A bibliography is a plain list to screen readers; docutils' roles for it are not valid ARIA.
* The package's docstrings are rewritten (docstrings.py), and names in single backticks are links.
"""

import base64
import hashlib
import io
import itertools
import posixpath
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import catalogs
import docstrings
import dress
import editions
import formulas
import interface
import notebooks
import offline
import pages
import playground
import pybtex.plugin
import questions
import repository
import search_index
import svg
from docutils import nodes
from docutils.statemachine import StringList
from PIL import Image
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.environment.adapters.toctree import global_toctree_for_doc
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode
from sphinx.writers.html5 import HTML5Translator
from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

import kdlearn
from kdlearn import losses

BOOK = repository.ROOT / "book"
SECTIONS = ["Convention", "Shape", "Source", "Taught in"]
# Scripts of parts of the book that have their own: loaded where the page has the mark.
HOME = "book/index"
SVG_IMAGE = re.compile(r'<img [^>]*src="[^"]*_images/(?P<name>[^"/]+\.svg)"[^>]*/?>')
LINK = re.compile(r'<a class="reference internal" href="(?P<target>[^"]*)">')
CARD = re.compile(r'<a [^>]*href="(?P<page>[^"#]+)\.html"[^>]*>(?=(?:<span[^>]*>)?<strong>)')
SCRIPTS = {
    "data-playground": "playground/playground.js",
    "data-mock": "interview/common.js interview/mock.js",
    "data-spot": "interview/common.js interview/spot.js",
}


@dataclass
class RoundBrackets(AuthorYearReferenceStyle):
    """Citations in round brackets: Hinton et al. (2015)."""

    bracket_textual: BracketStyle = field(default_factory=lambda: BracketStyle("(", ")"))
    bracket_parenthetical: BracketStyle = field(
        default_factory=lambda: BracketStyle("(", ")", sep="; ")
    )


class Site:
    """What every page says of the whole site; Chinese pages stand one folder below English ones."""

    def __init__(self) -> None:
        address = repository.read_address()
        self.chinese = not interface.english()
        self.language = "zh-CN" if self.chinese else "en"
        self.other = "en" if self.chinese else "zh-CN"
        self.up = "../" if self.chinese else ""
        self.url = address.url
        self.pages = address.pages
        self.prefix = f"/{address.name}/"
        self.version = kdlearn.__version__
        self.date = last_change()
        static = sorted((BOOK / "static").rglob("*.[cj]s*"))
        # Browsers keep a style as long as its address stays the same.
        self.stamp = hashlib.sha256(b"".join(x.read_bytes() for x in static)).hexdigest()[:8]

    def scripts(self, body: str | None) -> list[str]:
        """Return the scripts that a page needs beside the site's own."""
        return [
            name
            for mark, names in SCRIPTS.items()
            if mark in (body or "")
            for name in names.split()
        ]

    def twin(self, page: str) -> str:
        """Return where the same page is in the other language, from the root of this one, or ""."""
        if not catalogs.translated(page.removeprefix("book/")):
            return ""
        return f"../{page}.html" if self.chinese else f"zh/{page}.html"

    def source(self, page: str, suffix: str) -> str:
        """Return the file in which a page is written."""
        if self.chinese:
            name = page.removeprefix("book/")
            return catalogs.catalog_file(name).relative_to(repository.ROOT).as_posix()
        return page + suffix

    def address(self, path: str) -> str:
        """Return a path from the root of this language as an address."""
        return self.pages + (path.removeprefix("../") if self.chinese else path)


def last_change() -> str:
    """Return the day of the last commit, or nothing outside a repository."""
    command = ["git", "log", "-1", "--format=%cs"]
    done = subprocess.run(command, cwd=repository.ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def set_address(app: Sphinx, config: Config) -> None:
    """Fill in whatever depends on where the repository and its pages are."""
    address = repository.read_address()
    interface.speak(config.language, catalogs.texts(catalogs.SITE, config.language))
    pages_address = address.pages if interface.english() else f"{address.pages}zh/"
    # Jupyter Book fills in the options of its own theme.
    config["html_theme_options"] = {}
    config["html_baseurl"] = pages_address
    config["ogp_site_url"] = pages_address
    config["ogp_image"] = f"{address.pages}_static/site/card.png"
    config["kdlearn_colab"] = editions.colab(address)


def visit_citation(translator: HTML5Translator, node: nodes.citation) -> None:
    """Open a bibliography's list before its first entry, and the entry."""
    if not isinstance(node.previous_sibling(), nodes.citation):
        translator.body.append('<div role="list" class="citation-list">\n')
    translator.body.append(translator.starttag(node, "div", CLASS="citation", role="listitem"))


def depart_citation(translator: HTML5Translator, node: nodes.citation) -> None:
    """Close the entry, and after the last one the list."""
    following = node.next_node(descend=False, siblings=True, ascend=False)
    last = not isinstance(following, nodes.citation)
    translator.body.append("</div>\n</div>\n" if last else "</div>\n")


class LossesOf(SphinxDirective):
    """`losses-of`: every loss of some files of kdlearn/losses, under its own name."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Have autodoc write each of them."""
        files = self.arguments[0].split()
        names = [x for x in losses.__all__ if _family(getattr(losses, x)) in files]
        lines = [line for x in names for line in (f".. autofunction:: kdlearn.losses.{x}", "")]
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, source=""), self.content_offset, node)
        return node.children


def _family(loss: Callable[..., Any]) -> str:
    return loss.__module__.rpartition(".")[2]


def link_by_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.reference | None:
    """Link a plain name in a docstring to the one object of the package that ends in it."""
    domain = env.get_domain("py")
    if node.get("refdomain") != "py" or node["reftype"] != "obj":
        return None
    named = {
        name: entry
        for name, entry in domain.data["objects"].items()
        if name.endswith(f".{node['reftarget']}") and entry.objtype != "module"
    }
    if not named:
        return None
    name = min(named, key=lambda name: (name.count("."), len(name)))
    entry = named[name]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


@cache
def all_chapters(app: Sphinx) -> str:
    """Return the list of all chapters, with their numbers, as the first page would show it."""
    home = app.config.root_doc
    options: dict[str, Any] = {"maxdepth": 1, "includehidden": True, "titles_only": True}
    tree = global_toctree_for_doc(app.env, home, app.builder, collapse=False, **options)
    listed = app.builder.render_partial(tree)["fragment"]  # type: ignore[attr-defined]
    return re.sub(r'<p class="caption"[^>]*>', '<p class="caption">', listed)


def chapters(app: Sphinx, page: str) -> str:
    """Return the list of all chapters as a page shows it.

    Sphinx's own ``toctree()`` makes it anew for each page, which is a sixth of the whole build.
    """
    base = posixpath.dirname(app.builder.get_target_uri(app.config.root_doc))
    here = app.builder.get_target_uri(page)

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(base, match["target"]))
        if target == here:
            return '<a class="current reference internal" href="#">'
        way = posixpath.relpath(target, posixpath.dirname(here) or ".")
        return f'<a class="reference internal" href="{way}">'

    return LINK.sub(link, all_chapters(app))


def finish_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Tidy a page's text and hand the template what it shows around it."""
    if "body" in context:
        body = with_figures(app, pages.mend(context["body"]))
        context["body"] = with_thumbnails(body) if page == HOME else body
    context["site"] = app.kdlearn_site  # type: ignore[attr-defined]
    context["_"] = interface._
    context["page_contents"] = pages.page_contents
    context["chapters"] = chapters(app, page)


def with_figures(app: Sphinx, body: str) -> str:
    """Return a page with its SVG figures in it."""
    stored = {name: path for path, name in app.builder.images.items()}
    count = itertools.count(1)

    def figure(match: re.Match[str]) -> str:
        path = Path(app.srcdir) / stored[match["name"]]
        alt = unescape(re.search(r'alt="([^"]*)"', match[0])[1])  # type: ignore[index]
        return svg.inline(path.read_text(encoding="utf-8"), alt, next(count))

    return SVG_IMAGE.sub(figure, body)


def with_thumbnails(body: str) -> str:
    """Return the first page with a picture on each card: the first figure of its chapter."""

    def picture(match: re.Match[str]) -> str:
        image = thumbnail(BOOK / f"{match['page'].rpartition('../book/')[2]}.ipynb")
        return match[0] + (f'<img class="thumb" src="{image}" alt="">' if image else "")

    return CARD.sub(picture, body)


LIGHT = 30_000  # characters of a figure that the first page can carry


def thumbnail(chapter: Path) -> str:
    """Return a chapter's first light figure as an address that needs no request, or nothing.

    A page that is no notebook has none.
    """
    if not chapter.exists():
        return ""
    for cell in notebooks.code_cells(notebooks.read(chapter)):
        for data in (output.get("data", {}) for output in cell.outputs):
            if len(data.get("image/svg+xml", "")) in range(1, LIGHT):
                # Not base64, which a server cannot compress.
                return f"data:image/svg+xml,{quote(data['image/svg+xml'], safe=' /:=;,()')}"
            if "image/png" in data:
                small = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
                small.thumbnail((440, 300))
                file = io.BytesIO()
                small.save(file, "WEBP", quality=70)
                return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return ""


def further_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Return the pages that no file of the book holds."""
    yield "search", {"title": interface._("Search")}, "search.html"
    if not app.kdlearn_site.chinese:  # type: ignore[attr-defined]
        yield "404", {"title": "Page not found"}, "404.html"


def begin(app: Sphinx) -> None:
    """Prepare the builder: the site has its own search index."""
    app.kdlearn_site = Site()  # type: ignore[attr-defined]
    if app.builder.format == "html":
        app.builder.search = False  # type: ignore[attr-defined]


def finish(app: Sphinx, error: Exception | None) -> None:
    """Write what stands beside the pages."""
    if error is not None or app.builder.format != "html":
        return
    search_index.write(Path(app.outdir))
    if not interface.english():
        questions.write_bank(Path(app.outdir))
        (Path(app.outdir) / "texts.js").write_text(interface.script(), encoding="utf-8")
        return
    questions.write(Path(app.outdir), repository.read_address().pages)
    editions.write_all(Path(app.outdir) / "notebooks")
    playground.bundle(Path(app.outdir) / "_static/playground")
    offline.write(Path(app.outdir))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything above."""
    # Asked for each citation, and it reads the metadata of every installed package each time.
    pybtex.plugin.find_plugin = cache(pybtex.plugin.find_plugin)
    register_plugin("sphinxcontrib.bibtex.style.referencing", "author_year_round", RoundBrackets)
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    # Jupyter Book sets it whether the extension that reads it is there or not.
    app.add_config_value("comments_config", {}, "env")
    app.add_html_theme("kdlearn", str(BOOK / "theme"))
    app.add_directive("losses-of", LossesOf)
    dress.setup(app)
    formulas.setup(app)
    questions.setup(app)
    app.connect("config-inited", set_address, priority=10)
    app.connect("builder-inited", begin)
    app.connect("html-page-context", finish_page)
    app.connect("html-collect-pages", further_pages)
    app.connect("build-finished", finish)
    app.connect("autodoc-process-docstring", docstrings.rewrite, priority=10)
    app.connect("autodoc-process-signature", docstrings.mend_signature)
    app.connect("missing-reference", link_by_name)
    app.add_node(nodes.citation, override=True, html=(visit_citation, depart_citation))
    app.config["napoleon_custom_sections"] = SECTIONS
    app.config["napoleon_use_ivar"] = True
    app.config["napoleon_use_rtype"] = False
    return {"parallel_read_safe": True, "parallel_write_safe": True}
