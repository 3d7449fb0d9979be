"""The page "Does it hold?", made from one file a claim and the tables of the experiments.

python book/tools/evidence.py write    write book/evidence/does-it-hold.md
python book/tools/evidence.py check    say whether it differs from claims and tables, and which
                                       verdict the tables do not bear; exit code 1 if so

A claim is a TOML file in book/evidence/claims. Its numbers stand nowhere but in the tables: the
file names what is measured and the band in which it has to lie, and the page shows what came out.
"""

from __future__ import annotations

import sys
import textwrap
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from kdlearn.measure import load_results, paired_difference

BOOK = Path(__file__).resolve().parents[1]
CLAIMS = BOOK / "evidence/claims"
PAGE = BOOK / "evidence/does-it-hold.md"
VERDICTS = (
    "holds",
    "holds in direction",
    "does not hold here",
    "cannot be tested at this size",
)
TESTED = VERDICTS[:3]
WIDTH = 100
INTRODUCTION = """\
# Does it hold?

Published claims about distillation and attention transfer, run again. Each was looked up in its
source, and each has an experiment of this book that anybody can repeat on a laptop: small networks,
small images, five paired seeds. So a verdict says what happens *here*, and the words "here" and
"there" in each entry say what is different.

- **holds**: the effect is here, and about as large as there.
- **holds in direction**: the effect is here, smaller or in a part of the cases.
- **does not hold here**: the effect is not to be seen, or it is the opposite.
- **cannot be tested at this size**: what the claim is about does not exist on a laptop.

A verdict of the third kind does not refute a paper. It says that the claim needs something that
is not here, and the entry says what that may be. Numbers are a mean over seeds with its standard
deviation; differences are paired by seed, with an interval of the mean.
"""


@dataclass(frozen=True)
class Measured:
    """One number that bears a verdict.

    Attributes:
        text: what it is, for the reader.
        method: row of the table.
        metric: column of the table.
        minus: row to subtract seed by seed, or None.
        unit: what stands behind the number.
        band: where the mean over the seeds has to lie.
        one_seed: where a single seed has to lie.
    """

    text: str
    method: str
    metric: str
    minus: str | None
    unit: str
    band: tuple[float, float]
    one_seed: tuple[float, float]

    def values(self, table: pd.DataFrame) -> list[float]:
        """Return the number for each seed, in the order of the seeds."""
        rows = table[table["method"] == self.method].sort_values("seed")
        values = rows[self.metric]
        if self.minus is None:
            return [float(value) for value in values]
        others = table[table["method"] == self.minus].sort_values("seed")
        pairs = zip(values, others[self.metric], strict=True)
        return [float(value) - float(other) for value, other in pairs]

    def shown(self, table: pd.DataFrame) -> str:
        """Return what came out over all seeds, as the page says it."""
        values = pd.Series(self.values(table))
        if self.minus is None:
            digits = 1 if values.abs().max() >= 10 else 2
            return (
                f"{values.mean():.{digits}f} ± {values.std():.{digits}f}{self.unit}, "
                f"n = {len(values)}"
            )
        return str(paired_difference(table, self.method, self.minus, self.metric))


@dataclass(frozen=True)
class Claim:
    """A published claim and what became of it here.

    Attributes:
        name: of its file.
        title: a few words.
        claim: what was claimed, in our words.
        cite: key of the bibliography.
        where: page or section.
        there: the setting in which it was found.
        here: what is different here.
        finding: what came out, without numbers.
        verdict: one of four.
        table: the experiment, or None where nothing can be run.
        cpu_seconds: of one seed, on one thread.
        measured: the numbers that bear it.
    """

    name: str
    title: str
    claim: str
    cite: str
    where: str
    there: str
    here: str
    finding: str
    verdict: str
    table: str | None
    cpu_seconds: int | None
    measured: tuple[Measured, ...]


def read(path: Path) -> Claim:
    """Read a claim.

    Raises:
        ValueError: a key is missing or unknown, or the verdict is none of the four.
    """
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    verdict = given.get("verdict")
    if verdict not in VERDICTS:
        raise ValueError(f"{path.name}: the verdict is {verdict!r}: choose from {VERDICTS}.")
    texts = {"title", "claim", "cite", "where", "there", "here", "finding", "verdict"}
    wanted = texts | ({"table", "cpu_seconds", "measured"} if verdict in TESTED else set())
    if set(given) != wanted:
        wrong = ", ".join(sorted(set(given) ^ wanted))
        raise ValueError(f"{path.name}: missing or unknown: {wrong}. It has {sorted(wanted)}.")
    return Claim(
        name=path.stem,
        **{key: str(given[key]).strip() for key in texts},
        table=given.get("table"),
        cpu_seconds=given.get("cpu_seconds"),
        measured=tuple(_measured(each, path.name) for each in given.get("measured", [])),
    )


def _measured(given: dict[str, Any], name: str) -> Measured:
    wanted = {"text", "method", "metric", "band", "one_seed"}
    if not wanted <= set(given) <= wanted | {"minus", "unit"}:
        raise ValueError(
            f"{name}: a number has {sorted(given)}: expected {sorted(wanted)}, and minus and unit "
            "where it needs them."
        )
    return Measured(
        given["text"],
        given["method"],
        given["metric"],
        given.get("minus"),
        given.get("unit", ""),
        (float(given["band"][0]), float(given["band"][1])),
        (float(given["one_seed"][0]), float(given["one_seed"][1])),
    )


def claims(folder: Path = CLAIMS) -> list[Claim]:
    """Return all claims, by verdict and then by name."""
    found = [read(path) for path in sorted(folder.glob("*.toml"))]
    return sorted(found, key=lambda claim: VERDICTS.index(claim.verdict))


@cache
def table_of(name: str) -> pd.DataFrame:
    """Return a stored table."""
    return load_results(name)


def outside(claim: Claim) -> list[str]:
    """Return what the stored table does not bear."""
    if claim.table is None:
        return []
    table = table_of(claim.table)
    return [
        f"{claim.name}: {each.text} is {mean:.2f} on average, and {claim.verdict!r} needs "
        f"{each.band[0]:g} to {each.band[1]:g}"
        for each in claim.measured
        if not each.band[0] <= (mean := pd.Series(each.values(table)).mean()) <= each.band[1]
    ]


def entry(claim: Claim) -> str:
    """Return the part of the page about one claim."""
    lines = [
        f"({claim.name})=",
        f"### {claim.title}",
        "",
        *_wrapped(
            f"**The claim.** {claim.claim.removesuffix('.')} {{cite:p}}`{claim.cite}`, "
            f"{claim.where}."
        ),
        "",
        *_wrapped(f"**There.** {claim.there}"),
        "",
        *_wrapped(f"**Here.** {claim.here}"),
        "",
    ]
    if claim.table is not None:
        table = table_of(claim.table)
        # As code: what a table says, which prose.py need not look for in an output.
        lines += [f"- {each.text}: `{each.shown(table)}`" for each in claim.measured]
        lines.append("")
    lines += [*_wrapped(f"**Verdict: {claim.verdict}.** {claim.finding}"), ""]
    if claim.table is not None:
        seconds = f"about {claim.cpu_seconds} CPU seconds per seed"
        lines += [f"Run it: `kdlearn experiment {claim.table}`, {seconds}.", ""]
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    text = " ".join(text.split())
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def page(found: list[Claim]) -> str:
    """Return the whole page."""
    rows = ["| Claim | Source | Verdict | n |", "| --- | --- | --- | --- |"]
    for claim in found:
        seeds = "" if claim.table is None else table_of(claim.table)["seed"].nunique()
        rows.append(
            f"| [{claim.title}](#{claim.name}) | {{cite:p}}`{claim.cite}` | {claim.verdict} | "
            f"{seeds} |"
        )
    parts = [INTRODUCTION, "## All of them\n", "\n".join(rows), ""]
    for verdict in VERDICTS:
        entries = [entry(claim) for claim in found if claim.verdict == verdict]
        if entries:
            parts += [f"## {verdict[0].upper()}{verdict[1:]}\n", *entries]
    return "\n".join(parts).rstrip() + "\n"


def faults(found: list[Claim], page_path: Path = PAGE) -> list[str]:
    """Return what is wrong: verdicts that the tables do not bear, and a page of another day."""
    said = [fault for claim in found for fault in outside(claim)]
    if not page_path.exists() or page_path.read_text(encoding="utf-8") != page(found):
        said.append(
            f"{page_path.name} differs from the claims and tables: "
            "python book/tools/evidence.py write"
        )
    return said


def main(arguments: list[str]) -> int:
    """Write or check."""
    if arguments == ["write"]:
        PAGE.write_text(page(claims()), encoding="utf-8")
        return 0
    if arguments == ["check"]:
        said = faults(claims())
        print("\n".join(said), end="\n" if said else "")
        return bool(said)
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
