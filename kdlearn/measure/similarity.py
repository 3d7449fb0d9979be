"""How alike two networks' features are, whatever their widths and the order of their channels."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlearn.core.checks import check_tensor


def linear_cka(features: Tensor, others: Tensor) -> float:
    r"""Return the centered kernel alignment of two sets of features of the same samples.

    .. math:: \mathrm{CKA}(X, Y) = \frac{\lVert Y^\top X \rVert_F^2}
        {\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F}

    with the mean over samples taken from each column of X and Y first.

    Convention
        Linear kernel, in double precision. All dimensions but the first are flattened: the
        channels of each place count as features of their own. 1 where one side is the other
        rotated, mirrored, scaled by a number or shifted; 0 where no feature of one side correlates
        with one of the other, and where a side is constant. With fewer samples than features it is
        high by chance: give more samples.
        Cost: as many numbers as the square of N, or of the larger number of features, whichever
        is less.

    Args:
        features: X, shape (N, ...), N at least 2, of any precision.
        others: Y, shape (N, ...); its other dimensions and its precision may differ.

    Raises:
        TypeError: a side is no floating-point tensor.
        ValueError: the numbers of samples differ, there are fewer than 2, or a side is one number.

    Source: S. Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019,
        section 3.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
        >>> round(linear_cka(x, 3 * x.flip(1) + 5), 6)
        1.0
    """
    for side in (features, others):
        check_tensor(side, "features")
        if side.ndim == 0:
            raise ValueError("features are one number: expected the shape (N, ...).")
    if len(features) != len(others) or len(features) < 2:
        raise ValueError(
            f"got features of {len(features)} and {len(others)} samples: run both networks on the "
            "same samples, at least 2."
        )
    x, y = _centered(features), _centered(others)
    if max(x.shape[1], y.shape[1]) > len(x):
        own, its = x @ x.T, y @ y.T
        across = (own * its).sum()
    else:
        own, its = x.T @ x, y.T @ y
        across = (y.T @ x).square().sum()
    norms = own.norm() * its.norm()
    return (across / norms).item() if norms > 0 else 0.0


def _centered(features: Tensor) -> Tensor:
    """Return features around their mean, none above 1, and exact zeros where all are the same."""
    # On the CPU, because Apple's GPUs have no double precision.
    x = _largest_1(features.detach().cpu().double().reshape(len(features), -1))
    # A mean of equal numbers is rounded; their differences are not.
    x = x - x[:1]
    return _largest_1(x - x.mean(dim=0))


def _largest_1(x: Tensor) -> Tensor:
    return x / x.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
