from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdlearn.experiments import rare_classes
from kdlearn.experiments.rare_classes import METHODS, RECIPE, Method, log_prior, loss_of

LABELS = torch.tensor([0] * 12 + [1] * 6 + [2] * 2)
SHORT = replace(
    RECIPE,
    pool=1200,
    teacher_images=(60, 4),
    student_images=(20, 2),
    teacher_epochs=2,
    student_steps=20,
)


def logits(seed):
    return torch.randn(len(LABELS), 3, generator=torch.Generator().manual_seed(seed))


def test_weighted_every_class_counts_alike():
    own = logits(0)
    each = F.cross_entropy(own, LABELS, reduction="none")
    by_class = torch.stack([each[label == LABELS].mean() for label in range(3)])
    loss = loss_of(Method(weighted=True), own, LABELS, own, log_prior(LABELS))
    assert loss.item() == pytest.approx(by_class.mean().item(), rel=1e-5)


def test_a_teacher_that_is_sure_of_the_labels_teaches_them():
    own, sure = logits(1), 1e4 * F.one_hot(LABELS, 3).float()
    prior = log_prior(LABELS)
    soft = loss_of(Method("balanced", 1.0), own, LABELS, sure, prior)
    assert soft.item() == pytest.approx(F.cross_entropy(own, LABELS).item(), rel=1e-5)


def test_adjusted_the_loss_is_least_where_the_densities_are():
    # p(k | x) = pi_k p(x | k) / p(x): with logits log p(x | k) the adjusted loss knows the labels.
    prior = log_prior(LABELS)
    flat, own = torch.zeros(len(LABELS), 3), prior.expand(len(LABELS), 3)
    adjusted = loss_of(Method(adjusted=True), flat, LABELS, flat, prior)
    assert adjusted.item() == pytest.approx(F.cross_entropy(own, LABELS).item(), rel=1e-6)


def test_a_student_does_not_depend_on_who_learns_beside_it():
    chosen = ("KD, prior taken off", "labels, weighted")
    together = {
        row["method"]: row for row in rare_classes.run_seed(0, recipe=SHORT, on="validation")
    }
    assert list(together) == ["teacher", *METHODS]
    alone = rare_classes.run_seed(0, recipe=SHORT, methods=chosen, on="validation")
    for row in alone:
        assert row == pytest.approx(together[row["method"]], abs=0.3)
