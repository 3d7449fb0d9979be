from dataclasses import replace

import pytest
import torch

from kdlearn.experiments import four_heads
from kdlearn.experiments.four_heads import METHODS, RECIPE, Scenes, draw, measure, teacher_losses


def perfect(truth: Scenes):
    """What a network says that knows everything."""
    one_hot = torch.nn.functional.one_hot
    return {
        "labels": 20 * truth.present - 10,
        "pixels": 20.0 * one_hot(truth.mask, 11).movedim(-1, 1).contiguous(),
        "cells": 20.0 * one_hot(truth.cells, 11),
        "edges": 30.0 * one_hot(truth.edges, four_heads.EDGES),
        "total": truth.total,
    }


@pytest.fixture(scope="module")
def scenes():
    return draw("train", 300, seed=0, noise=3.0)


def test_boxes_hold_the_ink_and_nothing_lies_outside(scenes):
    quarters = scenes.images[:, 0].unfold(1, 12, 12).unfold(2, 12, 12).reshape(300, 4, 12, 12)
    place = torch.arange(12)
    left, top, right, bottom = scenes.edges.unbind(-1)
    across = (place >= left[..., None]) & (place < right[..., None])
    down = (place >= top[..., None]) & (place < bottom[..., None])
    inside = down[..., :, None] & across[..., None, :] & (scenes.cells > 0)[..., None, None]
    assert quarters[~inside].abs().mean() < 0.09 < 0.2 < quarters[inside].mean()


def test_the_answers_to_all_questions_belong_together(scenes):
    for i in range(300):
        digits = [cell - 1 for cell in scenes.cells[i].tolist() if cell]
        assert digits and scenes.total[i] == sum(digits)
        assert scenes.present[i].nonzero().flatten().tolist() == sorted(set(digits))
        assert set(scenes.mask[i].unique().tolist()) - {0} <= {digit + 1 for digit in digits}
    assert (scenes.told - scenes.total).std() == pytest.approx(3.0, rel=0.2)


def test_who_knows_everything_is_measured_so_and_has_nothing_to_learn_from_himself(scenes):
    said = perfect(scenes)
    assert measure(said, scenes) == {
        "labels_f1": 100.0,
        "mean_iou": 100.0,
        "boxes_f1": 100.0,
        "sum_error": 0.0,
    }
    for loss in teacher_losses(said, said, 2.0).values():
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_a_box_two_pixels_off_is_no_hit(scenes):
    said = perfect(scenes)
    shifted = scenes.edges.clone()
    shifted[..., [0, 2]] += torch.where(scenes.edges[..., [2]] < 11, 2, -2)
    said["edges"] = 30.0 * torch.nn.functional.one_hot(shifted.clamp(0, 12), four_heads.EDGES)
    assert measure(said, scenes)["boxes_f1"] < 50


def test_a_sum_is_pulled_only_where_the_teacher_is_nearer_to_the_label(scenes):
    ours, theirs = perfect(scenes), perfect(scenes)
    ours["total"] = scenes.told + torch.tensor([1.0, -5.0]).repeat(150)
    theirs["total"] = scenes.told + 3.0
    ours["total"].requires_grad_()
    four_heads.other_losses(ours, theirs, scenes, 2.0)["total"].backward()
    assert (ours["total"].grad[::2] == 0).all() and (ours["total"].grad[1::2] < 0).all()


def test_who_sees_no_digit_says_nothing_of_edges(scenes):
    ours, theirs = perfect(scenes), perfect(scenes)
    theirs["cells"] = torch.zeros_like(theirs["cells"])
    theirs["edges"] = -theirs["edges"]
    for losses in (
        teacher_losses(ours, theirs, 2.0),
        four_heads.other_losses(ours, theirs, scenes, 2.0),
    ):
        assert losses["edges"] == 0 and all(loss.isfinite() for loss in losses.values())


def test_every_student_has_its_row():
    tiny = {"pool": 100, "scenes": 20, "held_out": 20, "teacher": 4, "student": 2}
    short = replace(RECIPE, **tiny, teacher_steps=40, steps=2, batch_size=20)
    rows = list(four_heads.run_seed(0, recipe=short))
    assert [row["method"] for row in rows] == ["teacher", *METHODS]
