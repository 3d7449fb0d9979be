"""Random inputs."""

import torch
from torch import Generator

from kdlearn.drills.grader import draws


def test_draws_follow_the_generator_and_its_bounds():
    one, other = Generator().manual_seed(3), Generator().manual_seed(3)
    assert torch.equal(draws.normal(one, 4, 5), draws.normal(other, 4, 5))
    many = draws.whole(one, 2, 5, 1000)
    assert set(many.tolist()) == {2, 3, 4, 5}
    assert all(1.5 <= draws.real(one, 1.5, 2) <= 2 for _ in range(100))
    assert {draws.one(one, 0, 1) for _ in range(50)} == {0, 1}


def test_the_scale_is_the_standard_deviation():
    values = draws.normal(Generator().manual_seed(0), 10_000, scale=3)
    assert abs(values.std().item() - 3) < 0.1
