from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from kdlearn.distill.ensemble import Ensemble
from kdlearn.experiments import several_teachers
from kdlearn.experiments.common import seeded
from kdlearn.experiments.several_teachers import METHODS, RECIPE, follow, together
from kdlearn.models import SmallCNN

SHORT = replace(RECIPE, pool=300, images=50, steps=5)
ANSWERS = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))


class Says(nn.Module):
    """A model with an answer of its own."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_the_two_means_are_those_of_an_ensemble(mean):
    ensemble = Ensemble([Says(answer) for answer in ANSWERS], mean)
    expected = ensemble(torch.zeros(20, 1)).softmax(1)
    torch.testing.assert_close(together(ANSWERS)[mean].softmax(1), expected)


def test_the_surest_model_answers():
    surest = together(ANSWERS)["surest"].softmax(1).amax(1)
    torch.testing.assert_close(surest, ANSWERS.softmax(-1).amax(-1).amax(0))


def test_an_average_forgets_its_start_geometrically():
    average, model = (seeded(partial(SmallCNN, 2), seed) for seed in (0, 1))
    start = average.classifier.weight.clone()
    for _ in range(3):
        follow(average, model, 0.9)
    expected = 0.9**3 * start + (1 - 0.9**3) * model.classifier.weight
    torch.testing.assert_close(average.classifier.weight, expected)


def test_an_ensemble_of_one_is_that_one():
    rows = {
        r["method"]: r
        for r in several_teachers.run_seed(0, recipe=replace(SHORT, members=1), on="validation")
    }
    assert list(rows) == ["teacher", *METHODS]
    alike = ("teacher", "one of five", "best of five", "five together, logits")
    assert len({rows[name]["accuracy"] for name in alike}) == 1
    students = ("born again", "ensemble", "ensemble, logits", "surest of five")
    for name in students:
        assert rows[name]["ece"] == pytest.approx(rows["born again"]["ece"], abs=0.2)
    assert rows["labels"]["ece"] != pytest.approx(rows["born again"]["ece"], abs=1e-6)


def test_a_student_does_not_depend_on_who_learns_beside_it():
    every = {
        row["method"]: row for row in several_teachers.run_seed(0, recipe=SHORT, on="validation")
    }
    chosen = ("mutual learning", "pool, averaged teacher")
    for row in several_teachers.run_seed(0, recipe=SHORT, methods=chosen, on="validation"):
        assert row == pytest.approx(every[row["method"]], abs=0.3)
