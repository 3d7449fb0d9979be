"""Bug: a setting that switches the teacher off."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from kdlearn.drills.bugs.bug import Bug


def broken(student_logits: Tensor, teacher_logits: Tensor, beta: float) -> Tensor:
    """Divergences from forward KL (beta = 0) to reverse KL (beta = 1), by the generalized JSD."""
    s = student_logits.softmax(dim=-1)
    t = teacher_logits.detach().softmax(dim=-1)
    beta = min(max(beta, 1e-6), 1 - 1e-6)
    m = beta * t + (1 - beta) * s
    from_teacher = (t * (t / m).log()).sum(dim=-1)
    from_student = (s * (s / m).log()).sum(dim=-1)
    return (beta * from_teacher + (1 - beta) * from_student).mean()


def fixed(student_logits: Tensor, teacher_logits: Tensor, beta: float) -> Tensor:
    """Divergences from forward KL (beta = 0) to reverse KL (beta = 1), by the generalized JSD."""
    s = student_logits.softmax(dim=-1)
    t = teacher_logits.detach().softmax(dim=-1)
    if beta in (0, 1):
        p, q = (t, s) if beta == 0 else (s, t)
        return (p * (p / q).log()).sum(dim=-1).mean()
    m = beta * t + (1 - beta) * s
    from_teacher = (t * (t / m).log()).sum(dim=-1)
    from_student = (s * (s / m).log()).sum(dim=-1)
    return (beta * from_teacher + (1 - beta) * from_student).mean()


def measure(function: Callable[..., Tensor]) -> float:
    """The norm of the gradient at beta = 1."""
    generator = Generator().manual_seed(0)
    student, teacher = torch.randn(2, 16, 12, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    return torch.autograd.grad(function(student, teacher, 1.0), student)[0].norm().item()


bug = Bug(
    id="silent-switch",
    title="Reverse KL that teaches nothing",
    symptom=(
        "beta = 1 is documented as reverse KL. With it the loss is nearly 0 from the first step, "
        "and the student does not change."
    ),
    label="norm of the gradient at beta = 1",
    measure=measure,
    wrong=lambda norm: norm < 1e-3,
    broken=broken,
    fixed=fixed,
    faulty="beta = min(max(beta, 1e-6), 1 - 1e-6)",
    explanation=(
        "The generalized divergence tends to 0 at both ends, so a beta that is clamped close to an "
        "end gives a loss of about 1e-6 in place of the divergence that the documentation "
        "promises. The ends need the two divergences themselves. A clamp that hides an impossible "
        "value should raise or handle it."
    ),
    seen="in code: verl-project/verl-recipe issue 151",
)
