"""Random inputs for drills, in float64."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def normal(generator: Generator, *shape: int, scale: float = 1.0) -> Tensor:
    """Draw from a normal distribution.

    Example:
        >>> normal(Generator().manual_seed(0), 2, 3).dtype
        torch.float64
    """
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def whole(generator: Generator, low: int, high: int, *shape: int) -> Tensor:
    """Draw whole numbers from low to high, both included.

    Example:
        >>> whole(Generator().manual_seed(0), 3, 3, 2).tolist()
        [3, 3]
    """
    return torch.randint(low, high + 1, shape, generator=generator)


def one(generator: Generator, low: int, high: int) -> int:
    """Draw one whole number from low to high, both included.

    Example:
        >>> one(Generator().manual_seed(0), 5, 5)
        5
    """
    return int(whole(generator, low, high).item())


def real(generator: Generator, low: float, high: float) -> float:
    """Draw one real number.

    Example:
        >>> 2 <= real(Generator().manual_seed(0), 2, 3) <= 3
        True
    """
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()
