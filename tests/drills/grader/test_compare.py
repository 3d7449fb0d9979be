"""When two values are the same, and how they are shown."""

import pytest
import torch
from torch import Generator, nn

from kdlearn.drills.grader.compare import Raised, copied, numbers_of, same, shown, size_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (torch.tensor(2.0), 2),
        (torch.ones(2).float(), torch.ones(2).double()),
        ({"a": [1.0, (2, 3)]}, {"a": (1.0, [2, 3])}),
        (float("nan"), float("nan")),
        (True, 1),
        ("x", "x"),
        (None, None),
        (Raised(("ValueError",), "no"), Raised(("ValueError",), "other words")),
        (Raised(("UnicodeError", "ValueError"), ""), Raised(("ValueError",), "")),
        (1.0, 1.0 + 1e-8),
        (torch.ones(2), torch.ones(2) + 1e-4),
    ],
)
def test_what_is_the_same_up_to_rounding(one, other):
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.001),
        (torch.ones(2), torch.ones(1, 2)),
        (torch.ones(2).double(), torch.ones(2).double() + 1e-4),
        ([1, 2], [1, 2, 3]),
        ({"a": 1}, {"a": 1, "b": 1}),
        (1.0, None),
        (float("nan"), 0.0),
        (float("inf"), -float("inf")),
        ("x", "y"),
        (Raised(("ValueError",), "no"), Raised(("TypeError",), "no")),
    ],
)
def test_what_is_not_the_same(one, other):
    assert not same(one, other)


def test_a_copy_shares_what_was_shared_and_nothing_with_the_original():
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    case = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "generator": Generator().manual_seed(1),
        "x": torch.ones(2),
    }
    given = copied(case)
    given["optimizer"].step()
    given["x"].zero_()
    torch.rand(1, generator=given["generator"])
    assert not same(given["model"], model)
    assert same(model.weight.grad, given["model"].weight.grad)
    assert case["x"].sum() == 2
    assert not same(given["generator"], case["generator"])


def test_numbers_are_found_wherever_they_are():
    assert numbers_of({"a": [1, (2.0, None)], "b": "x"}).tolist() == [1, 2]
    assert numbers_of("x") is None
    assert size_of({"x": torch.ones(3), "model": nn.Linear(1, 1)}) == float("inf")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.tensor([[1.0, 0.5]]), "[[1, 0.5]]"),
        (0.123456, "0.1235"),
        ({"a": 1.0}, "{a: 1}"),
        (Raised(("ValueError", "Exception"), "no"), "ValueError: no"),
        (nn.Linear(1, 1), "a Linear"),
    ],
)
def test_values_are_shown_in_few_characters(value, text):
    assert shown(value) == text
