"""Numerical habits: width, exact products under autocast, lengths, rows, sizes."""

import math

import pytest
import torch

from kdlearn.core.numerics import (
    cross_terms,
    in_scale,
    kl_terms,
    lengths,
    log_sum,
    match_sizes,
    matmul,
    pool,
    unit,
    widen,
)


@pytest.mark.parametrize(
    ("given", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_half_precision_is_widened(given, wide):
    assert widen(torch.ones(1, dtype=given)).dtype == wide


def test_products_are_not_rounded_by_autocast():
    left, right = torch.randn(2, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exact = left.double() @ right.double()
        torch.testing.assert_close(matmul(left, right).double(), exact, rtol=1e-5, atol=1e-5)
        assert matmul(left, right).dtype == torch.float32


def test_unit_vectors_have_length_one_along_one_dimension():
    vectors = torch.randn(3, 4, 5, dtype=torch.float64)
    for dim in range(3):
        result = unit(vectors, dim)
        torch.testing.assert_close(result.norm(dim=dim), torch.ones_like(result.norm(dim=dim)))
    torch.testing.assert_close(unit(7 * vectors, 1), unit(vectors, 1))


def test_zero_vectors_stay_and_send_no_gradient_of_any_order():
    vectors = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    result = unit(vectors, 1)
    (slope,) = torch.autograd.grad(result.sum(), vectors, create_graph=True)
    (curve,) = torch.autograd.grad(slope.sum(), vectors)
    for tensor in (result, slope, curve):
        assert tensor.abs().max() == 0


def test_rows_with_events_of_no_mass_are_finite():
    target = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
    given = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.0, 0.5]]).log()
    expected = torch.tensor([0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.log(2)])
    torch.testing.assert_close(kl_terms(target, given).sum(-1), expected)


def test_mass_where_the_other_side_has_none_is_infinite():
    target, given = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]).log()
    assert kl_terms(target, given).sum(-1) == torch.inf


def test_equal_sizes_are_not_touched():
    pair = torch.ones(1, 2, 3, 3), torch.ones(1, 5, 3, 3)
    assert all(a is b for a, b in zip(match_sizes(*pair), pair, strict=True))


def test_sizes_meet_at_the_smaller_and_sides_stay_in_order():
    student, teacher = match_sizes(torch.zeros(1, 2, 8, 6), torch.ones(1, 5, 4, 3))
    torch.testing.assert_close(student, torch.zeros(1, 2, 4, 3))
    torch.testing.assert_close(teacher, torch.ones(1, 5, 4, 3))


@pytest.mark.parametrize("space", [1, 2, 3])
def test_pooling_averages_in_every_dimension(space):
    features = torch.randn(2, 3, *[4] * space)
    once = pool(features, 1)
    torch.testing.assert_close(once.flatten(2)[..., 0], features.flatten(2).mean(-1))


@pytest.mark.parametrize("space", [0, 4])
def test_pooling_knows_one_to_three_dimensions(space):
    with pytest.raises(
        ValueError, match=f"have {space} spatial dimensions and pooling knows 1 to 3"
    ):
        pool(torch.ones(2, 3, *[4] * space), 1)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_directions_and_lengths_are_those_of_double_precision_at_every_scale(scale):
    vectors = scale * torch.randn(4, 6)
    vectors[1] *= 1e-3
    weights = torch.randn(4, 6)
    given, exact = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    for function in (lambda x: (weights * unit(x, 1)).sum(), lambda x: lengths(x).sum()):
        ours, right = function(given), function(exact)
        torch.testing.assert_close(ours.double(), right, rtol=1e-5, atol=0)
        slopes = (torch.autograd.grad(f, x)[0] for f, x in ((ours, given), (right, exact)))
        torch.testing.assert_close(
            next(slopes).double(), next(slopes), rtol=1e-3, atol=1e-6 / scale
        )


def test_a_sample_of_zeros_has_length_zero_and_no_slope():
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    result = lengths(vectors)
    result.sum().backward()
    assert result.tolist() == [0, 5]
    torch.testing.assert_close(vectors.grad, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    assert lengths(torch.ones(2, 3, 4, 4)).tolist() == pytest.approx([48**0.5] * 2)


def test_only_what_is_far_out_of_scale_is_scaled():
    values = torch.tensor([[-3.0, 2.0]])
    assert in_scale(values) is values
    for scale in (1e-20, 1e20):
        torch.testing.assert_close(in_scale(scale * values), values / 3)
    assert in_scale(0 * values).abs().max() == 0


def test_sums_of_logarithms_have_the_gradient_of_torchs_and_zero_for_nothing():
    logs = torch.randn(3, 4, dtype=torch.float64)
    logs[1] = -torch.inf
    logs[2, 1:] = -torch.inf
    logs.requires_grad_()
    total = log_sum(logs)
    assert total[1] == -torch.inf
    right = logs[[0, 2]].logsumexp(-1, keepdim=True)
    torch.testing.assert_close(total[[0, 2]], right)
    (slope,) = torch.autograd.grad(total[[0, 2]].sum(), logs, retain_graph=True)
    torch.testing.assert_close(slope[[0, 2]], logs[[0, 2]].softmax(-1))
    torch.testing.assert_close(log_sum(logs, origin=torch.ones(3, 1))[[0, 2]], right - 1)
    (nothing,) = torch.autograd.grad(total.exp().sum(), logs)
    assert nothing[1].abs().max() == 0


def test_sums_far_from_zero_are_rounded_where_they_are_asked_for():
    logs = torch.tensor([[1e6, 1e6 - 1.0]])
    found = log_sum(logs, origin=torch.tensor([[1e6]])).item()
    assert found == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)
    assert log_sum(torch.tensor([[-1e6, -1e6]])).item() == pytest.approx(-1e6 + math.log(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_direction_that_no_gradient_could_turn_counts_as_zero(dtype):
    """The slope of a direction is one over the length: there is none below the range's end."""
    smallest = torch.finfo(dtype).smallest_normal
    for scale, counts in ((smallest / 8, False), (smallest * 2**14, True)):
        vectors = torch.tensor([[3.0, -4.0], [1.0, 0.0]], dtype=dtype)
        vectors[0] *= scale
        result = unit(vectors.requires_grad_(), 1)
        (slope,) = torch.autograd.grad(result[:, 0].sum(), vectors)
        assert slope.isfinite().all()
        expected = torch.tensor([0.6, -0.8], dtype=dtype) if counts else torch.zeros(2, dtype=dtype)
        torch.testing.assert_close(result[0], expected)
        assert (slope[0] != 0).any() == counts


@pytest.mark.parametrize("function", [kl_terms, cross_terms])
def test_a_class_without_mass_costs_nothing_and_nan_is_not_swallowed(function):
    target = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    given = torch.tensor([[-1.0, -2.0, -torch.inf]], requires_grad=True)
    terms = function(target, given)
    assert terms[0].tolist() == [1, 0, 0]
    terms.sum().backward()
    assert given.grad.tolist() == [[-1, 0, 0]]
    assert function(target * torch.nan, given).isnan().any()


def test_the_target_of_a_kl_may_be_what_learns():
    """As in the reverse KL, where a class that the student rules out sends no gradient."""
    target = torch.tensor([[0.3, 0.7, 0.0]], dtype=torch.float64).log().requires_grad_()
    given = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    (slope,) = torch.autograd.grad(kl_terms(target, given).sum(), target)
    expected = [p * (math.log(p / 0.5) + 1) for p in (0.3, 0.7)]
    assert slope[0].tolist() == pytest.approx([*expected, 0])
