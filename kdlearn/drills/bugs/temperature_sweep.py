"""Bug: the best temperature is always the smallest."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.bugs.bug import Bug


def broken(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    weight: float = 0.9,
) -> Tensor:
    """Labels and soft targets."""
    hard = F.cross_entropy(student_logits, labels)
    soft = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.softmax(teacher_logits.detach() / temperature, dim=1),
        reduction="batchmean",
    )
    return (1 - weight) * hard + weight * soft


def fixed(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    weight: float = 0.9,
) -> Tensor:
    """Labels and soft targets."""
    hard = F.cross_entropy(student_logits, labels)
    soft = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.softmax(teacher_logits.detach() / temperature, dim=1),
        reduction="batchmean",
    )
    return (1 - weight) * hard + weight * temperature**2 * soft


def measure(function: Callable[..., Tensor]) -> float:
    """The soft term's gradient at T = 16 over that at T = 4."""
    generator = Generator().manual_seed(0)
    student = torch.randn(16, 10, generator=generator, requires_grad=True)
    teacher = 3 * torch.randn(16, 10, generator=generator)
    labels = torch.zeros(16, dtype=torch.int64)
    sizes = []
    for temperature in (16.0, 4.0):
        loss = function(student, teacher, labels, temperature, 1.0)
        sizes.append(torch.autograd.grad(loss, student)[0].norm())
    return (sizes[0] / sizes[1]).item()


bug = Bug(
    id="temperature-sweep",
    title="The sweep that says T = 1",
    symptom=(
        "A sweep over temperatures finds that high ones are useless: the student ends as if it had "
        "seen the labels alone. The soft term's gradient should keep its size when T goes from 4 "
        "to 16."
    ),
    label="gradient of the soft term at T = 16 / at T = 4",
    measure=measure,
    wrong=lambda ratio: ratio < 0.2,
    broken=broken,
    fixed=fixed,
    faulty="return (1 - weight) * hard + weight * soft",
    explanation=(
        "The gradient of the divergence shrinks as 1/T², so at high T the labels win by default "
        "and the sweep compares weights, not temperatures. T² belongs to the soft term, before its "
        "weight."
    ),
    seen="in code: keras-team/keras-io before pull request 870",
)
