"""The omitted class: the curves are those of adding to its logit and looking again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdlearn.show.widgets import bias_explorer
from tests.show.opened import Pages, numbers, press, tap

N, C, MISSING = 200, 5, 3


def students() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, C, (N,), generator=generator)
    logits = torch.randn(N, C, generator=generator, dtype=torch.float64)
    logits[torch.arange(N), labels] += 1.5
    logits[:, MISSING] -= 2
    return {"KD": logits, "scratch": logits - 3 * torch.eye(C)[MISSING]}, labels


def expected(shift: float) -> list[float]:
    """For each student recall, accuracy on the others and on all, in per cent, in a loop."""
    named, labels = students()
    told = []
    for logits in named.values():
        right = {True: 0, False: 0}
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            row[MISSING] += shift
            right[label == MISSING] += row.index(max(row)) == label
        threes = int((labels == MISSING).sum())
        both = [right[True] / threes, right[False] / (N - threes), sum(right.values()) / N]
        told += [100 * share for share in both]
    return told


def test_the_numbers_follow_the_slider(pages: Pages) -> None:
    page = pages.open(bias_explorer(*students(), missing=MISSING))
    slider = press(page, "slider", f"Added to the logit of the {MISSING}")
    for keys, shift in [((), 0.0), (("ArrowRight",) * 3, 0.3), (("Home",), -2.0), (("End",), 8.0)]:
        for key in keys:
            page.keyboard.press(key)
        assert float(slider.input_value()) == pytest.approx(shift)
        assert numbers(page).tolist() == pytest.approx(expected(shift), abs=1e-4)


def test_a_finger_finds_what_the_bias_hid(pages: Pages) -> None:
    page = pages.open(bias_explorer(*students(), missing=MISSING), width=390, touch=True)
    before = numbers(page)[0]
    tap(page, "slider", f"Added to the logit of the {MISSING}", 0.6)
    assert numbers(page)[0] > before + 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"students": {}}, "got 0 students"),
        ({"labels": torch.zeros(N, dtype=torch.int64)}, "0 of 200 samples are of class 3"),
        ({"labels": torch.full((N,), MISSING)}, "200 of 200 samples"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "one class number for each row"),
    ],
)
def test_what_cannot_be_counted_is_refused(change: dict[str, Any], message: str) -> None:
    named, labels = students()
    with pytest.raises(ValueError, match=message):
        bias_explorer(**{"students": named, "labels": labels, "missing": MISSING, **change})
