"""Cut Markdown of the book into messages and put it together again from their translations.

A message is what is translated at once: a paragraph, a heading, an item of a list, a row of a
table, the words of a directive's option. What is left out is the same in every language: code,
formulas that stand alone, directives and their names, anchors, HTML. So a translation cannot lose
a part, and all languages have the same headings in the same order.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from docutils import nodes

Translate = Callable[[str], str]

FENCE = re.compile(r"^\s*(`{3,}|~{3,})(.*)$")
# Directives in backticks whose content is prose; the content of others is code or data.
PROSE = re.compile(r"\{glossary\}")
COLONS = re.compile(r"^\s*:{3,}")
OPTION = re.compile(r"^(\s*:(?:unit|question|caption|alt):\s*)(\S.*)$")
OTHER_OPTION = re.compile(r"^\s*:[\w-]+:")
HEADING = re.compile(r"^(#{1,6} )(.*)$")
ITEM = re.compile(r"^(\s*(?:[-*+]|\d+\.)\s+)(.*)$")
QUOTE = re.compile(r"^(\s*>\s?)(.*)$")
ROW = re.compile(r"^\s*\|")
RULE = re.compile(r"^[\s|:-]+$")
# Lines that say nothing themselves: attributes, anchors, comments.
SILENT = re.compile(r"^\s*(\{[.#][^}]*\}|\([\w-]+\)=|<!--.*-->)\s*$")
ANCHOR = "anchor--"
COMMENT = re.compile(r"\s*<!--.*?-->", re.DOTALL)
HTML = re.compile(
    r"^\s*</?(?:details|summary|div|noscript|img|p|section|span|form|label|input|ol)\b"
)
OPEN_SUMMARY = re.compile(r"<summary>(?!.*</summary>)")
# What of a line of HTML is read: a summary, a paragraph, the text of an image.
HTML_WORDS = re.compile(
    r"(?<=<summary>).*?(?=</summary>)|(?<=<p>).*?(?=</p>)"
    r'|(?<=">)[^<]*(?=</label>)|(?<=\balt=").*?(?=")'
)
INLINE = re.compile(r"\{[a-z:]+\}`[^`]+`|`[^`]+`|\$[^$]+\$|\]\([^)]*\)|<[^>]+>")
WORDS = re.compile(r"[^\W\d_]")


def speaks(text: str) -> bool:
    """Tell whether a text has words, beside formulas, code, citations and addresses.

    Example:
        >>> speaks("{cite:t}`gou2021knowledge`, $T$"), speaks("the **T** of `f`")
        (False, True)
    """
    return bool(WORDS.search(INLINE.sub("", text)))


def anchor(title: str) -> str:
    """Return the anchor that Sphinx makes of a title in English.

    Example:
        >>> anchor("Why `T`, and *what else*?")
        'why-t-and-what-else'
    """
    plain = re.sub(r"\{[a-z:]+\}`([^`<]*?)(?:\s*<[^`]*>)?`", r"\1", title)
    plain = re.sub(r"\]\([^)]*\)|[*`$\[]", "", plain)
    return nodes.make_id(plain)


def anchored(title: str) -> str:
    """Return the line before a translated heading that keeps its address: see dress.Anchors."""
    return f"{{.{ANCHOR}{anchor(title)}}}"


def _say(text: str, translate: Translate) -> str:
    plain = COMMENT.sub("", " ".join(text.split()))
    return translate(plain) if speaks(plain) else plain


def translated(markdown: str, translate: Translate) -> str:
    r"""Return Markdown with each of its messages translated.

    Args:
        markdown: a page, or a cell of a notebook.
        translate: takes a message as one line, and returns one line.

    Example:
        >>> print(translated("## A title\n\n- one\n  line\n- $T$", str.upper))
        {.anchor--a-title}
        ## A TITLE
        <BLANKLINE>
        - ONE LINE
        - $T$
    """
    return "\n".join(_lines(markdown, translate))


def _lines(markdown: str, translate: Translate) -> Iterator[str]:
    prefix, waiting = "", list[str]()
    fence, formula, glossary = "", False, False

    def flush() -> Iterator[str]:
        if waiting:
            yield prefix + _say(" ".join(waiting), translate)
            waiting.clear()

    lines = iter(markdown.split("\n"))
    for line in lines:
        if fence:
            fence = "" if line.strip() == fence else fence
            yield line
        elif formula:
            formula = not line.rstrip().endswith("$$")
            yield line
        elif (match := FENCE.match(line)) and glossary and not match[2]:
            yield from flush()
            glossary = False
            yield line
        elif match:
            yield from flush()
            glossary = bool(PROSE.search(match[2]))
            fence = "" if glossary else match[1]
            yield line
        elif line.lstrip().startswith("$$"):
            yield from flush()
            formula = line.count("$$") % 2 == 1
            yield line
        elif not line.strip() or COLONS.match(line) or SILENT.match(line):
            yield from flush()
            yield line
        elif not waiting and (match := OPTION.match(line)):
            yield match[1] + _say(match[2], translate)
        elif not waiting and OTHER_OPTION.match(line):
            yield line
        elif HTML.match(line):
            yield from flush()
            while OPEN_SUMMARY.search(line):
                line += " " + next(lines).strip()
            yield HTML_WORDS.sub(lambda words: _say(words[0], translate), line)
        elif ROW.match(line):
            yield from flush()
            yield line if RULE.match(line) else _say(line, translate)
        elif match := HEADING.match(line):
            yield from flush()
            said = _say(match[2], translate)
            if said != match[2]:
                yield anchored(match[2])
            yield match[1] + said
        elif glossary and not line.startswith((" ", ":")):
            # The name of an entry, by which pages link to it.
            yield from flush()
            yield line
        elif match := ITEM.match(line):
            yield from flush()
            prefix = match[1]
            waiting.append(match[2])
        elif (match := QUOTE.match(line)) and not waiting:
            prefix = match[1]
            waiting.append(match[2])
        elif match:
            waiting.append(match[2])
        else:
            if not waiting:
                prefix = line[: len(line) - len(line.lstrip())]
            waiting.append(line)
    yield from flush()


def translate_notebook(notebook: Any, translate: Translate) -> None:
    """Translate a notebook's Markdown, what its header says, captions and texts of its figures."""
    about = notebook.metadata.get("kdlearn", {})
    for key in ("needs", "say"):
        if key in about:
            about[key] = [translate(text) for text in about[key]]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = translated(cell.source, translate)
        shown = cell.metadata.get("mystnb", {})
        for part, key in (("figure", "caption"), ("image", "alt")):
            if key in shown.get(part, {}):
                shown[part][key] = translate(" ".join(shown[part][key].split()))
