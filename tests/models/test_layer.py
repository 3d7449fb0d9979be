import math

import pytest
import torch

from kdlearn.distill.attention_layers import attention_layers
from kdlearn.distill.taps import Taps
from kdlearn.models.layer import Attention, Layer, check_tokens

MASKS = [None, torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [False, True] + [False] * 5])]


@pytest.fixture(params=[False, True], ids=["both ways", "causal"])
def attention(request):
    torch.manual_seed(0)
    return Attention(12, heads=3, causal=request.param).double()


@pytest.mark.parametrize("mask", MASKS, ids=["no mask", "mask"])
@pytest.mark.parametrize("watched", ["scores", "weights"])
def test_whether_somebody_looks_changes_neither_output_nor_gradient(attention, mask, watched):
    if attention.scores.causal:
        mask = None
    states = torch.randn(3 if mask is None else len(mask), 7, 12, dtype=torch.float64)
    found = []
    for looking in (False, True):
        inputs = states.clone().requires_grad_()
        if looking:
            with Taps(attention, [watched]) as taps:
                output = attention(inputs, mask)
            assert taps[watched].shape == (len(states), 3, 7, 7)
        else:
            output = attention(inputs, mask)
        weights = attention.query_key_value.weight
        found.append((output, *torch.autograd.grad(output.square().sum(), (inputs, weights))))
    for fast, explicit in zip(*found, strict=True):
        torch.testing.assert_close(fast, explicit, rtol=1e-10, atol=1e-10)


def test_matches_torchs_own_attention(attention):
    official = torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        official.in_proj_weight.copy_(attention.query_key_value.weight)
        official.in_proj_bias.copy_(attention.query_key_value.bias)
        official.out_proj.load_state_dict(attention.output.state_dict())
    states = torch.randn(2, 7, 12, dtype=torch.float64)
    mask = None if attention.scores.causal else MASKS[1][:2]
    future = torch.full((7, 7), -math.inf).triu(1).double() if attention.scores.causal else None
    hidden = None if mask is None else torch.zeros(2, 7).double().masked_fill(~mask, -math.inf)
    expected, _ = official(states, states, states, attn_mask=future, key_padding_mask=hidden)
    torch.testing.assert_close(attention(states, mask), expected)


def test_hidden_keys_get_no_weight_and_rows_sum_to_one():
    attention = Attention(12, heads=3).double()
    with Taps(attention, ["scores", "weights"]) as taps:
        attention(torch.randn(2, 7, 12, dtype=torch.float64), MASKS[1][:2])
    assert taps["weights"][1, :, :, 4:].abs().max() == 0
    assert (taps["scores"][1, :, :, 4:] == -10_000).all()
    torch.testing.assert_close(taps["weights"].sum(-1), torch.ones(2, 3, 7).double())


def test_the_map_is_found_by_who_looks_for_maps():
    layer = Layer(12, heads=3, causal=True)
    assert attention_layers(layer, torch.randn(2, 7, 12)) == ["attention.weights"]


def test_a_hook_that_changes_the_weights_changes_the_output(attention):
    states = torch.randn(1, 7, 12, dtype=torch.float64)
    before = attention(states)
    handle = attention.weights.register_forward_hook(lambda module, given, out: out * 0)
    assert torch.equal(attention(states), attention.output.bias.expand(1, 7, 12))
    handle.remove()
    assert torch.equal(attention(states), before)


@pytest.mark.parametrize("pieces", [[1] * 7, [3, 1, 3], [7]])
def test_continued_in_any_pieces_it_gives_the_same(pieces):
    torch.manual_seed(1)
    layer = Layer(12, heads=3, causal=True).double()
    states = torch.randn(2, 7, 12, dtype=torch.float64)
    past, found = None, []
    for piece in states.split(pieces, dim=1):
        output, past = layer.continued(piece, past)
        found.append(output)
    torch.testing.assert_close(torch.cat(found, 1), layer(states))
    assert past[0].shape == past[1].shape == (2, 3, 7, 4)


def test_causal_attention_takes_no_mask():
    with pytest.raises(ValueError, match="put the padding at the end"):
        Attention(12, heads=3, causal=True)(torch.zeros(2, 7, 12), MASKS[1][:2])


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads cannot share a width of 16"):
        Attention(16, heads=3)


def test_a_sequence_without_a_token_that_counts_is_refused():
    tokens = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="hides a whole sequence: leave it out"):
        check_tokens(tokens, 3, torch.tensor([[True, True, False], [False] * 3]))
    with pytest.raises(ValueError, match="make it with length=3"):
        check_tokens(tokens, 2)
