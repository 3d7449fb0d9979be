from dataclasses import replace

import pytest
import torch
from torch import nn

from kdlearn.experiments import EXPERIMENTS
from kdlearn.experiments.common import Recipe, seeded

# The shortest run that every experiment can make.
CNN = {"pool": 120, "images": 40, "teacher_epochs": 1, "student_epochs": 3}
SHORT = {
    "backdoor": {"pool": 200, "clean": 50, "width": 2, "epochs": 1, "stage": 1},
    "bert-losses": {"sequences": 8, "most_steps": 3, "enough": 0.0, "steps": 2},
    "capacity-gap": {**CNN, "pool": 192, "images": 64},
    "cluttered-digits": CNN,
    "consistent-copies": CNN,
    "date-translation": {"dates": 80, "teacher_steps": 3, "student_steps": 3, "exam": 20},
    "divergences": {"length": 4, "steps": 3},
    "drafts": {"contexts": 9, "steps": 3, "drawn": 50},
    "dropped-term": {"length": 2, "steps": 3},
    "extraction": {
        "members": 60,
        "strangers": 60,
        "steps": 3,
        "teacher": (8,),
        "student": (8,),
    },
    "feature-losses": {**CNN, "pool": 200, "images": 20, "copies": 2},
    "fidelity": CNN,
    "four-heads": {"pool": 200, "scenes": 40, "held_out": 40, "teacher_steps": 2, "steps": 2},
    "initialization": CNN,
    "kl-estimators": {"pairs": 5},
    "linear-recall": {"teacher_accuracy": 0.0, "most_steps": 3, "student_steps": 3, "exam": 2},
    "rare-classes": {
        "pool": 300,
        "teacher_images": (12, 3),
        "student_images": (8, 2),
        "teacher_epochs": 1,
        "student_steps": 3,
    },
    "real-digits": CNN,
    "relu-on-logits": {"pool": 120, "epochs": 1},
    "retrieval": {"steps": 3},
    "same-crop": {"pool": 120, "images": 40, "teacher_epochs": 1, "student_steps": 3},
    "same-data": CNN,
    "several-teachers": {"pool": 120, "images": 40, "members": 2, "steps": 2},
    "shortcut": {"pool": 120, "images": 40, "copies": 1, "teacher_steps": 3, "student_steps": 3},
    "silent-failures": {**CNN, "copies": 2},
    "smooth-teachers": CNN,
    "sparse-parity": {
        "signs": 8,
        "support": 2,
        "teacher": 32,
        "student_steps": 40,
        "teacher_steps": 40,
        "checkpoints": 4,
        "held_out": 100,
    },
    "specialists": {
        "pool": 200,
        "images": 40,
        "batch_size": 16,
        "teacher": 2,
        "teacher_steps": 2,
        "student_steps": 2,
    },
    "subclasses": {"pool": 120, "images": 40, "teacher_epochs": 1, "student_epochs": 1},
    "subliminal": {"pool": 120, "teacher_steps": 3, "student_steps": 3},
    "text-drafts": {
        "target_steps": 2,
        "pieces": 20,
        "draft_steps": 3,
        "streams": 2,
        "calls": 2,
    },
    "transfer-sets": {**CNN, "steps": 3, "made_steps": 2},
    "truncated-kl": {"tokens": 50, "steps": 3},
    "two-tokenizers": {"labels": 20, "steps": 3},
    "unlabeled": {"images": 100, "unlabeled": 50, "teacher_steps": 3, "student_steps": 3},
    "vit-attention": {"pool": 120, "images": 40, "teacher_epochs": 1, "steps": 2},
    "warped-digits": CNN,
    "which-teacher": CNN,
    "who-writes": {"walks": 8, "many": 16, "warm_steps": 2, "steps": 4, "held_out": 20},
    "why-it-works": {**CNN, "pool": 200, "images": 64},
    "wrong-labels": {"pool": 120, "teacher_epochs": 2, "student_epochs": 1},
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_measures_its_columns_for_a_teacher_and_each_method(name):
    experiment = EXPERIMENTS[name]
    method = list(experiment.METHODS)[-1]
    recipe = replace(experiment.RECIPE, **SHORT[name])
    rows = list(experiment.run_seed(2, recipe=recipe, methods=[method], on="validation"))
    assert [(row["seed"], row["method"]) for row in rows] == [(2, "teacher"), (2, method)]
    measured = set(rows[0]) | set(rows[1])
    assert measured <= {"seed", "method", *experiment.COLUMNS}
    assert all(experiment.COLUMNS[0] in row for row in rows)  # what the table is about
    assert rows[0].get("agreement", 100) == 100
    assert rows[0].get("kl_to_teacher", 0) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_refuses_an_unknown_method_or_split_before_it_trains(name):
    run_seed = EXPERIMENTS[name].run_seed
    with pytest.raises(KeyError, match="no method .*magic.*: choose from "):
        next(run_seed(0, methods=["magic"]))
    with pytest.raises(ValueError, match="measure on 'validation' or 'test', got 'train'"):
        next(run_seed(0, on="train"))


def test_a_model_follows_from_its_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (seeded(lambda: nn.Linear(2, 2), seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_numbers_of_an_experiment_are_those_of_its_recipe():
    recipe = Recipe.read("cluttered-digits")
    assert (recipe.pool, recipe.images, recipe.student_epochs) == (10000, 400, 86)
    assert (recipe.teacher_rate, recipe.student_rate) == (3e-3, 4e-3)
