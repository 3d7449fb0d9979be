import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdlearn.experiments import subclasses
from kdlearn.experiments.subclasses import METHODS, RECIPE, class_logits, spread_loss

SHORT = replace(RECIPE, pool=60, images=30, teacher=(8,), teacher_epochs=1, student_epochs=1)


def test_the_probability_of_a_class_is_the_sum_over_its_subclasses():
    logits = 3 * torch.randn(7, 10, generator=torch.Generator().manual_seed(0))
    sums = logits.softmax(-1).unflatten(-1, (2, 5)).sum(-1)
    torch.testing.assert_close(class_logits(logits).softmax(-1), sums)


def test_the_auxiliary_loss_is_that_of_the_paper():
    logits = np.random.default_rng(0).normal(size=(6, 10))
    rows = logits - logits.mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    inner = [math.log(sum(math.exp(a @ b) for b in rows)) for a in rows]
    expected = sum(inner) / 6 - 1 - math.log(6)
    assert spread_loss(torch.tensor(logits)).item() == pytest.approx(expected, abs=1e-9)


def test_equal_outputs_are_the_worst_for_the_auxiliary_loss():
    generator = torch.Generator().manual_seed(0)
    assert spread_loss(torch.randn(1, 10, generator=generator).expand(5, -1)).abs() < 1e-6
    assert spread_loss(torch.randn(5, 10, generator=generator)) < -0.1


def test_outputs_named_after_their_digits_know_as_many_as_they_can_tell_apart():
    digits = torch.arange(10).repeat(3)
    every = torch.nn.functional.one_hot(digits, 10).float()
    two = torch.nn.functional.one_hot((digits >= 5).long(), 10).float()
    assert subclasses.digits_told_apart(every.flip(1), digits) == pytest.approx(100)
    assert subclasses.digits_told_apart(two, digits) == pytest.approx(20)


def test_a_model_learns_which_half_a_digit_is_in_and_not_which_digit(monkeypatch):
    rows = {}
    for name, tell in (("right", lambda y: y), ("within halves", lambda y: y // 5 * 5 + 2)):
        read = subclasses.mnist5k

        def data(read=read, tell=tell, **options):
            made = read(**options)
            return replace(made, train=replace(made.train, labels=tell(made.train.labels)))

        monkeypatch.setattr(subclasses, "mnist5k", data)
        rows[name] = list(subclasses.run_seed(0, recipe=SHORT))
        monkeypatch.setattr(subclasses, "mnist5k", read)
    assert [row["method"] for row in rows["right"]] == ["teacher", *METHODS]
    assert rows["right"] == rows["within halves"]
