"""Attention transfer against closed forms; gradient-based by a second backward pass."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from kdlearn.losses import attention_transfer_loss, flip_symmetry_loss, gradient_attention_loss
from kdlearn.losses.maps import input_gradients

few = settings(max_examples=20, deadline=None)


@given(
    batch=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    p=st.sampled_from([1, 2, 3, 4, 1.5]),
    seed=st.integers(0, 10**6),
)
@few
def test_matches_the_closed_form(batch, channels, size, p, seed):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(batch, c, *size, dtype=torch.float64, generator=generator) for c in channels
    )

    def attention(features):
        q = (np.abs(features.numpy()) ** p).sum(1).reshape(batch, -1)
        return q / np.linalg.norm(q, axis=1, keepdims=True)

    gap = attention(student) - attention(teacher)
    code = attention_transfer_loss(student, teacher, p=p)
    paper = attention_transfer_loss(student, teacher, p=p, convention="paper")
    assert code.item() == pytest.approx((gap**2).mean(), rel=1e-9, abs=1e-14)
    assert paper.item() == pytest.approx(np.linalg.norm(gap, axis=1).mean(), rel=1e-9, abs=1e-9)


def test_the_code_is_two_minus_two_cosines():
    student, teacher = torch.randn(1, 3, 5, 4), torch.randn(1, 6, 5, 4)
    maps = [side.square().sum(1).flatten(1) for side in (student, teacher)]
    expected = (2 - 2 * F.cosine_similarity(*maps)) / 20
    torch.testing.assert_close(attention_transfer_loss(student, teacher), expected[0])


def test_opposite_maps_are_at_the_end_of_the_range():
    left, right = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)
    left[..., 0], right[..., 3] = 7.0, 0.1
    assert attention_transfer_loss(left, right).item() == pytest.approx(2 / 4)
    paper = attention_transfer_loss(left, right, convention="paper")
    assert paper.item() == pytest.approx(2**0.5)


def test_each_sample_is_normalized_on_its_own():
    student, teacher = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    alone = [attention_transfer_loss(student[i : i + 1], teacher[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(attention_transfer_loss(student, teacher), torch.stack(alone).mean())


def test_powers_of_great_features_do_not_overflow():
    student, teacher = 1e4 * torch.randn(2, 2, 8, 4, 4)
    loss = attention_transfer_loss(student.half(), teacher.half(), p=4)
    exact = attention_transfer_loss(student.half().double(), teacher.half().double(), p=4)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)
    huge = attention_transfer_loss(student * 1e30, teacher * 1e-30, p=4)
    assert huge.item() == pytest.approx(
        attention_transfer_loss(student, teacher, p=4).item(), rel=1e-4
    )


@pytest.mark.parametrize("convention", ["code", "paper"])
def test_a_dead_layer_keeps_the_gradient_finite(convention):
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer_loss(student, torch.ones(2, 3, 4, 4), convention=convention)
    loss.backward()
    assert loss > 0
    assert student.grad.abs().max() == 0


def test_unknown_conventions_list_the_known_ones():
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="convention is 'mean', expected one of 'code', 'paper'"):
        attention_transfer_loss(x, x, convention="mean")


@pytest.mark.parametrize("p", [0.5, 0, -1, float("nan"), float("inf")])
def test_powers_below_one_are_refused(p):
    x = torch.ones(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"p is .*, expected a finite number from 1"):
        attention_transfer_loss(x, x, p=p)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 3, 4, 4), r"different batches, \(2, 3, 4, 4\) and \(3, 3, 4, 4\)"),
        ((2, 3, 4), r"features need shape \(batch, channels, \*spatial\) on both sides"),
    ],
)
def test_features_of_other_batches_or_dimensions_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        attention_transfer_loss(torch.ones(2, 3, 4, 4), torch.ones(shape))


def test_gradients_are_compared_by_the_norm_of_each_sample():
    student, teacher = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    expected = np.mean([np.linalg.norm(gap) for gap in (student - teacher).numpy()])
    assert gradient_attention_loss(student, teacher).item() == pytest.approx(expected)


def test_gradients_of_other_images_are_refused():
    with pytest.raises(ValueError, match="take both with respect to the same images"):
        gradient_attention_loss(torch.zeros(2, 4), torch.zeros(2, 5))
    message = (
        r"^gradients have shape \(2, 4\) and flipped gradients \(2, 5\): take them at the images"
    )
    with pytest.raises(ValueError, match=message):
        flip_symmetry_loss(torch.zeros(2, 4), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="^flipped gradients contain NaN"):
        flip_symmetry_loss(torch.zeros(2, 4), torch.full((2, 4), torch.nan))
    with pytest.raises(ValueError, match="^gradients are on cpu and flipped gradients on meta"):
        flip_symmetry_loss(torch.zeros(2, 4), torch.zeros(2, 4, device="meta"))


@pytest.mark.parametrize("loss", [gradient_attention_loss, flip_symmetry_loss])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_gradients_lie_in_samples(loss, shape):
    with pytest.raises(ValueError, match=r"gradients need shape \(batch, ...\), got \(.*unsqueeze"):
        loss(torch.ones(shape), torch.ones(shape))


def network():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4)).double()


def test_the_second_backward_pass_trains_the_students_weights():
    torch.manual_seed(0)
    student, teacher = network(), network()
    images = torch.randn(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, 1])
    wanted = input_gradients(teacher(images), labels, images, create_graph=False)

    def loss(weight):
        parameters = {**dict(student.named_parameters()), "0.weight": weight}
        logits = torch.func.functional_call(student, parameters, (images,))
        return gradient_attention_loss(input_gradients(logits, labels, images), wanted)

    weight = student[0].weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, weight)
    (slope,) = torch.autograd.grad(loss(weight), weight)
    assert slope.abs().sum() > 0


def test_a_symmetric_network_has_symmetric_gradients():
    torch.manual_seed(0)
    model = network()
    labels = torch.tensor([0, 3])

    def loss(model):
        images = torch.randn(2, 1, 4, 4, dtype=torch.float64).requires_grad_()
        mirrored = images.detach().flip(-1).requires_grad_()
        pair = (
            input_gradients(model(images), labels, images),
            input_gradients(model(mirrored), labels, mirrored),
        )
        return flip_symmetry_loss(*pair)

    value = loss(model)
    value.backward()
    assert value > 0.01
    assert model[0].weight.grad.abs().sum() > 0
    assert loss(lambda x: model(x) + model(x.flip(-1))).item() == pytest.approx(0, abs=1e-12)


def test_the_mirror_is_left_to_right_and_trains_both_sides():
    left = torch.randn(2, 1, 3, 4, requires_grad=True)
    right = torch.randn(2, 1, 3, 4, requires_grad=True)
    value = flip_symmetry_loss(left, right)
    gap = left.detach() - torch.from_numpy(np.ascontiguousarray(right.detach().numpy()[..., ::-1]))
    assert value.item() == pytest.approx(np.mean([np.linalg.norm(g) for g in gap.numpy()]))
    value.backward()
    assert left.grad.abs().sum() > 0
    assert right.grad.abs().sum() > 0
