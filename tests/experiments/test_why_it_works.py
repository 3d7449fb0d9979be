from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kdlearn.experiments import why_it_works
from kdlearn.experiments.why_it_works import (
    RECIPE,
    class_mean,
    confidence,
    drawn,
    permuted,
    shuffled,
    smoothed,
    soft,
    target_loss,
)
from kdlearn.losses import soft_target_loss

TEACHER = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, -1.0], [1.0, 2.0, 0.5], [4.0, -2.0, 0.0]])
LABELS = torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("noisy", "steady"), [(drawn, soft), (permuted, confidence), (shuffled, class_mean)]
)
def test_the_targets_of_a_pair_are_equal_on_average_and_one_of_them_varies(noisy, steady):
    torch.manual_seed(0)
    draws = torch.stack([noisy(TEACHER, LABELS, 2.0) for _ in range(4000)])
    mean = steady(TEACHER, LABELS, 2.0)
    torch.testing.assert_close(draws.mean(0), mean, atol=0.03, rtol=0)
    assert draws.std(0).max() > 0.03
    assert torch.equal(mean, steady(TEACHER, LABELS, 2.0))


def test_each_target_is_a_distribution():
    torch.manual_seed(0)
    for method in why_it_works.METHODS.values():
        target = method.target(TEACHER, LABELS, method.temperature)
        assert (target >= 0).all()
        torch.testing.assert_close(target.sum(1), torch.ones(4))


def test_confidence_keeps_the_probability_of_the_label_and_smoothing_does_not_ask_the_teacher():
    own = soft(TEACHER, LABELS, 4.0).gather(1, LABELS[:, None])
    torch.testing.assert_close(confidence(TEACHER, LABELS, 4.0).gather(1, LABELS[:, None]), own)
    assert torch.equal(smoothed(TEACHER, LABELS, 1.0), smoothed(-TEACHER, LABELS, 1.0))


def gradient(loss, student: Tensor) -> Tensor:
    student = student.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(student), student)
    return result


def test_the_loss_of_soft_targets_has_the_gradient_of_distillation():
    student = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    mine = gradient(lambda z: target_loss(z, soft(TEACHER, LABELS, 3.0), 3.0), student)
    theirs = gradient(lambda z: soft_target_loss(z, TEACHER, temperature=3.0), student)
    torch.testing.assert_close(mine, theirs)


def test_a_student_does_not_depend_on_who_is_trained_beside_it():
    recipe = replace(RECIPE, pool=200, images=64, teacher_epochs=1, student_epochs=3)
    names = ["labels", "KD", "KD, fixed images", "KD, teacher of the same images", "KD, 3x"]
    together = {r["method"]: r for r in why_it_works.run_seed(0, recipe=recipe, methods=names)}
    assert list(together) == ["teacher", *names]
    for name in names:
        *_, alone = why_it_works.run_seed(0, recipe=recipe, methods=[name])
        assert alone["accuracy"] == pytest.approx(together[name]["accuracy"], abs=0.2)
        assert alone["kl_to_teacher"] == pytest.approx(together[name]["kl_to_teacher"], abs=1e-3)
