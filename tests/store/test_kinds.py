import math
from functools import partial

import pytest
import torch
from torch import Generator

from kdlearn import losses
from kdlearn.losses import attention_transfer_loss
from kdlearn.losses.maps import activation_map
from kdlearn.store import AttentionMap, Relation, Sampled, TopK


@pytest.mark.parametrize("p", [1, 2, 4])
def test_a_map_comes_back_as_features_with_that_map(p):
    features = torch.randn(3, 5, 6, 7)
    kind = AttentionMap(p=p)
    again = kind.restore(kind.reduce(features))
    torch.testing.assert_close(activation_map(again, p=p), activation_map(features, p=p))


def test_maps_are_longer_one_way_and_compared_with_the_layer_of_the_student():
    kind = AttentionMap()
    kept = kind.reduce(torch.randn(2, 3, 8, 4))
    assert kind.restore(kept).shape == kind.restore(kept, torch.zeros(2, 5, 8, 4)).shape
    with pytest.raises(ValueError, match="the student's layer is 4x4 and the teacher's map 8x4"):
        kind.restore(kept, torch.zeros(2, 5, 4, 4))


@pytest.mark.parametrize("paired", [False, True])
def test_a_relation_comes_back_as_states_with_that_relation(paired):
    states = torch.randn(2, 5, 12, dtype=torch.float64)
    side = (states, torch.randn_like(states)) if paired else states
    own = torch.randn(2, 5, 8, dtype=torch.float64)
    kind = Relation(4)
    kept = losses.relation_loss(own, kind.restore(kind.reduce(side)), relation_heads=4)
    torch.testing.assert_close(kept, losses.relation_loss(own, side, relation_heads=4))
    with pytest.raises(ValueError, match="width 12, which 5 heads"):
        Relation(5).reduce(states)


@pytest.mark.parametrize("kind", [TopK(64), Sampled(64)])
def test_half_precision_logits_are_widened_before_the_softmax(kind):
    logits = 5 * torch.randn(8, 200, generator=Generator().manual_seed(0))
    half = logits.to(torch.bfloat16)
    log_probs, indices = kind.reduce(half, Generator().manual_seed(1))
    exact = half.double().log_softmax(-1).gather(-1, indices)
    torch.testing.assert_close(log_probs.double(), exact, rtol=0, atol=1e-5)


def test_the_most_probable_are_those_of_each_token():
    tokens = torch.randn(4, 2, 9, generator=Generator().manual_seed(0))
    log_probs, indices = TopK(3).restore(TopK(3).reduce(tokens))
    ordered = tokens.log_softmax(-1).sort(dim=-1, descending=True)
    torch.testing.assert_close(log_probs, ordered.values[..., :3])
    assert torch.equal(indices, ordered.indices[..., :3])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounded_probabilities_are_never_more_than_one_together(dtype):
    logits = torch.randn(500, 20, generator=Generator().manual_seed(0)).sort(-1).values
    logits[:, -3:] += 12
    log_probs, indices = TopK(19).reduce(logits)
    rounded = log_probs.to(dtype).float()
    assert (rounded.exp().sum(-1) > 1).any()
    back, _ = TopK(19).restore((rounded, indices))
    assert (back.exp().sum(-1) <= 1 + 1e-6).all()
    torch.testing.assert_close(back, log_probs, rtol=0.01, atol=0.05)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TopK(0), "k is 0"),
        (lambda: Sampled(0), "draws is 0"),
        (lambda: AttentionMap(p=0.5), "p is 0.5"),
        (lambda: Relation(0), "heads is 0"),
        (lambda: TopK(9).reduce(torch.zeros(2, 5)), "k is 9 and there are 5 classes"),
    ],
)
def test_settings_out_of_range_are_told(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("kind", [TopK(3), Sampled(3)], ids=str)
def test_a_teacher_that_ends_in_a_softmax_is_not_softened_again(kind):
    with pytest.raises(ValueError, match="the teacher's logits sum to 1 in each row"):
        kind.reduce(torch.randn(4, 10).softmax(-1))


@pytest.mark.parametrize("wrong", [lambda p: p.exp(), lambda p: p / math.log(10)], ids=["p", "lg"])
def test_what_a_server_says_in_other_units_is_left_to_the_loss_to_refuse(wrong):
    log_probs, indices = torch.randn(4, 10).log_softmax(-1).topk(8)
    student = torch.randn(4, 10)
    with pytest.raises(ValueError, match="sum to more than 1|above 0"):
        losses.top_k_kl(student, *TopK(8).restore((wrong(log_probs), indices)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_relation_of_states_with_a_large_mean_survives_half_precision(dtype):
    student, states = torch.randn(2, 6, 8), 100 + torch.randn(2, 6, 8)
    kept = Relation(2).reduce(states)
    loss = partial(losses.relation_loss, relation_heads=2)
    whole = loss(student, states)
    stored = loss(student, Relation(2).restore(kept.to(dtype).float()))
    torch.testing.assert_close(stored, whole, rtol=5e-3, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Relation(2).reduce(states), kept)


def test_a_map_larger_than_the_teachers_layer_is_refused():
    student, teacher = torch.rand(2, 3, 8, 8), torch.rand(2, 5, 4, 4)
    with pytest.raises(ValueError, match="layer is 4x4 and a map of 8x8 was asked for"):
        AttentionMap(size=(8, 8)).reduce(teacher)
    kind = AttentionMap()
    torch.testing.assert_close(
        attention_transfer_loss(student, kind.restore(kind.reduce(teacher), student)),
        attention_transfer_loss(student, teacher),
    )
