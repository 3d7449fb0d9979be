"""Means over rows of logits: of all rows at once, or a few at a time where memory is short."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.core.checks import (
    check_labels,
    check_logit_values,
    check_logits,
    check_mask,
    check_temperature,
    check_whole,
    checks_values,
    sum_to_one,
)
from kdlearn.core.numerics import widen

Total = Callable[[Tensor, Tensor], Tensor]
Head = tuple[Tensor | None, Tensor | None]
NO_HEAD: Head = (None, None)

# The logarithm of one of C probabilities, some log C, is rounded by a share of that, and T² stands
# before it. Up to this T² log C, 2.4e-4 at most of a softened divergence are rounding; float64 has
# 29 bits more.
SINGLE = 2000.0
DOUBLE = SINGLE * 2**29


def kept(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Return the rows of (..., V) that a mask (...) keeps, as (N, V).

    Example:
        >>> kept(torch.ones(2, 3, 5), torch.eye(2, 3).bool()).shape
        torch.Size([2, 5])
    """
    if mask is None:
        return tensor.flatten(0, -2)
    rows = tensor[mask]
    if torch.compiler.is_compiling():  # a compiler does not know that a mask keeps something
        torch._check(len(rows) > 0)
    return rows


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


def check_softening(temperature: float, classes: int) -> float:
    """Return a temperature as a float; refuse one that leaves too little of logits in float64 too.

    Args:
        temperature: T.
        classes: C, how many probabilities sum to 1.

    Example:
        >>> check_softening(1e6, 1000)
        Traceback (most recent call last):
        ...
        ValueError: temperature is 1000000.0, where 1000 probabilities are too equal to be compared,
            in float64 too: use less.
    """
    number = check_temperature(temperature)
    if _lost(number, classes) > DOUBLE:
        raise ValueError(
            f"temperature is {temperature}, where {classes} probabilities are too equal to be "
            "compared, in float64 too: use less."
        )
    return number


def _lost(temperature: float, classes: int) -> float:
    """What the rounding of a softened divergence is in proportion to."""
    return temperature * temperature * math.log(classes)  # a power would raise where it overflows


def soften(logits: Tensor, temperature: float, classes: int) -> Tensor:
    """Divide logits by a temperature, in single precision at least, in double where T needs it.

    Args:
        logits: any shape.
        temperature: T, checked.
        classes: C, how many probabilities sum to 1.

    Example:
        >>> [soften(torch.ones(1, 10).half(), T, 10).dtype for T in (20.0, 100.0)]
        [torch.float32, torch.float64]
    """
    logits = widen(logits) if _lost(temperature, classes) <= SINGLE else logits.double()
    # A division by 1 would change no number and copy all of them.
    return logits if temperature == 1 else logits / temperature


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log-probabilities over the last dimension, as precise as :func:`soften` makes them.

    Example:
        >>> log_softmax(torch.tensor([[4.0, 0.0]]).half(), 10.0).exp()
        tensor([[0.5987, 0.4013]])
    """
    return soften(logits, temperature, logits.shape[-1]).log_softmax(dim=-1)


def as_usual(value: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """Bring what double precision computed back to the precision that the two sides have.

    Example:
        >>> as_usual(torch.ones(1).double(), torch.ones(1).half(), torch.ones(1)).dtype
        torch.float32
    """
    if value.dtype == student.dtype == teacher.dtype:
        return value  # mostly, and ten times as fast as what follows
    both = torch.promote_types(student.dtype, teacher.dtype)
    return value.to(torch.promote_types(both, torch.float32))


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
    temperature = check_softening(temperature, student_logits.shape[-1])
    if mask is not None:
        check_mask(mask, student_logits.shape[:-1])

    def of_logits(student: Tensor, teacher: Tensor) -> Tensor:
        check_logit_values(student, "student logits", probabilities=chunk is not None)
        check_logit_values(teacher, "teacher logits", probabilities=chunk is not None)
        return total(log_softmax(student, temperature), log_softmax(teacher, temperature))

    if chunk is not None:
        check_chunks(student_logits, "student logits", mask, chunk)
        check_chunks(teacher_logits, "teacher logits", mask, chunk)
    mean = mean_of_rows(of_logits, student_logits, teacher_logits, mask=mask, chunk=chunk)
    return as_usual(mean, student_logits, teacher_logits)


def check_chunks(logits: Tensor, name: str, mask: Tensor | None, chunk: int | None) -> None:
    """Refuse probabilities where logits come in chunks: all rows tell, and one row may be chance.

    Args:
        logits: shape (..., V).
        name: what to call them in a message, in the plural.
        mask: torch.bool, shape (...), True where a row counts.
        chunk: rows at a time; with None there is nothing to do.

    Example:
        >>> check_chunks(torch.tensor([[0.25, 0.75], [1.0, 0.0]]), "student logits", None, 1)
        Traceback (most recent call last):
        ...
        ValueError: student logits sum to 1 in each row, as probabilities do: give what stood before
            the softmax, or the logarithms.
    """
    if chunk is None or not checks_values():
        return
    rows = logits.detach().flatten(0, -2)
    parts = _parts(len(rows), check_whole(chunk, "chunk"), mask)
    if all(sum_to_one(rows[part]) for part in parts):
        for part in parts:
            check_logit_values(rows[part], name)


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
    parts = _parts(len(student), size, mask)
    count = len(student) if mask is None else sum(map(len, parts))
    # Detached, so that no gradient is seen to go to a head that is not trained.
    taught = (None if given is None else given.detach() for given in (teacher, *teacher_head))
    inputs: tuple[Tensor | None, ...] = (student, *student_head, *taught)
    if not torch.is_grad_enabled():  # which the function below is not told
        inputs = tuple(None if given is None else given.detach() for given in inputs)
    return _Chunked.apply(total, parts, *inputs) / count


def _parts(count: int, size: int, mask: Tensor | None) -> Sequence[Any]:
    """Indices of so many rows at a time, of all or of those that a mask keeps."""
    if mask is not None:
        return mask.flatten().nonzero().squeeze(1).split(size)
    return [slice(start, start + size) for start in range(0, count, size)]


def _logits(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return rows if weight is None else F.linear(rows, weight, bias)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: Total, parts: Sequence[Any], *inputs: Tensor) -> Tensor:
        ctx.total, ctx.parts = total, parts
        device = inputs[0].device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
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
        with torch.autocast(*ctx.autocast):
            gradients = ctx.gradients or _value_and_gradients(ctx, ctx.saved_tensors)[1]
        ctx.gradients = None
        scaled = [
            None if gradient is None else gradient.mul_(slope).to(given.dtype)
            for gradient, given in zip(gradients, ctx.saved_tensors, strict=False)
        ]
        return None, None, *scaled, None, None, None


def _value_and_gradients(
    ctx: Any, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    student, weight, bias, teacher, *teacher_head = inputs
    wanted = ctx.needs_input_grad[2:5]
    # Many small gradients are added up in a weight's, so that one is kept in single precision.
    gradients = [
        torch.zeros_like(given, dtype=wide(given[:0]).dtype) if want else None
        for given, wide, want in zip(
            (student, weight, bias), (_unscaled, widen, widen), wanted, strict=True
        )
    ]
    # Of many small numbers in a row, single precision would lose the fourth digit.
    exact = torch.float32 if student.device.type == "mps" else torch.float64
    value = student.new_zeros((), dtype=exact)
    for rows in ctx.parts:
        logits = _logits(student[rows], weight, bias).detach()
        leaf = _unscaled(logits).requires_grad_(any(wanted))
        target = _logits(teacher[rows], *teacher_head).detach()
        with torch.enable_grad():
            piece = ctx.total(leaf, target)
        # Not a list: many small tensors that stay keep memory between them from being used again.
        value = value + piece.detach()
        if not any(wanted):
            continue
        (slope,) = torch.autograd.grad(piece, leaf)
        scale = 1.0
        if weight is not None and logits.dtype == torch.float16:
            # The products to come are of float16, where slopes of some 1e-5 lose their digits.
            scale = 1024 / max(slope.abs().sum(dim=-1).max().item(), 1e-30)
            slope = slope * scale
        if gradients[0] is not None:
            own = slope if weight is None else slope.to(weight.dtype) @ weight
            gradients[0][rows] = own.to(gradients[0].dtype)
            if scale != 1:
                gradients[0][rows] /= scale
        if gradients[1] is not None:
            _add_product(gradients[1], slope, student[rows], 1 / scale)
        if gradients[2] is not None:
            gradients[2].add_(widen(slope).sum(dim=0), alpha=1 / scale)
    return value.to(widen(student[:0]).dtype), gradients


def _unscaled(tensor: Tensor) -> Tensor:
    """Take float16 to float32: a gradient scaler's factor, which saves what is small, comes last.

    In bfloat16, which has small numbers, a chunk's gradient costs no more than it must.
    """
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _add_product(total: Tensor, slope: Tensor, rows: Tensor, alpha: float) -> None:
    if not rows.is_cuda or rows.dtype == total.dtype:
        total.addmm_(widen(slope).T, widen(rows), alpha=alpha)
        return
    # What the plain form rounds too; a product in single precision takes several times as long.
    slope = slope.to(rows.dtype).T
    try:
        torch.addmm(total, slope, rows, alpha=alpha, out_dtype=total.dtype, out=total)
    except (TypeError, RuntimeError):  # before PyTorch 2.8, or not on this card: rounded twice
        total.add_(slope @ rows, alpha=alpha)
