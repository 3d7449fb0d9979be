import pytest
import torch

from kdlearn.distill.taps import Taps
from kdlearn.models import TinyViT


def test_tokens_are_the_patches_row_by_row_behind_the_class_token():
    torch.manual_seed(0)
    model = TinyViT(image=8, patch=4, width=12, layers=1)
    images = torch.rand(2, 1, 8, 8)
    with Taps(model, ["layers", "patches"]) as taps:
        model(images)
    assert taps["layers"].shape == (2, 5, 12)
    rows = torch.stack(
        [
            images[:, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten(1)
            for y in (0, 1)
            for x in (0, 1)
        ],
        1,
    )
    by_hand = rows @ model.patches.weight.flatten(1).T + model.patches.bias
    torch.testing.assert_close(taps["patches"].flatten(2).transpose(1, 2), by_hand)


def test_the_place_of_a_patch_matters():
    torch.manual_seed(0)
    model, image = TinyViT(image=8, patch=4), torch.rand(1, 1, 8, 8)
    assert not torch.allclose(model(image), model(image.flip(3)), atol=1e-4)


def test_the_distilled_model_averages_two_heads_on_two_tokens():
    torch.manual_seed(0)
    model = TinyViT(image=8, patch=4, distilled=True)
    with Taps(model, ["classifier", "distillation", "layers.2.attention.weights"]) as taps:
        logits = model(torch.rand(2, 1, 8, 8))
    torch.testing.assert_close(logits, (taps["classifier"] + taps["distillation"]) / 2)
    assert not torch.allclose(taps["classifier"], taps["distillation"])
    assert taps["layers.2.attention.weights"].shape == (2, 3, 6, 6)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="patches of 5 pixels do not fill a side of 16"):
        TinyViT(image=16, patch=5)
    with pytest.raises(ValueError, match="make it with image=28"):
        TinyViT(image=16, patch=4)(torch.zeros(2, 1, 28, 28))
