"""Means over rows of logits: of all rows at once, or a few at a time where memory is short."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.core.checks import (
    check_labels,
    check_logit_values,
    check_logits,
    check_mask,
    check_softening,
    check_whole,
)
from kdlearn.core.numerics import widen

Total = Callable[[Tensor, Tensor], Tensor]
Head = tuple[Tensor | None, Tensor | None]
NO_HEAD: Head = (None, None)


def kept(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Return the rows of (..., V) that a mask (...) keeps, as (N, V).

    Example:
        >>> kept(torch.ones(2, 3, 5), torch.eye(2, 3).bool()).shape
        torch.Size([2, 5])
    """
    return tensor.flatten(0, -2) if mask is None else tensor[mask]


def labels_kept(labels: Tensor, logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return the labels, checked; 0 where the mask drops a token, whatever number stood there.

    Example:
        >>> labels_kept(torch.tensor([1, -100]), torch.zeros(2, 3), torch.tensor([True, False]))
        tensor([1, 0])
    """
    if mask is not None:
        check_mask(mask, logits.shape[:-1])
        if isinstance(labels, Tensor) and labels.shape == mask.shape:
            labels = labels.masked_fill(~mask, 0)
    check_labels(labels, logits)
    return labels


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log-probabilities over the last dimension, in single precision at least.

    Example:
        >>> log_softmax(torch.tensor([[4.0, 0.0]]).half(), 100.0).exp()
        tensor([[0.5100, 0.4900]])
    """
    logits = widen(logits)
    # A division by 1 would change no number and copy all of them.
    return (logits if temperature == 1 else logits / temperature).log_softmax(dim=-1)


def row_mean(
    total: Total,
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Check two tensors of logits, and return the mean over rows of a divergence.

    Args:
        total: the divergence's sum over the rows of log-probabilities (n, V), the student's first.
        student_logits: shape (..., V).
        teacher_logits: shape (..., V).
        temperature: T, positive.
        mask: torch.bool, shape (...), True where a row counts.
        chunk: rows at a time, see :func:`mean_of_rows`.

    Example:
        >>> worst = lambda student, teacher: -student.min(dim=-1).values.sum()
        >>> row_mean(worst, torch.zeros(3, 2), torch.zeros(3, 2)).item()
        0.6931...
    """
    check_logits(student_logits, teacher_logits, "any")
    check_softening(temperature, student_logits)
    if mask is not None:
        check_mask(mask, student_logits.shape[:-1])

    def of_logits(student: Tensor, teacher: Tensor) -> Tensor:
        check_logit_values(student, "student logits")
        check_logit_values(teacher, "teacher logits")
        return total(log_softmax(student, temperature), log_softmax(teacher, temperature))

    return mean_of_rows(of_logits, student_logits, teacher_logits, mask=mask, chunk=chunk)


def mean_of_rows(
    total: Total,
    student: Tensor,
    teacher: Tensor,
    *,
    mask: Tensor | None,
    chunk: int | None,
    student_head: Head = NO_HEAD,
    teacher_head: Head = NO_HEAD,
) -> Tensor:
    """Return the mean over rows of what ``total`` makes of all of them, or of a chunk at a time.

    In chunks the gradient is computed with the value, while a chunk's tensors are still there:
    nothing is computed twice, and what is kept for the backward pass is the gradient alone. It can
    be differentiated once.

    Args:
        total: the sum over the rows of two tensors of logits (n, V); the teacher's has no gradient.
        student: logits (..., V), or with a head hidden states (..., D).
        teacher: the same of the teacher, in its own width.
        mask: torch.bool, shape (...), True where a row counts; None where all do.
        chunk: rows at a time; None for all of them.
        student_head: weight (V, D) and bias (V,) or None, which make logits of hidden states.
        teacher_head: the same of the teacher.

    Example:
        >>> ones, numbers = torch.ones(5, 3), torch.arange(15.0).reshape(5, 3)
        >>> product = lambda student, teacher: (student * teacher).sum()
        >>> mean_of_rows(product, ones, numbers, mask=None, chunk=2).item()
        21.0
    """
    size = None if chunk is None else check_whole(chunk, "chunk")
    teacher = teacher.detach()
    if size is None or torch.compiler.is_compiling():  # what compiles plans its own memory
        sides = (
            _logits(kept(student, mask), *student_head),
            _logits(kept(teacher, mask), *teacher_head).detach(),
        )
        return total(*sides) / len(sides[0])
    student, teacher = student.flatten(0, -2), teacher.flatten(0, -2)
    rows = None if mask is None else mask.flatten().nonzero().squeeze(1)
    inputs = (student, *student_head, teacher, *teacher_head)
    return _Chunked.apply(total, size, rows, *inputs) / len(student if rows is None else rows)


def _pieces(count: int, size: int, rows: Tensor | None) -> Iterable[Any]:
    if rows is not None:
        return rows.split(size)
    return [slice(start, start + size) for start in range(0, count, size)]


def _logits(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return rows if weight is None else F.linear(rows, weight, bias)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: Total, size: int, rows: Tensor | None, *inputs: Tensor) -> Tensor:
        ctx.total, ctx.size, ctx.rows = total, size, rows
        ctx.save_for_backward(*inputs)
        value, ctx.gradients = _value_and_gradients(ctx, inputs)
        return value

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of a loss in chunks cannot be differentiated: leave "
                "create_graph=True or chunk= out."
            )
        # The gradients are handed out as they lie there; a second backward pass makes them again.
        gradients = ctx.gradients or _value_and_gradients(ctx, ctx.saved_tensors)[1]
        ctx.gradients = None
        scaled = [
            None if gradient is None else gradient.mul_(slope).to(given.dtype)
            for gradient, given in zip(gradients, ctx.saved_tensors, strict=False)
        ]
        return None, None, None, *scaled, None, None, None


def _value_and_gradients(
    ctx: Any, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    student, weight, bias, teacher, *teacher_head = inputs
    wanted = ctx.needs_input_grad[3:6]
    # Many small gradients are added up in a weight's, so that one is kept in single precision.
    gradients = [
        torch.zeros_like(given, dtype=None if given is student else widen(given[:0]).dtype)
        if want
        else None
        for given, want in zip((student, weight, bias), wanted, strict=True)
    ]
    value = torch.zeros((), device=student.device)
    for rows in _pieces(len(student), ctx.size, ctx.rows):
        logits = _logits(student[rows], weight, bias).detach().requires_grad_(any(wanted))
        target = _logits(teacher[rows], *teacher_head).detach()
        with torch.enable_grad():
            piece = ctx.total(logits, target)
        value = value + piece.detach()
        if not any(wanted):
            continue
        (slope,) = torch.autograd.grad(piece, logits)
        if gradients[0] is not None:
            own = slope if weight is None else slope.to(weight.dtype) @ weight
            gradients[0][rows] = own.to(student.dtype)
        if gradients[1] is not None:
            _add_product(gradients[1], slope, student[rows])
        if gradients[2] is not None:
            gradients[2].add_(widen(slope).sum(dim=0))
    return value, gradients


def _add_product(total: Tensor, slope: Tensor, rows: Tensor) -> None:
    if not rows.is_cuda or rows.dtype == total.dtype:
        total.addmm_(widen(slope).T, widen(rows))
        return
    # What the plain form rounds too; a product in single precision takes several times as long.
    slope = slope.to(rows.dtype).T
    try:
        torch.addmm(total, slope, rows, out_dtype=total.dtype, out=total)
    except (TypeError, RuntimeError):  # before PyTorch 2.8, or not on this card: rounded twice
        total.add_(slope @ rows)
