from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from kdlearn.distill import Distiller
from kdlearn.experiments.common import seeded
from kdlearn.experiments.feature_losses import (
    FEATURES,
    METHODS,
    RECIPE,
    TRIALS,
    Projected,
    chosen,
    frozen_projector,
    pointing,
    prepare,
    train_student,
)
from kdlearn.experiments.shortcut import network
from kdlearn.losses import fsp_loss, hint_loss

SHORT = replace(RECIPE, pool=200, images=20, copies=2, teacher_epochs=1, student_epochs=1)


@pytest.fixture(scope="module")
def bench():
    return prepare(0, SHORT, "validation")


def gradient(method, bench, layer):
    student = seeded(lambda: network(SHORT.student), 0)
    terms = method.terms(SHORT, bench.images.labels)
    rows = torch.arange(len(bench.images))
    loss = Distiller(student, bench.teacher, terms)(bench.images.images, bench.images.labels, rows)
    sum(part for name, part in loss.parts.items() if name != "labels").backward()
    return student.get_submodule(layer)[0].weight.grad


@pytest.mark.parametrize("name", FEATURES)
def test_every_loss_trains_all_layers_below_those_that_it_compares(name, bench):
    assert all(
        gradient(METHODS[f"{name} {TRIALS[name][1]:g}"], bench, f"group{i}").abs().sum() > 0
        for i in (1, 2, 3)
    )


def test_a_loss_on_the_first_group_leaves_the_third_alone(bench):
    assert gradient(METHODS["AT, group1"], bench, "group1").abs().sum() > 0
    assert gradient(METHODS["AT, group1"], bench, "group3") is None


def test_a_frozen_projector_keeps_its_weights_and_a_trained_one_does_not(bench):
    def moved(name):
        terms = METHODS[name].terms(SHORT, bench.images.labels)
        distiller = Distiller(network(SHORT.student), bench.teacher, terms)
        before = [p.clone() for p in distiller.projectors.parameters()]
        loss = distiller(bench.images.images, bench.images.labels).total
        trained = [p for p in distiller.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, 0.1)
        loss.backward()
        optimizer.step()
        return [
            not torch.equal(a, b)
            for a, b in zip(before, distiller.projectors.parameters(), strict=True)
        ]

    assert all(moved("hint 1.5"))
    assert not any(moved("hint, frozen projector"))
    assert not any(p.requires_grad for p in frozen_projector(2, 3).parameters())


def test_a_projected_pair_is_compared_behind_both_projectors():
    features = torch.rand(3, 2, 4, 4), torch.rand(3, 5, 4, 4)
    double = nn.Conv2d(2, 2, 1, bias=False)
    double.weight.data = 2 * torch.eye(2)[..., None, None]
    loss = Projected(fsp_loss, double, nn.Identity())
    assert loss(features, (2 * features[0], features[1])).item() == pytest.approx(0, abs=1e-10)
    assert Projected(hint_loss, double)(features[0], 2 * features[0]).item() == 0


def test_the_memory_of_crd_has_a_row_for_each_canvas(bench):
    [_, term] = METHODS["CRD 0.8"].terms(SHORT, bench.images.labels)
    assert len(term.loss.student_memory) == len(bench.images) == 40
    assert term.loss.negatives == 13  # of 16,384 beside 50,000


def test_students_of_a_seed_start_alike_and_part(bench):
    first, second, again = (
        train_student(bench, METHODS[name]).classifier.weight
        for name in ("labels 0.02", "KD 4", "KD 4")
    )
    assert torch.equal(second, again)
    assert not torch.equal(first, second)


def test_a_peak_on_the_digit_points_at_it():
    class Bright(nn.Module):
        """Its features are the image, from which the texture was left out."""

        def __init__(self):
            super().__init__()
            self.group3 = nn.AvgPool2d(4)

        def forward(self, images):
            return self.group3(images).flatten(1)

    data = SHORT.make_data(0)
    box = data.test.boxes
    centers = (torch.arange(28) + 0.5) / 28
    x0, y0, x1, y1 = (edge[:, None] for edge in box.unbind(1))
    rows, columns = (centers > y0) & (centers < y1), (centers > x0) & (centers < x1)
    marked = (rows[:, :, None] & columns[:, None, :]).float()[:, None]
    assert pointing(Bright(), replace(data.test, images=marked)) == 100
    assert pointing(Bright(), replace(data.test, images=1 - marked)) < 20
    assert marked.mean().item() == pytest.approx(1 / 4, abs=1e-3)
    ink = data.test.images.clamp(min=0)  # a box holds the digit, and no texture
    assert ((ink * marked).sum((1, 2, 3)) > 0.2 * ink.sum((1, 2, 3))).all()


def test_a_trial_is_chosen_on_validation_whatever_the_test_says():
    rows = [
        (0, "teacher", 1.0, 1.0),
        (0, "AT 6", 60.0, 99.0),
        (0, "AT 30", 70.0, 50.0),
        (1, "AT 6", 69.0, 99.0),
        (1, "AT 30", 61.0, 51.0),
        (0, "AT, group1", 90.0, 90.0),
        (0, "KD+AT 6", 5.0, 5.0),
    ]
    names = ["seed", "method", "accuracy_validation", "accuracy"]
    kept = chosen(pd.DataFrame(rows, columns=names))
    # Means of validation are 64.5 and 65.5: not every seed need agree.
    assert kept["method"].tolist() == ["AT", "AT", "KD+AT"]
    assert kept["accuracy"].tolist() == [50.0, 51.0, 5.0]
    assert kept["trial"].tolist() == ["30", "30", "6"]
