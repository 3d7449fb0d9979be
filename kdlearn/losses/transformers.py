"""Losses inside transformers: attention scores, relations of states, hidden states, layer maps."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.core.checks import (
    check_choice,
    check_logit_values,
    check_mask,
    check_no_probabilities,
    check_pair,
    check_same_shape,
    check_tensor,
    check_values,
    check_whole,
    checks_values,
    finite_or_refused,
)
from kdlearn.core.numerics import cross_terms, kl_terms, matmul, widen
from kdlearn.losses.rows import log_softmax

Side = Tensor | tuple[Tensor, Tensor]


def _check_scores(student: Tensor, teacher: Tensor) -> None:
    check_pair(student, teacher, "scores", "any")
    if student.dim() != 4 or teacher.dim() != 4:
        raise ValueError(
            f"scores need shape (batch, heads, queries, keys), got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}: take them before the softmax."
        )
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"student has {student.shape[1]} heads and teacher {teacher.shape[1]}: average or "
            "select heads first, or use relation_loss, which splits both into equal heads."
        )
    check_same_shape(student, teacher, "scores", "feed both the same tokens", "any")


def _token_mask(mask: Tensor, scores: Tensor) -> Tensor:
    """The mask of tokens, shape (B, L), checked."""
    batch, _, queries, keys = scores.shape
    if queries != keys:
        raise ValueError(
            f"scores of {queries} queries and {keys} keys are no self-attention, and a mask of "
            "tokens (batch, length) needs one: leave the mask out or crop the scores."
        )
    check_mask(mask, torch.Size([batch, keys]))
    return mask


@finite_or_refused
def attention_score_loss(
    student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    r"""TinyBERT: mean squared difference of attention scores before the softmax.

    .. math:: L = \frac{1}{B\,h\,L^2} \sum_{b,a,i,j} (A_s - A_t)_{b,a,i,j}^2

    Convention
        Normalized: nothing. A score of -100 or less counts as 0 on its side: it is an additive
            mask such as -10000, not an attention.
        Reduction: without a mask, mean over batch, heads, queries and keys, hidden entries
            included (TinyBERT). With a mask, mean over heads and over the pairs (query, key)
            whose tokens both count (TextBrewer): h times the sum of squared lengths.
        One pair of layers: add the losses of several, see :func:`layer_map`.
        Heads: must be equal in number.

    Args:
        student_scores: shape (B, heads, L, L), before the softmax.
        teacher_scores: the same shape.
        mask: torch.bool, shape (B, L), True where a token counts.

    Source: Jiao et al., "TinyBERT", Findings of EMNLP 2020, equation 7; ``general_distill.py`` of
        the authors. TextBrewer without a mask also zeroes every negative score.

    Example:
        >>> scores = torch.tensor([[[[1.0, -10000.0], [3.0, 1.0]]]])
        >>> attention_score_loss(scores, torch.zeros_like(scores)).item()
        2.75
    """
    _check_scores(student_scores, teacher_scores)
    check_no_probabilities(student_scores, "student scores")
    check_no_probabilities(teacher_scores, "teacher scores")
    if mask is not None:
        kept = _token_mask(mask, student_scores)
        pairs = (kept[:, None, :, None] & kept[:, None, None, :]).expand_as(student_scores)
        student_scores, teacher_scores = student_scores[pairs], teacher_scores[pairs]
    student = _visible(student_scores, "student scores")
    return F.mse_loss(student, _visible(teacher_scores.detach(), "teacher scores"))


def _visible(scores: Tensor, name: str) -> Tensor:
    check_values(scores, name, minus_infinity=True)
    scores = widen(scores)
    return torch.where(scores <= -100, 0.0, scores)


@finite_or_refused
def attention_distribution_loss(
    student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    r"""Bring each query's attention probabilities to the teacher's.

    .. math:: L = \frac{1}{h\,N} \sum_{b,a,i} \mathrm{KL}\bigl(\sigma(A_t^{b,a,i}) \,\|\,
              \sigma(A_s^{b,a,i})\bigr)

    Convention
        Direction: KL(teacher || student) of rows: what one query gives to all keys.
        Normalized: softmax over keys, from scores that are already divided by sqrt(d).
        Reduction: sum over keys, mean over batch, heads and queries. With a mask, keys that do
            not count get no probability and queries that do not count are left out, as if each
            sequence were cropped; the mean is over the N tokens kept of the whole batch.
        Heads: must be equal in number.

    Args:
        student_scores: shape (B, heads, L, L), before the softmax.
        teacher_scores: the same shape.
        mask: torch.bool, shape (B, L), True where a token counts.

    Source: Wang et al., "MiniLM", NeurIPS 2020, section 3, of one layer. TextBrewer's
        ``att_ce_loss`` with a mask is this plus the teacher's entropy, for scores that carry
        -10000 at hidden keys; without a mask it drops every key of negative score.

    Example:
        >>> scores = torch.zeros(1, 1, 2, 2)
        >>> attention_distribution_loss(scores, scores + 3).item()
        0.0
    """
    student, teacher = _log_attention(student_scores, teacher_scores, mask)
    return kl_terms(teacher, student).sum(dim=-1).mean()


def _log_attention(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the rows kept, student's and detached teacher's, of scores alone."""
    _check_scores(student, teacher)
    check_no_probabilities(student, "student scores")
    check_no_probabilities(teacher, "teacher scores")
    return (
        _log_rows(student, mask, "student scores"),
        _log_rows(teacher.detach(), mask, "teacher scores"),
    )


def _log_rows(scores: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """Log-probabilities over the keys kept of the queries kept, (N, heads, L)."""
    rows = scores.transpose(1, 2)
    if mask is not None:
        kept = _token_mask(mask, scores)
        keys = kept[kept.nonzero()[:, 0]]  # those of each row's sequence
        # Rows are chosen before the softmax: one without any key would spoil the gradient after it.
        rows = rows[kept].masked_fill(~keys[:, None], -torch.inf)
    check_logit_values(rows, name)
    return log_softmax(rows)


@finite_or_refused
def relation_loss(
    student: Side, teacher: Side, *, relation_heads: int, mask: Tensor | None = None
) -> Tensor:
    r"""MiniLM: match how tokens relate to each other, whatever the widths and heads of the models.

    .. math:: L = \frac1B \sum_b \frac{1}{A_r L_b} \sum_{a,i} \mathrm{KL}\bigl(R_t^{b,a,i} \,\|\,
              R_s^{b,a,i}\bigr), \qquad
              R = \sigma\Bigl(\frac{X_a Y_a^\top}{\sqrt{d_r}}\Bigr)

    Convention
        A side is one tensor X = Y (queries, keys or values: the Q-Q, K-K, V-V relations of v2), or
            a pair (X, Y), as (queries, keys) for the attention of v1.
        Heads: all heads side by side in the last dimension, split anew into A_r relation heads;
            d_r is each model's own width divided by A_r.
        Direction: KL(teacher || student) of rows, softmax over tokens.
        Reduction: mean over relation heads and tokens of each sequence, then over sequences. With
            a mask each sequence is cropped to the tokens that count, and L_b is their number; a
            short sequence weighs as much as a long one.

    Args:
        student: shape (B, L, D_s), or a pair of them.
        teacher: shape (B, L, D_t), or a pair of them.
        relation_heads: A_r; it must divide D_s and D_t. The paper has 48 for base, 64 for large.
        mask: torch.bool, shape (B, L), True where a token counts.

    Raises:
        ValueError: the heads do not divide a width, or a sequence has no token that counts.

    Source: Wang et al., "MiniLMv2", Findings of ACL 2021, equations 5 to 8; "MiniLM", NeurIPS
        2020, section 3. The reduction is that of Bloomberg's minilmv2.bb.

    Example:
        >>> states = torch.eye(4).reshape(1, 4, 4)
        >>> round(relation_loss(torch.zeros(1, 4, 2), states, relation_heads=2).item(), 4)
        0.0282
        >>> relation_loss((states, states), states, relation_heads=1).item()
        0.0
    """
    student_scores = _relations(*_as_pair(student, "student", mask), relation_heads, "student")
    teacher_scores = _relations(*_as_pair(teacher, "teacher", mask), relation_heads, "teacher")
    _check_scores(student_scores, teacher_scores)
    log_student = _log_rows(student_scores, mask, "student relations")
    log_teacher = _log_rows(teacher_scores.detach(), mask, "teacher relations")
    rows = kl_terms(log_teacher, log_student).sum(dim=-1).mean(dim=-1)
    if mask is None:
        return rows.mean()
    lengths = mask.sum(dim=1)
    if checks_values() and not bool(lengths.all()):
        raise ValueError("a sequence has no token that counts: drop it from the batch.")
    return (rows / lengths[mask.nonzero()[:, 0]]).sum() / len(mask)


def _as_pair(side: Side, name: str, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    first, second = (side, side) if isinstance(side, Tensor) else _checked_pair(side, name)
    for states in (first, second):
        check_tensor(states, f"{name} states", "any")
    if first.shape != second.shape:
        raise ValueError(
            f"{name} queries have shape {tuple(first.shape)} and keys {tuple(second.shape)}: "
            "give queries and keys of one layer."
        )
    if first.dim() != 3:
        raise ValueError(
            f"{name} states need shape (batch, length, width), got {tuple(first.shape)}: "
            "put the heads side by side in the last dimension."
        )
    count: int | Tensor = first.shape[1]
    if mask is not None:
        check_mask(mask, first.shape[:2])
        first, second = (states.masked_fill(~mask[..., None], 0) for states in (first, second))
        count = mask.sum(dim=1)[:, None, None].clamp_min(1)
    check_values(first, f"{name} states")
    check_values(second, f"{name} states")
    # What all keys have in common adds the same to all scores of a query, and would drown the rest.
    second = widen(second)
    return first, second - second.sum(dim=1, keepdim=True) / count


def _checked_pair(side: tuple[Tensor, Tensor], name: str) -> tuple[Tensor, Tensor]:
    if not isinstance(side, tuple | list) or len(side) != 2:
        raise TypeError(f"{name} must be one tensor or a pair such as (queries, keys).")
    return side[0], side[1]


def _relations(first: Tensor, second: Tensor, heads: int, name: str) -> Tensor:
    width, heads = first.shape[2], check_whole(heads, "relation_heads")
    if width % heads:
        raise ValueError(
            f"{name} has width {width}, which {heads} relation heads do not divide: "
            "choose a common divisor of both widths."
        )
    split_first, split_second = (
        widen(side).unflatten(2, (heads, width // heads)).transpose(1, 2)
        for side in (first, second)
    )
    return matmul(split_first, split_second.mT) / (width // heads) ** 0.5


@finite_or_refused
def hidden_state_loss(
    student_states: Tensor, teacher_states: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    r"""Mean squared difference of hidden states, token by token.

    .. math:: L = \frac{1}{N D} \sum_{n,d} (H_s - H_t)_{n,d}^2

    Convention
        Normalized: nothing.
        Reduction: mean over tokens and width. Without a mask all positions count, padding too
            (TinyBERT); with one, only the N tokens kept (TextBrewer).
        Widths must be equal: a :class:`kdlearn.distill.LinearProjector` shared by all layers
            is TinyBERT's ``fit_dense``.

    Args:
        student_states: shape (B, L, D).
        teacher_states: the same shape.
        mask: torch.bool, shape (B, L), True where a token counts.

    Source: Jiao et al., "TinyBERT", Findings of EMNLP 2020, equation 8 (equation 9 for
        embeddings).

    Example:
        >>> states = torch.tensor([[[1.0, 1.0], [9.0, 9.0]]])
        >>> mask = torch.tensor([[True, False]])
        >>> hidden_state_loss(states, torch.zeros_like(states), mask=mask).item()
        1.0
    """
    check_same_shape(
        student_states,
        teacher_states,
        "states",
        "bring the student's to the teacher's width with projectors.LinearProjector",
        "any",
    )
    if mask is not None:
        check_mask(mask, student_states.shape[:-1])
        student_states, teacher_states = student_states[mask], teacher_states[mask]
    check_values(student_states, "student states")
    check_values(teacher_states, "teacher states")
    return F.mse_loss(widen(student_states), widen(teacher_states.detach()))


@finite_or_refused
def vit_attention_loss(student_scores: Tensor, teacher_scores: Tensor) -> Tensor:
    r"""Attention distillation for vision transformers: cross-entropy of attention rows.

    .. math:: L = -\frac{1}{B\,h\,L} \sum_{b,a,i,j} \sigma(A_t)_{b,a,i,j}
              \log \sigma(A_s)_{b,a,i,j}

    Convention
        Direction: teacher probabilities in front of the student's logarithm.
        Normalized: softmax over keys, from scores that are already divided by sqrt(d).
        Reduction: sum over keys, mean over batch, heads and queries. One layer: the authors sum
            over layers and weigh the sum by 3.
        Relation: :func:`attention_distribution_loss` plus the mean entropy of the teacher's rows,
            which is the minimum. The gradient is the same.
        Heads: must be equal in number.

    Args:
        student_scores: shape (B, heads, L, L), before the softmax.
        teacher_scores: the same shape.

    Source: Li et al., "On the Surprising Effectiveness of Attention Transfer for Vision
        Transformers", NeurIPS 2024, attention distillation.

    Example:
        >>> scores = torch.zeros(1, 1, 2, 2)
        >>> round(vit_attention_loss(scores, scores).item(), 4)
        0.6931
    """
    student, teacher = _log_attention(student_scores, teacher_scores)
    return cross_terms(teacher, student).sum(dim=-1).mean()


def layer_map(
    student_layers: int,
    teacher_layers: int,
    *,
    choice: Literal["uniform", "last"] | dict[int, int] = "uniform",
) -> dict[int, int]:
    r"""Which teacher layer each student layer learns from, counted from 0.

    Convention
        "uniform": student layer i learns from teacher layer :math:`\lfloor (i+1) T / S \rfloor -
            1`, so the last learns from the last. Where S divides T this is TinyBERT's (i + 1) k -
            1.
        "last": the student's layers learn from the teacher's last S layers, in order.
        A dict is checked and given back: student layer to teacher layer.
        Hidden states that begin with the embeddings are one further: add 1 to both sides and
            pair 0 with 0.

    Args:
        student_layers: S.
        teacher_layers: T, at least S.
        choice: "uniform", "last", or a dict of your own.

    Returns:
        Student layer to teacher layer.

    Raises:
        ValueError: the student is deeper than the teacher, or a layer of the dict does not exist.

    Source: Jiao et al., "TinyBERT", 2020, section 3.1 (uniform); Sun et al., "Patient Knowledge
        Distillation for BERT Model Compression", EMNLP 2019 (skip and last).

    Example:
        >>> layer_map(4, 12)
        {0: 2, 1: 5, 2: 8, 3: 11}
        >>> layer_map(2, 12, choice="last")
        {0: 10, 1: 11}
    """
    student_layers = check_whole(student_layers, "student_layers")
    if student_layers > check_whole(teacher_layers, "teacher_layers"):
        raise ValueError(
            f"student has {student_layers} layers and teacher {teacher_layers}: "
            "the student may not have more than the teacher."
        )
    if isinstance(choice, dict):
        return _custom_map(choice, student_layers, teacher_layers)
    check_choice(choice, "choice", ("uniform", "last"))
    if choice == "last":
        return {layer: teacher_layers - student_layers + layer for layer in range(student_layers)}
    return {
        layer: (layer + 1) * teacher_layers // student_layers - 1 for layer in range(student_layers)
    }


def _custom_map(pairs: dict[int, int], student_layers: int, teacher_layers: int) -> dict[int, int]:
    pairs = {
        check_whole(student, "a student layer", 0): check_whole(teacher, "a teacher layer", 0)
        for student, teacher in pairs.items()
    }
    for student, teacher in pairs.items():
        if student >= student_layers or teacher >= teacher_layers:
            raise ValueError(
                f"layer pair {student} to {teacher} does not exist: student layers are 0 to "
                f"{student_layers - 1}, teacher layers 0 to {teacher_layers - 1}."
            )
    if not pairs:
        raise ValueError("the layer map is empty: pair at least one student layer.")
    return pairs
