"""How alike two networks' features are, whatever their widths and the order of their channels."""

from __future__ import annotations

from torch import Tensor

from kdlearn.core.checks import check_tensor
from kdlearn.core.numerics import widen


def linear_cka(features: Tensor, others: Tensor) -> float:
    r"""Return the centered kernel alignment of two sets of features of the same samples.

    .. math:: \mathrm{CKA}(X, Y) = \frac{\lVert Y^\top X \rVert_F^2}
        {\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F}

    with the mean over samples taken from each column of X and Y first.

    Convention
        Linear kernel, in single precision at least. All dimensions but the first are flattened: the
        channels of each place count as features of their own. 1 where one side is the other
        rotated, mirrored, scaled by a number or shifted; 0 where no feature of one side correlates
        with one of the other, and where a side is constant. With fewer samples than features it is
        high by chance: give more samples.

    Args:
        features: X, shape (N, ...), N at least 2.
        others: Y, shape (N, ...); its other dimensions may differ.

    Raises:
        TypeError: a side is no floating-point tensor.
        ValueError: the numbers of samples differ, or there are fewer than 2.

    Source: S. Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019,
        section 3.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
        >>> round(linear_cka(x, 3 * x.flip(1) + 5), 6)
        1.0
    """
    check_tensor(features, "features")
    check_tensor(others, "features")
    if len(features) != len(others) or len(features) < 2:
        raise ValueError(
            f"got features of {len(features)} and {len(others)} samples: run both networks on the "
            "same samples, at least 2."
        )
    x, y = (widen(side).flatten(1) for side in (features, others))
    x, y = (side - side.mean(dim=0) for side in (x, y))
    across, own, its = ((a.T @ b).double() for a, b in ((y, x), (x, x), (y, y)))
    norms = own.norm() * its.norm()
    return (across.square().sum() / norms).item() if norms > 0 else 0.0
