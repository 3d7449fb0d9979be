"""Random numbers that can be put aside, put back, and made to follow from a seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator

from kdlearn.core.checks import check_whole


def generator_of(seed: int, part: int = 0, parts: int = 1) -> Generator:
    """Return a generator on the CPU whose draws follow from a seed: seed * parts + part.

    Args:
        seed: a whole number of Python's, NumPy's or a tensor's.
        part: which of the parts of what is drawn, each with draws of its own.
        parts: how many there are.

    Raises:
        TypeError: the seed is no whole number.
        ValueError: torch has no room for it: seed * parts + part is no number of 64 bits.

    Example:
        >>> generator_of(np.int8(100), part=1, parts=3).initial_seed()
        301
    """
    least, most = -(2**63), 2**64 - 1
    number = check_whole(seed, "seed", least=least) * parts + part
    if not least <= number <= most:
        raise ValueError(
            f"seed is {seed}, which makes {number}: torch takes 64 bits, so give one nearer to 0."
        )
    return Generator().manual_seed(number)


def random_states() -> dict[str, Any]:
    """Collect the states of the random number generators of Python, NumPy and torch.

    Example:
        >>> states = random_states()
        >>> first = torch.rand(())
        >>> set_random_states(states)
        >>> bool(torch.rand(()) == first)
        True
    """
    version, words, position = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), position],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put back what `random_states` collected; see there for an example."""
    version, words, position = states["python"]
    random.setstate((version, tuple(words), position))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def separate_randomness(*seed: int) -> Iterator[None]:
    """Let the draws of a ``with`` block follow from a seed, and leave those outside as they were.

    Args:
        seed: one or more whole numbers, such as (seed, epoch, row): another tuple, other draws.

    Example:
        >>> with separate_randomness(3, 0):
        ...     first = torch.rand(())
        >>> with separate_randomness(3, 0):
        ...     bool(first == torch.rand(()))
        True
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    number = int.from_bytes(hashlib.sha256(repr(seed).encode()).digest()[:4], "big")
    random.seed(number)
    np.random.seed(number)
    # Not torch.manual_seed: it would seed the GPUs too, whose draws belong to the model.
    torch.default_generator.manual_seed(number)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
