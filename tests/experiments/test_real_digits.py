import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlearn.experiments.real_digits import logit_matching, share_shift
from kdlearn.losses import soft_target_loss


@given(st.integers(0, 10_000), st.sampled_from([(3,), (7, 8)]), st.floats(0.01, 0.99))
def test_a_shifted_class_wins_the_share_that_was_asked_for(seed, classes, share):
    logits = torch.randn(200, 10, generator=torch.Generator().manual_seed(seed))
    shift = share_shift(logits, classes, share)
    moved = logits.clone()
    moved[:, list(classes)] += shift
    won = torch.isin(moved.argmax(1), torch.tensor(classes)).sum().item()
    assert abs(won - max(round(200 * share), 1)) <= 1


def test_matching_logits_is_the_limit_of_a_high_temperature():
    student = torch.randn(50, 10, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(50, 10, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(logit_matching(student, teacher), student)
    hot = soft_target_loss(student, teacher, temperature=1000)
    (found,) = torch.autograd.grad(hot, student)
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=1e-5)
