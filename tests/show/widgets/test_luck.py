"""Luck with seeds: the page counts what an enumeration in numpy counts."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kdlearn.measure import load_results
from kdlearn.show.widgets import luck_machine
from kdlearn.show.widgets.luck import lost
from tests.show.opened import Pages, numbers, press, said, tap

METHODS = ["KD T=4", "KD T=1", "scratch"]


def table() -> pd.DataFrame:
    return load_results("warped-digits")


def counted(first: str, second: str, n: int, paired: bool) -> tuple[int, int]:
    """Wrong verdicts and draws, from a matrix of all differences of means."""
    rows = table().pivot(index="seed", columns="method", values="accuracy")
    better, worse = sorted((first, second), key=lambda name: -rows[name].mean())
    means = {
        name: np.array([np.mean(each) for each in combinations(rows[name], n)])
        for name in (better, worse)
    }
    gaps = means[better][:, None] - means[worse][None]
    gaps = np.diag(gaps) if paired else gaps
    return int((gaps < -1e-6).sum()), gaps.size


def test_the_page_counts_every_draw_once(pages: Pages) -> None:
    page = pages.open(luck_machine(table(), METHODS))

    def check(first: str, second: str, n: int, paired: bool) -> None:
        wrong, draws = counted(first, second, n, paired)
        assert numbers(page, "data.kd-lost").tolist() == [wrong]
        assert f" of {draws} draw" in said(page)

    check("KD T=4", "KD T=1", 1, False)
    press(page, "slider", "Seeds of each", "ArrowRight", "ArrowRight")
    check("KD T=4", "KD T=1", 3, False)
    press(page, "checkbox", "Paired: the same seeds for both", "Space")
    check("KD T=4", "KD T=1", 3, True)
    page.get_by_role("combobox", name="Second method").select_option("scratch")
    press(page, "slider", "Seeds of each", "Home")
    check("KD T=4", "scratch", 1, True)
    press(page, "slider", "Seeds of each", "End")
    check("KD T=4", "scratch", 5, True)


def test_a_tap_draws_other_seeds_and_leaves_the_count(pages: Pages) -> None:
    page = pages.open(luck_machine(table(), METHODS), width=390, touch=True)
    sentences, counts = set(), set()
    for _ in range(4):
        tap(page, "button", "Draw seeds")
        sentences.add(said(page))
        counts.add(numbers(page, "data.kd-lost").item())
    assert len(sentences) > 1 and len(counts) == 1


def test_a_method_never_loses_to_itself_over_all_seeds(pages: Pages) -> None:
    page = pages.open(luck_machine(table(), METHODS))
    page.get_by_role("combobox", name="Second method").select_option("KD T=4")
    assert "Over all seeds the two are equal." in said(page)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_python_counts_the_same(n: int, paired: bool) -> None:
    rows = table()
    sides = [rows[rows.method == name].accuracy.tolist() for name in METHODS[:2]]
    assert lost(*sides, n, paired) == counted(METHODS[0], METHODS[1], n, paired)


@pytest.mark.parametrize(
    ("methods", "options", "error", "message"),
    [
        (["KD T=4"], {}, ValueError, "at least two"),
        (["KD T=4", "KD T=3"], {}, KeyError, r"no method .*KD T=3"),
        (METHODS, {"metric": "speed"}, KeyError, "no column 'speed'"),
        (["KD T=4", "KD T=4, no 3"], {"metric": "shift"}, ValueError, "the same seeds"),
    ],
)
def test_what_the_table_does_not_have_is_refused(
    methods: list[str], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        luck_machine(table(), methods, **options)
