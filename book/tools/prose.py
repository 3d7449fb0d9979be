"""Numbers in prose: each one that was measured here stands in an output of its chapter.

A `x ± y`, a percentage, a number of points or a decimal in prose or in the text of a figure must
be, up to rounding, in an output or in the code of its chapter, or of a chapter that its sentence
links to. Not looked at are code, formulas, sentences that cite a source, and sentences that end in
`<!-- not measured here -->`: settings, arithmetic and examples.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import nbformat

EXEMPT = "<!-- not measured here -->"
# What in a text is no prose, or is prose of which a part is meant.
FENCE = re.compile(r" *(`{3,}|~{3,}|:{3,})(.*)")
MATH = re.compile(r"\$\$.*?\$\$|\$[^$\n]*(?:\n[^$\n]+)?\$", re.DOTALL)
ROLE = re.compile(r"\{(\w+)(?::\w+)?\}`[^`]*`")
CODE = re.compile(r"`+[^`]+`+")
LINK = re.compile(r"\]\(([^)\s]*)\)")
TAG = re.compile(r"<(?!!--)[^>]+>")
BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*|#>]|\d+\. ))")
SENTENCE = re.compile(r"(?:(?<=[.?!])[)\"*”]*|(?<=-->))\s+(?!<!--)(?=[^a-z])")

NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?"
PLAIN = re.compile(rf"(?<![\w.]){NUMBER}(?![\w.]*\d)")
SPREAD = re.compile(rf"({NUMBER}) ± ({NUMBER})")
SIGNED = re.compile(rf"(?<![\w.])[+\-−]({NUMBER})(?![\w.]*\d)")
UNIT = r"[ -]?(?P<unit>%|per ?cent\b|points?\b)"
BET = re.compile(
    r"^:{3,}\{bet\} *(?P<name>\S+)\n(?:(?!:unit:):.*\n)*(?::unit: *(?P<unit>.*))?", re.M
)
BET_ANSWER = re.compile(
    r"^:{3,}\{bet-answer\} *(?P<name>\S+)\n(?:(?!:value:):.*\n)*(?::value: *(?P<value>\S*))?", re.M
)
NAMED = re.compile(r"(?:sections?|Python|arXiv|version) [\d.]*\d(?: (?:and|to) [\d.]*\d)?")
# A number with a unit, the first of "5 and 6 points", or a decimal.
CLAIM = re.compile(
    rf"(?<![\w.,])(?P<one>{NUMBER})(?=(?:,? (?:and|or|to) [+\-−]?{NUMBER})?{UNIT})"
    r"|(?<![\w.,])(?P<plain>\d[\d,]*\.\d+(?:e[+-]?\d+)?)(?!\.?\d)",
    re.IGNORECASE,
)


def value(written: str) -> Decimal:
    """Return a number as it was written, with its decimals."""
    return Decimal(written.replace(",", ""))


def rounds_to(number: Decimal, claim: Decimal) -> bool:
    """Tell whether a number is the claim, or is when its last place is rounded away."""
    half = Decimal(5).scaleb(_places(claim) - 1)
    return number == claim or _places(number) == _places(claim) - 1 and abs(number - claim) <= half


def _places(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return exponent


@dataclass(frozen=True)
class Evidence:
    """The numbers of a chapter.

    Attributes:
        shown: in outputs, without the spread behind a ±.
        signed: those shown with a sign, as differences are.
        written: in code, also in what is shown in the text.
        spreads: shown as `x ± y`.
    """

    shown: frozenset[Decimal]
    signed: frozenset[Decimal]
    written: frozenset[Decimal]
    spreads: frozenset[tuple[Decimal, Decimal]]

    @classmethod
    def of(cls, notebook: Any) -> "Evidence":
        """Collect what stands in a chapter's outputs, and the numbers of its code."""
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        code = [cell.source for cell in cells]
        code += [without_code(x.source)[1] for x in notebook.cells if x.cell_type == "markdown"]
        output = "\n".join(x for cell in cells for out in cell.outputs for x in _texts(out))
        return cls.in_text(output, "\n".join(code))

    @classmethod
    def in_text(cls, output: str, code: str = "") -> "Evidence":
        """Collect the numbers of a text that shows what was measured, and of the code beside it."""
        shown = SPREAD.sub(r"\1", output)
        return cls(
            frozenset(map(value, PLAIN.findall(shown))),
            frozenset(map(value, SIGNED.findall(shown))),
            frozenset(map(value, PLAIN.findall(code))),
            frozenset((value(x), value(y)) for x, y in SPREAD.findall(output)),
        )

    def has(self, claim: str, unit: str) -> bool:
        """Tell whether a number is shown up to rounding.

        Points are differences, shown with a sign. What has no unit may be a setting of the code.
        """
        number = value(claim)
        setting = not unit and number in self.written
        shown = self.signed if unit.startswith("point") else self.shown
        return setting or any(rounds_to(x, number) for x in shown)

    def has_spread(self, mean: str, spread: str) -> bool:
        """Tell whether `mean ± spread` is shown up to rounding."""
        return any(
            rounds_to(x, value(mean)) and rounds_to(y, value(spread)) for x, y in self.spreads
        )


def _texts(output: Any) -> Iterator[str]:
    yield output.get("text", "")
    yield output.get("data", {}).get("text/plain", "")


def without_code(text: str) -> tuple[str, str]:
    """Return a text without its fenced code, and that code.

    What a directive such as `{grid}` or `{glossary}` holds is no code.
    """
    prose: list[str] = []
    code: list[str] = []
    opened: list[tuple[str, list[str]]] = []  # the fences around a line, and where it belongs
    for line in text.splitlines():
        fence = FENCE.fullmatch(line)
        inside, lines = opened[-1] if opened else ("", prose)
        if fence and inside and fence[1].startswith(inside) and not fence[2].strip():
            opened.pop()
        elif fence and lines is prose:
            opened.append((fence[1], prose if fence[2].startswith("{") else code))
        else:
            lines.append(line)
    return "\n".join(prose), "\n".join(code)


def sentences(text: str) -> Iterator[str]:
    """Cut Markdown into sentences without code and formulas; links and citations stay."""
    text, _ = without_code(text)
    for pattern, kept in ((MATH, "…"), (ROLE, r"{\1}"), (CODE, "…"), (TAG, " ")):
        text = pattern.sub(kept, text)
    for block in BLOCK.split(text):
        yield from SENTENCE.split(" ".join(block.split()))


def unfounded(text: str, path: Path, own: list[Evidence]) -> list[str]:
    """Return the claims of a text, each with its sentence, that nothing shows.

    Args:
        text: Markdown.
        path: the file it is from, for the links.
        own: the evidence of its own chapter, if it has one.
    """
    found = []
    for sentence in sentences(text):
        if "{cite}" in sentence or EXEMPT in sentence:
            continue
        targets = [path.parent / link.split("#")[0] for link in LINK.findall(sentence)]
        evidence = own + [_evidence_in(x) for x in targets if x.suffix == ".ipynb" and x.exists()]
        said = NAMED.sub("…", LINK.sub("]", sentence))
        for match in SPREAD.finditer(said):
            if not any(one.has_spread(*match.groups()) for one in evidence):
                found.append(f"{match[0]} stands in no output: “{_shortened(sentence)}”")
        for match in CLAIM.finditer(SPREAD.sub("…", said)):
            claim, unit = match["one"] or match["plain"], match["unit"] or ""
            if not any(one.has(claim, unit) for one in evidence):
                found.append(f"{claim} stands in no output: “{_shortened(sentence)}”")
    return found


def unfounded_bets(text: str, own: Evidence) -> list[str]:
    """Return what is wrong with the bets of a chapter: answers that nothing shows or nobody asks.

    Args:
        text: all Markdown of the chapter.
        own: its evidence.
    """
    asked = {match["name"]: match["unit"] or "" for match in BET.finditer(text)}
    answered = {match["name"]: match["value"] or "" for match in BET_ANSWER.finditer(text)}
    found = [
        f"the bet {name!r} has no bet-answer, or its answer no bet: give both the same name"
        for name in sorted(asked.keys() ^ answered.keys())
    ]
    for name, claim in answered.items():
        if not PLAIN.fullmatch(claim.lstrip("+-−")):
            found.append(f"the bet-answer {name!r} has no number in :value:, only {claim!r}")
        elif not own.has(claim.lstrip("+-−"), asked.get(name, "").split(" ")[0]):
            found.append(f"{claim}, the value of the bet-answer {name!r}, stands in no output")
    return found


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) < 120 else sentence[:119] + "…"


def _evidence_in(path: Path) -> Evidence:
    return Evidence.of(nbformat.read(path, as_version=4))
