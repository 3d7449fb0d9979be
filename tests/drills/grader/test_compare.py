"""When two outcomes are the same, and what a run of a solution leaves behind."""

import copy

import pytest
import torch
from torch import Generator, nn

from kdlearn.drills.grader.compare import Raised, copied, numbers_of, observe, same, shown
from kdlearn.drills.grader.drill import Drill


def made(reference, cases, **options) -> Drill:
    return Drill(
        id="toy",
        title="A toy",
        task="Do it.",
        minutes=1,
        level="warm-up",
        hints=("a", "b", "c"),
        explanation="None.",
        reference=reference,
        cases=lambda generator: cases,
        **options,
    )


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
        (Raised("ValueError", "no", 3), Raised("ValueError", "no", 5)),
        (1.0, 1.0 + 1e-8),
    ],
)
def test_what_is_the_same_up_to_rounding(one, other):
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.001),
        (torch.ones(2), torch.ones(1, 2)),
        ([1, 2], [1, 2, 3]),
        ({"a": 1}, {"a": 1, "b": 1}),
        (1.0, None),
        (float("nan"), 0.0),
        (float("inf"), -float("inf")),
        ("x", "y"),
        (Raised("ValueError", "no"), Raised("TypeError", "no")),
    ],
)
def test_what_is_not_the_same(one, other):
    assert not same(one, other)


def changed(change):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    twin = copy.deepcopy(model)
    change(twin)
    return not same(model, twin)


def test_a_model_is_its_weights_buffers_modes_and_hooks():
    assert not changed(lambda model: None)
    assert changed(lambda model: model[0].weight.data.add_(1))
    assert changed(lambda model: model[1].running_mean.add_(1))
    assert changed(lambda model: model.eval())
    assert changed(lambda model: model[0].requires_grad_(False))
    assert changed(lambda model: model[0].register_forward_hook(lambda *a: None))


def test_generators_are_the_same_when_they_will_draw_the_same():
    one, other = Generator().manual_seed(1), Generator().manual_seed(1)
    assert same(one, other)
    torch.rand(1, generator=one)
    assert not same(one, other)


def test_a_copy_keeps_what_is_shared_and_touches_nothing():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    generator = Generator().manual_seed(0)
    case = {"model": model, "optimizer": optimizer, "generator": generator}
    twin = copied(case)
    twin["model"](torch.ones(1, 2)).sum().backward()
    twin["optimizer"].step()
    torch.rand(1, generator=twin["generator"])
    assert not same(twin["model"], model)
    assert model.weight.grad is None
    assert not same(twin["generator"], generator)


def test_a_run_tells_values_gradients_changes_and_who_was_reached():
    def scaled(x, y):
        return (x * y).sum()

    case = {"x": torch.ones(3).double(), "y": torch.full((3,), 2.0).double()}
    drill = made(scaled, [case], gradients=("x",), detached=("y",))
    seen = observe(drill, scaled, case)
    assert seen.aspects["value"] == 6
    assert seen.aspects["gradient of x"].tolist() == [2, 2, 2]
    assert seen.reached == ("y",) and seen.changed == ()

    def in_place(x, y):
        return x.mul_(y).sum()

    seen = observe(drill, in_place, case)
    assert seen.changed == ("x",)
    assert case["x"].tolist() == [1, 1, 1]


def test_an_exception_tells_the_line_of_the_solution():
    def broken(x):
        y = x + 1
        return y / 0

    seen = observe(made(broken, []), broken, {"x": 1})
    error = seen.aspects["value"]
    assert (error.kind, error.message, error.line) == ("ZeroDivisionError", "division by zero", 3)


def test_random_solutions_draw_the_same_each_time_and_leave_the_session_alone():
    def noise(x):
        return torch.rand(2)

    drill = made(noise, [])
    state = torch.get_rng_state()
    runs = [observe(drill, noise, {"x": 0}).aspects["value"] for _ in range(2)]
    assert torch.equal(*runs)
    assert torch.equal(torch.get_rng_state(), state)


def test_numbers_of_what_has_none():
    assert numbers_of("3") is None and numbers_of([3]) is None
    assert numbers_of(3).tolist() == [3.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 3, "0.3333"),
        (torch.tensor(1 / 3), "0.3333"),
        (Raised("KeyError", "'a'"), "KeyError ('a')"),
        ("x" * 100, "'" + "x" * 56 + "..."),
    ],
)
def test_values_are_shown_short(value, text):
    assert shown(value) == text
