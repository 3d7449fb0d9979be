import math

import pytest
import torch

from kdlearn.measure import linear_cka


def features(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_alignment_of_centered_gram_matrices():
    x, y = features(0, 30, 4).double(), features(1, 30, 2, 3).double()
    center = torch.eye(30, dtype=torch.float64) - 1 / 30
    k, m = (center @ side.flatten(1) @ side.flatten(1).T @ center for side in (x, y))
    expected = ((k * m).sum() / (k.norm() * m.norm())).item()
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_of_one_feature_it_is_the_squared_correlation():
    x, y = features(2, 50, 1), features(3, 50, 1)
    expected = torch.corrcoef(torch.cat([x, x + y], dim=1).T)[0, 1].item() ** 2
    assert linear_cka(x, x + y) == pytest.approx(expected, rel=1e-5)


def test_a_turned_scaled_and_shifted_copy_is_the_same():
    x = features(4, 60, 8)
    turn = torch.linalg.qr(features(5, 8, 8)).Q
    assert linear_cka(x, 7 * (x @ turn) - 2) == pytest.approx(1, abs=1e-6)
    assert linear_cka(x, x @ features(6, 8, 8)) < 0.95


def test_unrelated_features_are_unlike_once_there_are_many_samples():
    assert linear_cka(features(7, 4000, 5), features(8, 4000, 5)) < 0.01


@pytest.mark.parametrize("value", [1.0, 0.1, 0.0])
def test_constant_features_are_like_nothing(value):
    constant = torch.full((5, 3), value)
    assert linear_cka(constant, features(9, 5, 3)) == 0
    assert linear_cka(constant, constant) == 0


SCALES = [
    (torch.float64, 1e200),
    (torch.float64, 1e-200),
    (torch.float32, 1e30),
    (torch.float32, 1e-30),
    (torch.bfloat16, 1e20),
    (torch.float16, 1e3),
    (torch.float16, 1e-2),
]


@pytest.mark.parametrize(("dtype", "scale"), SCALES, ids=str)
def test_scale_and_precision_of_a_side_do_not_matter(dtype, scale):
    # Whole numbers: every precision holds them, whatever power of two they are multiplied by.
    x, y = features(10, 40, 3).mul(8).round(), features(11, 40, 2).mul(8).round()
    expected = linear_cka(x.double(), y.double())
    power = 2.0 ** round(math.log2(scale))
    assert linear_cka(x.to(dtype) * power, y) == pytest.approx(expected, rel=1e-12)
    assert linear_cka(x.double(), y.to(dtype) * power) == pytest.approx(expected, rel=1e-12)


def test_autocast_changes_nothing():
    x, y = features(12, 40, 3), features(13, 40, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = linear_cka(x, y)
    assert inside == linear_cka(x, y)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 300])
def test_features_of_any_width_are_like_themselves(width):
    x = features(14, 8, width)
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)


def test_more_features_than_samples_give_what_fewer_do():
    x, y = features(15, 20, 6), features(16, 20, 5)
    # Columns of zeros are features that say nothing: they only make a side wide.
    wide = torch.cat([x, torch.zeros(20, 50)], dim=1)
    assert linear_cka(wide, y) == pytest.approx(linear_cka(x, y), rel=1e-12)


def test_a_number_a_sample_is_one_feature():
    x, y = features(17, 30), features(18, 30)
    assert linear_cka(x, y) == linear_cka(x[:, None], y[:, None])


def test_a_large_mean_does_not_hide_the_features():
    x, y = features(19, 30, 3).double(), features(20, 30, 3).double()
    assert linear_cka(x + 1e8, y) == pytest.approx(linear_cka(x, y), rel=1e-6)


def test_features_that_are_one_number_are_refused():
    with pytest.raises(ValueError, match=r"one number: expected the shape \(N, ...\)"):
        linear_cka(torch.tensor(1.0), torch.tensor(1.0))


@pytest.mark.parametrize(("one", "two"), [(4, 5), (1, 1)])
def test_samples_that_do_not_match_are_counted_in_the_message(one, two):
    with pytest.raises(ValueError, match=f"of {one} and {two} samples: run both networks"):
        linear_cka(torch.rand(one, 3), torch.rand(two, 3))
