"""What the experiments share: a model that follows from a seed, and the row that is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdlearn.data import Split, Splits
from kdlearn.measure.metrics import accuracy, agreement, expected_calibration_error, kl_to_teacher

Row = dict[str, int | float | str]
Model = TypeVar("Model", bound=nn.Module)


def seeded(make: Callable[[], Model], seed: int) -> Model:
    """Make a model whose first weights follow from the seed; torch's global state stays as it was.

    Example:
        >>> first, again = (seeded(lambda: nn.Linear(2, 2), seed=3) for _ in range(2))
        >>> torch.equal(first.weight, again.weight)
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def measure(logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the metrics that every experiment reports; all in per cent but the KL, in nats."""
    return {
        "accuracy": 100 * accuracy(logits, labels),
        "agreement": 100 * agreement(logits, teacher_logits),
        "kl_to_teacher": kl_to_teacher(logits, teacher_logits),
        "ece": 100 * expected_calibration_error(logits, labels),
    }


def held_out(data: Splits, name: str) -> Split:
    """Return the split to measure on: validation while choosing, test for what is reported.

    Raises:
        ValueError: another split was asked for.
    """
    if name not in ("validation", "test"):
        raise ValueError(f"measure on 'validation' or 'test', got {name!r}.")
    return data.validation if name == "validation" else data.test


def check_methods(methods: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a method that the experiment does not have.

    Raises:
        KeyError: lists the methods there are.
    """
    names = list(known)
    for method in methods:
        if method not in names:
            raise KeyError(f"no method {method!r}: choose from {', '.join(map(repr, names))}.")
