"""The optimizer that `fit` and recipes make where none is given."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import AdamW


def adamw(
    weights: Iterable[Tensor], learning_rate: float = 1e-3, weight_decay: float = 0.01
) -> AdamW:
    """Make `AdamW` for those weights that are trained, in one kernel where that is right.

    Convention
        ``fused=True`` updates all weights in one kernel, up to rounding as the loop over weights
        does, in a third of its time on a CPU. That kernel takes weight and gradient as they lie in
        memory, one number after the other, and looks at no strides: where a weight is not
        contiguous, in half precision, or complex, the loop is taken.

    Args:
        weights: such as ``model.parameters()``.
        learning_rate: > 0.
        weight_decay: >= 0.

    Source: Loshchilov and Hutter (2019).

    Example:
        >>> linear = torch.nn.Linear(2, 2)
        >>> adamw(linear.parameters()).defaults["fused"]
        True
        >>> adamw(linear.bfloat16().parameters()).defaults["fused"]
        False
    """
    trained = [weight for weight in weights if weight.requires_grad]
    plain = all(w.dtype in (torch.float32, torch.float64) and w.is_contiguous() for w in trained)
    return AdamW(trained, learning_rate, weight_decay=weight_decay, fused=plain)
