import random

import numpy as np
import torch

from kdlearn.core.randomness import random_states, separate_randomness, set_random_states


def draw() -> tuple:
    return (random.random(), np.random.rand(), torch.rand(2).tolist())


def test_all_three_generators_come_back():
    states = random_states()
    first = draw()
    set_random_states(states)
    assert draw() == first


def test_separate_draws_follow_from_their_seed_and_leave_the_rest_alone():
    states = random_states()
    expected = draw()
    set_random_states(states)
    with separate_randomness(1, 2):
        inside = draw()
    assert draw() == expected
    for seed, equal in (((1, 2), True), ((1, 3), False), ((2, 1), False)):
        with separate_randomness(*seed):
            assert (draw() == inside) is equal
