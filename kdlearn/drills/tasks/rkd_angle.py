"""Drill: relational distillation of angles."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Solution


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean Huber loss (smooth L1 with beta 1) between the cosines of all B³ triplet angles.

    student: embeddings (B, Ds). teacher: (B, Dt), a constant. The angle of (j, i, k) is at sample i, between the
    directions to j and to k. Triplets with equal members count; where two samples are equal, there is no direction
    and the cosine is 0.
    """
    cosines = []
    for embeddings in (student, teacher.detach()):
        directions = embeddings[None, :] - embeddings[:, None]
        directions = F.normalize(directions, dim=2)
        cosines.append(directions @ directions.transpose(1, 2))
    return F.smooth_l1_loss(cosines[0], cosines[1])


def cases(generator: Generator) -> list[Case]:
    """Batches with unequal widths."""
    return [
        {
            "student": draws.normal(generator, batch, ours),
            "teacher": draws.normal(generator, batch, theirs),
        }
        for batch, ours, theirs in ((5, 3, 7), (4, 6, 2), (6, 4, 4))
    ]


drill = Drill(
    id="rkd-angle",
    title="Angles between samples",
    task=(
        "The student's embedding has another width than the teacher's, and you may not add a projection. Write "
        "the loss of relational distillation that compares the angles which triplets of samples form."
    ),
    minutes=12,
    level="hard",
    hints=(
        "An angle needs three samples. Which vectors form it, and where do they start?",
        "All difference vectors: e[None] - e[:, None] has shape (B, B, D). Normalize, then products between pairs.",
        "d = F.normalize(e[None] - e[:, None], dim=2); cosines = d @ d.mT, shape (B, B, B); F.smooth_l1_loss",
    ),
    explanation=(
        "O(B³ + B² D) memory and O(B³ D) time: keep the batch small. Angles do not change when one side is "
        "scaled, moved or rotated, so the widths may differ. The matrix of cosines between samples is another "
        "method: it has two samples, not three, and changes when all embeddings move. Normalize with an eps: the "
        "vector from a sample to itself is 0, and the gradient of a plain norm is NaN there. The interviewer "
        "listens for the shape (B, B, B) and its cost. Source: Park et al., CVPR 2019, section 3.2.2."
    ),
    reference=rkd_angle_loss,
    cases=cases,
    sizes=lambda case: {"B": len(case["student"])},
    gradients=("student",),
    detached=("teacher",),
)


def _huber(gap: Tensor) -> Tensor:
    """The Huber function with beta 1."""
    size = gap.abs()
    return torch.where(size < 1, 0.5 * gap.square(), size - 0.5)


def _cosines(e: Tensor) -> Tensor:
    """Cosines at each sample."""
    d = F.normalize(e[None] - e[:, None], dim=2)
    return torch.einsum("ijd,ikd->ijk", d, d)


@drill.alternative
def by_einsum(student: Tensor, teacher: Tensor) -> Tensor:
    """Einsum, and the Huber function written out."""
    return _huber(_cosines(student) - _cosines(teacher.detach())).mean()


@drill.alternative
def vertex_by_vertex(student: Tensor, teacher: Tensor) -> Tensor:
    """One sample at a time, in order to save memory."""
    total = student.new_zeros(())
    for i in range(len(student)):
        one, other = (F.normalize(e - e[i], dim=1) for e in (student, teacher.detach()))
        total = total + F.huber_loss(one @ one.T, other @ other.T, reduction="sum")
    return total / len(student) ** 3


@drill.must(
    "gives the same loss for embeddings that are moved and scaled",
    "not-relative",
    "moving all of the student's embeddings by one vector changes your loss: an angle is formed by differences of "
    "samples.",
)
def relative(solution: Solution, generator: Generator) -> bool:
    """Whether shift and scale cancel."""
    student, teacher = draws.normal(generator, 4, 3), draws.normal(generator, 4, 5)
    one, other = solution(student, teacher), solution(3 * student + 2, teacher)
    return bool(torch.allclose(one, other, rtol=1e-6))


@drill.mistake(
    "gram-matrix",
    "these are cosines between samples, a B x B matrix: two samples form no angle of a triplet. Take differences "
    "to a third sample first.",
    seen="a circulating implementation called AngleWiseDistillation",
)
def gram(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare Gram matrices."""
    one, other = (F.normalize(e, dim=1) for e in (student, teacher.detach()))
    return F.smooth_l1_loss(one @ one.T, other @ other.T)


@drill.mistake(
    "not-normalized",
    "the difference vectors are not normalized: the products are lengths as well as angles, and grow with the "
    "square of the scale.",
)
def products(student: Tensor, teacher: Tensor) -> Tensor:
    """Forget the normalization."""
    sides = []
    for e in (student, teacher.detach()):
        d = e[None] - e[:, None]
        sides.append(d @ d.mT)
    return F.smooth_l1_loss(sides[0], sides[1])


@drill.mistake(
    "squared-error",
    "the differences of cosines are squared, without Huber's straight part and its half: large differences pull "
    "more than the paper's loss lets them.",
)
def squared(student: Tensor, teacher: Tensor) -> Tensor:
    """Use the mean squared error."""
    return F.mse_loss(_cosines(student), _cosines(teacher.detach()))


@drill.mistake(
    "distinct-triplets",
    "the mean runs over triplets of three different samples: the task counts all B³, those with equal members "
    "too, as the official code does.",
)
def distinct(student: Tensor, teacher: Tensor) -> Tensor:
    """Divide by B (B - 1) (B - 2)."""
    b = len(student)
    total = _huber(_cosines(student) - _cosines(teacher.detach())).sum()
    return total / (b * (b - 1) * (b - 2))


@drill.mistake(
    "nan-gradient",
    "the gradient is NaN: the vector from a sample to itself is 0, and a norm has no gradient there. F.normalize "
    "guards the division by eps.",
)
def unguarded(student: Tensor, teacher: Tensor) -> Tensor:
    """Divide by the norm, and repair the value alone."""
    sides = []
    for e in (student, teacher.detach()):
        d = e[None] - e[:, None]
        length = d.square().sum(2, keepdim=True).sqrt()
        d = torch.where(length > 0, d / length, torch.zeros_like(d))
        sides.append(d @ d.mT)
    return F.smooth_l1_loss(sides[0], sides[1])


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant here. Use teacher.detach().",
)
def live_teacher(student: Tensor, teacher: Tensor) -> Tensor:
    """Leave the teacher in the graph."""
    return F.smooth_l1_loss(_cosines(student), _cosines(teacher))
