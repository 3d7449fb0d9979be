"""Numerical habits: width, exact products under autocast, lengths, rows, sizes."""

import math

import pytest
import torch

from kdlearn.core.numerics import kl_terms, match_sizes, matmul, pool, unit, widen


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
