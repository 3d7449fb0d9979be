"""Drill: relational distillation of angles."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean Huber loss (smooth L1, beta 1) between the cosines of all B³ triplet angles.

    student: embeddings (B, Ds). teacher: (B, Dt), a constant. The angle of (j, i, k) is at sample
    i, between the directions to j and to k. Triplets with equal members count; where two samples
    are equal, there is no direction and the cosine is 0.
    """
    cosines = []
    for embeddings in (student, teacher.detach()):
        directions = embeddings[None, :] - embeddings[:, None]
        directions = F.normalize(directions, dim=2)
        cosines.append(directions @ directions.transpose(1, 2))
    return F.smooth_l1_loss(cosines[0], cosines[1])


def example() -> Case:
    """Three samples; embeddings of two numbers and of three."""
    return {
        "student": torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]], dtype=torch.float64),
        "teacher": torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, -1.0]]).double(),
    }


def cases(generator: Generator) -> list[Case]:
    """Batches with unequal widths."""
    return [
        {
            "student": draws.normal(generator, batch, ours),
            "teacher": draws.normal(generator, batch, theirs),
        }
        for batch, ours, theirs in ((5, 3, 7), (4, 6, 2), (6, 4, 4))
    ]


def edges() -> list[Edge]:
    """Equal samples, two samples, one dimension, a shift."""
    case = example()
    student, teacher = case["student"], case["teacher"]
    double = student.clone()
    double[1] = double[0]
    hint = (
        "The direction between equal samples is 0, and a plain norm has no derivative there: "
        "F.normalize guards it."
    )
    return [
        Edge("two equal samples", case | {"student": double}, hint, kink=True),
        Edge("two samples", {"student": student[:2], "teacher": teacher[:2]}),
        Edge("one sample", {"student": student[:1], "teacher": teacher[:1]}, hint),
        Edge("embeddings of one number", case | {"student": student[:, :1]}, kink=True),
        Edge("a student that is moved and scaled", case | {"student": 3 * student + 2}),
        Edge("a student that equals its teacher", case | {"student": teacher.clone()}),
        Edge(
            "embeddings of 1e-4",
            case | {"student": 1e-4 * student},
            "A guard that is added is too large there.",
        ),
        Edge("float32 embeddings", {"student": student.float(), "teacher": teacher.float()}),
    ]


def _cosines(wrong: Wrong, e: Tensor) -> Tensor:
    """What is compared, of one side."""
    if {"samples-normalized", "samples-normalized-too"} & wrong:
        e = F.normalize(e, dim=1)
    if {"gram-matrix", "centered-gram-matrix"} & wrong:
        unit = F.normalize(e - e.mean(0) if "centered-gram-matrix" in wrong else e, dim=1)
        return unit @ unit.T
    d = e[None] - e[:, None]
    if "distances" in wrong:
        squares = d.square().sum(2)
        return torch.where(squares > 0, squares + (squares == 0), 1).sqrt() * (squares > 0)
    if "nan-gradient" in wrong:
        length = d.square().sum(2, keepdim=True).sqrt()
        d = torch.where(length > 0, d / length, torch.zeros_like(d))
    elif "guard-in-norm" in wrong:
        d = d / ((d.square().sum(2, keepdim=True) + 1e-30).sqrt() + 1e-6)
    elif "wrong-dimension" in wrong:
        d = F.normalize(d, dim=1)
    elif not {"not-normalized", "samples-normalized"} & wrong:
        d = F.normalize(d, dim=2)
    cosines = d @ d.mT
    return cosines.clamp(-1 + 1e-7, 1 - 1e-7).acos() if "angles-not-cosines" in wrong else cosines


def family(wrong: Wrong, student: Tensor, teacher: Tensor) -> Tensor:
    """The loss with its switches."""
    gap = _cosines(wrong, student) - _cosines(wrong, teacher.detach())
    terms = F.smooth_l1_loss(gap, torch.zeros_like(gap), reduction="none")
    if "squared-error" in wrong:
        terms = gap.square()
    if "half-squared" in wrong:
        terms = 0.5 * gap.square()
    if "absolute-error" in wrong:
        terms = gap.abs()
    b = len(student)
    if "distinct-triplets" in wrong:
        return terms.sum() / (b * (b - 1) * (b - 2)) if b > 2 else terms.sum() * 0
    if "sum-reduction" in wrong:
        return terms.sum()
    if "divided-by-batch" in wrong:
        return terms.sum() / b
    if "each-once" in wrong:
        return terms.triu(1).sum() / max(b * b * (b - 1) / 2, 1)
    return terms.mean()


drill = Drill(
    id="rkd-angle",
    title="Angles between samples",
    task=(
        "The student's embedding has another width than the teacher's, and you may not add a "
        "projection. Write the loss of relational distillation that compares the angles which "
        "triplets of samples form."
    ),
    minutes=12,
    level="hard",
    hints=(
        "An angle needs three samples. Which vectors form it, and where do they start?",
        "All difference vectors of a batch fit into one tensor of shape (B, B, D). Which two axes "
        "do you add to get it by broadcasting?",
        "A cosine is a product of two directions of length 1. What is the direction from a sample "
        "to itself, and what does a norm's gradient do there?",
    ),
    explanation=(
        "O(B³ + B² D) memory and O(B³ D) time: keep the batch small. Angles do not change when one "
        "side is scaled, moved or rotated, so the widths may differ. The matrix of cosines between "
        "samples is another method: it has two samples, not three, and changes when all embeddings "
        "move. Normalize with an eps: the vector from a sample to itself is 0, and the gradient of "
        "a plain norm is NaN there. The interviewer listens for the shape (B, B, B) and its cost. "
        "Source: [Park et al., CVPR 2019](cite:park2019relational), section 3.2.2."
    ),
    reference=rkd_angle_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # what
        - gram-matrix: these are cosines between samples, a B x B matrix: two samples form no angle
          of a triplet. Take differences to a third sample first.
        - distances: pairwise distances are compared: that is the other loss of the paper. An angle
          needs three samples.
        - angles-not-cosines: the angles themselves are compared: asked for are their cosines.
        - centered-gram-matrix: these are cosines of samples around the batch's mean: the vertex of
          an angle is a sample, not the mean.
        # normalization
        - not-normalized: the difference vectors are not normalized: the products are lengths as
          well as angles, and grow with the square of the scale.
        - samples-normalized: the samples are normalized, their differences are not: the directions
          must have length 1.
        - wrong-dimension: the differences are normalized over samples, not over the embedding.
        - samples-normalized-too: the samples are normalized before the differences are taken: that
          moves them, and their angles are others.
        # guard
        - nan-gradient: the gradient is NaN: the vector from a sample to itself is 0, and a norm has
          no gradient there. F.normalize guards the division by eps.
        - guard-in-norm: a guard is added to the length of the differences: between near samples it
          is as large as the length. F.normalize guards only below 1e-12.
        # distance
        - squared-error: the differences of cosines are squared, without Huber's straight part and
          its half: large differences pull more than the paper's loss lets them.
        - half-squared: the differences are squared and halved everywhere: beyond 1 the Huber loss
          goes on as a line.
        - absolute-error: the absolute differences are taken, without Huber's round part below 1.
        # reduction
        - distinct-triplets: the mean runs over triplets of three different samples: the task counts
          all B³, those with equal members too, as the official code does.
        - sum-reduction: the loss is summed over the triplets, not averaged.
        - divided-by-batch: the sum is divided by B: there are B³ triplets.
        - each-once: each pair at a vertex counts once (an upper triangle): the task counts all B³
          triplets.
        """
    ),
    sizes=lambda case: {"B": len(case["student"])},
    gradients=("student",),
    detached=("teacher",),
)
