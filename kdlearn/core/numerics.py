"""The few numerical habits that the losses share: width, matrix products, means, size matching."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_POOLS: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


def widen(tensor: Tensor) -> Tensor:
    """Take float16 and bfloat16 to float32, leave float32 and float64 alone.

    Squares, exponentials and long sums leave the range of half precision at values that networks
    do produce, so losses are computed one size up.

    Args:
        tensor: any floating-point tensor.

    Example:
        >>> widen(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product, in the wider precision of the two, that autocast does not cut down.

    Args:
        left: shape (..., N, K).
        right: shape (..., K, M).

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     matmul(torch.ones(1, 2), torch.ones(2, 1)).dtype
        torch.float32
    """
    with torch.autocast(left.device.type, enabled=False):
        wider = torch.promote_types(left.dtype, right.dtype)
        return left.to(wider) @ right.to(wider)


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Divide vectors by their L2 length; a vector of zeros stays zero, with gradient zero.

    So does one that is all but zero, below 1e-35 in float32: its gradient would leave the range.

    Args:
        vectors: any shape.
        dim: the dimension along which the vectors lie.

    Example:
        >>> unit(torch.tensor([[3e30, 4e30], [0.0, 0.0]]), dim=1)
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    squares = vectors.square().sum(dim=dim, keepdim=True)
    if all_between(squares, 1e-30, 1e30):
        return vectors / squares.sqrt()
    # A direction does not depend on the scale, so the peak may count as a constant in the gradient.
    vectors = vectors / peaks(vectors, dim)
    squares = vectors.square().sum(dim=dim, keepdim=True)
    # Infinity in place of a length of 0 makes value and gradient 0; the root has no slope at 0.
    return vectors / torch.where(squares > 0, squares, torch.inf).sqrt()


def peaks(values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return largest absolute values to divide by, infinity where all is next to nothing.

    What does not depend on the scale has a gradient that grows as the scale shrinks; of a peak
    below 1e-35 in float32 it could be infinite, so such numbers count as zeros.

    Args:
        values: any shape.
        dim: where to look for one peak; it stays, with size 1.

    Example:
        >>> peaks(torch.tensor([[3.0, -4.0], [1e-40, 0.0]]), dim=1)
        tensor([[4.],
                [inf]])
    """
    peak = values.detach().abs().amax(dim=dim, keepdim=True)
    return torch.where(peak < 1000 * torch.finfo(values.dtype).tiny, torch.inf, peak)


def lengths(vectors: Tensor) -> Tensor:
    """L2 length of each flattened sample; of a sample of zeros it is 0, with derivatives zero.

    Args:
        vectors: shape (B, ...).

    Example:
        >>> lengths(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]))
        tensor([5.0000e-30, 0.0000e+00])
    """
    flat = vectors.flatten(1)
    norms = flat.norm(dim=1)
    if all_between(norms, 1e-15, 1e15):
        return norms
    peak = flat.detach().abs().amax(dim=1)
    near = (norms > 1e-15) & (norms < 1e15)  # the bits of these do not depend on the others
    scale = peak.clamp_min(torch.finfo(flat.dtype).tiny).masked_fill(near, 1)
    # At 0 a norm has a first derivative of 0 in torch, but a second one of NaN.
    zeros = peak == 0
    scaled = torch.where(zeros[:, None], 1, flat / scale[:, None])
    return scale * torch.where(zeros, 0, scaled.norm(dim=1))


def in_scale(values: Tensor, dim: int | tuple[int, ...] = ()) -> Tensor:
    """Divide by the largest absolute value where products would leave the range of numbers.

    For what does not depend on the scale.

    Args:
        values: any shape.
        dim: where numbers have one scale, those beside them their own; everywhere by default.

    Example:
        >>> in_scale(torch.tensor([[1e-30, 2e-30], [1.0, 2.0]]), dim=1)
        tensor([[0.5000, 1.0000],
                [1.0000, 2.0000]])
    """
    peak = peaks(values, dim)
    if all_between(peak, 1e-6, 1e6):
        return values
    return values / peak.masked_fill((peak > 1e-6) & (peak < 1e6), 1)


def all_between(values: Tensor, low: float, high: float) -> bool:
    """Whether all values lie in a range, if one may look.

    A GPU would have to wait, and what compiles does not branch on values: there the answer is
    False, and the caller takes the way that is right for all numbers.

    Example:
        >>> (
        ...     all_between(torch.tensor([1.0, 2.0]), 0, 3),
        ...     all_between(torch.tensor([torch.nan]), 0, 3),
        ... )
        (True, False)
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    lowest, highest = torch.aminmax(values.detach())
    return low < lowest.item() and highest.item() < high


def kl_terms(log_target: Tensor, log_input: Tensor) -> Tensor:
    r"""Terms of a KL divergence, :math:`p_c (\log p_c - \log q_c)`; their sum over c is a row's.

    A class that the target gives no mass counts 0, with gradient 0, also where both
    log-probabilities are minus infinity.

    Args:
        log_target: log p, shape (..., C).
        log_input: log q, the same shape.

    Example:
        >>> kl_terms(torch.tensor([0.0, -torch.inf]), torch.tensor([0.5, 0.5]).log())
        tensor([0.6931, 0.0000])
    """
    return _products(log_target.exp(), log_target - log_input)


def kl_sum(log_target: Tensor, log_input: Tensor) -> Tensor:
    """Sum of all :func:`kl_terms`, in one pass less.

    Args:
        log_target: log p, shape (..., C).
        log_input: log q, the same shape.

    Example:
        >>> kl_sum(torch.tensor([0.0, -torch.inf]), torch.tensor([0.5, 0.5]).log())
        tensor(0.6931)
    """
    return _products(log_target.exp(), log_target - log_input, summed=True)


def cross_terms(log_target: Tensor, log_input: Tensor) -> Tensor:
    r"""Terms of a cross-entropy, :math:`-p_c \log q_c`, with :func:`kl_terms`'s rule for no mass.

    Args:
        log_target: log p, shape (..., C).
        log_input: log q, the same shape.

    Example:
        >>> cross_terms(torch.tensor([0.0, -torch.inf]), torch.tensor([-2.0, -torch.inf]))
        tensor([2., 0.])
    """
    return _products(log_target.exp(), -log_input)


def _products(target: Tensor, logarithms: Tensor, *, summed: bool = False) -> Tensor:
    """Target times logarithms, or the sum; 0 where the target is, whatever the logarithm."""
    # Comparing each number with 0 takes a CPU longer than all the rest. A GPU would wait for the
    # answer.
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        terms = target * logarithms
        total = (terms if summed else terms.detach()).sum()
        if math.isfinite(total.item()):
            return total if summed else terms
    terms = target * torch.where(target == 0, 0.0, logarithms)
    return terms.sum() if summed else terms


def log_sum(logarithms: Tensor, origin: Tensor | float = 0.0) -> Tensor:
    """Logarithm of a sum over the last dimension; where all of it is nothing, without a gradient.

    Args:
        logarithms: shape (..., C), minus infinity for nothing.
        origin: what to subtract from the logarithm, (..., 1), before rounding.

    Returns:
        Shape (..., 1).

    Example:
        >>> log_sum(torch.tensor([[-torch.inf, -torch.inf], [0.0, 0.0]]))
        tensor([[  -inf],
                [0.6931]])
    """
    lowest = torch.finfo(logarithms.dtype).min
    peak = logarithms.detach().amax(dim=-1, keepdim=True).clamp_min(lowest)
    # Where a gradient of logsumexp is computed anew, that of exp is at hand.
    total = (logarithms - peak).exp_().sum(dim=-1, keepdim=True)
    # The slope of the logarithm at 0 is infinite, and a mask after it would make that NaN.
    nothing = total == 0
    return total.masked_fill(nothing, 1).log().masked_fill(nothing, -torch.inf) + (peak - origin)


def pool(features: Tensor, size: int | Sequence[int]) -> Tensor:
    """Adaptive average pooling in one, two or three spatial dimensions.

    Args:
        features: shape (B, C, *spatial).
        size: positions to keep in every dimension, or in each.

    Raises:
        ValueError: there are more than three spatial dimensions.

    Example:
        >>> pool(torch.ones(1, 2, 8, 6), 2).shape
        torch.Size([1, 2, 2, 2])
    """
    dimensions = features.dim() - 2
    if dimensions not in _POOLS:
        raise ValueError(
            f"features of shape {tuple(features.shape)} have {dimensions} spatial dimensions and "
            "pooling knows 1 to 3: flatten some of them, or pick layers of equal size."
        )
    return _POOLS[dimensions](features, size)


def match_sizes(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two feature tensors to the smaller's size.

    Args:
        student: shape (B, C_s, *spatial).
        teacher: shape (B, C_t, *spatial), with as many spatial dimensions.

    Returns:
        Both, with equal spatial sizes.

    Raises:
        ValueError: the sizes differ and there are more than three spatial dimensions.

    Example:
        >>> student, teacher = match_sizes(torch.ones(1, 2, 8, 6), torch.ones(1, 5, 4, 3))
        >>> student.shape, teacher.shape
        (torch.Size([1, 2, 4, 3]), torch.Size([1, 5, 4, 3]))
    """
    if student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return pool(student, size), pool(teacher, size)
