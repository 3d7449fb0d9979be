import pytest
import torch
from torch.nn import functional as F

from kdlearn.distill.taps import Taps
from kdlearn.models import TinyEncoder, TinyTransformer, linearized
from kdlearn.models.linear_attention import LinearScores

FEATURES = ["elu", "hedgehog"]


@pytest.mark.parametrize("features", FEATURES)
def test_the_softmax_of_the_scores_is_the_normalized_product_of_features(features):
    torch.manual_seed(0)
    scores = LinearScores(2, 4, features).double()
    query, key = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64)

    def phi(x, layer):
        y = x / 4**0.25 @ layer.weight + layer.bias
        return 1 + F.elu(y) if features == "elu" else torch.cat([y.exp(), (-y).exp()], -1)

    products = torch.einsum("bhif,bhjf->bhij", phi(query, scores.of_query), phi(key, scores.of_key))
    products = products.tril()
    expected = products / products.sum(-1, keepdim=True)
    torch.testing.assert_close(scores(query, key).softmax(-1), expected)


@pytest.mark.parametrize("features", FEATURES)
def test_sums_of_one_size_give_what_the_map_gives(features):
    torch.manual_seed(0)
    model = linearized(TinyTransformer(10, 12, 16, 2, 2), features).double().eval()
    tokens = torch.randint(10, (3, 12))
    first, past = model.continued(tokens[:, :5])
    second, longer = model.continued(tokens[:, 5:], past)
    torch.testing.assert_close(torch.cat([first, second], 1), model(tokens))
    sizes = [[part.shape for part in layer] for layer in past.layers]
    assert sizes == [[part.shape for part in layer] for layer in longer.layers]


@pytest.mark.parametrize("features", FEATURES)
def test_whether_somebody_looks_changes_nothing(features):
    torch.manual_seed(0)
    model = linearized(TinyTransformer(10, 12, 16, 2, 2), features).double().eval()
    tokens = torch.randint(10, (3, 12))
    with Taps(model, ["layers.0.attention.weights", "layers.1.attention.scores"]) as taps:
        seen = model(tokens)
    torch.testing.assert_close(seen, model(tokens))
    weights = taps["layers.0.attention.weights"]
    assert weights.triu(1).abs().max() == 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 12).double())


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_maps_and_gradients_stay_finite_far_out(features, scale):
    torch.manual_seed(0)
    scores = LinearScores(2, 4, features)
    query, key = (scale * torch.randn(2, 1, 2, 5, 4)).unbind()
    weights = scores(query, key).softmax(-1)
    weights[..., 0].sum().backward()
    assert weights.isfinite().all()
    assert all(p.grad.isfinite().all() for p in scores.parameters())


def test_the_copy_differs_from_the_model_in_its_feature_maps_alone():
    model = TinyTransformer(10, 12, 16, 2, 2)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    student = linearized(model, "hedgehog")
    ours = student.state_dict()
    assert all(torch.equal(ours[name], p) for name, p in before.items())
    assert all(".scores." in name for name in ours.keys() - before.keys())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


@pytest.mark.parametrize("model", [torch.nn.Linear(2, 2), TinyEncoder(5, 5)], ids=["none", "both"])
def test_a_model_without_causal_attention_is_refused(model):
    with pytest.raises(ValueError, match="0 layers of causal softmax attention to replace"):
        linearized(model, "elu")


@pytest.mark.parametrize("layers", [(0,), (0, 1)], ids=["one", "all"])
def test_learned_feature_maps_are_not_replaced(layers):
    model = TinyTransformer(10, 12, 16, 2, 2)
    for number in layers:
        model.layers[number].attention.scores = LinearScores(2, 8, "elu")
    told = f"{2 - len(layers)} layers of .* and {len(layers)} of another kind: .* not linearized"
    with pytest.raises(ValueError, match=told):
        linearized(model, "elu")


@pytest.mark.parametrize("place", [torch.float64, torch.bfloat16, "meta"])
def test_the_feature_maps_are_where_the_model_is_in_its_precision(place):
    model = TinyTransformer(10, 12, 16, 2, 2).to(place)
    student = linearized(model, "hedgehog")
    assert {(p.dtype, p.device) for p in student.parameters()} == {
        (p.dtype, p.device) for p in model.parameters()
    }
    tokens = torch.zeros(1, 12, dtype=torch.long, device=model.layers[0].norm1.weight.device)
    assert student(tokens).shape == (1, 12, 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_of_half_precision_are_those_of_double(dtype):
    inputs = torch.linspace(-9, 15, 97).to(dtype)
    found = LinearScores(1, 8, "elu").to(dtype)._phi(inputs)
    exact = torch.where(inputs > 0, 1 + inputs.double(), inputs.double().clamp(max=0).exp())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=6e-8)
