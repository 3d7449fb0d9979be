"""Maps of models from four places: Hugging Face, torch, timm's way of writing, and a user's own."""

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.core.inputs import call
from kdlearn.distill import Distiller, label_term, layer_term
from kdlearn.distill.attention_layers import attention_layers
from kdlearn.distill.taps import Taps
from kdlearn.training.fit import fit

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
IDS = torch.arange(5, 29).view(3, 8)
TEXT = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
PADDED = {"input_ids": IDS, "attention_mask": (torch.arange(8) < 6).long().expand(3, 8)}


def bert(**changes) -> nn.Module:
    config = transformers.BertConfig(**(SIZES | changes), num_labels=4)
    return transformers.BertForSequenceClassification(config)


def vit() -> nn.Module:
    sizes = {name: size for name, size in SIZES.items() if name != "vocab_size"}
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=4, num_channels=1)
    return transformers.ViTForImageClassification(config)


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=1))


class FusedAttention(nn.Module):
    """Attention with a switch, the way timm writes it."""

    fused_attn = True

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_drop = nn.Dropout(0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        cut = self.qkv(tokens).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = cut.unbind(0)
        if self.fused_attn:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
            mixed = self.attn_drop(scores.softmax(dim=-1)) @ value
        return mixed.transpose(1, 2).reshape(batch, length, width)


def torch_encoder(nested: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, batch_first=True)
    return nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=nested)


STATES = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(1))
MODELS = {
    "bert": (bert, TEXT),
    "bert with padding": (bert, PADDED),
    "vit": (vit, {"pixel_values": torch.rand(3, 1, 16, 16)}),
    "llama": (llama, TEXT),
    "torch encoder": (lambda: torch_encoder(False), STATES),
    "torch encoder with nested tensors": (lambda: torch_encoder(True), STATES),
    "fused switch": (lambda: nn.Sequential(FusedAttention(), FusedAttention()), STATES),
}


def output(model: nn.Module, inputs) -> Tensor:
    with torch.no_grad():
        return call(model.eval(), inputs)


@pytest.mark.parametrize("name", MODELS)
def test_each_layer_gives_one_map_and_the_logits_stay(name):
    make, inputs = MODELS[name]
    model = make()
    before = output(model, inputs)
    layers = attention_layers(model, inputs)
    assert len(layers) == 2
    with Taps(model, layers) as taps:
        after = output(model, inputs)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    for layer in layers:
        maps = taps[layer]
        assert maps.shape[:2] == (3, 2), "one map a head"
        torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))


def test_the_map_of_torchs_attention_is_the_softmax_of_its_scores():
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model.self_attn = attention
    (name,) = attention_layers(model, STATES)
    with Taps(model, [name]) as taps:
        output(model, STATES)
    query, key, _ = F.linear(STATES, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    query, key = (side.view(3, 8, 2, 8).transpose(1, 2) for side in (query, key))
    expected = (query @ key.transpose(-2, -1) / 8**0.5).softmax(-1)
    torch.testing.assert_close(taps[name], expected)


def test_padded_keys_have_no_weight():
    model = bert()
    layers = attention_layers(model, PADDED)
    with Taps(model, layers) as taps:
        output(model, PADDED)
    assert all(taps[layer][..., 6:].max() < 1e-6 for layer in layers)


def test_without_asking_a_map_that_is_none_is_explained():
    model = bert()
    with Taps(model, ["bert.encoder.layer.0.attention.self[1]"]) as taps:
        output(model, TEXT)
    with pytest.raises(KeyError, match="is None.*attention_layers.*eager"):
        taps["bert.encoder.layer.0.attention.self[1]"]


def test_asking_twice_changes_nothing_and_modes_and_hooks_are_put_back():
    model = torch_encoder(True).train()
    model.layers[1].eval()
    first = attention_layers(model, STATES)
    assert attention_layers(model, STATES) == first
    assert model.training and not model.layers[1].training
    assert not any(module._forward_hooks for module in model.modules())
    assert len(model.layers[0].self_attn._forward_pre_hooks) == 1


def test_a_model_without_maps_is_refused_with_words():
    class Hidden(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(tokens, tokens, tokens)

    with pytest.raises(ValueError, match="no module of Sequential gives an attention map.*Softmax"):
        attention_layers(nn.Sequential(Hidden()), STATES)


def test_a_bert_learns_the_maps_of_a_deeper_bert():
    torch.manual_seed(0)
    calm = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    teacher, student = bert(num_hidden_layers=4, initializer_range=0.3), bert(**calm)
    maps = attention_layers(student, TEXT), attention_layers(teacher, TEXT)
    pairs = dict(zip(maps[0], maps[1][1::2], strict=True))
    terms = [label_term(0.0), layer_term("maps", F.mse_loss, pairs, weight=1000)]
    history = fit(
        Distiller(student, teacher, terms),
        (TEXT, torch.tensor([0, 1, 2])),
        epochs=60,
        learning_rate=1e-2,
        progress=False,
    )
    assert history.epochs[-1]["loss"] < 0.2 * history.epochs[0]["loss"]
