import pytest
import torch

from kdlearn.distill.taps import Taps
from kdlearn.models import TinyEncoder


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TinyEncoder(10, 3, length=8, width=16, heads=4).eval()


def test_padding_changes_nothing_for_the_tokens_that_count(model):
    tokens = torch.randint(10, (2, 5))
    padded = torch.cat([tokens, torch.randint(10, (2, 3))], 1)
    mask = (torch.arange(8) < 5).expand(2, 8)
    torch.testing.assert_close(model(padded, mask)[:, :5], model(tokens))


def test_every_place_sees_every_token(model):
    tokens = torch.zeros(1, 6, dtype=torch.long)
    changed = tokens.clone()
    changed[0, 5] = 3
    assert (model(tokens) - model(changed)).abs().amax(-1).min() > 1e-4


def test_order_matters(model):
    tokens = torch.arange(6)[None]
    assert not torch.allclose(model(tokens)[0, -1], model(tokens[:, [1, 0, 2, 3, 4, 5]])[0, -1])


def test_embeddings_maps_and_states_can_be_tapped(model):
    names = ["embedding", "layers.1.attention.weights", "layers.1"]
    with Taps(model, names) as taps:
        model(torch.randint(10, (2, 5)))
    assert [tuple(taps[name].shape) for name in names] == [(2, 5, 16), (2, 4, 5, 5), (2, 5, 16)]


def test_a_mask_of_another_shape_is_refused(model):
    with pytest.raises(ValueError, match=r"mask has shape \(2, 4\), expected \(2, 5\)"):
        model(torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool))
