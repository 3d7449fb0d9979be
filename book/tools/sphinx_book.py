"""The book's own Sphinx extension: what `_config.yml` cannot say.

* The repository's address comes from pyproject.toml, its one place.
* MathJax is served by the site itself, without the parts that no page uses.
* A bibliography is a plain list to screen readers; docutils' roles for it are not valid ARIA.
* A table can be reached by keyboard, since a wide one scrolls inside itself; the lines of a long
  signature are no list.
* The package's docstrings are rewritten (docstrings.py), and names in single backticks are links.
"""

import importlib.metadata
import re
import shutil
from pathlib import Path
from typing import Any

import docstrings
import repository
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode
from sphinx.writers.html5 import HTML5Translator

SECTIONS = ["Convention", "Shape", "Source", "Taught in"]
SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)
UNUSED_MATHJAX = [
    "[!t]*.js",  # the bundles of other inputs and outputs
    "tex-[!c]*.js",
    "tex-chtml-*.js",
    "adaptors",
    "input/asciimath*",
    "input/mml*",
    "output/svg*",
    "sre",
]


def set_address(app: Sphinx, config: Config) -> None:
    """Fill in whatever depends on where the repository and its pages are."""
    address = repository.read_address()
    config["html_theme_options"]["repository_url"] = address.url
    config["html_baseurl"] = address.pages
    config["ogp_site_url"] = address.pages
    config["notfound_urls_prefix"] = f"/{address.name}/"


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy MathJax next to the other static files."""
    if error is None and app.builder.format == "html":
        package = importlib.metadata.distribution("sphinx-mathjax-offline")
        source = Path(str(package.locate_file("sphinx-mathjax-offline/static/mathjax")))
        target = Path(app.outdir) / "_static" / "mathjax"
        shutil.copytree(source, target, dirs_exist_ok=True)
        for pattern in UNUSED_MATHJAX:
            for path in target.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


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


def mend_body(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Make every table of a page focusable, and the parameters of a signature plain lines."""
    if "body" in context:
        body = context["body"].replace("<table ", '<table tabindex="0" ')
        context["body"] = SIGNATURE.sub(without_list, body)


def without_list(signature: re.Match[str]) -> str:
    """Return a signature whose lines are no list; Sphinx's has descriptions without terms."""
    text = signature[0].replace("<dl>", '<div class="sig-lines">').replace("</dl>", "</div>")
    return text.replace("<dd>", "<div>").replace("</dd>", "</div>")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything above."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("config-inited", set_address, priority=10)
    app.connect("html-page-context", mend_body)
    app.connect("build-finished", copy_mathjax)
    app.connect("autodoc-process-docstring", docstrings.rewrite, priority=10)
    app.connect("autodoc-process-signature", docstrings.mend_signature)
    app.connect("missing-reference", link_by_name)
    app.add_node(nodes.citation, override=True, html=(visit_citation, depart_citation))
    app.config["mathjax_path"] = "mathjax/tex-chtml.js"
    app.config["napoleon_custom_sections"] = SECTIONS
    app.config["napoleon_use_ivar"] = True
    app.config["napoleon_use_rtype"] = False
    return {"parallel_read_safe": True, "parallel_write_safe": True}
