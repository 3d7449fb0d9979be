"""Maps built by hand: the distances of the page are those of the losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdlearn.losses import attention_transfer_loss
from kdlearn.show.widgets import map_builder
from tests.show.opened import Pages, numbers, press, said, tap

SHAPES = (3, 4, 5), (4, 4, 5)


def features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        (1000 * torch.randn(shape, generator=generator, dtype=torch.float64)).round() / 1000
        for shape in SHAPES
    ]


def loss(student: torch.Tensor, teacher: torch.Tensor, p: float = 2, **options: Any) -> float:
    return attention_transfer_loss(student[None], teacher[None], p=p, **options).item()


def test_the_authors_distance_is_2_minus_2_cos_over_p(pages: Pages) -> None:
    student, teacher = features()
    page = pages.open(map_builder(student, teacher))
    distance, cosine, identity = numbers(page).tolist()
    assert distance == pytest.approx(loss(student, teacher), rel=1e-9)
    assert identity == pytest.approx(distance, rel=1e-9)
    flat = [side.square().sum(0).flatten() for side in (student, teacher)]
    assert cosine == pytest.approx(torch.cosine_similarity(*flat, dim=0).item(), rel=1e-9)
    assert "only the angle" in said(page)


@pytest.mark.parametrize("p", [1, 4])
def test_power_channels_and_convention_count_as_in_the_loss(pages: Pages, p: int) -> None:
    student, teacher = features()
    page = pages.open(map_builder(student, teacher))
    page.get_by_role("combobox", name="Power p").select_option(str(p))
    press(page, "button", "channel 2 of the student", "Enter")
    press(page, "button", "channel 1 of the teacher", "Space")
    student, teacher = student[[0, 2]], teacher[1:]
    assert numbers(page)[0].item() == pytest.approx(loss(student, teacher, p), rel=1e-9)
    page.get_by_role("combobox", name="Over channels").select_option("mean")
    assert numbers(page)[0].item() == pytest.approx(loss(student, teacher, p), rel=1e-9)
    page.get_by_role("combobox", name="Distance").select_option(label="norm, not squared (paper)")
    paper = loss(student, teacher, p, convention="paper")
    assert numbers(page)[0].item() == pytest.approx(paper, rel=1e-9)
    page.get_by_role("combobox", name="Distance").select_option(label="sum over positions")
    assert numbers(page)[0].item() == pytest.approx(paper**2, rel=1e-9)


def test_without_length_1_a_louder_network_is_farther_away(pages: Pages) -> None:
    student, teacher = features()
    page = pages.open(map_builder(student, teacher), width=390, touch=True)
    tap(page, "checkbox", "Each map to length 1")
    gap = student.square().sum(0) - teacher.square().sum(0)
    distance, _, identity = numbers(page).tolist()
    assert distance == pytest.approx(gap.square().mean().item(), rel=1e-9)
    assert identity == pytest.approx(loss(student, teacher), rel=1e-9)
    assert "louder" in said(page)


def test_a_map_of_zeros_has_no_angle_and_the_distance_of_the_loss(pages: Pages) -> None:
    student, teacher = features()
    page = pages.open(map_builder(student[:1], teacher), width=390, touch=True)
    tap(page, "button", "channel 1 of the student")
    (distance,) = numbers(page, "data.kd-value[value]").tolist()
    assert distance == pytest.approx(loss(0 * student[:1], teacher), rel=1e-9)
    assert page.get_by_text("none: a map is all 0").count() == 2


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (torch.zeros(1, 2, 4, 4), torch.zeros(2, 4, 4)),
        (torch.zeros(9, 4, 4), torch.zeros(2, 4, 4)),
        (torch.zeros(2, 17, 4), torch.zeros(2, 17, 4)),
        (torch.zeros(2, 8, 8), torch.zeros(2, 4, 4)),
    ],
)
def test_what_does_not_fit_is_refused(student: torch.Tensor, teacher: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="pick a sample and a few channels"):
        map_builder(student, teacher)
