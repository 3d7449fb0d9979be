"""The picker: every loss is in it, and what it asks for follows its signature."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from kdlearn import losses
from kdlearn.measure import load_results
from kdlearn.show.widgets import loss_picker
from kdlearn.show.widgets.loss_picker import HAVE, NEEDS
from tests.show.opened import Pages, data_of, press, said, tap

# A parameter of a loss, and what one must have for it.
PARAMETERS = {
    "labels": "labels",
    "distillation_logits": "second head",
    "student_scores": "scores",
    "student_embeddings": "batch",
    "student_gradients": "image gradients",
    "student_head": "heads",
    "teacher_indices": "stored",
    "tokens": "own text",
    "places": "memory",
    "student_factors": "factors",
    "student_states": "states",
}
NO_LOSSES = {"layer_map", "standardize_logits"}


def parameters(name: str) -> set[str]:
    loss: Any = getattr(losses, name)
    return set(inspect.signature(loss.forward if inspect.isclass(loss) else loss).parameters)


def test_every_loss_can_be_picked() -> None:
    assert set(NEEDS) == set(losses.__all__) - NO_LOSSES


def test_every_word_of_what_a_loss_asks_for_can_be_ticked() -> None:
    asked = {key for needs in NEEDS.values() for key in needs.split(", ")}
    assert asked == set(HAVE)


@pytest.mark.parametrize("name", sorted(set(NEEDS) - {"cross_entropy"}))  # there labels are text
def test_what_a_loss_asks_for_follows_its_signature(name: str) -> None:
    needs = set(NEEDS[name].split(", "))
    wanted = {PARAMETERS[each] for each in parameters(name) if each in PARAMETERS}
    assert wanted <= needs
    if "labels" not in parameters(name):
        assert "labels" not in needs or "gradients" in NEEDS[name]


def listed(page: Any) -> set[str]:
    return set(page.locator(".kd-list li:visible code").all_text_contents())


def test_ticks_choose_the_losses(pages: Pages) -> None:
    page = pages.open(loss_picker())

    def check(*have: str) -> None:
        fit = {name for name, needs in NEEDS.items() if set(needs.split(", ")) <= set(have)}
        assert listed(page) == fit
        assert said(page).startswith(f"{len(fit)} of {len(NEEDS)} loss")

    check("logits", "labels")
    press(page, "checkbox", HAVE["labels"], "Space")
    check("logits")
    press(page, "checkbox", HAVE["features"], "Space")
    check("logits", "features")
    press(page, "checkbox", HAVE["same shape"], "Space")
    check("logits", "features", "same shape")


def test_a_tap_ticks_too(pages: Pages) -> None:
    page = pages.open(loss_picker(), width=390, touch=True)
    tap(page, "checkbox", HAVE["stored"])
    assert {"top_k_kl", "sampled_kl"} <= listed(page)


def test_costs_are_those_of_the_table() -> None:
    costs = {row["name"]: row["cost"] for row in data_of(loss_picker())["losses"]}
    assert costs["rkd_angle_loss"].endswith("% of a training step of a WRN-16-2")
    measured = set(load_results("loss-cost")["loss"].str.split(",").str[0])
    assert {name for name, cost in costs.items() if cost} == measured & set(NEEDS)
