"""Losses inside transformers: attention scores, relations of states, hidden states, layer maps."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.core.checks import check_choice, check_mask, check_pair, check_same_shape
from kdlearn.core.numerics import kl_rows, matmul, widen

Side = Tensor | tuple[Tensor, Tensor]


def _check_scores(student: Tensor, teacher: Tensor) -> None:
    check_pair(student, teacher, "scores")
    if student.dim() != 4 or teacher.dim() != 4:
        raise ValueError(
            "scores need shape (batch, heads, queries, keys), got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}: take them before the softmax."
        )
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"student has {student.shape[1]} heads and teacher {teacher.shape[1]}: average or "
            "select heads first, or use relation_loss, which splits both into equal heads."
        )
    check_same_shape(student, teacher, "scores", "feed both the same tokens")


def _token_mask(mask: Tensor | None, scores: Tensor) -> Tensor:
    """The mask of tokens, shape (B, L), all True where none was given."""
    batch, _, queries, keys = scores.shape
    if mask is None:
        return torch.ones(batch, keys, dtype=torch.bool, device=scores.device)
    if queries != keys:
        raise ValueError(
            f"scores of {queries} queries and {keys} keys are no self-attention, and a mask of "
            "tokens (batch, length) needs one: leave the mask out or crop the scores."
        )
    check_mask(mask, torch.Size([batch, keys]))
    return mask


def attention_score_loss(
    student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    r"""TinyBERT: mean squared difference of attention scores before the softmax.

    .. math:: L = \frac{1}{B\,h\,L^2} \sum_{b,a,i,j} (A_s - A_t)_{b,a,i,j}^2

    Convention
        Order: student, teacher; the teacher is detached.
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

    Raises:
        TypeError: a side is no floating-point tensor, or the mask is not torch.bool.
        ValueError: heads or shapes differ, an empty batch, a NaN, or a mask that keeps nothing.

    Source: Jiao et al., "TinyBERT", Findings of EMNLP 2020, equation 7; ``general_distill.py`` of
        the authors. TextBrewer without a mask also zeroes every negative score.

    Example:
        >>> scores = torch.tensor([[[[1.0, -10000.0], [3.0, 1.0]]]])
        >>> attention_score_loss(scores, torch.zeros_like(scores)).item()
        2.75
    """
    _check_scores(student_scores, teacher_scores)
    student, teacher = _visible(student_scores), _visible(teacher_scores.detach())
    squared = (student - teacher).square()
    if mask is None:
        return squared.mean()
    kept = _token_mask(mask, student_scores)
    pairs = (kept[:, None, :, None] & kept[:, None, None, :]).expand_as(squared)
    return squared[pairs].mean()


def _visible(scores: Tensor) -> Tensor:
    scores = widen(scores)
    return torch.where(scores <= -100, torch.zeros_like(scores), scores)


def attention_distribution_loss(
    student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    r"""Bring each query's attention probabilities to the teacher's.

    .. math:: L = \frac{1}{h\,N} \sum_{b,a,i} \mathrm{KL}\bigl(\sigma(A_t^{b,a,i}) \,\|\,
              \sigma(A_s^{b,a,i})\bigr)

    Convention
        Order: student, teacher; the teacher is detached.
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

    Raises:
        TypeError: a side is no floating-point tensor, or the mask is not torch.bool.
        ValueError: heads or shapes differ, an empty batch, a NaN, or a mask that keeps nothing.

    Source: Wang et al., "MiniLM", NeurIPS 2020, section 3, of one layer. TextBrewer's
        ``att_ce_loss`` with a mask is this plus the teacher's entropy, for scores that carry
        -10000 at hidden keys; without a mask it drops every key of negative score.

    Example:
        >>> scores = torch.zeros(1, 1, 2, 2)
        >>> attention_distribution_loss(scores, scores + 3).item()
        0.0
    """
    _check_scores(student_scores, teacher_scores)
    kept = _token_mask(mask, student_scores)
    rows = _row_divergences(student_scores, teacher_scores, kept)
    return rows.mean() if mask is None else rows.transpose(1, 2)[kept].mean()


def _row_divergences(student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
    """KL(teacher || student) of each row over the keys kept, shape (B, heads, queries)."""
    hidden = ~kept[:, None, None, :]
    # A sequence without any kept key would have no softmax; its rows are dropped by the caller.
    hidden = hidden & kept.any(dim=1)[:, None, None, None]
    log_student = F.log_softmax(widen(student).masked_fill(hidden, -torch.inf), dim=-1)
    log_teacher = F.log_softmax(widen(teacher.detach()).masked_fill(hidden, -torch.inf), dim=-1)
    return kl_rows(log_teacher, log_student)


def relation_loss(
    student: Side, teacher: Side, *, relation_heads: int, mask: Tensor | None = None
) -> Tensor:
    r"""MiniLM: match how tokens relate to each other, whatever the widths and heads of the models.

    .. math:: L = \frac1B \sum_b \frac{1}{A_r L_b} \sum_{a,i} \mathrm{KL}\bigl(R_t^{b,a,i} \,\|\,
              R_s^{b,a,i}\bigr), \qquad
              R = \sigma\Bigl(\frac{X_a Y_a^\top}{\sqrt{d_r}}\Bigr)

    Convention
        Order: student, teacher; the teacher is detached.
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
        TypeError: a side is no floating-point tensor or pair, or the mask is not torch.bool.
        ValueError: batches or lengths differ, the heads do not divide a width, an empty batch, a
            NaN, or a sequence without a token that counts.

    Source: Wang et al., "MiniLMv2", Findings of ACL 2021, equations 5 to 8; "MiniLM", NeurIPS
        2020, section 3. The reduction is that of Bloomberg's minilmv2.bb.

    Example:
        >>> states = torch.eye(4).reshape(1, 4, 4)
        >>> round(relation_loss(torch.zeros(1, 4, 2), states, relation_heads=2).item(), 4)
        0.0282
        >>> relation_loss((states, states), states, relation_heads=1).item()
        0.0
    """
    student_scores = _relations(*_as_pair(student, "student"), relation_heads, "student")
    teacher_scores = _relations(*_as_pair(teacher, "teacher"), relation_heads, "teacher")
    _check_scores(student_scores, teacher_scores)
    kept = _token_mask(mask, student_scores)
    if not bool(kept.any(dim=1).all()):
        raise ValueError("a sequence has no token that counts: drop it from the batch.")
    rows = _row_divergences(student_scores, teacher_scores, kept).mean(dim=1)
    # where, not a product: a row that does not count must not reach the sum, whatever it holds.
    rows = torch.where(kept, rows, torch.zeros_like(rows))
    return (rows.sum(dim=1) / kept.sum(dim=1)).mean()


def _as_pair(side: Side, name: str) -> tuple[Tensor, Tensor]:
    first, second = (side, side) if isinstance(side, Tensor) else _checked_pair(side, name)
    check_same_shape(first, second, f"{name} states", "give queries and keys of one layer")
    if first.dim() != 3:
        raise ValueError(
            f"{name} states need shape (batch, length, width), got {tuple(first.shape)}: "
            "put the heads side by side in the last dimension."
        )
    return first, second


def _checked_pair(side: tuple[Tensor, Tensor], name: str) -> tuple[Tensor, Tensor]:
    if not isinstance(side, tuple | list) or len(side) != 2:
        raise TypeError(f"{name} must be one tensor or a pair such as (queries, keys).")
    return side[0], side[1]


def _relations(first: Tensor, second: Tensor, heads: int, name: str) -> Tensor:
    width = first.shape[2]
    if heads < 1 or width % heads:
        raise ValueError(
            f"{name} has width {width}, which {heads} relation heads do not divide: "
            "choose a common divisor of both widths."
        )
    split_first, split_second = (
        widen(side).unflatten(2, (heads, width // heads)).transpose(1, 2)
        for side in (first, second)
    )
    return matmul(split_first, split_second.mT) / (width // heads) ** 0.5


def hidden_state_loss(
    student_states: Tensor, teacher_states: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    r"""Mean squared difference of hidden states, token by token.

    .. math:: L = \frac{1}{N D} \sum_{n,d} (H_s - H_t)_{n,d}^2

    Convention
        Order: student (after its projection), teacher; the teacher is detached.
        Normalized: nothing.
        Reduction: mean over tokens and width. Without a mask all positions count, padding too
            (TinyBERT); with one, only the N tokens kept (TextBrewer).
        Widths must be equal: a :class:`kdlearn.distill.LinearProjector` shared by all layers
            is TinyBERT's ``fit_dense``.

    Args:
        student_states: shape (B, L, D).
        teacher_states: the same shape.
        mask: torch.bool, shape (B, L), True where a token counts.

    Raises:
        TypeError: a side is no floating-point tensor, or the mask is not torch.bool.
        ValueError: shapes differ, an empty batch, a NaN, or a mask that keeps nothing.

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
    )
    student, teacher = widen(student_states), widen(teacher_states.detach())
    if mask is not None:
        check_mask(mask, student.shape[:-1])
        student, teacher = student[mask], teacher[mask]
    return F.mse_loss(student, teacher)


def vit_attention_loss(student_scores: Tensor, teacher_scores: Tensor) -> Tensor:
    r"""Attention distillation for vision transformers: cross-entropy of attention rows.

    .. math:: L = -\frac{1}{B\,h\,L} \sum_{b,a,i,j} \sigma(A_t)_{b,a,i,j}
              \log \sigma(A_s)_{b,a,i,j}

    Convention
        Order: student, teacher; the teacher is detached.
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

    Raises:
        TypeError: a side is no floating-point tensor.
        ValueError: heads or shapes differ, an empty batch, or a NaN.

    Source: Li et al., "On the Surprising Effectiveness of Attention Transfer for Vision
        Transformers", NeurIPS 2024, attention distillation.

    Example:
        >>> scores = torch.zeros(1, 1, 2, 2)
        >>> round(vit_attention_loss(scores, scores).item(), 4)
        0.6931
    """
    _check_scores(student_scores, teacher_scores)
    log_student = F.log_softmax(widen(student_scores), dim=-1)
    probabilities = F.softmax(widen(teacher_scores.detach()), dim=-1)
    # A key without probability costs nothing, also where the student's logarithm is minus infinity.
    terms = torch.where(
        probabilities > 0, probabilities * log_student, torch.zeros_like(log_student)
    )
    return -terms.sum(dim=-1).mean()


def layer_map(
    student_layers: int, teacher_layers: int, *, choice: str | dict[int, int] = "uniform"
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
        ValueError: fewer teacher than student layers, no layer, an unknown word, or a layer of
            the dict that does not exist.

    Source: Jiao et al., "TinyBERT", 2020, section 3.1 (uniform); Sun et al., "Patient Knowledge
        Distillation for BERT Model Compression", EMNLP 2019 (skip and last).

    Example:
        >>> layer_map(4, 12)
        {0: 2, 1: 5, 2: 8, 3: 11}
        >>> layer_map(2, 12, choice="last")
        {0: 10, 1: 11}
    """
    if not 0 < student_layers <= teacher_layers:
        raise ValueError(
            f"student has {student_layers} layers and teacher {teacher_layers}: "
            "the student needs at least one, and not more than the teacher."
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
    for student, teacher in pairs.items():
        if not (0 <= student < student_layers and 0 <= teacher < teacher_layers):
            raise ValueError(
                f"layer pair {student} to {teacher} does not exist: student layers are 0 to "
                f"{student_layers - 1}, teacher layers 0 to {teacher_layers - 1}."
            )
    if not pairs:
        raise ValueError("the layer map is empty: pair at least one student layer.")
    return dict(pairs)
