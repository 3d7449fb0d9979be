"""Projectors: the shape that they promise, the parameters that they hold."""

import torch
from torch.nn import functional as F

from kdlearn.distill.projectors import ConvProjector, LinearProjector, Paraphraser


def test_a_linear_projector_is_an_affine_map_of_the_last_dimension():
    projector = LinearProjector(4, 6)
    states = torch.randn(2, 5, 4)
    expected = states @ projector.linear.weight.T + projector.linear.bias
    torch.testing.assert_close(projector(states), expected)


def test_a_convolutional_projector_mixes_channels_and_normalizes_them():
    projector = ConvProjector(4, 6)
    projected = projector(torch.randn(8, 4, 5, 5))
    torch.testing.assert_close(projected.mean((0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(projected.std((0, 2, 3)), torch.ones(6), atol=1e-2, rtol=0)
    assert projected.min() < 0
    assert {name for name, _ in projector.named_parameters()} == {
        "conv.weight",
        "norm.weight",
        "norm.bias",
    }


def test_a_convolutional_projector_sees_one_position_at_a_time():
    projector = ConvProjector(4, 6).eval()
    features = torch.randn(1, 4, 3, 3)
    other = features.clone()
    other[..., 0, 0] += 1
    moved = (projector(features) - projector(other)).abs().sum(1)[0]
    assert moved[0, 0] > 0
    assert moved.flatten()[1:].max() == 0


def test_a_paraphraser_learns_to_rebuild_features():
    torch.manual_seed(0)
    paraphraser = Paraphraser(6, 3)
    base = torch.randn(16, 2, 4, 4)
    features = torch.einsum("bchw,dc->bdhw", base, torch.randn(6, 2))
    optimizer = torch.optim.Adam(paraphraser.parameters(), lr=0.01)
    errors = []
    for _ in range(60):
        error = F.mse_loss(paraphraser.reconstruct(features), features)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]
    torch.testing.assert_close(
        paraphraser.decoder(paraphraser(features)), paraphraser.reconstruct(features)
    )
    assert paraphraser(features).shape == (16, 3, 4, 4)
