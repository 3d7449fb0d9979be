"""Bug: a divergence with two betas."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from kdlearn.drills.bugs.bug import Bug


def broken(student_logits: Tensor, teacher_logits: Tensor, beta: float) -> Tensor:
    """Generalized Jensen-Shannon divergence: beta weighs the teacher."""
    log_s = student_logits.log_softmax(dim=-1)
    log_t = teacher_logits.detach().log_softmax(dim=-1)
    log_b, log_rest = math.log(beta), math.log(1 - beta)
    log_m = torch.logaddexp(log_b + log_s, log_rest + log_t)
    from_teacher = (log_t.exp() * (log_t - log_m)).sum(dim=-1)
    from_student = (log_s.exp() * (log_s - log_m)).sum(dim=-1)
    return (beta * from_teacher + (1 - beta) * from_student).mean()


def fixed(student_logits: Tensor, teacher_logits: Tensor, beta: float) -> Tensor:
    """Generalized Jensen-Shannon divergence: beta weighs the teacher."""
    log_s = student_logits.log_softmax(dim=-1)
    log_t = teacher_logits.detach().log_softmax(dim=-1)
    log_b, log_rest = math.log(beta), math.log(1 - beta)
    log_m = torch.logaddexp(log_b + log_t, log_rest + log_s)
    from_teacher = (log_t.exp() * (log_t - log_m)).sum(dim=-1)
    from_student = (log_s.exp() * (log_s - log_m)).sum(dim=-1)
    return (beta * from_teacher + (1 - beta) * from_student).mean()


def measure(function: Callable[..., Tensor]) -> float:
    """The divergence at beta = 0.9, over what bounds it: the entropy of beta."""
    generator = Generator().manual_seed(0)
    student, teacher = 8 * torch.randn(2, 16, 12, generator=generator)
    bound = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    return (function(student, teacher, 0.9) / bound).item()


bug = Bug(
    id="wrong-mixture",
    title="Above its bound",
    symptom=(
        "A generalized Jensen-Shannon divergence is at most the entropy of (beta, 1 - beta). At "
        "beta = 0.5 all is well; at beta = 0.9 the loss is several times that bound."
    ),
    label="loss / bound at beta = 0.9",
    measure=measure,
    wrong=lambda ratio: ratio > 1,
    broken=broken,
    fixed=fixed,
    faulty="log_m = torch.logaddexp(log_b + log_s, log_rest + log_t)",
    explanation=(
        "The mixture has beta at the student, and the two divergences have it at the teacher: with "
        "one beta in both places it is m = beta · t + (1 - beta) · s. At beta = 0.5 the two are "
        "the same, which is why a test there passes. Test weights where they are not symmetric."
    ),
    seen="in code: huggingface/trl before pull request 3043",
)
