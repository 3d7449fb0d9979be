"""Divergences of language models against closed forms, limits, and exact expectations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from kdlearn import losses
from kdlearn.distill import Taps
from kdlearn.store import TopK

few = settings(max_examples=15, deadline=None)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


@st.composite
def token_pairs(draw):
    batch, length, words = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    size = draw(st.floats(0.1, 4))
    shape = (2, batch, length, words)
    student, teacher = size * torch.randn(shape, dtype=torch.float64, generator=generator)
    mask = torch.rand(batch, length, generator=generator) < 0.7
    mask[0, 0] = True
    return student, teacher, mask


@given(token_pairs(), st.floats(0.5, 4))
@few
def test_the_two_kls_match_the_closed_form(pair, temperature):
    student, teacher, mask = pair
    q, p = (softmax(side[mask].numpy() / temperature) for side in (student, teacher))
    options = {"temperature": temperature, "mask": mask}
    forward = losses.forward_kl(student, teacher, **options)
    assert forward.item() == pytest.approx(kl(p, q).mean(), rel=1e-9, abs=1e-12)
    reverse = losses.reverse_kl(student, teacher, **options)
    assert reverse.item() == pytest.approx(kl(q, p).mean(), rel=1e-9, abs=1e-12)
    soft = losses.soft_target_loss(student, teacher, temperature=temperature)
    unmasked = losses.forward_kl(student, teacher, temperature=temperature)
    torch.testing.assert_close(soft, temperature**2 * unmasked)


@given(token_pairs())
@few
def test_total_variation_matches_the_closed_form(pair):
    student, teacher, mask = pair
    q, p = (softmax(side[mask].numpy()) for side in (student, teacher))
    expected = np.abs(p - q).sum(-1).mean() / 2
    assert losses.total_variation(student, teacher, mask=mask).item() == pytest.approx(expected)


@given(token_pairs(), st.floats(0.01, 0.99))
@few
def test_mixtures_match_the_closed_form(pair, share):
    student, teacher, mask = pair
    q, p = (softmax(side[mask].numpy()) for side in (student, teacher))
    m = share * p + (1 - share) * q
    skewed = losses.skew_kl(student, teacher, skew=share, mask=mask)
    assert skewed.item() == pytest.approx(kl(p, m).mean(), rel=1e-7, abs=1e-12)
    jsd = losses.generalized_jsd(student, teacher, beta=share, mask=mask)
    expected = share * kl(p, m).mean() + (1 - share) * kl(q, m).mean()
    assert jsd.item() == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_defaults_are_those_of_the_papers():
    student, teacher = torch.randn(2, 2, 3, 5)
    assert losses.skew_kl(student, teacher) == losses.skew_kl(student, teacher, skew=0.1)
    explicit = losses.generalized_jsd(student, teacher, beta=0.5, temperature=1.0)
    assert losses.generalized_jsd(student, teacher) == explicit
    for loss in (losses.forward_kl, losses.reverse_kl):
        assert loss(student, teacher) == loss(student, teacher, temperature=1.0)


def test_the_jsd_has_a_temperature():
    student, teacher = torch.randn(2, 2, 3, 5)
    cooled = losses.generalized_jsd(student / 2, teacher / 2)
    torch.testing.assert_close(losses.generalized_jsd(student, teacher, temperature=2.0), cooled)


def test_a_skew_of_nothing_is_forward_kl_and_of_all_is_zero():
    student, teacher = torch.randn(2, 2, 3, 5, dtype=torch.float64)
    student.requires_grad_()
    bare = losses.skew_kl(student, teacher, skew=0)
    torch.testing.assert_close(bare, losses.forward_kl(student, teacher))
    whole = losses.skew_kl(student, teacher, skew=1)
    assert abs(whole.item()) < 1e-12
    (gradient,) = torch.autograd.grad(bare + whole, student)
    (expected,) = torch.autograd.grad(losses.forward_kl(student, teacher), student)
    torch.testing.assert_close(gradient, expected)


def test_the_jsd_jumps_at_its_ends_and_its_slope_there_is_a_kl():
    student, teacher = torch.randn(2, 2, 3, 5, dtype=torch.float64)
    forward, reverse = losses.forward_kl(student, teacher), losses.reverse_kl(student, teacher)
    assert losses.generalized_jsd(student, teacher, beta=0) == forward
    assert losses.generalized_jsd(student, teacher, beta=1) == reverse
    near = 1e-5
    low = losses.generalized_jsd(student, teacher, beta=near)
    high = losses.generalized_jsd(student, teacher, beta=1 - near)
    assert low < 0.001 * forward
    assert high < 0.001 * reverse
    torch.testing.assert_close(low / near, forward, rtol=1e-3, atol=0)
    torch.testing.assert_close(high / near, reverse, rtol=1e-3, atol=0)


def test_the_jsd_is_symmetric_in_the_middle_and_mirrored_elsewhere():
    student, teacher = torch.randn(2, 2, 3, 5)
    jsd = losses.generalized_jsd
    torch.testing.assert_close(jsd(student, teacher), jsd(teacher, student))
    torch.testing.assert_close(jsd(student, teacher, beta=0.2), jsd(teacher, student, beta=0.8))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_lie_between_zero_and_one(share):
    x = torch.zeros(1, 3)
    with pytest.raises(ValueError, match="skew is .*, expected a number from 0 to 1"):
        losses.skew_kl(x, x, skew=share)
    with pytest.raises(ValueError, match="beta is .*, expected a number from 0 to 1"):
        losses.generalized_jsd(x, x, beta=share)


def stored(teacher, k):
    return teacher.log_softmax(-1).topk(k)


@given(token_pairs(), st.integers(1, 5))
@few
def test_top_k_matches_the_closed_forms(pair, k):
    student, teacher, mask = pair
    k = min(k, student.shape[-1])
    log_probs, indices = stored(teacher, k)
    q = np.take_along_axis(softmax(student.numpy()), indices.numpy(), -1)[mask.numpy()]
    p = log_probs.exp().numpy()[mask.numpy()]
    p_tail, q_tail = 1 - p.sum(-1), 1 - q.sum(-1)
    plain = kl(p, q)
    expected = {
        "ignore": plain.mean(),
        "renormalize": kl(p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)).mean(),
        "bucket": plain.mean(),
    }
    if k < student.shape[-1]:
        expected["bucket"] += (p_tail * np.log(p_tail / q_tail)).mean()
    for tail, value in expected.items():
        loss = losses.top_k_kl(student, log_probs, indices, tail=tail, mask=mask)
        assert loss.item() == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_all_tokens_stored_is_the_full_kl():
    student, teacher = torch.randn(2, 2, 3, 5, dtype=torch.float64)
    student.requires_grad_()
    log_probs, indices = stored(teacher, 5)
    full = losses.forward_kl(student, teacher)
    for tail in ("bucket", "renormalize", "ignore"):
        loss = losses.top_k_kl(student, log_probs, indices, tail=tail)
        torch.testing.assert_close(loss, full)
        (gradient,) = torch.autograd.grad(loss, student)
        (expected,) = torch.autograd.grad(full, student, retain_graph=True)
        torch.testing.assert_close(gradient, expected)


def test_the_bucket_is_the_default_and_lies_below_the_full_kl():
    student, teacher = torch.randn(2, 4, 9, dtype=torch.float64)
    values = [losses.top_k_kl(student, *stored(teacher, k)).item() for k in range(1, 10)]
    assert all(after > before - 1e-12 for before, after in itertools.pairwise(values))
    assert values[-1] == pytest.approx(losses.forward_kl(student, teacher).item())
    explicit = losses.top_k_kl(student, *stored(teacher, 3), tail="bucket")
    assert losses.top_k_kl(student, *stored(teacher, 3)) == explicit


def test_one_renormalized_token_teaches_nothing_and_ignoring_can_be_negative():
    student, teacher = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    one = stored(teacher, 1)
    assert losses.top_k_kl(student, *one, tail="renormalize") == 0
    assert losses.top_k_kl(student, *one, tail="ignore") < 0
    assert losses.top_k_kl(student, *one, tail="bucket") > 0


def test_a_teacher_that_is_sure_leaves_nothing_for_the_bucket():
    student = torch.randn(1, 4, requires_grad=True)
    for excess in (0.0, 1e-6):
        loss = losses.top_k_kl(student, torch.full((1, 1), excess), torch.tensor([[2]]))
        torch.testing.assert_close(loss, -student.log_softmax(-1)[0, 2], atol=1e-5, rtol=1e-5)
        (gradient,) = torch.autograd.grad(loss, student)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["top_k_kl", "sampled_kl"])
@pytest.mark.parametrize(
    ("logits", "log_probs", "indices", "error", "message"),
    [
        ((2, 5), [[-1.0]], [[0]], ValueError, r"logits have shape \(2, 5\) and the teacher's"),
        (
            (1, 5),
            [[-1.0]],
            [[5]],
            ValueError,
            r"indices go from 5 to 5, but the student's 5 tokens",
        ),
        ((1, 5), [[-1.0]], [[-1]], ValueError, r"indices go from -1 to -1.*need one tokenizer"),
        ((1, 5), [[-1.0, -2.0]], [[-1, 2]], ValueError, r"indices go from -1 to 2"),
        ((1, 5), [[-1.0, -2.0]], [[2, 5]], ValueError, r"indices go from 2 to 5"),
        ((1, 5), [[-1.0]], [[0, 1]], ValueError, r"indices have shape \(1, 2\) and log-prob"),
        ((1, 5), [[-1.0]], [[0.0]], TypeError, r"indices must be a tensor of torch.int64"),
        ((1, 5), [[0.5]], [[0]], ValueError, r"log-probabilities are above 0: give logarithms"),
        ((2, 5), [[0.5], [-1.0]], [[0], [0]], ValueError, r"log-probabilities are above 0"),
        ((5,), [-1.0], [0], ValueError, r"logits need shape .*add a batch dimension"),
    ],
)
def test_stored_tokens_that_do_not_fit_are_refused(
    name, logits, log_probs, indices, error, message
):
    with pytest.raises(error, match=message):
        getattr(losses, name)(torch.zeros(logits), torch.tensor(log_probs), torch.tensor(indices))


def test_indices_are_a_tensor():
    with pytest.raises(TypeError, match="indices must be a tensor of torch.int64"):
        losses.top_k_kl(torch.zeros(1, 3), torch.tensor([[-1.0]]), [[0]])


def test_the_top_k_are_probabilities_of_different_tokens():
    student = torch.zeros(1, 5)
    half = torch.tensor([[0.5, 0.4]]).log()
    with pytest.raises(ValueError, match="name a token twice in a row"):
        losses.top_k_kl(student, half, torch.tensor([[3, 3]]))
    with pytest.raises(ValueError, match="sum to more than 1: take the log-softmax"):
        losses.top_k_kl(student, half + 0.2, torch.tensor([[3, 1]]))
    with pytest.raises(ValueError, match="sum to more than 1"):
        both = torch.cat([half, half + 0.2])
        losses.top_k_kl(torch.zeros(2, 5), both, torch.tensor([[3, 1], [3, 1]]))
    with pytest.raises(ValueError, match="tail is 'zero', expected one of 'bucket'"):
        losses.top_k_kl(student, half, torch.tensor([[3, 1]]), tail="zero")


@pytest.mark.parametrize("proposed", [False, True])
def test_sampled_kl_is_unbiased_in_value_and_gradient(proposed):
    """Every pair of draws, weighted with its probability, adds up to the full KL."""
    torch.manual_seed(0)
    student, teacher, other = torch.randn(3, 1, 4, dtype=torch.float64)
    student.requires_grad_()
    log_t, log_q = teacher.log_softmax(-1), (other if proposed else teacher).log_softmax(-1)
    value = 0
    for draw in itertools.product(range(4), repeat=2):
        indices = torch.tensor([draw])
        probability = log_q.gather(-1, indices).exp().prod()
        proposal = log_q.gather(-1, indices) if proposed else None
        loss = losses.sampled_kl(
            student, log_t.gather(-1, indices), indices, proposal_log_probs=proposal
        )
        value = value + probability * loss
    full = losses.forward_kl(student, teacher)
    torch.testing.assert_close(value, full)
    torch.testing.assert_close(
        torch.autograd.grad(value, student), torch.autograd.grad(full, student)
    )


def test_the_mask_covers_the_proposal_too():
    student, teacher = torch.randn(2, 1, 2, 4, dtype=torch.float64)
    indices = torch.tensor([[[0, 1, 1], [3, 2, 0]]])
    log_t = teacher.log_softmax(-1).gather(-1, indices)
    log_q = torch.full_like(log_t, math.log(0.25))
    mask = torch.tensor([[False, True]])
    masked = losses.sampled_kl(student, log_t, indices, proposal_log_probs=log_q, mask=mask)
    alone = losses.sampled_kl(
        student[:, 1:], log_t[:, 1:], indices[:, 1:], proposal_log_probs=log_q[:, 1:]
    )
    torch.testing.assert_close(masked, alone)


def test_a_proposal_of_another_shape_or_kind_is_refused():
    student, log_t, indices = torch.zeros(1, 4), torch.tensor([[-1.0]]), torch.tensor([[2]])
    with pytest.raises(ValueError, match=r"proposal log-probabilities have shape \(1, 2\)"):
        losses.sampled_kl(student, log_t, indices, proposal_log_probs=torch.zeros(1, 2))
    with pytest.raises(TypeError, match="proposal log-probabilities must be floating point"):
        losses.sampled_kl(student, log_t, indices, proposal_log_probs=indices)
    with pytest.raises(ValueError, match="^proposal log-probabilities are above 0"):
        losses.sampled_kl(student, log_t, indices, proposal_log_probs=log_t + 5)


@given(token_pairs(), st.integers(2, 9))
@few
def test_uld_compares_sorted_probabilities(pair, words):
    student, teacher, mask = pair
    teacher = torch.cat([teacher, teacher.sin(), teacher.cos()], -1)[..., :words]
    rows = []
    for p, q in zip(softmax(teacher[mask].numpy()), softmax(student[mask].numpy()), strict=True):
        longest = max(len(p), len(q))
        p, q = (np.pad(np.sort(side)[::-1], (0, longest - len(side))) for side in (p, q))
        rows.append(np.abs(p - q).sum())
    loss = losses.uld_loss(student, teacher, mask=mask)
    assert loss.item() == pytest.approx(np.mean(rows), abs=1e-12)


def test_uld_wants_the_same_positions():
    with pytest.raises(ValueError, match="crop both to the same tokens"):
        losses.uld_loss(torch.zeros(1, 3, 5), torch.zeros(1, 4, 7))


class Pair:
    """Two tiny language models over 3 words: logits depend on the word before."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        student, teacher = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
        self.student, self.teacher = student.requires_grad_(), teacher

    def logits(self, table, tokens):
        before = torch.cat([torch.full((len(tokens), 1), 3), tokens[:, :-1]], 1)
        return table[before]

    def log_probability(self, table, tokens):
        logits = F.log_softmax(self.logits(table, tokens), -1)
        return logits.gather(-1, tokens[..., None]).squeeze(-1)


def test_reinforce_is_the_kl_of_sequences_in_value_and_gradient():
    """Every sequence of three words, weighted with its probability."""
    pair = Pair()
    tokens = torch.tensor(list(itertools.product(range(3), repeat=3)))
    log_s = pair.log_probability(pair.student, tokens).sum(1)
    log_t = pair.log_probability(pair.teacher, tokens).sum(1)
    exact = (log_s.exp() * (log_s - log_t)).sum()
    (gradient,) = torch.autograd.grad(exact, pair.student, retain_graph=True)
    estimate = 0
    for row, probability in zip(tokens, log_s.detach().exp(), strict=True):
        logits = [pair.logits(table, row[None]) for table in (pair.student, pair.teacher)]
        estimate = estimate + probability * losses.sequence_reverse_kl(*logits, row[None])
    torch.testing.assert_close(estimate.detach(), exact.detach())
    (estimated,) = torch.autograd.grad(estimate, pair.student)
    torch.testing.assert_close(estimated, gradient)


def test_reinforce_sums_over_tokens_and_averages_over_sequences():
    pair = Pair()
    tokens = torch.tensor([[0, 2, 1], [1, 1, 0]])
    ratio = pair.log_probability(pair.student, tokens) - pair.log_probability(pair.teacher, tokens)
    logits = [pair.logits(table, tokens) for table in (pair.student, pair.teacher)]
    loss = losses.sequence_reverse_kl(*logits, tokens)
    torch.testing.assert_close(loss, ratio.sum(1).mean())
    mask = torch.tensor([[False, True, True], [False, True, False]])
    answer = losses.sequence_reverse_kl(*logits, tokens, mask=mask)
    torch.testing.assert_close(answer, (ratio * mask).sum(1).mean())


def test_reinforce_averages_gradients_over_sequences():
    pair = Pair()
    tokens = torch.tensor([[0, 2, 1], [1, 1, 0]])

    def gradient(rows):
        logits = [pair.logits(table, rows) for table in (pair.student, pair.teacher)]
        return torch.autograd.grad(losses.sequence_reverse_kl(*logits, rows), pair.student)[0]

    alone = gradient(tokens[:1]) + gradient(tokens[1:])
    torch.testing.assert_close(gradient(tokens), alone / 2)


def test_reinforce_wants_sequences_of_words_that_exist():
    logits = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match=r"logits need shape \(batch, length, vocabulary\)"):
        losses.sequence_reverse_kl(logits[0], logits[0], torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels go from 4 to 4, but 4 classes"):
        losses.sequence_reverse_kl(logits, logits, torch.full((2, 3), 4))


def test_forbidden_words_are_borne_where_both_forbid_them():
    student, teacher = torch.randn(2, 1, 2, 4)
    student[..., 3] = teacher[..., 3] = -torch.inf
    student.requires_grad_()
    for name in ("forward_kl", "reverse_kl", "total_variation", "skew_kl", "generalized_jsd"):
        loss = getattr(losses, name)
        value = loss(student, teacher)
        torch.testing.assert_close(value, loss(student[..., :3], teacher[..., :3]))
        (gradient,) = torch.autograd.grad(value, student)
        assert gradient.isfinite().all(), name


def test_a_word_that_only_the_student_says_would_cost_without_bound():
    teacher = torch.tensor([[0.0, -torch.inf]])
    with pytest.raises(ValueError, match=r"^reverse_kl is inf: what one side rules out by -inf"):
        losses.reverse_kl(torch.zeros(1, 2), teacher)


def test_a_drawn_token_that_the_teacher_never_says_costs_nothing():
    student = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    drawn = torch.tensor([[0, 3]])
    log_t = torch.tensor([[0.5, 0.0]], dtype=torch.float64).log()
    log_q = torch.tensor([[0.25, 0.5]], dtype=torch.float64).log()
    loss = losses.sampled_kl(student, log_t, drawn, proposal_log_probs=log_q)
    expected = 0.5 * 2 * (math.log(0.5) - student.log_softmax(-1)[0, 0])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, student), torch.autograd.grad(expected, student)
    )
    with pytest.raises(ValueError, match="sampled_kl is -?inf: what one side rules out"):
        losses.sampled_kl(student, log_t, drawn)


def test_a_proposal_that_is_the_teacher_changes_nothing():
    student, teacher = torch.randn(2, 3, 4, dtype=torch.float64)
    drawn = torch.randint(4, (3, 5))
    log_t = teacher.log_softmax(-1).gather(-1, drawn)
    plain = losses.sampled_kl(student, log_t, drawn)
    torch.testing.assert_close(
        losses.sampled_kl(student, log_t, drawn, proposal_log_probs=log_t), plain
    )


@pytest.mark.parametrize("name", ["cross_entropy", "top_k_kl", "sampled_kl", "uld_loss"])
def test_logits_of_images_are_rows(name):
    images = torch.randn(2, 5, 3, 3)
    stored, tokens = torch.full((2, 5, 3, 1), -1.0), torch.zeros(2, 5, 3, 1, dtype=torch.int64)
    rest = {"cross_entropy": (tokens[..., 0],), "uld_loss": (images,)}.get(name, (stored, tokens))
    with pytest.raises(ValueError, match=r"logits have shape \(2, 5, 3, 3\): make rows of them"):
        getattr(losses, name)(images, *rest)


@pytest.mark.parametrize("skew", [0, 0.1, 1])
def test_mixtures_leave_out_what_both_rule_out(skew):
    student, teacher = torch.randn(2, 3, 4, dtype=torch.float64)
    ruled_out = torch.full((3, 1), -torch.inf, dtype=torch.float64)
    given = torch.cat([student, ruled_out], -1).requires_grad_()
    loss = losses.skew_kl(given, torch.cat([teacher, ruled_out], -1), skew=skew)
    (slope,) = torch.autograd.grad(loss, given)
    exact = student.requires_grad_()
    expected = losses.skew_kl(exact, teacher, skew=skew)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(slope[:, :4], torch.autograd.grad(expected, exact)[0])
    assert slope[:, 4].abs().max() == 0


@pytest.mark.parametrize("tail", ["bucket", "renormalize", "ignore"])
def test_a_shift_of_all_logits_rounds_nothing_away(tail):
    student = torch.randint(-4, 5, (6, 20)) / 4.0
    stored, indices = torch.randn(6, 20).log_softmax(-1).topk(5)
    shifted = losses.top_k_kl(student + 2**20, stored, indices, tail=tail)
    torch.testing.assert_close(shifted, losses.top_k_kl(student, stored, indices, tail=tail))


@pytest.mark.parametrize("tail", ["bucket", "ignore"])
def test_tokens_that_were_not_stored_matter_however_improbable(tail):
    """A tail of exp(-200) is nothing beside 1 in single precision, and its logarithm is not."""
    student = torch.full((1, 6), -200.0)
    student[0, :2] = torch.tensor([0.0, 1.0])
    stored, indices = torch.tensor([[0.45, 0.45]]).log(), torch.tensor([[0, 1]])
    given, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    found = losses.top_k_kl(given, stored, indices, tail=tail)
    right = losses.top_k_kl(exact, stored.double(), indices, tail=tail)
    torch.testing.assert_close(found.double(), right, rtol=1e-5, atol=0)
    assert (right > 15) == (tail == "bucket")
    slopes = torch.autograd.grad(found, given)[0], torch.autograd.grad(right, exact)[0]
    torch.testing.assert_close(slopes[0].double(), slopes[1], rtol=1e-5, atol=1e-6)


def test_what_is_ignored_may_be_ruled_out():
    student = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]], requires_grad=True)
    stored, indices = torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[0, 1]])
    value = losses.top_k_kl(student, stored, indices, tail="ignore")
    cropped = student.detach()[:, :2].requires_grad_()
    right = losses.top_k_kl(cropped, stored, indices, tail="ignore")
    torch.testing.assert_close(value, right)
    slopes = torch.autograd.grad(value, student)[0], torch.autograd.grad(right, cropped)[0]
    torch.testing.assert_close(slopes[0][:, :2], slopes[1])
    assert slopes[0][:, 2:].abs().max() == 0


@pytest.mark.parametrize("k", [1, 5, 50])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_what_both_rule_out_is_left_no_mass_by_rounding(dtype, k):
    for seed in range(20):
        torch.manual_seed(seed)
        student, teacher = 2 * torch.randn(2, 3, 60)
        student[:, k:] = teacher[:, k:] = -torch.inf
        log_probs, indices = stored(teacher, k)
        found = losses.top_k_kl(student, log_probs.to(dtype), indices)
        right = losses.forward_kl(student.double(), teacher.double())
        loose = 1e-6 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(found.double(), right, rtol=loose, atol=loose)


def test_mass_that_is_left_where_the_student_rules_all_out_is_no_rounding():
    student, indices = torch.tensor([[0.0, 1.0, -torch.inf]]), torch.tensor([[0, 1]])
    for left in (0.1, 1e-4, 1e-5):
        kept_by = torch.tensor([[0.5, 0.5 - left]]).log()
        with pytest.raises(ValueError, match="top_k_kl is inf: what one side rules out"):
            losses.top_k_kl(student, kept_by, indices)


@pytest.mark.parametrize("wrong", ["student", "teacher"])
def test_a_head_has_the_precision_of_its_hidden_states(wrong):
    hidden, head = torch.randn(3, 4), nn.Linear(4, 7)
    half = torch.randn(7, 4).half()
    heads = (half, head) if wrong == "student" else (head, half)
    with pytest.raises(ValueError, match="hidden states are torch.float32 and their head torch.fl"):
        losses.linear_distillation_loss(hidden, heads[0], hidden, heads[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses.linear_distillation_loss(hidden, heads[0], hidden, heads[1])
    student, teacher = (
        F.linear(hidden, getattr(h, "weight", h).float(), getattr(h, "bias", None)) for h in heads
    )
    assert found.item() == pytest.approx(losses.forward_kl(student, teacher).item(), rel=0.1)


@pytest.mark.parametrize("low", [-1e4, -1e9, torch.finfo(torch.float32).min, -torch.inf])
def test_top_k_of_tokens_that_both_sides_rule_out_is_the_whole(low):
    student, teacher = torch.randn(2, 16, 50).unbind()
    student[:, 4:], teacher[:, 4:] = low, low
    log_probs, indices = teacher.log_softmax(-1).topk(6)
    found = losses.top_k_kl(student, log_probs, indices)
    torch.testing.assert_close(found, losses.forward_kl(student, teacher), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("low", [-1e4, -torch.inf])
def test_a_store_in_half_precision_leaves_nothing_to_what_both_sides_rule_out(dtype, low):
    student, teacher = torch.randn(2, 16, 50).unbind()
    student[:, 4:], teacher[:, 4:] = low, low
    log_probs, indices = teacher.log_softmax(-1).topk(6)
    whole = losses.forward_kl(student, teacher)
    for stored in (log_probs.to(dtype), log_probs.to(dtype).float()):
        stored, _ = TopK(6).restore((stored, indices))
        found = losses.top_k_kl(student, stored, indices)
        torch.testing.assert_close(found.float(), whole, rtol=0, atol=4 * torch.finfo(dtype).eps)


class Adapted(nn.Linear):
    def forward(self, x):
        return super().forward(x) + x.sum(dim=-1, keepdim=True)


def hooked() -> nn.Linear:
    head = nn.Linear(5, 7)
    head.register_forward_hook(lambda module, inputs, output: 3 * output)
    return head


@pytest.mark.parametrize(
    "head",
    [
        Adapted(5, 7),
        hooked(),
        nn.utils.spectral_norm(nn.Linear(5, 7)),
        nn.Sequential(nn.Linear(5, 7)),
    ],
    ids=["adapter", "hook", "old spectral norm", "no linear layer"],
)
def test_a_head_whose_weight_does_not_tell_what_it_computes_is_refused(head):
    hidden, plain = torch.randn(4, 5), nn.Linear(5, 7)
    for heads in ((head, plain), (plain, head)):
        with pytest.raises(ValueError, match="does more in forward than a product"):
            losses.linear_distillation_loss(hidden, heads[0], hidden, heads[1])


def test_a_head_with_a_parametrized_weight_is_what_it_computes():
    hidden, teacher = torch.randn(4, 5), torch.randn(4, 7)
    head = nn.utils.parametrizations.weight_norm(nn.Linear(5, 7))
    for _ in range(2):  # the weight is made anew each time
        found, whole = (
            losses.linear_distillation_loss(hidden, head, teacher),
            losses.forward_kl(head(hidden), teacher),
        )
        torch.testing.assert_close(found, whole)
        one, other = (torch.autograd.grad(loss, list(head.parameters())) for loss in (found, whole))
        torch.testing.assert_close(one, other)


def test_a_skew_of_zero_is_the_forward_kl_also_where_that_is_infinite():
    student, teacher = torch.randn(2, 6, 5).unbind()
    assert torch.equal(
        losses.skew_kl(student, teacher, skew=0), losses.forward_kl(student, teacher)
    )
    student[0, 1] = -torch.inf
    for loss in (losses.forward_kl, lambda *sides: losses.skew_kl(*sides, skew=0)):
        with pytest.raises(ValueError, match="rules out by -inf"):
            loss(student, teacher)


@pytest.mark.parametrize("chunk", [1, 8])
def test_many_chunks_add_up_in_double_precision(chunk):
    student, teacher = torch.randn(2, 1, 5).expand(2, 20_000, 5).unbind()
    whole = losses.forward_kl(student.double(), teacher.double()).item()
    found = losses.forward_kl(student, teacher, chunk=chunk)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(whole, rel=1e-6)


def test_a_head_that_is_tapped_is_what_it_was():
    model, teacher = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 7)), torch.randn(6, 7)
    with Taps(model, ["0", "1"]) as taps:
        logits = model(torch.randn(6, 4))
        found = losses.linear_distillation_loss(taps["0"], model[1], teacher)
    torch.testing.assert_close(found, losses.forward_kl(logits, teacher))
