from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn

from kdlearn.core.identity import described, digest_of, digest_of_model
from kdlearn.data import RandomShift


def plus(x, y=1):
    return x + y


def closure(number):
    return lambda x: x + number


class Callable:
    def __init__(self, rate):
        self.rate, self._private = rate, object()

    def __call__(self, x):
        return self.rate * x


@dataclass
class Setting:
    loss: object


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (0.5, 0.5, 0.25),
        (partial(plus, y=4), partial(plus, y=4), partial(plus, y=2)),
        (plus, plus, closure),
        (lambda x: x + 1, None, lambda x: x + 2),
        (closure(1), closure(2), lambda x: x - 1),
        (Callable(1), Callable(1), Callable(2)),
        (Setting(plus), Setting(plus), Setting(closure)),
        (RandomShift(2), RandomShift(2), RandomShift(3)),
        (nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(3, 3)),
        (torch.ones(2), torch.ones(2), torch.zeros(2)),
        ({"a": plus}, {"a": plus}, {"a": closure}),
        (RandomShift(2).__call__, RandomShift(2).__call__, RandomShift(3).__call__),
    ],
)  # fmt: skip
def test_equal_settings_have_one_name_and_others_another(one, same, other):
    assert described(one) == described(one if same is None else same) != described(other)
    assert " at 0x" not in described(one)


def test_a_digest_sees_names_types_shapes_and_every_number():
    tensor = torch.arange(6.0)
    changed = tensor.clone()
    changed[5] += 1e-6
    others = [
        changed, tensor.view(2, 3), tensor.double(), {"a": tensor}, {"b": tensor}, (tensor, tensor)
    ]  # fmt: skip
    digests = [digest_of(value) for value in (tensor, *others)]
    assert len(set(digests)) == len(digests)
    assert digest_of(tensor.clone()) == digests[0]
    assert digest_of(tensor.view(2, 3).T.contiguous().T) == digest_of(tensor.view(2, 3))


def test_a_digest_of_a_model_sees_layers_between_the_weights():
    torch.manual_seed(0)
    linear = nn.Linear(2, 2)
    kinds = [nn.ReLU(), nn.Sigmoid(), nn.Dropout(0.1), nn.Dropout(0.2)]
    digests = {digest_of_model(nn.Sequential(linear, kind)) for kind in kinds}
    assert len(digests) == 4
