"""The package's docstrings, as Sphinx gets them: blocks made sections, and where a loss is taught.

The house's blocks are `Convention`, whose lines are items that may go on in the next line, and
`Source`. Sphinx's napoleon reads neither as they stand.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils.nodes import make_id
from drill_links import drill_link
from notebooks import BOOK, read

from kdlearn import losses

STAR = re.compile(r"(?<=, )\*(?=\w+[,)])")
HEADER = re.compile(r"(Convention|Source)\b:?\s*(.*)")
# The heading in the loss atlas of each file of kdlearn/losses.
FAMILIES = {
    "logits": "Logits",
    "attention": "Attention",
    "features": "Features",
    "relations": "Relations between samples",
    "transformers": "Transformers",
    "language": "Language models",
    "estimators": "Language models",
}
ATLAS = "reference/loss-atlas"


def items(lines: list[str]) -> list[str]:
    """Join the lines of a block to its items.

    A line goes on with the one before if it hangs below it, or if that one ends no sentence.
    """
    found: list[str] = []
    begun = False
    for line in lines:
        text = line.strip()
        hangs = line.startswith(" ") or not text[:1].isupper() and not text.startswith(("`", ":"))
        if begun and text and (hangs or not found[-1].endswith((".", ":", ";", ")"))):
            found[-1] += f" {text}"
        elif text:
            found.append(text)
        begun = bool(text)
    return found


def blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Cut a docstring into its blocks (name, lines) and what is between them ("", lines)."""
    name: str = ""
    part: list[str] = []
    for line in lines:
        header = HEADER.fullmatch(line)
        if line and not line.startswith(" ") and (header or name):
            yield name, part
            name, part = (header[1], [f"    {header[2]}"]) if header else ("", [line])
        else:
            part.append(line)
    yield name, part


def sections(lines: list[str]) -> list[str]:
    """Rewrite the house's blocks in the way that napoleon reads.

    Also escapes the star of a shape such as (B, C, *spatial), which would open an emphasis.
    """
    written: list[str] = []
    for name, part in blocks(lines):
        part = [x if ">>>" in x else STAR.sub(r"\*", x) for x in part]
        if name == "Convention":
            lines = [x.removeprefix("    ") for x in part]
            end = next((k for k, line in enumerate(lines) if line.startswith("====")), len(lines))
            written += ["Convention:", "", *(f"    * {item}" for item in items(lines[:end]))]
            written += ["", *(f"    {x}" for x in lines[end:])] if lines[end:] else []  # a table
        elif name == "Source":
            written += ["Source:", "    " + " ".join(x.strip() for x in part if x.strip())]
        else:
            written += part
        written += [""] if name else []
    return written


def title(chapter: str) -> str:
    """Return the title of a chapter, given by its path below book/ without the suffix."""
    return str(read(BOOK / f"{chapter}.ipynb").cells[0].source).removeprefix("# ")


def table(path: Path = BOOK / "tools/taught.toml") -> dict[str, dict[str, str]]:
    """Return for some losses the chapter and the drill that teach it."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def taught(loss: str) -> list[tuple[str, str]]:
    """Return where a loss is taught: texts, and addresses below book/ with their anchors."""
    entry = table().get(loss, {})
    family = FAMILIES[getattr(losses, loss).__module__.rpartition(".")[2]]
    places = []
    if "chapter" in entry:
        places.append((title(entry["chapter"]), f"{entry['chapter']}.html"))
    if "drill" in entry:
        link = drill_link(entry["drill"])
        places.append((f"the drill “{link.title}”", link.address))
    return [*places, (f"{title(ATLAS)}, {family}", f"{ATLAS}.html#{make_id(family)}")]


def rewrite(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring in place, as Sphinx's event `autodoc-process-docstring` wants it."""
    lines[:] = sections(lines)
    loss = name.removeprefix("kdlearn.losses.")
    if name != loss and loss in losses.__all__:
        links = [f"`{text} <../../{address}>`__" for text, address in taught(loss)]
        lines += ["", "Taught in:", "    " + ", ".join(links) + "."]


def mend_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: Any
) -> tuple[str | None, Any]:
    """Write `...` for a default such as `<factory>` or a lambda, which Sphinx cannot read."""
    return signature and re.sub(r"= <.+?>+(?=[,)])", "= ...", signature), returned
