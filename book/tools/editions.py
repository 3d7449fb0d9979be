"""The notebook edition: each chapter as Jupyter and Colab can show it, without roles or directives.

python book/tools/editions.py FOLDER    write every edition, and all of them as one archive

The source stays what it is; in the edition a term is a link to the site's glossary, a citation is
"Hinton et al. (2015)" linked to its entry, a link to another chapter leads to the site, and a
component is a quotation with a bold beginning. Code and outputs are those of the source. Colab
opens files of GitHub only, so the workflow `publish` pushes the editions to the branch `notebooks`.
"""

import re
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import notebooks
import repository
from drill_links import drill_link
from interface import _, english
from messages import ANCHOR
from pybtex.database import Person, parse_file

ROOT = repository.ROOT
BRANCH = "notebooks"
ROLE = re.compile(r"\{([a-z:]+)\}`([^`]+)`")
TARGET = re.compile(r"(.*?)\s*<([^<>]+)>", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s]+)\)")
DIRECTIVE = re.compile(
    r"^(?P<fence>:{3,}|`{3,})\{(?P<name>[\w-]+)\}[ \t]*(?P<argument>[^\n]*)\n"
    r"(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
OPTION = re.compile(r"^:([\w-]+):[ \t]*([^\n]*)\n", re.MULTILINE)
# What the Chinese pages have beside Markdown: the address of a heading, a link to English.
ADDRESS = re.compile(rf"^\{{\.{ANCHOR}[^}}]*\}}\n", re.MULTILINE)
ENGLISH = re.compile(
    r'<a href="(?:\.\./)+book/([^"]+)" hreflang="en">(.*?)<span class="in-english">(.*?)</span></a>'
)
COMMENT = re.compile(r"[ \t]*<!--.*?-->", re.DOTALL)
CODE = re.compile(r"^(`{3,}|~{3,})(?!\{).*?^\1[ \t]*$", re.DOTALL | re.MULTILINE)
OPENINGS = {
    "bet": "Your bet.",
    "bet-answer": "The answer to the bet.",
    "wrong-answer": "A common wrong answer.",
    "symptom": "The symptom.",
    "verdict": "The verdict.",
}


def colab(address: repository.Address) -> str:
    """Return where Colab opens the editions."""
    github = f"https://colab.research.google.com/github/{address.owner}/{address.name}"
    return f"{github}/blob/{BRANCH}"


@cache
def english_site() -> str:
    """Return the address of the book's English pages."""
    return f"{repository.read_address().pages}book/"


def site() -> str:
    """Return the address of the book's pages in the language of this edition."""
    return english_site() if english() else f"{repository.read_address().pages}zh/book/"


@cache
def glossary() -> dict[str, str]:
    """Return for each term, in small letters, its anchor in the glossary."""
    text = (ROOT / "book/interview/glossary.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\{glossary\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    terms = [x for block in blocks for x in block.splitlines() if x and x[0] not in " :"]
    return {x.lower(): f"term-{re.sub(r'[^a-zA-Z0-9._-]+', '-', x).strip('-')}" for x in terms}


@cache
def sources() -> dict[str, tuple[str, str]]:
    """Return for each source its authors, shortened as a text cites them, and its year or ""."""
    entries = parse_file(str(ROOT / "book/references.bib")).entries
    return {
        key: (cited([_last(x) for x in entry.persons["author"]]), entry.fields.get("year", ""))
        for key, entry in entries.items()
    }


def _last(person: Person) -> str:
    return " ".join([*person.prelast_names, *person.last_names]).replace("{", "").replace("}", "")


def cited(names: list[str]) -> str:
    """Return authors as a text names them.

    Example:
        >>> cited(["Hinton", "Vinyals", "Dean"]), cited(["Ba", "Caruana"]), cited(["Gou"])
        ('Hinton et al.', 'Ba and Caruana', 'Gou')
    """
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)


def term(text: str) -> str:
    """Return a term as a link to the glossary."""
    match = TARGET.fullmatch(text)
    shown, name = (match[1], match[2]) if match else (text, text)
    anchor = glossary()[" ".join(name.split()).lower()]
    return f"[{shown}]({site()}interview/glossary.html#{anchor})"


def citation(keys: str, textual: bool) -> str:
    """Return one or several citations as links to their entries."""
    links = []
    for key in re.split(r"\s*,\s*", keys.strip()):
        names, year = sources()[key]
        dated = f"{names} ({year})" if textual else f"{names}, {year}"
        shown = dated if year else names
        links.append(f"[{shown}]({site()}references.html#cite-{key})")
    return ", ".join(links) if textual else f"({'; '.join(links)})"


ROLES: dict[str, Callable[[str], str]] = {
    "term": term,
    "cite:t": lambda keys: citation(keys, textual=True),
    "cite:p": lambda keys: citation(keys, textual=False),
}


def role(match: re.Match[str]) -> str:
    """Return what stands for a role."""
    if match[1] not in ROLES:
        raise ValueError(
            f"the role {match[0]!r} has no form in the notebook edition: known are "
            f"{', '.join(ROLES)}; add it to ROLES in book/tools/editions.py."
        )
    return ROLES[match[1]](match[2])


def directive(match: re.Match[str]) -> str:
    """Return what stands for a directive: a quotation that begins in bold."""
    name, argument = match["name"], match["argument"].strip()
    options = dict(OPTION.findall(match["body"]))
    body = OPTION.sub("", match["body"]).strip()
    if name == "drill":
        link = drill_link(argument)
        minutes = _("{n} minutes", n=link.minutes)
        return f"> **{_('Drill:')}** [{link.title}]({english_site()}{link.address}), {minutes}."
    if name not in OPENINGS:
        raise ValueError(
            f"the directive {name!r} has no form in the notebook edition: known are drill, "
            f"{', '.join(OPENINGS)}; add it to OPENINGS in book/tools/editions.py."
        )
    opening = _(OPENINGS[name])
    if options.get("unit"):
        opening = _("Your bet, in {unit}.", unit=options["unit"])
    if options.get("question"):
        body += f"\n\n*{options['question']}*"
    return "\n".join(f"> {line}".rstrip() for line in f"**{opening}** {body}".splitlines())


def link(match: re.Match[str], folder: PurePosixPath) -> str:
    """Return a link into the book as one to the site."""
    path, _, anchor = match[1].partition("#")
    parts: list[str] = []
    for part in (folder / path).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    page = re.sub(r"\.(ipynb|md)$", ".html", "/".join(parts))
    return f"]({site()}{page}{'#' + anchor if anchor else ''})"


def in_english(match: re.Match[str]) -> str:
    """Return a link from a Chinese page to an English one, which says so."""
    return f"[{match[2]}（{match[3]}）]({english_site()}{match[1]})"


def markdown(text: str, folder: PurePosixPath) -> str:
    """Return Markdown without roles, directives, comments and links that lead nowhere on Colab.

    Args:
        text: a Markdown cell of the source.
        folder: where its notebook stands below book/.
    """
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = ADDRESS.sub("", ENGLISH.sub(in_english, text))
    text = DIRECTIVE.sub(directive, CODE.sub(keep, text))
    text = LINK.sub(lambda match: link(match, folder), ROLE.sub(role, COMMENT.sub("", text)))
    return re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text)


def heading_line(about: dict[str, Any], page: str) -> str:
    """Return the line under a chapter's title."""
    facts = []
    if "minutes" in about:
        facts.append(_("About {n} minutes", n=about["minutes"]) + _("."))
    if about.get("needs"):
        facts.append(f"{_('You need')} {_(', ').join(about['needs'])}{_('.')}")
    if about.get("say"):
        aims = _("; ").join(about["say"])
        facts.append(f"{_('You will be able to say')}{_(': ')}{aims}{_('.')}")
    # Chinese has no spaces between sentences.
    gap = " " if english() else ""
    facts.append(f"{_('The same on the site:')}{gap}[{page}]({page}){_('.')}")
    return f"*{gap.join(facts)}*"


def edition(path: Path, root: Path = ROOT) -> Any:
    """Return a chapter as a notebook that needs no Sphinx."""
    notebook = notebooks.read(path)
    name = PurePosixPath(path.relative_to(root / "book").as_posix())
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = markdown(cell.source, name.parent)
    page = f"{site()}{name.with_suffix('.html')}"
    notebook.cells[0].source += f"\n\n{heading_line(notebook.metadata.get('kdlearn', {}), page)}"
    return notebook


def write_all(folder: Path) -> None:
    """Write the editions of all chapters, and an archive that has them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "kdlearn-notebooks.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in notebooks.find([]):
            name = path.relative_to(notebooks.BOOK)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(notebooks.serialize(edition(path)), encoding="utf-8")
            # The day is left out, so that the same notebooks give the same archive.
            entry = zipfile.ZipInfo(f"kdlearn/{name.as_posix()}", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, target.read_bytes(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_all(Path(sys.argv[1]))
