from dataclasses import replace

import pytest
import torch

from kdlearn.data import warped_digits
from kdlearn.distill.ensemble import Ensemble
from kdlearn.experiments import specialists
from kdlearn.experiments.specialists import (
    CLASSES,
    DUSTBIN,
    METHODS,
    PARTS,
    RECIPE,
    answers,
    of_specialists,
    part_of,
    train_teachers,
)
from tests.experiments.test_several_teachers import Says

SHORT = replace(RECIPE, pool=300, images=50, teacher=4, teacher_steps=5, student_steps=5)
LABELS = torch.tensor([0, 3, 4, 6, 7, 9])
generator = torch.Generator().manual_seed(0)
PLAIN = torch.randn(3, 6, CLASSES, generator=generator)
BINNED = torch.randn(3, 6, CLASSES + 1, generator=generator)
SAID = PLAIN, torch.randn(6, CLASSES, generator=generator), BINNED


def test_each_class_has_one_specialist():
    assert sorted(c for part in PARTS for c in part) == list(range(CLASSES))
    assert part_of(LABELS).tolist() == [0, 0, 1, 1, 2, 2]


def test_by_label_the_one_that_knows_the_class_answers():
    one, chosen = answers(SAID, LABELS)
    assert torch.equal(
        one["by label"], torch.stack([PLAIN[p, i] for i, p in enumerate(chosen["by label"])])
    )
    assert chosen["by label"].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_mean_is_that_of_an_ensemble_of_softened_models(temperature):
    one, _ = answers(SAID, LABELS, temperature)
    ensemble = Ensemble([Says(logits / temperature) for logits in PLAIN], "probabilities")
    expected = ensemble(torch.zeros(6, 1)).softmax(1)
    torch.testing.assert_close((one["mean"] / temperature).softmax(1), expected)


def test_the_surest_gives_the_largest_probability_of_all():
    one, chosen = answers(SAID, LABELS)
    torch.testing.assert_close(
        one["surest"].softmax(1).amax(1),
        PLAIN.softmax(-1).flatten(1).view(3, 6, CLASSES).amax((0, 2)),
    )
    assert len(chosen["surest"].unique()) > 1


def test_with_a_dustbin_the_one_that_throws_least_away_answers_without_it():
    one, chosen = answers(SAID, LABELS)
    thrown = BINNED.softmax(-1)[..., DUSTBIN]
    assert torch.equal(thrown.gather(0, chosen["dustbin"][None])[0], thrown.amin(0))
    assert one["dustbin"].shape == (6, CLASSES)


def test_sureness_is_told_apart_by_whose_digits_they_are():
    logits = torch.full((3, 6, CLASSES), -100.0)
    for specialist, part in enumerate(PARTS):
        own = part_of(LABELS) == specialist
        logits[specialist, own, part[0]] = 100
        logits[specialist, ~own] = 0
    assert of_specialists(logits, LABELS) == pytest.approx({"sure_own": 100, "sure_other": 10})


def test_a_specialist_never_answers_with_a_class_that_it_did_not_see():
    data = warped_digits(train=600, seed=0)
    recipe = replace(SHORT, teacher=8, teacher_steps=60)
    plain, general, binned = train_teachers(data.train, recipe, 0)(data.validation.images)
    own = part_of(data.validation.labels)
    for specialist, part in enumerate(PARTS):
        said = plain[specialist].argmax(1)
        assert torch.isin(said, torch.tensor(part)).all()
        thrown = binned[specialist].argmax(1) == DUSTBIN
        assert (
            thrown[own != specialist].float().mean()
            > thrown[own == specialist].float().mean() + 0.3
        )
    assert len(general.argmax(1).unique()) == CLASSES


def test_a_student_does_not_depend_on_who_learns_beside_it():
    rows = list(specialists.run_seed(0, recipe=SHORT, on="validation"))
    assert [row["method"] for row in rows] == ["teacher", *METHODS]
    every = {row["method"]: row for row in rows}
    chosen = ("asked the surest", "mean of specialists")
    for row in specialists.run_seed(0, recipe=SHORT, methods=chosen, on="validation"):
        assert row == pytest.approx(every[row["method"]], abs=0.3)
    assert every["asked by label"]["routed"] == 100
    assert "routed" not in every["asked all"]
