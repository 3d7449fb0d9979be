"""Logits to drag: the gradients of the page are those of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kdlearn.losses import soft_target_loss
from kdlearn.show.widgets import gradient_explorer
from tests.show.opened import Pages, numbers, press, pull, said, tap

STUDENT = torch.tensor([2.0, 3.0, 0.5, -1.0], dtype=torch.float64)
TEACHER = torch.tensor([6.0, 3.0, 1.0, -2.0], dtype=torch.float64)
NAMES = ["cat", "dog", "fox", "car"]


def gradients(student: Any, temperature: float, weight: float, squared: bool = True) -> Any:
    """Gradient of each term by torch, a column each."""
    z = student.clone().requires_grad_()
    soft = soft_target_loss(z[None], TEACHER[None], temperature=temperature)
    soft = soft if squared else soft / temperature**2
    hard = F.cross_entropy(z[None], torch.tensor([0]))
    columns = [weight * soft, (1 - weight) * hard]
    return torch.stack([torch.autograd.grad(term, z)[0] for term in columns], dim=1)


def opened(pages: Pages, **how: Any) -> Any:
    return pages.open(gradient_explorer(STUDENT, TEACHER, class_names=NAMES), **how)


def shown(page: Any) -> torch.Tensor:
    """A row a class: p_s, p_t, their difference, the gradients of both terms."""
    return numbers(page).reshape(len(NAMES), 5)


def test_the_gradients_are_those_of_torch_at_every_setting(pages: Pages) -> None:
    page = opened(pages)
    student = STUDENT.clone()
    torch.testing.assert_close(shown(page)[:, 3:], gradients(student, 4, 0.5), atol=1e-6, rtol=0)
    press(page, "slider", "student's logit, fox", "End", "ArrowLeft")
    student[2] = 7.9
    press(page, "slider", "Weight w of the soft term", "ArrowRight", "ArrowRight")
    torch.testing.assert_close(shown(page)[:, 3:], gradients(student, 4, 0.6), atol=1e-6, rtol=0)
    press(page, "slider", "Temperature T", "End")
    press(page, "checkbox", "Factor T²", "Space")
    wanted = gradients(student, 64, 0.6, squared=False)
    torch.testing.assert_close(shown(page)[:, 3:], wanted, atol=1e-6, rtol=0)
    p = torch.stack([(side / 64).softmax(0) for side in (student, TEACHER)], dim=1)
    torch.testing.assert_close(shown(page)[:, :2], p, atol=1e-12, rtol=0)
    assert "T = 64, without T², w = 0.60" in said(page)


def test_without_t_squared_the_soft_term_fades_and_the_share_says_so(pages: Pages) -> None:
    page = opened(pages)
    press(page, "checkbox", "Factor T²", "Space")
    soft, hard = gradients(STUDENT, 4, 0.5, squared=False).norm(dim=0).tolist()
    assert f"gradient {soft:.4f}, of the labels' {hard:.4f}" in said(page)
    assert f"has {100 * soft / (soft + hard):.0f}\u00a0% of the two" in said(page)


def test_a_bar_is_dragged_and_its_logit_follows(pages: Pages) -> None:
    page = opened(pages)
    p, q = shown(page)[1, :2].tolist()
    bar = "[aria-label='class dog'] svg"
    # As near as the slider's step of 0.1 comes, at T = 4.
    pull(page, bar, p, 0.6)
    assert shown(page)[1, 0].item() == pytest.approx(0.6, abs=0.01)
    assert shown(page)[1, 1].item() == q
    pull(page, bar, q + 0.01, 0.1)
    assert shown(page)[1, 1].item() == pytest.approx(0.1, abs=0.01)
    student = page.get_by_role("slider", name="student's logit, dog", exact=True)
    pull(page, bar, 0.6, 1)
    assert student.input_value() == student.get_attribute("max")


def test_a_finger_moves_a_logit(pages: Pages) -> None:
    page = opened(pages, width=390, touch=True)
    slider = tap(page, "slider", "teacher's logit, dog", 0.9)
    assert float(slider.input_value()) > 5
    tap(page, "checkbox", "Factor T²", 0.5)
    assert "without T²" in said(page)


def test_the_pin_ends_at_the_teachers_probability(pages: Pages) -> None:
    page = opened(pages)
    ends = page.locator(".kd-class circle").evaluate_all(
        "pins => pins.map(pin => parseFloat(pin.getAttribute('cx')) / 100)"
    )
    expected = (TEACHER / 4).softmax(0)
    torch.testing.assert_close(torch.tensor(ends, dtype=torch.float64), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student_logits": torch.zeros(2, 3)}, r"shape \(C,\)"),
        ({"teacher_logits": torch.zeros(4)}, r"got \(3,\) and \(4,\)"),
        ({"student_logits": torch.zeros(1), "teacher_logits": torch.zeros(1)}, "C from 2 to 6"),
        ({"teacher_logits": torch.tensor([0.0, 1.0, float("nan")])}, "NaN or infinity"),
        ({"label": 3}, "a class from 0 to 2"),
        ({"class_names": ["a"]}, "1 class names for 3 classes"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, Any], message: str) -> None:
    good = {"student_logits": torch.zeros(3), "teacher_logits": torch.ones(3)}
    with pytest.raises(ValueError, match=message):
        gradient_explorer(**{**good, **change})
