"""Attention maps against closed forms, at their edges, and the gradients behind the other kind."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdlearn.losses.maps import activation_map, channels_first, input_gradients

few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 4])
@given(shape=st.lists(st.integers(1, 4), min_size=3, max_size=6), seed=st.integers(0, 10**6))
@few
def test_matches_the_closed_form(p, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(shape, dtype=torch.float64, generator=generator)
    energy = (np.abs(features.numpy()) ** p).sum(1)
    length = np.sqrt((energy**2).reshape(len(energy), -1).sum(1))
    expected = energy / length.reshape(-1, *[1] * (energy.ndim - 1))
    result = activation_map(features, p=p)
    assert result.shape == (shape[0], *shape[2:])
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9)


def test_squares_unless_told_otherwise():
    features = torch.randn(2, 3, 4)
    assert torch.equal(activation_map(features), activation_map(features, p=2))
    assert not torch.allclose(activation_map(features), activation_map(features, p=1))


def test_the_mean_over_channels_gives_the_same_map():
    features = torch.randn(2, 5, 3, 3)
    mean = features.square().mean(1)
    expected = mean / mean.flatten(1).norm(dim=1).view(-1, 1, 1)
    torch.testing.assert_close(activation_map(features), expected)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e30])
def test_scale_changes_nothing_far_beyond_where_powers_overflow(scale):
    features = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(activation_map(scale * features, p=4), activation_map(features, p=4))


def test_samples_do_not_see_each_other():
    features = torch.randn(3, 4, 5)
    louder = features.clone()
    louder[1] *= 100
    torch.testing.assert_close(activation_map(louder)[0], activation_map(features)[0])
    torch.testing.assert_close(activation_map(features[2:]), activation_map(features)[2:])


@pytest.mark.parametrize("p", [1, 1.5, 2, 4])
def test_silence_gives_zeros_and_a_gradient_of_zero(p):
    features = torch.zeros(2, 3, 4, 4, requires_grad=True)
    result = activation_map(features, p=p)
    result.sum().backward()
    assert result.abs().max() == 0
    assert features.grad.abs().max() == 0


def test_a_silent_sample_leaves_the_others_alone():
    features = torch.randn(2, 3, 4)
    features[0] = 0
    result = activation_map(features)
    assert result[0].abs().max() == 0
    torch.testing.assert_close(result[1:], activation_map(features[1:]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_comes_back_as_single(dtype):
    features = (1e4 * torch.randn(2, 8, 4, 4)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = activation_map(features, p=4)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, activation_map(features.float(), p=4))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_the_gradient_is_that_of_finite_differences(p):
    features = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: activation_map(x, p=p), features)
    assert torch.autograd.gradgradcheck(lambda x: activation_map(x, p=p), features)


@pytest.mark.parametrize("p", [0, 0.99, -2, float("nan"), float("inf")])
def test_powers_below_one_are_refused(p):
    with pytest.raises(ValueError, match=r"p is .*, expected a finite number from 1"):
        activation_map(torch.ones(1, 1, 1), p=p)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (torch.ones(2, 3), ValueError, r"features need shape .*, got \(2, 3\)"),
        (torch.ones(2, 3, 4).long(), TypeError, "features must be floating point"),
        (torch.ones(0, 3, 4), ValueError, r"features are empty, shape \(0, 3, 4\)"),
        (torch.full((1, 1, 1), torch.nan), ValueError, "features contain NaN"),
        ([1.0], TypeError, "features must be a torch.Tensor, got list"),
    ],
)
def test_features_without_a_map_are_refused(features, error, message):
    with pytest.raises(error, match=message):
        activation_map(features)


def test_gradients_of_the_input_match_those_of_each_sample_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    images = torch.randn(3, 1, 2, 3, requires_grad=True)
    labels = torch.tensor([0, 2, 1])
    together = input_gradients(model(images), labels, images)
    for i in range(3):
        one = images[i : i + 1].detach().requires_grad_()
        alone = input_gradients(model(one), labels[i : i + 1], one)
        torch.testing.assert_close(together[i : i + 1], alone)
    assert together.requires_grad
    fixed = input_gradients(model(images), labels, images, create_graph=False)
    assert not fixed.requires_grad


def test_half_precision_logits_have_gradients_in_single():
    images = torch.tensor([[1.0, -1.0]], requires_grad=True)
    exact = input_gradients(images.double() * 2, torch.tensor([0]), images)
    rough = input_gradients(images.half() * 2, torch.tensor([0]), images)
    torch.testing.assert_close(rough, exact, rtol=1e-2, atol=1e-3)


def test_images_must_lead_to_the_logits():
    images, other = torch.ones(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    label = torch.tensor([0])
    with pytest.raises(ValueError, match="images need requires_grad_.. before the model"):
        input_gradients(images * 2, label, images.detach())
    with pytest.raises(ValueError, match="the logits do not depend on these images"):
        input_gradients(images * 2, label, other)
    with pytest.raises(ValueError, match="labels go from 2 to 2, but 2 classes"):
        input_gradients(images * 2, torch.tensor([2]), images)
    with pytest.raises(TypeError, match="images must be a torch.Tensor, got list"):
        input_gradients(images * 2, label, [1.0, 1.0])
    with pytest.raises(TypeError, match="logits must be floating point"):
        input_gradients(torch.ones(1, 2).long(), label, images)


def test_a_map_of_an_image_is_of_one_label():
    """Where there are as many tokens as classes, torch takes the one for the other."""
    weight, images = torch.randn(6, 5), torch.randn(2, 5, 6, requires_grad=True)
    labels = torch.randint(5, (2, 5))
    message = r"logits need shape \(batch, classes\), got \(2, 5, 5\): make rows of tokens"
    with pytest.raises(ValueError, match=message):
        input_gradients(images @ weight, labels, images)
    with pytest.raises(ValueError, match=r"logits need shape \(batch, classes\), got \(5,\)"):
        input_gradients((images @ weight)[0, 0], labels[0, 0], images)
    rows = input_gradients((images @ weight).flatten(0, -2), labels.flatten(), images)
    # The slope of a cross-entropy is what the softmax is away from the label.
    wrong = (images @ weight).softmax(-1) - nn.functional.one_hot(labels, 5)
    torch.testing.assert_close(rows, wrong @ weight.T)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_model_that_ran_without_gradients_has_no_map(off):
    images, label = torch.ones(1, 2, requires_grad=True), torch.tensor([0])
    with off():
        logits = images * 2
    with pytest.raises(ValueError, match=r"do not depend on these .* outside of torch.no_grad"):
        input_gradients(logits, label, images)
    logits = images * 2
    with off(), pytest.raises(ValueError, match=r"do not depend on these .* outside of torch.no_g"):
        input_gradients(logits, label, images)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_features_without_channels_have_none_to_move(shape):
    with pytest.raises(ValueError, match=r"features need shape \(batch, ...\), got \("):
        channels_first(torch.ones(shape))


def test_one_loud_sample_and_zeros_beside_it_do_not_spoil_the_batch():
    features = torch.randn(3, 4, 3, 3)
    features[1, :, 0] = 0
    expected = activation_map(features)
    features[1] *= 1e30
    torch.testing.assert_close(activation_map(features), expected)
    features[2, :, 0] = 0
    features[2] *= 1e-30
    result = activation_map(features)
    torch.testing.assert_close(result[:2], expected[:2])
    assert result.isfinite().all()
    torch.testing.assert_close(result[2].square().sum(), torch.tensor(1.0))


def test_great_features_have_the_gradient_of_small_ones():
    small = torch.randn(2, 3, 4)
    weights = torch.randn(2, 4)
    gradients = []
    for scale in (1.0, 2.0**60):
        features = (scale * small).requires_grad_()
        (activation_map(features, p=3) * weights).sum().backward()
        gradients.append(scale * features.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_the_sum_of_squares_has_the_gradients_of_the_operators_that_it_stands_for():
    features = torch.randn(3, 4, 2, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 2, 5, dtype=torch.float64)

    def by_operators(values):
        energy = values.square().sum(1)
        return energy / energy.square().sum((1, 2), keepdim=True).sqrt()

    (ours,) = torch.autograd.grad((weights * activation_map(features)).sum(), features)
    (theirs,) = torch.autograd.grad((weights * by_operators(features)).sum(), features)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradgradcheck(activation_map, features)


@pytest.mark.parametrize("size", [(9,), (3, 5), (2, 3, 4)])
def test_tokens_and_channels_last_come_to_the_layout_of_features(size):
    features = torch.randn(2, *size, 7)
    moved = channels_first(features)
    assert moved.shape == (2, 7, *size)
    torch.testing.assert_close(moved[1, 3], features[1, ..., 3])
    expected = features.square().sum(-1)
    expected = expected / expected.flatten(1).norm(dim=1).view(2, *[1] * len(size))
    torch.testing.assert_close(activation_map(moved), expected)


def test_what_is_no_tensor_has_no_layout():
    with pytest.raises(TypeError, match="features must be a torch.Tensor, got list"):
        channels_first([1.0])


def test_a_power_is_a_number():
    with pytest.raises(TypeError, match="p is '2', a str: expected one number"):
        activation_map(torch.ones(1, 1, 1), p="2")
