"""Bug: a weight that must be tuned anew for each number of classes."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.bugs.bug import Bug


def broken(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """The soft term of a distillation loss."""
    student = F.log_softmax(student_logits / temperature, dim=1)
    with torch.no_grad():
        teacher = F.softmax(teacher_logits / temperature, dim=1)
    pointwise = F.kl_div(student, teacher, reduction="none")
    divergence = pointwise.mean()
    return divergence * temperature**2


def fixed(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """The soft term of a distillation loss."""
    student = F.log_softmax(student_logits / temperature, dim=1)
    with torch.no_grad():
        teacher = F.softmax(teacher_logits / temperature, dim=1)
    pointwise = F.kl_div(student, teacher, reduction="none")
    divergence = pointwise.sum(dim=1).mean()
    return divergence * temperature**2


def measure(function: Callable[..., Tensor]) -> float:
    """The loss with each class split in ten equal ones, over the loss before."""
    generator = Generator().manual_seed(0)
    student = torch.randn(16, 10, generator=generator)
    teacher = 3 * torch.randn(16, 10, generator=generator)
    wide = [side.repeat_interleave(10, dim=1) for side in (student, teacher)]
    return (function(*wide, 4.0) / function(student, teacher, 4.0)).item()


bug = Bug(
    id="hundred-classes",
    title="A weight for each data set",
    symptom=(
        "With 10 classes the weight 0.9 of the soft term works. With 100 classes the term seems to "
        "do nothing, and somebody sets its weight to 9. To test it, every class is split into ten "
        "equal ones: the divergence should stay as it was."
    ),
    label="loss with 100 classes / loss with 10",
    measure=measure,
    wrong=lambda ratio: ratio < 0.5,
    broken=broken,
    fixed=fixed,
    faulty="divergence = pointwise.mean()",
    explanation=(
        "A KL divergence is a sum over classes. The mean over all elements divides by B and by C; "
        "it is also the default of F.kl_div. Weights that were tuned for it hide the fault."
    ),
    seen="in code: facebookresearch/deit issue 61",
)
