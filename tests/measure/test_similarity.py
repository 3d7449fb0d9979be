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


def test_constant_features_are_like_nothing():
    assert linear_cka(torch.ones(5, 3), features(9, 5, 3)) == 0


@pytest.mark.parametrize(("one", "two"), [(4, 5), (1, 1)])
def test_samples_that_do_not_match_are_counted_in_the_message(one, two):
    with pytest.raises(ValueError, match=f"of {one} and {two} samples: run both networks"):
        linear_cka(torch.rand(one, 3), torch.rand(two, 3))
