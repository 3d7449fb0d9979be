"""Losses on features against closed forms in numpy, sizes, and the messages of their own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kdlearn import losses

few = settings(max_examples=15, deadline=None)


@st.composite
def feature_pairs(draw):
    batch, height, width = (draw(st.integers(1, 4)) for _ in range(3))
    channels = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    return tuple(
        torch.randn(batch, c, height, width, dtype=torch.float64, generator=generator)
        for c in channels
    )


@given(feature_pairs())
@few
def test_nst_matches_its_double_sum(pair):
    def kernel(left, right):
        left, right = (side.flatten(2).numpy() for side in (left, right))
        left = left / np.linalg.norm(left, axis=2, keepdims=True)
        right = right / np.linalg.norm(right, axis=2, keepdims=True)
        return np.mean(
            [[[(a @ b) ** 2 for a in x] for b in y] for x, y in zip(left, right, strict=True)]
        )

    student, teacher = pair
    expected = kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)
    assert losses.nst_loss(student, teacher).item() == pytest.approx(expected, abs=1e-12)


def test_nst_is_never_negative_and_forgets_the_size_of_each_channel():
    student, teacher = torch.randn(2, 3, 6, 4, 4, dtype=torch.float64)
    sizes = torch.rand(1, 6, 1, 1, dtype=torch.float64) + 0.1
    value = losses.nst_loss(student, teacher)
    assert value > 0
    torch.testing.assert_close(losses.nst_loss(student * sizes, teacher), value)


def test_nst_bears_dead_channels():
    student = torch.randn(2, 3, 4, 4)
    student[:, 1] = 0
    student.requires_grad_()
    losses.nst_loss(student, torch.randn(2, 3, 4, 4)).backward()
    assert student.grad.isfinite().all()
    assert student.grad[:, 1].abs().max() == 0


@pytest.mark.parametrize("name", ["nst_loss", "attention_transfer_loss"])
@pytest.mark.parametrize("space", [1, 2, 3])
def test_the_larger_features_are_pooled_in_each_dimension(name, space):
    small, large = [4, 3, 2][:space], [8, 6, 4][:space]
    pool = getattr(F, f"adaptive_avg_pool{space}d")
    student, teacher = torch.randn(2, 3, *large), torch.randn(2, 5, *small)
    loss = getattr(losses, name)
    pooled = loss(pool(student, small), teacher)
    torch.testing.assert_close(loss(student, teacher), pooled)
    torch.testing.assert_close(loss(teacher, student), loss(teacher, pool(student, small)))


@pytest.mark.parametrize("name", ["nst_loss", "attention_transfer_loss"])
@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_half_precision_is_widened_before_it_is_pooled(name, larger):
    torch.manual_seed(0)
    sides = torch.randn(2, 4, 8, 8).half(), torch.randn(2, 4, 2, 2).half()
    sides = sides if larger == "student" else sides[::-1]
    loss = getattr(losses, name)
    exact = loss(*(side.double() for side in sides)).item()
    assert loss(*sides).item() == pytest.approx(exact, rel=2e-5)


def test_four_spatial_dimensions_are_compared_but_not_pooled():
    student, teacher = torch.randn(2, 2, 3, 2, 2, 2, 2)
    assert losses.nst_loss(student, teacher) > 0
    with pytest.raises(ValueError, match=r"4 spatial dimensions and pooling knows 1 to 3"):
        losses.nst_loss(student, teacher[..., :1])


@pytest.mark.parametrize(
    ("size", "levels"), [(8, [8, 4, 2, 1]), (4, [4, 2, 1]), (3, [3, 2, 1]), (1, [1])]
)
def test_hcl_weighs_its_levels_by_halves(size, levels):
    student, teacher = torch.randn(2, 2, 3, size, size, dtype=torch.float64)
    weights = [0.5**k for k in range(len(levels))]
    pooled = [[F.adaptive_avg_pool2d(side, n) for side in (student, teacher)] for n in levels]
    expected = sum(w * F.mse_loss(*pair) for w, pair in zip(weights, pooled, strict=True)) / sum(
        weights
    )
    torch.testing.assert_close(losses.hcl_loss(student, teacher), expected)


def test_hcl_pools_rectangles_and_odd_sides_from_the_full_size():
    for size in ((8, 6), (8, 12), (6, 8), (10, 10), (9, 5)):
        student, teacher = torch.randn(2, 2, 3, *size, dtype=torch.float64)
        pooled = [
            [F.adaptive_avg_pool2d(side, n) for side in (student, teacher)] for n in (4, 2, 1)
        ]
        terms = [F.mse_loss(student, teacher), *(F.mse_loss(*pair) for pair in pooled)]
        expected = sum(0.5**k * term for k, term in enumerate(terms)) / 1.875
        torch.testing.assert_close(losses.hcl_loss(student, teacher), expected)


def test_hcl_knows_one_and_three_dimensions():
    for shape in ((2, 3, 6), (2, 3, 6, 6, 6)):
        assert losses.hcl_loss(torch.randn(shape), torch.randn(shape)) > 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5, 4, 4), r"3 channels and teacher features 5: .*ConvProjector\(3, 5\)"),
        ((2, 3, 8, 8), r"different spatial sizes, \(2, 3, 4, 4\) and \(2, 3, 8, 8\)"),
        ((3, 3, 4, 4), r"different batches, \(2, 3, 4, 4\) and \(3, 3, 4, 4\)"),
        ((2, 3, 4), r"features need shape \(batch, channels, \*spatial\) on both sides"),
    ],
)
def test_hcl_says_what_does_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        losses.hcl_loss(torch.zeros(2, 3, 4, 4), torch.zeros(shape))


def test_pooled_features_have_no_space_left():
    for loss in (losses.hcl_loss, losses.nst_loss, losses.attention_transfer_loss):
        with pytest.raises(ValueError, match="take a layer before the global pooling"):
            loss(torch.zeros(2, 3), torch.zeros(2, 3))


@given(feature_pairs(), feature_pairs())
@few
def test_fsp_matches_its_double_sum(firsts, lasts):
    batch = min(len(firsts[0]), len(lasts[0]))
    height = min(firsts[0].shape[2], lasts[0].shape[2])
    width = min(firsts[0].shape[3], lasts[0].shape[3])
    first, last = firsts[0][:batch, :, :height, :width], lasts[0][:batch, :, :height, :width]
    teacher_first, teacher_last = first.sin(), last.cos()

    def flow(a, b):
        return np.einsum("bchw,bdhw->bcd", a.numpy(), b.numpy()) / (height * width)

    expected = np.mean((flow(first, last) - flow(teacher_first, teacher_last)) ** 2)
    loss = losses.fsp_loss((first, last), (teacher_first, teacher_last))
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_fsp_pools_the_larger_layer_of_a_pair():
    large, small = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    teacher = torch.randn(2, 3, 6, 6), torch.randn(2, 5, 6, 6)
    pooled = F.adaptive_avg_pool2d(large, 4)
    torch.testing.assert_close(
        losses.fsp_loss((large, small), teacher), losses.fsp_loss((pooled, small), teacher)
    )


def test_fsp_trains_both_layers_of_the_student_and_none_of_the_teacher():
    layers = [torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(4)]
    losses.fsp_loss(tuple(layers[:2]), tuple(layers[2:])).backward()
    assert all(layer.grad.abs().sum() > 0 for layer in layers[:2])
    assert all(layer.grad is None for layer in layers[2:])


def test_fsp_wants_pairs_of_equal_channels():
    x, wide = torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4)
    with pytest.raises(TypeError, match="student_pair must be .features of the first"):
        losses.fsp_loss(x, (x, x))
    with pytest.raises(TypeError, match="teacher_pair must be .features of the first"):
        losses.fsp_loss((x, x), (x, x, x))
    with pytest.raises(ValueError, match="3 channels and teacher features 5"):
        losses.fsp_loss((x, x), (x, wide))
    with pytest.raises(ValueError, match="different batches"):
        losses.fsp_loss((x, x), (x[:1], x[:1]))
    with pytest.raises(ValueError, match="different batches"):
        losses.fsp_loss((x, x[:1]), (x, x[:1]))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_fsp_names_the_side_that_diverged(side, layer):
    fine, diverged = [torch.zeros(2, 3, 4, 4)] * 2, [torch.zeros(2, 3, 4, 4)] * 2
    diverged[layer] = torch.full((2, 3, 4, 4), torch.nan)
    with pytest.raises(ValueError, match=f"^{side} features contain NaN"):
        losses.fsp_loss(*((diverged, fine) if side == "student" else (fine, diverged)))


def test_hint_is_the_mean_square_of_any_shape():
    for shape in ((3, 4), (2, 3, 5, 5)):
        student, teacher = torch.randn(2, *shape, dtype=torch.float64)
        expected = ((student - teacher).numpy() ** 2).mean()
        assert losses.hint_loss(student, teacher).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["hint_loss", "activation_boundary_loss"])
def test_other_shapes_want_a_projector(name):
    with pytest.raises(
        ValueError, match=r"\(2, 3, 4, 4\) and teacher features \(2, 6, 4, 4\).*projector"
    ):
        getattr(losses, name)(torch.zeros(2, 3, 4, 4), torch.zeros(2, 6, 4, 4))


def test_boundaries_match_the_two_cases():
    student, teacher = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    teacher[0, 0] = 0
    s, t, margin = student.numpy(), teacher.numpy(), 0.7
    wrong = np.where(t > 0, np.maximum(margin - s, 0), np.maximum(margin + s, 0))
    loss = losses.activation_boundary_loss(student, teacher, margin=margin)
    assert loss.item() == pytest.approx((wrong**2).sum() / 3)


def test_boundaries_are_content_beyond_the_margin_on_the_right_side():
    teacher = torch.tensor([[0.1, -0.1]])
    assert losses.activation_boundary_loss(torch.tensor([[1.0, -1.0]]), teacher) == 0
    assert losses.activation_boundary_loss(torch.tensor([[0.5, -1.0]]), teacher) == 0.25


@pytest.mark.parametrize("margin", [0, -1.0, float("nan"), float("inf")])
def test_boundaries_need_a_margin(margin):
    with pytest.raises(ValueError, match=r"margin is .*, expected a positive finite number"):
        losses.activation_boundary_loss(torch.ones(1, 2), torch.ones(1, 2), margin=margin)


def test_factors_are_compared_by_direction():
    student, teacher = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64)
    s, t = student.numpy().reshape(3, -1), teacher.numpy().reshape(3, -1)
    s, t = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (s, t))
    expected = np.abs(s - t).mean()
    assert losses.factor_transfer_loss(student, teacher).item() == pytest.approx(expected)


def test_a_silent_factor_has_a_finite_gradient():
    student = torch.zeros(1, 4, requires_grad=True)
    losses.factor_transfer_loss(student, torch.ones(1, 4)).backward()
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize("name", ["factor_transfer_loss", "activation_boundary_loss"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_features_lie_in_samples(name, shape):
    with pytest.raises(ValueError, match=r"need shape \(batch, ...\), got \(.*unsqueeze\(0\)"):
        getattr(losses, name)(torch.ones(shape), torch.ones(shape))


def test_factors_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="give translator and paraphraser one size"):
        losses.factor_transfer_loss(torch.zeros(1, 4), torch.zeros(1, 5))


def test_vid_is_a_gaussian_log_likelihood():
    torch.manual_seed(0)
    loss = losses.VIDLoss(3, 5, initial_variance=2.0).double()
    loss.alpha.data += torch.arange(5)
    student = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    teacher = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    mean = loss.mean(student)
    variance = (F.softplus(loss.alpha) + 1e-5).view(1, -1, 1, 1).expand_as(mean)
    expected = F.gaussian_nll_loss(mean, teacher, variance, eps=1e-12)
    torch.testing.assert_close(loss(student, teacher), expected)


def test_vid_starts_at_the_variance_asked_for():
    loss = losses.VIDLoss(3, 4, initial_variance=2.0)
    torch.testing.assert_close(F.softplus(loss.alpha) + 1e-5, torch.full((4,), 2.0))
    default = losses.VIDLoss(3, 4)
    torch.testing.assert_close(F.softplus(default.alpha) + 1e-5, torch.full((4,), 5.0))


def test_vid_learns_mean_and_variance_and_leaves_the_teacher():
    loss = losses.VIDLoss(3, 4, middle_channels=7)
    assert [tuple(p.shape[:2]) for p in loss.mean.parameters()] == [(7, 3), (7, 7), (4, 7)]
    assert [tuple(p.shape[:2]) for p in losses.VIDLoss(3, 4).mean.parameters()][0] == (4, 3)
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    teacher = torch.randn(2, 4, 2, 2, requires_grad=True)
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert all(p.grad.abs().sum() > 0 for p in [student, *loss.parameters()])


def test_mgd_rebuilds_the_teacher_from_what_the_mask_leaves():
    loss = losses.MGDLoss(3, 4, masked=0.0)
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4, 4)
    rebuilt = loss.generation(loss.align(student))
    expected = (rebuilt - teacher).square().sum() / 2
    torch.testing.assert_close(loss(student, teacher), expected)


def test_mgd_hides_a_share_of_positions_from_all_channels_alike():
    loss = losses.MGDLoss(3, 3, masked=0.65)
    seen = []
    loss.generation.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    loss(torch.ones(8, 3, 32, 32), torch.ones(8, 3, 32, 32))
    hidden = seen[0] == 0
    assert hidden.float().mean() == pytest.approx(0.65, abs=0.02)
    assert (hidden == hidden[:, :1]).all()
    assert (hidden[0] != hidden[1]).any()


def test_mgd_with_everything_hidden_sees_no_student():
    loss = losses.MGDLoss(3, 3, masked=1.0)
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss(student, teacher).backward()
    assert student.grad.abs().max() == 0
    assert teacher.grad is None
    assert loss.generation[0].weight.shape == (3, 3, 3, 3)


def test_mgd_aligns_only_other_channels():
    assert sum(p.numel() for p in losses.MGDLoss(3, 3).align.parameters()) == 0
    assert losses.MGDLoss(3, 5).align.weight.shape == (5, 3, 1, 1)
    assert losses.MGDLoss(3, 5).masked == 0.65


def test_mgd_refuses_a_share_above_one_and_other_sizes():
    with pytest.raises(ValueError, match="masked is 65, expected a number from 0 to 1"):
        losses.MGDLoss(3, 3, masked=65)
    with pytest.raises(ValueError, match="different spatial sizes"):
        losses.MGDLoss(3, 3)(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize("build", [losses.VIDLoss, losses.MGDLoss])
def test_modules_work_under_autocast(build):
    loss = build(3, 4)
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, torch.randn(2, 4, 4, 4))
    value.backward()
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert student.grad.isfinite().all()


def test_vid_tells_what_does_not_fit():
    loss = losses.VIDLoss(3, 4)
    with pytest.raises(ValueError, match="batch"):
        loss(torch.ones(2, 3, 4, 4), torch.ones(3, 4, 4, 4))
    with pytest.raises(ValueError, match="NaN"):
        loss(torch.full((2, 3, 4, 4), torch.nan), torch.ones(2, 4, 4, 4))


@pytest.mark.parametrize("build", [losses.VIDLoss, losses.MGDLoss])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [((2, 4, 6, 6), (2, 1, 6, 6)), ((2, 6, 6, 4), (2, 6, 6, 4)), ((4, 4, 6), (4, 4, 6))],
    ids=["one channel for all", "channels last", "no image"],
)
def test_a_network_in_a_loss_takes_the_layers_that_it_was_made_for(build, student, teacher):
    with pytest.raises(ValueError, match=r"was made for \(batch, 4, .*maps.channels_first"):
        build(4, 4)(torch.ones(student), torch.ones(teacher))


@pytest.mark.parametrize("build", [losses.VIDLoss, losses.MGDLoss])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_network_in_a_loss_computes_in_its_own_precision(build, dtype):
    loss = build(3, 4)
    student, teacher = torch.randn(2, 3, 4, 4).to(dtype), torch.randn(2, 4, 4, 4).to(dtype)
    found = []
    for precision in (dtype, torch.float32):
        torch.manual_seed(1)
        given = student.to(precision).requires_grad_()
        value = loss(given, teacher.to(precision))
        found.append((value.detach().double(), torch.autograd.grad(value, given)[0].double()))
    torch.testing.assert_close(found[0], found[1], rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("variance", [1e-4, 0.3, 5, 88, 800, 1e4, 1e30])
def test_vid_starts_with_any_variance(variance):
    loss = losses.VIDLoss(2, 3, initial_variance=variance)
    torch.testing.assert_close(F.softplus(loss.alpha) + 1e-5, torch.full((3,), float(variance)))
    student = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss(student, torch.randn(1, 3, 3, 3)).backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("middle", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)]
)
def test_vid_has_a_hidden_layer_of_a_whole_width(middle, error):
    with pytest.raises(error, match=f"middle_channels is {middle}: expected a whole number >= 1"):
        losses.VIDLoss(2, 3, middle_channels=middle)


@pytest.mark.parametrize("variance", [0, 1e-5, 1e39, float("inf"), float("nan")])
def test_vid_starts_with_a_variance(variance):
    with pytest.raises(ValueError, match="initial_variance is .*, expected a finite number above"):
        losses.VIDLoss(2, 3, initial_variance=variance)


@pytest.mark.parametrize("module", [losses.VIDLoss, losses.MGDLoss])
def test_a_network_in_a_loss_has_channels(module):
    with pytest.raises(ValueError, match="student_channels is 0: expected a whole number >= 1"):
        module(0, 3)
    with pytest.raises(ValueError, match="teacher_channels is 0: expected a whole number >= 1"):
        module(3, 0)


@pytest.mark.parametrize("margin", ["1", None, True])
def test_a_margin_is_a_number(margin):
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="margin is .*: expected one number"):
        losses.activation_boundary_loss(x, x, margin=margin)


@pytest.mark.parametrize("module", [losses.VIDLoss, losses.MGDLoss])
def test_a_network_in_a_loss_refuses_what_overflows(module):
    student, teacher = torch.randn(1, 2, 3, 3), torch.full((1, 2, 3, 3), 1e30)
    with pytest.raises(ValueError, match=f"^{module.__name__} is inf: numbers are too large"):
        module(2, 2)(student, teacher)
