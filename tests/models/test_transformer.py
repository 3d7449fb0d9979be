import math

import pytest
import torch

from kdlearn.distill.taps import Taps
from kdlearn.models import TinyTransformer

TAPS = ["layers.1.attention.scores", "layers.1.attention.weights", "layers.1.attention"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TinyTransformer(symbols=10, length=12, width=16, heads=4, layers=2).eval()


def test_no_place_sees_a_later_one(model):
    tokens = torch.randint(10, (3, 12))
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 10
    before, after = model(tokens), model(changed)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-6)
    assert not torch.allclose(before[:, 7:], after[:, 7:], atol=1e-3)


def test_weights_are_the_softmax_of_the_scores_and_the_future_has_none(model):
    with Taps(model, TAPS) as taps:
        model(torch.randint(10, (3, 12)))
    scores, weights = taps[TAPS[0]], taps[TAPS[1]]
    assert scores.shape == weights.shape == (3, 4, 12, 12)
    assert torch.allclose(scores.softmax(dim=-1), weights)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(3, 4, 12))
    assert weights.triu(1).abs().max() == 0
    assert scores.isfinite().all()


def test_attention_matches_torchs_own(model):
    attention = model.layers[1].attention
    states = torch.randn(2, 12, 16)
    official = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        official.in_proj_weight.copy_(attention.query_key_value.weight)
        official.in_proj_bias.copy_(attention.query_key_value.bias)
        official.out_proj.load_state_dict(attention.output.state_dict())
    future = torch.full((12, 12), -math.inf).triu(1)
    expected, _ = official(states, states, states, attn_mask=future)
    assert torch.allclose(attention(states), expected, atol=1e-5)


def test_order_matters(model):
    tokens = torch.arange(10)[None]
    assert not torch.allclose(model(tokens)[0, -1], model(tokens[:, [1, 0, *range(2, 10)]])[0, -1])


def test_a_sequence_that_is_too_long_says_what_to_do(model):
    with pytest.raises(ValueError, match="make it with length=13"):
        model(torch.zeros(1, 13, dtype=torch.long))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads cannot share a width of 16"):
        TinyTransformer(width=16, heads=3)
