"""Losses for language models: divergences between next-token distributions, token by token."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.core.checks import (
    check_choice,
    check_class_dimension,
    check_device,
    check_fraction,
    check_logit_values,
    check_logits,
    check_mask,
    check_pair,
    check_tensor,
    check_values,
    checks_values,
    finite_or_refused,
    trackable,
)
from kdlearn.core.numerics import kl_sum, log_sum, widen
from kdlearn.losses.rows import (
    Head,
    check_chunks,
    kept,
    labels_kept,
    log_softmax,
    mean_of_rows,
    row_mean,
)

# Logits at a time: what a CPU's cache holds; a GPU would mostly wait for so few. And rows at least:
# each chunk reads and writes the gradient of the head, whose cost so many rows outweigh.
CHUNK, CHUNK_ON_GPU = 3 * 2**19, 2**24
ROWS, ROWS_ON_GPU = 8, 512


def _log_mixture(log_left: Tensor, log_right: Tensor, weight: float) -> Tensor:
    """log(weight left + (1 - weight) right), also at the ends."""
    # Two minus infinities would have no gradient; the lowest finite number stands for them.
    left, right = (side.clamp_min(torch.finfo(side.dtype).min) for side in (log_left, log_right))
    return torch.logaddexp(
        left + (math.log(weight) if weight > 0 else -math.inf),
        right + (math.log1p(-weight) if weight < 1 else -math.inf),
    )


@finite_or_refused
def forward_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    r"""KL(teacher || student) of next-token distributions: cover all that the teacher says.

    .. math:: L = \frac1N \sum_{n=1}^{N} \sum_v t_v^{(n)} \log \frac{t_v^{(n)}}{s_v^{(n)}}

    Convention
        Normalized: softmax over the vocabulary at temperature T.
        Reduction: sum over the vocabulary, mean over the N tokens kept of the whole batch.
        T²: not included: :func:`kdlearn.losses.soft_target_loss` is T² times this.

    Args:
        student_logits: shape (..., V).
        teacher_logits: shape (..., V), the same vocabulary.
        temperature: T, positive.
        mask: torch.bool, shape (...), True where a token counts.
        chunk: tokens at a time, for less memory: the same value and gradient, differentiable once.

    Source: Kim and Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016, section 3.1. TRL's
        ``generalized_jsd_loss`` with beta 0. torchtune and distillm give the cross-entropy:
        subtract the teacher's entropy. TRL without labels divides by sequences, not by tokens.

    Example:
        >>> logits = torch.tensor([[[0.0, 0.0]]])
        >>> round(forward_kl(logits, torch.tensor([[[50.0, 0.0]]])).item(), 4)
        0.6931
    """
    return row_mean(
        lambda student, teacher: kl_sum(teacher, student),
        student_logits,
        teacher_logits,
        temperature=temperature,
        mask=mask,
        chunk=chunk,
    )


@finite_or_refused
def reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    r"""KL(student || teacher) of next-token distributions: say only what the teacher would say.

    .. math:: L = \frac1N \sum_{n=1}^{N} \sum_v s_v^{(n)} \log \frac{s_v^{(n)}}{t_v^{(n)}}

    Convention
        Direction: the student's probabilities in front, though it is the first argument as
        everywhere. Normalized: softmax over the vocabulary at temperature T.
        Reduction: sum over the vocabulary, mean over the N tokens kept. T²: not included.

    Args:
        student_logits: shape (..., V).
        teacher_logits: shape (..., V), the same vocabulary.
        temperature: T, positive.
        mask: torch.bool, shape (...), True where a token counts.
        chunk: tokens at a time, as in :func:`forward_kl`.

    Source: Gu et al., "MiniLLM", ICLR 2024, equation 1, for one step. TRL, torchtune and distillm:
        this number.

    Example:
        >>> student, teacher = torch.tensor([[50.0, 0.0]]), torch.zeros(1, 2)
        >>> round(reverse_kl(student, teacher).item(), 4)
        0.6931
    """
    return row_mean(
        kl_sum,
        student_logits,
        teacher_logits,
        temperature=temperature,
        mask=mask,
        chunk=chunk,
    )


@finite_or_refused
def total_variation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    mask: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    r"""Half the L1 distance of next-token distributions.

    .. math:: L = \frac1N \sum_{n=1}^{N} \frac12 \sum_v |s_v^{(n)} - t_v^{(n)}|

    Convention
        Symmetric in value. Range [0, 1].
        Normalized: softmax over the vocabulary at temperature 1.
        Reduction: sum over the vocabulary, mean over the N tokens kept.

    Args:
        student_logits: shape (..., V).
        teacher_logits: shape (..., V), the same vocabulary.
        mask: torch.bool, shape (...), True where a token counts.
        chunk: tokens at a time, as in :func:`forward_kl`.

    Source: Wen et al., "f-Divergence Minimization for Sequence-Level Knowledge Distillation", ACL
        2023; ``tv_distance`` of distillm.

    Example:
        >>> total_variation(torch.tensor([[50.0, 0.0]]), torch.zeros(1, 2)).item()
        0.5
    """
    return row_mean(
        lambda student, teacher: 0.5 * (student.exp() - teacher.exp()).abs().sum(),
        student_logits,
        teacher_logits,
        mask=mask,
        chunk=chunk,
    )


@finite_or_refused
def skew_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    skew: float = 0.1,
    mask: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    r"""Forward KL against a student that already contains a little of the teacher.

    .. math:: L = \frac1N \sum_n \mathrm{KL}\bigl(t^{(n)} \,\|\, \lambda\, t^{(n)} +
              (1 - \lambda)\, s^{(n)}\bigr)

    Convention
        Direction: KL(teacher || mixture). lambda = 0 is :func:`forward_kl`, lambda = 1 is 0.
        Detached: the teacher inside the mixture too.
        Normalized: softmax over the vocabulary at temperature 1; mixed as logarithms, so nothing
            underflows.
        Reduction: sum over the vocabulary, mean over the N tokens kept. At most -log(lambda).

    Args:
        student_logits: shape (..., V).
        teacher_logits: shape (..., V), the same vocabulary.
        skew: lambda, from 0 to 1.
        mask: torch.bool, shape (...), True where a token counts.
        chunk: tokens at a time, as in :func:`forward_kl`.

    Source: Ko et al., "DistiLLM", ICML 2024, section 3. The authors' ``skewed_forward_kl`` is
        the cross-entropy: subtract the teacher's entropy.

    Example:
        >>> student, teacher = torch.tensor([[-500.0, 0.0]]), torch.tensor([[500.0, 0.0]])
        >>> round(skew_kl(student, teacher).item(), 4)
        2.3026
    """
    skew = check_fraction(skew, "skew")
    return row_mean(
        lambda student, teacher: kl_sum(
            teacher, _log_mixture(teacher, student, skew) if skew else student
        ),
        student_logits,
        teacher_logits,
        mask=mask,
        chunk=chunk,
    )


@finite_or_refused
def generalized_jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    r"""Generalized Jensen-Shannon divergence, with the two KLs put at its ends.

    .. math:: L = \frac1N \sum_n \beta\, \mathrm{KL}(t \,\|\, m) + (1 - \beta)\,
              \mathrm{KL}(s \,\|\, m), \qquad m = \beta t + (1 - \beta) s

    Convention
        Ends: beta = 0 is :func:`forward_kl`, KL(t || s); beta = 1 is :func:`reverse_kl`. They are
            special cases, and the value **jumps** there: inside, it goes to 0 at both ends.
            What does tend to the ends is L / beta to the forward KL for beta to 0, and
            L / (1 - beta) to the reverse KL for beta to 1. So near an end beta acts as a learning
            rate; it does not lead from one KL to the other.
        Symmetric at beta = 1/2, where L is at most log 2.
        Detached: the teacher inside m too.
        Normalized: softmax over the vocabulary at temperature T; mixed as logarithms.
        Reduction: sum over the vocabulary, mean over the N tokens kept. T²: not included.

    Args:
        student_logits: shape (..., V).
        teacher_logits: shape (..., V), the same vocabulary.
        beta: from 0 to 1, the teacher's share of m.
        temperature: T, positive.
        mask: torch.bool, shape (...), True where a token counts.
        chunk: tokens at a time, as in :func:`forward_kl`.

    Source: Agarwal et al., "On-Policy Distillation of Language Models" (GKD), ICLR 2024, section
        2; TRL's ``generalized_jsd_loss``. distillm's ``js_distance`` has lam = 1 - beta.

    Example:
        >>> student, teacher = torch.tensor([[500.0, 0.0]]), torch.tensor([[-500.0, 0.0]])
        >>> round(generalized_jsd(student, teacher).item(), 4)
        0.6931
    """
    beta = check_fraction(beta, "beta")

    def divergence(student: Tensor, teacher: Tensor) -> Tensor:
        if beta == 0:
            return kl_sum(teacher, student)
        if beta == 1:
            return kl_sum(student, teacher)
        mixture = _log_mixture(teacher, student, beta)
        return beta * kl_sum(teacher, mixture) + (1 - beta) * kl_sum(student, mixture)

    return row_mean(
        divergence,
        student_logits,
        teacher_logits,
        temperature=temperature,
        mask=mask,
        chunk=chunk,
    )


@finite_or_refused
def cross_entropy(
    student_logits: Tensor,
    labels: Tensor,
    *,
    mask: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    r"""Cross-entropy of next tokens, for what is learned beside the teacher, or before.

    .. math:: L = -\frac1N \sum_{n=1}^{N} \log s_{y_n}^{(n)}

    Convention
        Position n holds the logits of token n: shift before, not here.
        Reduction: mean over the N tokens kept of the whole batch. What the mask leaves out may
            have any label, such as the -100 of Hugging Face: ``mask=labels != -100``.

    Args:
        student_logits: shape (..., V).
        labels: token numbers, torch.int64, shape (...).
        mask: torch.bool, shape (...), True where a token counts.
        chunk: tokens at a time, as in :func:`forward_kl`.

    Source: ``torch.nn.functional.cross_entropy`` of the rows kept is this number.

    Example:
        >>> round(
        ...     cross_entropy(
        ...         torch.zeros(1, 2, 4),
        ...         torch.tensor([[3, -100]]),
        ...         mask=torch.tensor([[True, False]]),
        ...     ).item(),
        ...     4,
        ... )
        1.3863
    """
    check_tensor(student_logits, "student logits", "any")
    check_class_dimension(student_logits)
    wanted = labels_kept(labels, student_logits, mask)[..., None]
    check_chunks(student_logits, "student logits", mask, chunk)

    def total(student: Tensor, wanted: Tensor) -> Tensor:
        check_logit_values(student, "student logits", probabilities=chunk is not None)
        return F.cross_entropy(widen(student), wanted.squeeze(-1), reduction="sum")

    return mean_of_rows(total, student_logits, wanted, mask=mask, chunk=chunk)


@finite_or_refused
def linear_distillation_loss(
    student_hidden: Tensor,
    student_head: Tensor | nn.Linear,
    teacher: Tensor,
    teacher_head: Tensor | nn.Linear | None = None,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = forward_kl,
    mask: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    r"""A loss on the logits that two heads make of hidden states, without ever holding the logits.

    .. math:: L = \frac1N \sum_{n=1}^{N} \ell\bigl(W_s h_s^{(n)} + b_s,\, W_t h_t^{(n)} + b_t\bigr)

    Convention
        Value and gradients, of hidden states and of the student's head, are those of ``loss`` on
            all logits at once. They are differentiable once.
        Memory: some seven times that of ``chunk`` rows of logits, and that of the gradients.
            On a GPU ``loss=torch.compile(forward_kl)`` needs less than half of it, and less time.
        Reduction: mean over the N tokens kept of the whole batch.

    Args:
        student_hidden: shape (..., D_s), before the head.
        student_head: weight (V, D_s), or a linear layer.
        teacher: hidden states (..., D_t), or without a head logits (..., V).
        teacher_head: weight (V, D_t), or a linear layer.
        loss: any that is a mean over rows of logits, such as :func:`forward_kl`,
            :func:`kdlearn.losses.soft_target_loss`, or a partial of one with options.
        mask: torch.bool, shape (...), True where a token counts.
        chunk: rows of logits that are made at a time; by default what 6 MiB hold, at least 8;
            on a GPU 64 MiB, at least 512.

    Raises:
        ValueError: a head does not fit its hidden states, has another precision, or does more in
            forward than a linear layer does.

    Source: Hsu et al., "Liger Kernel: Efficient Triton Kernels for LLM Training", 2024, section
        3.2, whose fused linear cross-entropy computes gradients beside the value as here.

    Example:
        >>> hidden, head = torch.eye(3), torch.arange(12.0).reshape(4, 3).sqrt()
        >>> whole = forward_kl(hidden @ head.T, torch.zeros(3, 4))
        >>> bool((linear_distillation_loss(hidden, head, torch.zeros(3, 4)) - whole).abs() < 1e-6)
        True
    """
    heads = _weights(student_head), _weights(teacher_head)
    check_pair(student_hidden, teacher, "hidden states", "any")
    if mask is not None:
        check_mask(mask, student_hidden.shape[:-1])
    for side, (weight, _) in zip((student_hidden, teacher), heads, strict=True):
        if weight is None:
            continue
        if weight.dim() != 2 or weight.shape[1] != side.shape[-1]:
            raise ValueError(
                f"hidden states have shape {tuple(side.shape)} and their head's weight "
                f"{tuple(weight.shape)}: expected (..., width) and (vocabulary, width)."
            )
        check_device(side, weight, "hidden states", "their head")
        if weight.dtype != side.dtype and not torch.is_autocast_enabled(side.device.type):
            raise ValueError(
                f"hidden states are {side.dtype} and their head {weight.dtype}: bring both to one, "
                "or compute under torch.autocast."
            )
    if student_hidden.dim() < 2 or student_hidden.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            f"student hidden states have shape {tuple(student_hidden.shape)} and the teacher's "
            f"{tuple(teacher.shape)}: give (..., width) of the same tokens."
        )
    check_values(kept(student_hidden, mask), "student hidden states")
    if teacher_head is not None:
        check_values(kept(teacher, mask), "teacher hidden states")

    def total(student: Tensor, teacher: Tensor) -> Tensor:
        return len(student) * loss(student, teacher)

    if chunk is None:
        weight = heads[0][0]
        assert weight is not None
        logits, rows = (CHUNK_ON_GPU, ROWS_ON_GPU) if weight.is_cuda else (CHUNK, ROWS)
        chunk = max(rows, logits // len(weight))
    return mean_of_rows(
        total,
        student_hidden,
        teacher,
        mask=mask,
        chunk=chunk,
        student_head=heads[0],
        teacher_head=heads[1],
    )


def _weights(head: Tensor | nn.Linear | None) -> Head:
    if not isinstance(head, nn.Module):
        return head, None
    hooks = [*head._forward_pre_hooks.values(), *head._forward_hooks.values()]
    hooks = [hook for hook in hooks if not hook.__module__.startswith("kdlearn.")]  # which look on
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward or hooks:
        raise ValueError(
            f"a head is a {type(head).__name__} that does more in forward than a product with its "
            "weight (an adapter, a norm of weights, a hook), of which its weight knows nothing: "
            "give the weight (vocabulary, width) that it computes with, or compute the logits."
        )
    return trackable(head.weight), trackable(head.bias)


def _sparse_rows(
    student_logits: Tensor, log_probs: Tensor, indices: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Student logits (N, V), the teacher's log-probabilities (N, k) and their tokens (N, k)."""
    check_pair(student_logits, log_probs, "values", "any")
    check_class_dimension(student_logits)
    if student_logits.shape[:-1] != log_probs.shape[:-1]:
        raise ValueError(
            f"logits have shape {tuple(student_logits.shape)} and the teacher's log-probabilities "
            f"{tuple(log_probs.shape)}: give (..., vocabulary) and (..., k) for the same tokens."
        )
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
        raise TypeError("teacher indices must be a tensor of torch.int64: call .long() on it.")
    if indices.shape != log_probs.shape:
        raise ValueError(
            f"teacher indices have shape {tuple(indices.shape)} and log-probabilities "
            f"{tuple(log_probs.shape)}: give one token number for each probability."
        )
    if mask is not None:
        check_mask(mask, student_logits.shape[:-1])
    student, indices = kept(student_logits, mask), kept(indices, mask)
    teacher = kept(log_probs.detach(), mask)
    check_logit_values(student, "student logits")
    _check_log_probs(teacher, "teacher log-probabilities")
    if checks_values():
        lowest, highest = (int(bound) for bound in torch.aminmax(indices))
        if lowest < 0 or highest >= student.shape[-1]:
            raise ValueError(
                f"teacher indices go from {lowest} to {highest}, but the student's "
                f"{student.shape[-1]} tokens are numbered 0 to {student.shape[-1] - 1}: both need "
                "one tokenizer."
            )
    return widen(student), widen(teacher), indices


def _check_log_probs(log_probs: Tensor, name: str) -> None:
    check_values(log_probs, name, minus_infinity=True)
    if checks_values() and bool((log_probs > 1e-2).any()):
        raise ValueError(f"{name} are above 0: give logarithms of probabilities.")


@finite_or_refused
def top_k_kl(
    student_logits: Tensor,
    teacher_log_probs: Tensor,
    teacher_indices: Tensor,
    *,
    tail: Literal["bucket", "renormalize", "ignore"] = "bucket",
    mask: Tensor | None = None,
) -> Tensor:
    r"""Forward KL when only the teacher's k most probable tokens were stored.

    .. math:: L = \frac1N \sum_n \Bigl[ \sum_{j=1}^{k} t_j \log \frac{t_j}{s_j} +
              \bar t \log \frac{\bar t}{\bar s} \Bigr], \qquad
              \bar t = 1 - \sum_j t_j, \; \bar s = 1 - \sum_j s_j

    Convention
        Direction: KL(teacher || student).
        Tail: "bucket" (above) makes all other tokens one event on both sides, a proper KL of
            k + 1 events: at least 0, at most the full KL. "renormalize" divides both sides by
            their sum over the k tokens: at least 0, and 0 for every student when k = 1.
            "ignore" is the plain sum over the k tokens: it can be negative, and its minimum is
            where the student gives them all of its mass.
        Normalized: softmax over the vocabulary at temperature 1. T²: not included.
        Reduction: sum over tokens of a row, mean over the N rows kept.

    Args:
        student_logits: shape (..., V).
        teacher_log_probs: shape (..., k), natural logarithms.
        teacher_indices: token numbers, torch.int64, shape (..., k), different within a row.
        tail: "bucket", "renormalize" or "ignore".
        mask: torch.bool, shape (...), True where a token counts.

    Raises:
        ValueError: a token stands twice in a row, a log-probability is above 0, or the stored
            probabilities of a row sum to more than 1.

    Source: "bucket": TRL's server distillation (``loss_add_tail``), and DistillKit's
        ``SYMMETRIC_UNIFORM``; "renormalize": TRL without the tail. DistillKit's ``ZERO`` makes
        the teacher's k probabilities alone sum to 1: give it as "ignore" with the teacher's
        log-probabilities log-softmaxed. DistillKit sums over tokens: multiply by their number.

    Example:
        >>> student, half, first = (
        ...     torch.zeros(1, 4),
        ...     torch.tensor([[0.5]]).log(),
        ...     torch.tensor([[0]]),
        ... )
        >>> round(top_k_kl(student, half, first).item(), 4)
        0.1438
        >>> round(top_k_kl(student, half, first, tail="ignore").item(), 4)
        0.3466
    """
    check_choice(tail, "tail", ("bucket", "renormalize", "ignore"))
    student, teacher, indices = _sparse_rows(
        student_logits, teacher_log_probs, teacher_indices, mask
    )
    _check_stored(teacher, indices)
    stored = student.gather(-1, indices)
    if tail == "renormalize":
        teacher = F.log_softmax(teacher, dim=-1)
    elif stored.shape[-1] < student.shape[-1]:
        # All the others are one more event, of no mass where they are ignored: a softmax over the
        # events has the denominator of the whole.
        origin = student.detach().amax(dim=-1, keepdim=True)
        others = log_sum(student.scatter(-1, indices, -torch.inf), origin)
        left = _log_left(teacher, others, teacher_log_probs.dtype)
        if tail == "ignore":
            left = torch.full_like(left, -torch.inf)
        teacher, stored = torch.cat([teacher, left], -1), torch.cat([stored - origin, others], -1)
    return kl_sum(teacher, F.log_softmax(stored, dim=-1)) / len(stored)


def _check_stored(log_probs: Tensor, indices: Tensor) -> None:
    if not checks_values():
        return
    if bool((log_probs.logsumexp(dim=-1) > 1e-2).any()):
        raise ValueError(
            "the teacher's stored probabilities sum to more than 1: take the log-softmax over the "
            "whole vocabulary before the top k."
        )
    ordered = indices.sort(dim=-1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise ValueError("teacher indices name a token twice in a row: each may appear once.")


def _log_left(log_probs: Tensor, others: Tensor, kind: torch.dtype) -> Tensor:
    """Logarithm of what the probabilities (N, k) leave to all other tokens, (N, 1).

    Where the student rules these out, by -inf or a number such as -1e4, and what is left is within
    the rounding of so many logarithms, the teacher rules them out too.
    """
    # Rounding can bring the sum to 1 or above, then nothing is left.
    total = log_sum(log_probs).clamp_max(0)
    rounding = torch.full_like(total, torch.finfo(kind).eps)
    for half in (torch.float16, torch.bfloat16):  # of which a store gives numbers in float32
        is_rounded = (log_probs == log_probs.to(half)).all(dim=-1, keepdim=True)
        rounding = rounding.masked_fill(is_rounded, torch.finfo(half).eps)
    nothing = (others < -100) & (-total < 4 * rounding * (1 + math.log(log_probs.shape[-1])))
    return torch.log(-torch.expm1(total)).masked_fill(nothing, -torch.inf)


@finite_or_refused
def sampled_kl(
    student_logits: Tensor,
    teacher_log_probs: Tensor,
    teacher_indices: Tensor,
    *,
    proposal_log_probs: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Forward KL from a few tokens drawn at random, right on average.

    .. math:: L = \frac1N \sum_n \frac1m \sum_{j=1}^{m} \frac{t(v_j)}{q(v_j)}
              \log \frac{t(v_j)}{s(v_j)}, \qquad v_j \sim q

    Convention
        Draws: m tokens with replacement, a token drawn twice stands twice. From the teacher itself
            (q = t, the ratio is 1) unless the proposal's log-probabilities are given.
        Unbiased: over the draws, value and gradient are those of :func:`forward_kl` on average,
            where a cut to the top k is biased. One value can be negative.
        Reduction: mean over draws, then over the N rows kept. T²: not included.

    Args:
        student_logits: shape (..., V).
        teacher_log_probs: log t of the drawn tokens, shape (..., m).
        teacher_indices: the drawn tokens, torch.int64, shape (..., m).
        proposal_log_probs: log q of the drawn tokens, shape (..., m).
        mask: torch.bool, shape (...), True where a token counts.

    Raises:
        ValueError: a log-probability is above 0.

    Source: Anshumann et al., "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs",
        ACL 2025, random sampling knowledge distillation.

    Example:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]]).log_softmax(-1)
        >>> drawn = torch.tensor([[0, 0, 2]])
        >>> sampled_kl(logits, logits.gather(-1, drawn), drawn).item()
        0.0
    """
    student, teacher, indices = _sparse_rows(
        student_logits, teacher_log_probs, teacher_indices, mask
    )
    terms = teacher - log_softmax(student).gather(-1, indices)
    if proposal_log_probs is not None:
        check_tensor(proposal_log_probs, "proposal log-probabilities", "any")
        if proposal_log_probs.shape != teacher_log_probs.shape:
            raise ValueError(
                f"proposal log-probabilities have shape {tuple(proposal_log_probs.shape)} and the "
                f"teacher's {tuple(teacher_log_probs.shape)}: give one for each drawn token."
            )
        proposal = kept(proposal_log_probs.detach(), mask)
        _check_log_probs(proposal, "proposal log-probabilities")
        ratio = (teacher - widen(proposal)).exp()
        # A token that the teacher never says costs nothing, whatever the student gives it.
        terms = ratio * torch.where(ratio == 0, 0.0, terms)
    return terms.mean()


@finite_or_refused
def uld_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    r"""Universal logit distillation: compare sorted probabilities, so vocabularies may differ.

    .. math:: L = \frac1N \sum_n \sum_{r=1}^{V} \bigl| s_{(r)}^{(n)} - t_{(r)}^{(n)} \bigr|

    with the probabilities of each side sorted from high to low, and zeros after the shorter one.

    Convention
        Normalized: softmax of each side over its own vocabulary at temperature 1.
        Blind: which token has which probability is lost, so a shuffle of the vocabulary changes
            nothing, and 0 does not mean that the models agree. Add the cross-entropy of labels.
        Positions: token n of the student meets token n of the teacher. Crop sequences of
            different lengths to the shorter one first, as the authors do.
        Reduction: sum over ranks, mean over the N tokens kept. Range [0, 2].
        Cost: a sort of each side, which takes nearly all of the time.

    Args:
        student_logits: shape (..., V_s).
        teacher_logits: shape (..., V_t), the same leading dimensions.
        mask: torch.bool, shape (...), True where a token counts.

    Source: Boizard et al., "Toward Cross-Tokenizer Distillation: the Universal Logit
        Distillation Loss for LLMs", 2024: a Wasserstein distance with uniform
        cost. They add it to the cross-entropy.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 50.0]]), torch.tensor([[50.0, 0.0, 0.0]])
        >>> round(uld_loss(student, teacher).item(), 4)
        0.0
    """
    check_pair(student_logits, teacher_logits, "logits", "any")
    check_class_dimension(student_logits, teacher_logits)
    if student_logits.shape[:-1] != teacher_logits.shape[:-1]:
        raise ValueError(
            f"student logits have shape {tuple(student_logits.shape)} and teacher logits "
            f"{tuple(teacher_logits.shape)}: crop both to the same tokens, only the vocabulary "
            "may differ."
        )
    if mask is not None:
        check_mask(mask, student_logits.shape[:-1])
    sides = kept(student_logits, mask), kept(teacher_logits.detach(), mask)
    check_logit_values(sides[0], "student logits")
    check_logit_values(sides[1], "teacher logits")
    student, teacher = (_ranked(widen(side)) for side in sides)
    longest = max(student.shape[-1], teacher.shape[-1])
    student, teacher = (F.pad(side, (0, longest - side.shape[-1])) for side in (student, teacher))
    return (student - teacher).abs().sum(dim=-1).mean()


def _ranked(logits: Tensor) -> Tensor:
    """Probabilities from high to low."""
    probabilities = F.softmax(logits, dim=-1)
    # From 0 on, numbers have the order of their bits, and whole numbers are sorted faster.
    whole = torch.int64 if probabilities.dtype == torch.float64 else torch.int32
    order = probabilities.detach().view(whole).argsort(dim=-1, descending=True)
    return probabilities.gather(-1, order)


@finite_or_refused
def sequence_reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tokens: Tensor,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Reverse KL of whole sequences, by REINFORCE on sequences that the student wrote.

    .. math:: \nabla L = \frac1B \sum_b \sum_i \Bigl( \sum_{j \ge i}
              \log \frac{s(y_j)}{t(y_j)} \Bigr) \nabla \log s(y_i), \qquad
              L = \frac1B \sum_b \sum_i \log \frac{s(y_i)}{t(y_i)}

    with :math:`s(y_i) = s(y_i \mid y_{<i}, x)`.

    Convention
        On policy: the tokens must be sampled from this student at temperature 1. Then value and
            gradient are unbiased estimates of KL(student || teacher) of sequences and of its
            gradient. A value can be negative.
        Gradient: not that of the value, but REINFORCE, each token with the log-ratio of itself
            and what follows. It differs from :func:`reverse_kl`, which sums over the vocabulary at
            each step and does not see what a token leads to.
        Reduction: sum over the tokens kept of a sequence, mean over sequences; no division by
            length.

    Args:
        student_logits: shape (B, L, V); position i holds the logits of token i.
        teacher_logits: shape (B, L, V), on the same prefixes.
        tokens: the sampled tokens, torch.int64, shape (B, L).
        mask: torch.bool, shape (B, L), True where a token counts: the answer, not the prompt.

    Source: Gu et al., "MiniLLM: Knowledge Distillation of Large Language Models", ICLR 2024,
        equation 2, without their single-step decomposition, teacher-mixed sampling and length
        normalization.

    Example:
        >>> logits, tokens = torch.zeros(1, 3, 4), torch.tensor([[0, 3, 1]])
        >>> sequence_reverse_kl(logits, logits, tokens).item()
        0.0
    """
    check_logits(student_logits, teacher_logits, "any")
    if student_logits.dim() != 3:
        raise ValueError(
            f"logits need shape (batch, length, vocabulary), got {tuple(student_logits.shape)}."
        )
    tokens = labels_kept(tokens, student_logits, mask)
    student = _log_probability(student_logits, tokens, mask, "student logits")
    teacher = _log_probability(teacher_logits.detach(), tokens, mask, "teacher logits")
    ratio = (student - teacher).detach()
    to_come = ratio.flip(1).cumsum(1).flip(1)
    value, policy = ratio.sum(dim=1).mean(), (to_come * student).sum(dim=1).mean()
    return value + (policy - policy.detach())  # exactly 0 more, also where the policy is great


def _log_probability(logits: Tensor, tokens: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """Log-probabilities of the tokens, (B, L), and 0 where the mask drops one."""
    if mask is not None:
        # Before the softmax, whose gradient would be NaN where a dropped row is -inf throughout.
        logits = logits.masked_fill(~mask[..., None], 0)
    check_logit_values(logits, name)
    taken = log_softmax(logits).gather(-1, tokens[..., None]).squeeze(-1)
    return taken if mask is None else taken.masked_fill(~mask, 0)
