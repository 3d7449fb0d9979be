"""Bug: attention transfer that transfers nothing."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.bugs.bug import Bug


def broken(
    student_features: list[Tensor],
    teacher_features: list[Tensor],
    student_logits: Tensor,
    labels: Tensor,
) -> Tensor:
    """Labels and attention transfer; the paper says that beta is about 0.1."""
    beta = 0.1
    loss = F.cross_entropy(student_logits, labels)
    for student, teacher in zip(student_features, teacher_features, strict=True):
        maps = [
            F.normalize(side.pow(2).mean(1).flatten(1), dim=1)
            for side in (student, teacher.detach())
        ]
        loss = loss + beta * (maps[0] - maps[1]).pow(2).mean()
    return loss


def fixed(
    student_features: list[Tensor],
    teacher_features: list[Tensor],
    student_logits: Tensor,
    labels: Tensor,
) -> Tensor:
    """Labels and attention transfer; the paper says that beta is about 0.1."""
    beta = 1000
    loss = F.cross_entropy(student_logits, labels)
    for student, teacher in zip(student_features, teacher_features, strict=True):
        maps = [
            F.normalize(side.pow(2).mean(1).flatten(1), dim=1)
            for side in (student, teacher.detach())
        ]
        loss = loss + beta * (maps[0] - maps[1]).pow(2).mean()
    return loss


def measure(function: Callable[..., Tensor]) -> float:
    """The attention terms' share of the loss, for the groups of a wide ResNet on 32 x 32 images."""
    generator = Generator().manual_seed(0)
    sizes = ((16, 32), (32, 16), (64, 8))
    student = [torch.randn(8, c, s, s, generator=generator) for c, s in sizes]
    teacher = [torch.randn(8, 2 * c, s, s, generator=generator) ** 3 for c, s in sizes]
    logits, labels = torch.zeros(8, 10), torch.zeros(8, dtype=torch.int64)
    whole, alone = function(student, teacher, logits, labels), F.cross_entropy(logits, labels)
    return ((whole - alone) / whole).item()


bug = Bug(
    id="maps-that-stay",
    title="Attention that does not move",
    symptom=(
        "With attention transfer the student is what it is without. Its maps do not approach the "
        "teacher's, and switching the term off changes nothing."
    ),
    label="share of the attention terms in the loss",
    measure=measure,
    wrong=lambda share: share < 1e-3,
    broken=broken,
    fixed=fixed,
    faulty="beta = 0.1",
    explanation=(
        "A weight belongs to a reduction. About 0.1 is what the authors give for their formula "
        "without a mean; their code has this mean over batch and positions and the weight 1000. "
        "Print each term's share of the loss before you tune it."
    ),
    seen="asked: szagoruyko/attention-transfer issues 32 and 34",
)
