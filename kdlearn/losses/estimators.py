"""The divergence from a teacher, estimated from the tokens that a student drew."""

from typing import Literal

import torch
from torch import Tensor

from kdlearn.core.checks import (
    check_choice,
    check_logit_values,
    check_logits,
    finite_or_refused,
)
from kdlearn.losses.rows import kept, labels_kept, log_softmax


@finite_or_refused
def sampled_reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tokens: Tensor,
    *,
    estimator: Literal["k1", "k2", "k3"] = "k3",
    mask: Tensor | None = None,
) -> Tensor:
    r"""KL(student || teacher) from one token at each place, which the student drew.

    .. math:: L = \frac1N \sum_n k(r_n), \qquad r_n = \log \frac{t(y_n)}{s(y_n)}, \qquad
              k_1 = -r, \quad k_2 = \tfrac12 r^2, \quad k_3 = e^r - 1 - r

    Convention
        On policy: the tokens must be drawn from this student at temperature 1.
        Value: k1 and k3 are right on average, k2 is not, unless the two are close. k3 is never
            negative and varies far less than k1 where they are close; where they are nats apart it
            does not.
        Gradient by autograd, on average: of k1 it is **0**; of k2 that of :func:`reverse_kl`; of
            k3 that of :func:`forward_kl` on the student's states. None of them sees what a token
            leads to, as :func:`sequence_reverse_kl` does.
        Reduction: mean over the N tokens kept of the whole batch.

    Args:
        student_logits: shape (..., V); position i holds the logits of token i.
        teacher_logits: shape (..., V), on the same prefixes.
        tokens: the drawn tokens, torch.int64, shape (...).
        estimator: k1, k2 or k3.
        mask: torch.bool, shape (...), True where a token counts: the answer, not the prompt.

    Source: Schulman, "Approximating KL Divergence", 2020, which compares the values.

    Example:
        >>> student, teacher = torch.zeros(1, 2), torch.tensor([[0.25, 0.75]]).log()
        >>> round(sampled_reverse_kl(student, teacher, torch.tensor([0]), estimator="k1").item(), 4)
        0.6931
    """
    check_choice(estimator, "estimator", ("k1", "k2", "k3"))
    check_logits(student_logits, teacher_logits, "any")
    tokens = labels_kept(tokens, student_logits, mask)[..., None]
    drawn = kept(tokens, mask)
    sides = kept(student_logits, mask), kept(teacher_logits.detach(), mask)
    check_logit_values(sides[0], "student logits")
    check_logit_values(sides[1], "teacher logits")
    student, teacher = (log_softmax(side).gather(-1, drawn).squeeze(-1) for side in sides)
    ratio = teacher - student
    if estimator == "k1":
        return -ratio.mean()
    if estimator == "k2":
        return ratio.square().mean() / 2
    return (torch.expm1(ratio) - ratio).mean()
