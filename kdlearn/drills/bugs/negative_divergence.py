"""Bug: a divergence below zero."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.bugs.bug import Bug


def broken(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Consistency between two models at T = 1."""
    student = F.softmax(student_logits, dim=1)
    teacher = F.softmax(teacher_logits.detach(), dim=1)
    loss = F.kl_div(student, teacher, reduction="none")
    loss = loss.sum(dim=1)
    return loss.mean()


def fixed(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Consistency between two models at T = 1."""
    student = F.log_softmax(student_logits, dim=1)
    teacher = F.softmax(teacher_logits.detach(), dim=1)
    loss = F.kl_div(student, teacher, reduction="none")
    loss = loss.sum(dim=1)
    return loss.mean()


def measure(function: Callable[..., Tensor]) -> float:
    """The loss of two random models."""
    generator = Generator().manual_seed(0)
    return function(*torch.randn(2, 16, 10, generator=generator)).item()


bug = Bug(
    id="negative-divergence",
    title="Below zero",
    symptom=(
        "The divergence between student and teacher is negative from the first batch on, and "
        "training lowers it further."
    ),
    label="loss",
    measure=measure,
    wrong=lambda loss: loss < 0,
    broken=broken,
    fixed=fixed,
    faulty="student = F.softmax(student_logits, dim=1)",
    explanation=(
        "F.kl_div wants the logarithm of the student's probabilities as its first argument. With "
        "probabilities it computes the sum of p · (log p - q), which is no divergence. A KL "
        "divergence is never negative: assert it."
    ),
    seen="in code: microsoft/ProDA issue 43",
)
