import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlearn.losses import total_variation
from kdlearn.models import RecurrentLM
from kdlearn.training.speculation import accept, residual, speculate

PROMPT = torch.tensor([[1, 2]])


def two_models(factor=3.0):
    torch.manual_seed(0)
    models = [RecurrentLM(4, hidden=16).eval() for _ in range(2)]
    for model in models:
        model.classifier.weight.data *= factor
        model.classifier.bias.data *= factor
    return models


def distributions(seed):
    torch.manual_seed(seed)
    return (2 * torch.randn(2, 6, dtype=torch.float64)).softmax(-1)


@given(st.integers(0, 10_000))
def test_accepted_or_drawn_anew_a_token_has_the_targets_distribution(seed):
    p, q = distributions(seed)
    accepted = torch.minimum(p, q)
    token = accepted + (1 - accepted.sum()) * residual(p, q)
    torch.testing.assert_close(token, p)


@given(st.integers(0, 10_000))
def test_acceptance_is_one_minus_total_variation(seed):
    p, q = distributions(seed)
    by_rule = (q * (p / q).clamp_max(1)).sum()
    torch.testing.assert_close(by_rule, 1 - total_variation(q.log()[None], p.log()[None]))


def test_the_rule_accepts_as_often_as_total_variation_says():
    p, q = distributions(1)
    rows = 40_000
    generator = torch.Generator().manual_seed(0)
    proposals = torch.multinomial(q.expand(rows, 6), 1, generator=generator)
    count, final = accept(p.expand(rows, 2, 6), q.expand(rows, 1, 6), proposals, generator)
    assert abs(count.double().mean() - torch.minimum(p, q).sum()) < 4 * 0.5 / rows**0.5
    first = torch.where(count == 1, proposals[:, 0], final)
    shares = torch.bincount(first, minlength=6) / rows
    assert (shares - p).abs().max() < 4 * 0.5 / rows**0.5


def test_the_first_rejection_ends_it():
    target = torch.eye(3)[torch.tensor([[0, 1, 2, 0]])]
    draft = torch.full((1, 3, 3), 1 / 3)
    count, final = accept(target, draft, torch.tensor([[0, 0, 2]]))
    assert (count.item(), final.item()) == (1, 1)


@pytest.mark.parametrize("ahead", [1, 3])
def test_what_is_written_has_the_targets_distribution_whatever_the_draft(ahead):
    target, draft = two_models()
    rows = 20_000
    generator = torch.Generator().manual_seed(0)
    done = speculate(target, draft, PROMPT.expand(rows, 2), 2, ahead=ahead, generator=generator)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    logits = target(torch.cat([PROMPT.expand(16, 2), pairs], 1)).log_softmax(-1)[:, 1:3]
    probs = logits.gather(2, pairs[..., None]).sum((1, 2)).exp().detach()
    counts = torch.bincount(4 * done.tokens[:, 2] + done.tokens[:, 3], minlength=16) / rows
    assert (counts - probs).abs().max() < 4 * (probs.max() / rows).sqrt()
    # The draft alone would be far from that.
    of_draft = draft(torch.cat([PROMPT.expand(16, 2), pairs], 1)).log_softmax(-1)[:, 1:3]
    wrong = of_draft.gather(2, pairs[..., None]).sum((1, 2)).exp()
    assert (wrong - probs).abs().max() > 20 * (probs.max() / rows).sqrt()


def test_over_many_places_acceptance_is_one_minus_total_variation():
    target, draft = two_models()
    generator = torch.Generator().manual_seed(0)
    done = speculate(target, draft, PROMPT.expand(500, 2), 10, ahead=4, generator=generator)
    assert abs(done.accepted - done.expected) < 4 * 0.5 * done.proposed**0.5
    assert 0.2 < done.accepted / done.proposed < 0.9


def test_a_target_that_drafts_for_itself_accepts_everything():
    target, _ = two_models()
    done = speculate(target, target, PROMPT.expand(50, 2), 3, ahead=4)
    assert done.accepted == done.proposed == 50 * 12
    assert done.mask.sum() == 50 * 15 and done.tokens.shape == (50, 17)


def test_counts_and_mask_agree():
    target, draft = two_models()
    done = speculate(target, draft, PROMPT.expand(50, 2), 5, ahead=3)
    assert done.mask.sum() == done.accepted + 50 * 5
    assert not done.mask[:, :2].any() and done.mask[:, 2].all()


def test_where_nothing_is_left_to_reject_the_residual_is_the_target():
    p, _ = distributions(0)
    assert torch.equal(residual(p, p), p)


def test_two_vocabularies_are_refused():
    with pytest.raises(ValueError, match="of one vocabulary"):
        speculate(RecurrentLM(4), RecurrentLM(3), PROMPT % 3, 2)
