from dataclasses import replace
from functools import partial

import pytest
import torch

from kdlearn.experiments import transfer_sets
from kdlearn.experiments.common import seeded
from kdlearn.experiments.transfer_sets import METHODS, RECIPE, made_from, shown, small
from kdlearn.models import SmallCNN

SHORT = replace(RECIPE, pool=300, images=50, teacher_epochs=1, steps=4, made_steps=3)


def test_images_made_from_a_teacher_look_to_it_as_they_were_asked_to():
    teacher = seeded(partial(SmallCNN, 4), 0)
    with torch.no_grad():  # its batch normalizations see some images
        for _ in range(20):
            teacher.train()(torch.rand(64, 1, 16, 16))
    teacher.eval()
    weights = [weight.clone() for weight in teacher.parameters()]
    made = made_from(teacher, 40, steps=80, rate=0.1, seed=0)
    found = teacher(made).argmax(1)
    assert (found == torch.arange(40) % 10).float().mean() > 0.9
    for weight, before in zip(teacher.parameters(), weights, strict=True):
        assert torch.equal(weight, before)


def test_a_mixed_pair_lies_between_its_two_images():
    sets = {"mixed": torch.cat([torch.zeros(50, 1, 16, 16), torch.ones(50, 1, 16, 16)])}
    images, _ = shown(sets, ("mixed",), 400, torch.Generator().manual_seed(0))
    centers = images[:, 0, 7:9, 7:9].mean((1, 2))
    inside = (centers > 0.02) & (centers < 0.98)
    assert 0.4 < inside.float().mean() < 0.6  # half of the pairs are of one kind


def test_shrunken_digits_keep_their_mean_and_their_border():
    images = torch.rand(2, 1, 28, 28)
    shrunken = small(images)
    assert shrunken.shape == (2, 1, 16, 16)
    torch.testing.assert_close(shrunken[..., 2:-2, 2:-2].mean(), images.mean(), atol=0.01, rtol=0)
    assert (shrunken[..., :2] == 0).all() and (shrunken[..., -2:, :] == 0).all()


def test_a_student_does_not_depend_on_who_learns_beside_it():
    together = {
        row["method"]: row for row in transfer_sets.run_seed(0, recipe=SHORT, on="validation")
    }
    assert list(together) == ["teacher", *METHODS]
    chosen = ("KD, its digits and photographs", "labels")
    for row in transfer_sets.run_seed(0, recipe=SHORT, methods=chosen, on="validation"):
        assert row == pytest.approx(together[row["method"]], abs=0.3)
