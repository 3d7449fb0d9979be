"""Queries, keys and values: the weights of the page are those of torch's own attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kdlearn.show.widgets import query_explorer
from tests.show.opened import Pages, numbers, press, said, tap

TOKENS = ["the", "cat", "sat", "on", "it"]


def qkv() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        (1000 * torch.randn(2, len(TOKENS), 4, generator=generator, dtype=torch.float64)).round()
        / 1000
        for _ in range(3)
    ]


def attend(head: int, row: int, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (the outputs for unit values) and output of one token, by torch."""
    q, k, v = (each[head][None] for each in qkv())
    unit = torch.eye(len(TOKENS), dtype=torch.float64)[None]
    outputs = [F.scaled_dot_product_attention(q, k, each, **options) for each in (unit, v)]
    return outputs[0][0, row], outputs[1][0, row]


def test_the_weights_and_what_comes_out_are_those_of_torch(pages: Pages) -> None:
    page = pages.open(query_explorer(TOKENS, *qkv()))

    def check(head: int, row: int, **options: Any) -> None:
        weights, output = attend(head, row, **options)
        torch.testing.assert_close(numbers(page), weights, atol=1e-9, rtol=0)
        torch.testing.assert_close(numbers(page, "data.kd-out"), output, atol=1e-9, rtol=0)
        assert f"Entropy {torch.special.entr(weights).sum().item():.3f}" in said(page)

    check(0, 4)
    press(page, "button", "cat", "Enter")
    check(0, 1)
    press(page, "checkbox", "Causal mask", "Space")
    check(0, 1, is_causal=True)
    assert "of at most 0.693 nats" in said(page)
    page.get_by_role("combobox", name="Head").select_option("2")
    press(page, "checkbox", "Divide by √d", "Space")
    check(1, 1, is_causal=True, scale=1.0)


def test_a_finger_picks_the_token_that_asks(pages: Pages) -> None:
    page = pages.open(query_explorer(TOKENS, *qkv()), width=390, touch=True)
    tap(page, "button", "the")
    torch.testing.assert_close(numbers(page), attend(0, 0)[0], atol=1e-9, rtol=0)
    tap(page, "checkbox", "Causal mask")
    assert numbers(page).tolist() == [1, 0, 0, 0, 0]


def test_one_head_needs_no_dimension_for_it() -> None:
    one = [each[0] for each in qkv()]
    assert query_explorer(TOKENS, *one).html == query_explorer(TOKENS, *(e[None] for e in one)).html


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": ["a"]},
        {"queries": torch.zeros(2, 3, 4)},
        {"values": torch.zeros(1, 5, 4)},
        {"keys": torch.zeros(5)},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    good = dict(zip(("queries", "keys", "values"), qkv(), strict=True))
    with pytest.raises(ValueError, match="give one sample, cut to a short sentence"):
        query_explorer(**{"tokens": TOKENS, **good, **change})
