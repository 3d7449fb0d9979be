"""Every verdict of "Does it hold?" is borne by the stored seeds."""

import re
from pathlib import Path

import evidence
import pytest

CLAIMS = evidence.claims()
TESTED = [claim for claim in CLAIMS if claim.table is not None]
BIBLIOGRAPHY = evidence.BOOK / "references.bib"
CLAIM = """
title = "A title"
claim = "A claim."
cite = "hinton2015distilling"
where = "section 3"
there = "There."
here = "Here."
finding = "A finding."
verdict = "holds"
table = "warped-digits"
cpu_seconds = 10
[[measured]]
text = "gain"
method = "KD T=4"
minus = "scratch"
metric = "accuracy"
band = [1, 9]
one_seed = [0, 10]
"""


def claim_of(folder: Path, text: str) -> evidence.Claim:
    path = folder / "a-claim.toml"
    path.write_text(text)
    return evidence.read(path)


def test_there_are_a_dozen_verdicts_and_some_claims_do_not_hold() -> None:
    assert len(TESTED) >= 12
    assert {claim.verdict for claim in CLAIMS} == set(evidence.VERDICTS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_the_source_of_a_claim_is_in_the_bibliography(claim: evidence.Claim) -> None:
    assert re.search(rf"@\w+\{{{claim.cite},", BIBLIOGRAPHY.read_text(encoding="utf-8"))


@pytest.mark.parametrize("claim", TESTED, ids=lambda claim: claim.name)
def test_the_stored_seeds_bear_the_verdict(claim: evidence.Claim) -> None:
    assert claim.table is not None
    assert evidence.outside(claim) == []
    for each in claim.measured:
        values = each.values(evidence.table_of(claim.table))
        assert len(values) >= 5
        outside = [value for value in values if not each.one_seed[0] <= value <= each.one_seed[1]]
        assert not outside, f"{each.text}: {outside} are outside the band of one seed"


def test_the_page_is_the_one_that_claims_and_tables_give() -> None:
    assert evidence.faults(CLAIMS) == []


def test_a_claim_is_shown_with_what_was_measured(tmp_path: Path) -> None:
    shown = evidence.page([claim_of(tmp_path, CLAIM)])
    assert "| [A title](#a-claim) | {cite:p}`hinton2015distilling` | holds | 5 |" in shown
    assert "- gain: `+4.8 ± 2.0 points, n = 5 (95 % interval +2.3 to +7.2)`" in shown
    assert "`kdlearn experiment warped-digits`, about 10 CPU seconds per seed" in shown


def test_a_verdict_that_the_table_does_not_bear_is_told(tmp_path: Path) -> None:
    claim = claim_of(tmp_path, CLAIM.replace("band = [1, 9]", "band = [6, 9]"))
    (said,) = evidence.outside(claim)
    assert said == "a-claim: gain is 4.77 on average, and 'holds' needs 6 to 9"


def test_a_page_of_another_day_is_told(tmp_path: Path) -> None:
    claim = claim_of(tmp_path, CLAIM)
    old = tmp_path / "page.md"
    old.write_text(evidence.page([claim]).replace("4.8", "5.8"))
    (said,) = evidence.faults([claim], old)
    assert said == (
        "page.md differs from the claims and tables: python book/tools/evidence.py write"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('verdict = "holds"', 'verdict = "true"', "a-claim.toml: the verdict is 'true'"),
        ('there = "There."', "", "a-claim.toml: missing or unknown: there"),
        ('there = "There."', 'there = ""\nelse = ""', "missing or unknown: else"),
        ('metric = "accuracy"', "", r"a number has \['band', .*expected \['band', 'method'"),
        (
            'verdict = "holds"',
            'verdict = "cannot be tested at this size"',
            "missing or unknown: cpu_seconds, measured, table",
        ),
    ],
)
def test_a_claim_that_is_not_whole_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        claim_of(tmp_path, CLAIM.replace(old, new))
