"""Exact expectations over all strings of a small language: no sampling error."""

import pytest
import torch

from kdlearn import losses
from kdlearn.losses.estimators import sampled_reverse_kl

KINDS = ["k1", "k2", "k3"]
LENGTH, SYMBOLS = 3, 4
STRINGS = torch.cartesian_prod(*[torch.arange(SYMBOLS)] * LENGTH)


@pytest.fixture
def tables():
    """Logits for each place and each previous token; the student's have a gradient."""
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, LENGTH, SYMBOLS, SYMBOLS, generator=generator, dtype=torch.float64)
    return pair[0].requires_grad_(), pair[1]


def logits(table):
    before = torch.cat([torch.zeros_like(STRINGS[:, :1]), STRINGS[:, :-1]], 1)
    return table[torch.arange(LENGTH), before]


def probabilities(table):
    taken = logits(table).log_softmax(-1).gather(2, STRINGS[..., None]).squeeze(2)
    return taken.sum(1).exp().detach()


def mean(loss, student, teacher, **options):
    """The mean over strings that the student draws, the draws held fixed."""
    weights = probabilities(student)
    rows = zip(weights, logits(student), logits(teacher), STRINGS, strict=True)
    if options:
        return sum(w * loss(s, t, y, **options) for w, s, t, y in rows)
    return sum(w * loss(s, t) for w, s, t, _ in rows)


def gradient(value, table):
    return torch.autograd.grad(value, table)[0].flatten()


@pytest.mark.parametrize(("kind", "unbiased"), [("k1", True), ("k2", False), ("k3", True)])
def test_k1_and_k3_are_right_on_average_and_k2_is_not(tables, kind, unbiased):
    truth = mean(losses.reverse_kl, *tables)
    found = mean(sampled_reverse_kl, *tables, estimator=kind)
    assert torch.isclose(found, truth, rtol=1e-10) == unbiased
    if not unbiased:
        assert found > 1.2 * truth


def test_the_gradient_of_k1_is_zero(tables):
    student, _ = tables
    size = gradient(mean(losses.reverse_kl, *tables), student).norm()
    assert (
        gradient(mean(sampled_reverse_kl, *tables, estimator="k1"), student).norm() < 1e-12 * size
    )


@pytest.mark.parametrize(("kind", "loss"), [("k2", losses.reverse_kl), ("k3", losses.forward_kl)])
def test_the_gradient_of_k2_is_the_reverse_kls_and_of_k3_the_forward_kls(tables, kind, loss):
    student, _ = tables
    expected = gradient(mean(loss, *tables), student)
    found = gradient(mean(sampled_reverse_kl, *tables, estimator=kind), student)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("near", [True, False])
def test_k3_varies_less_than_k1_near_the_teacher_alone(near):
    generator = torch.Generator().manual_seed(1)
    ratios = []
    for _ in range(50):
        q = torch.randn(20, generator=generator, dtype=torch.float64)
        p = q + (0.1 if near else 3.0) * torch.randn(20, generator=generator, dtype=torch.float64)
        weights, spread = q.softmax(-1), []
        for kind in ("k1", "k3"):
            values = torch.stack(
                [
                    sampled_reverse_kl(q[None], p[None], torch.tensor([y]), estimator=kind)
                    for y in range(20)
                ]
            )
            spread.append((weights * (values - (weights * values).sum()) ** 2).sum().sqrt())
        ratios.append(spread[0] / spread[1])
    typical = torch.stack(ratios).median()
    assert typical > 10 if near else typical < 2


def test_another_estimator_is_refused():
    with pytest.raises(ValueError, match="estimator is 'k4'"):
        sampled_reverse_kl(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([0]), estimator="k4")
