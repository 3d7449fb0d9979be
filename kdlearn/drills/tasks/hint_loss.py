"""Drill: the hint of FitNets, with its projection."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def hint_loss(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared error, over all elements, of the projected student and the teacher.

    student: features (B, Cs, H, W). teacher: features (B, Ct, H, W), a constant. weight: (Ct, Cs), a trainable
    projection of the student's channels at each position, without a bias.
    """
    projected = F.conv2d(student, weight[:, :, None, None])
    return F.mse_loss(projected, teacher.detach())


def cases(generator: Generator) -> list[Case]:
    """Several sizes; in one both sides have the same channels, so that a transposed weight still runs."""
    sizes = ((4, 3, 6, 5, 7), (2, 5, 5, 4, 3), (3, 2, 9, 6, 2), (5, 4, 3, 2, 8))
    return [
        {
            "student": draws.normal(generator, batch, ours, height, width),
            "teacher": draws.normal(generator, batch, theirs, height, width),
            "weight": draws.normal(generator, theirs, ours),
        }
        for batch, ours, theirs, height, width in sizes
    ]


drill = Drill(
    id="hint-loss",
    title="The hint of FitNets",
    task=(
        "A student's layer has fewer channels than the teacher's. Write the hint loss of FitNets: a trainable 1 x 1 "
        "projection, then a squared distance."
    ),
    minutes=6,
    level="core",
    hints=(
        "Which of the two sides may be changed by the projection, and what would happen if it were the other?",
        "A 1 x 1 convolution multiplies the vector of channels at each position by one matrix.",
        "F.mse_loss(F.conv2d(student, weight[:, :, None, None]), teacher.detach())",
    ),
    explanation=(
        "The projection costs O(B H W Cs Ct), like a 1 x 1 layer; the loss itself is one pass. The student is "
        "projected, never the teacher: a trainable projection of the teacher could go to zero and the loss with "
        "it. The weight must reach the optimizer, else the student is matched through a fixed random map. The "
        "interviewer listens for both, and for the question that you ask back: which layer, and does the "
        "projection stay in the shipped model? It does not. Source: Romero et al., FitNets, ICLR 2015, section "
        "2.2."
    ),
    reference=hint_loss,
    cases=cases,
    sizes=lambda case: {
        "B": len(case["student"]),
        "Ct": case["teacher"].shape[1],
        "H": case["student"].shape[2],
        "W": case["student"].shape[3],
    },
    gradients=("student", "weight"),
    detached=("teacher",),
)


@drill.alternative
def with_einsum(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Sum over the student's channels."""
    projected = torch.einsum("bshw,ts->bthw", student, weight)
    return (projected - teacher.detach()).square().mean()


@drill.alternative
def channels_last(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """A linear layer on the last dimension."""
    projected = F.linear(student.movedim(1, -1), weight).movedim(-1, 1)
    gap = projected - teacher.detach()
    return (gap * gap).sum() / gap.numel()


@drill.mistake(
    "teacher-projected",
    "the teacher is projected, not the student: a trainable projection can then make the teacher small and the "
    "loss with it. The student moves toward the teacher's space.",
)
def project_teacher(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Bring the teacher to the student's channels."""
    projected = torch.einsum("bthw,ts->bshw", teacher.detach(), weight)
    return F.mse_loss(student, projected)


@drill.mistake(
    "frozen-projector",
    "the projection gets no gradient: the student is matched through a map that never learns. Leave weight in the "
    "graph, and give it to the optimizer.",
)
def frozen(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Detach the weight."""
    return hint_loss(student, teacher, weight.detach())


@drill.mistake(
    "sum-reduction",
    "the squares are summed, not averaged: the loss grows with the layer's size and with the batch, and its "
    "weight would have to shrink with them.",
)
def summed(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Sum over everything."""
    projected = F.conv2d(student, weight[:, :, None, None])
    return F.mse_loss(projected, teacher.detach(), reduction="sum")


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant here. Use teacher.detach().",
)
def live_teacher(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Leave the teacher in the graph."""
    return F.mse_loss(F.conv2d(student, weight[:, :, None, None]), teacher)


@drill.mistake(
    "relu-after-projection",
    "a ReLU follows the projection: the teacher's negative values can never be reached, and where the projection is "
    "negative no gradient flows.",
)
def rectified(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Rectify the projected features."""
    projected = F.conv2d(student, weight[:, :, None, None]).relu()
    return F.mse_loss(projected, teacher.detach())


@drill.mistake(
    "not-squared",
    "the distance is not squared: this is the root of the mean squared error, whose gradient does not shrink near the "
    "teacher.",
)
def rooted(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Take the root."""
    return hint_loss(student, teacher, weight).sqrt()


@drill.mistake(
    "pooled-first",
    "both sides are averaged over the positions before they are compared: the hint no longer says where. Compare "
    "position with position.",
)
def pooled(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Compare means over positions."""
    return F.mse_loss(student.mean((2, 3)) @ weight.T, teacher.detach().mean((2, 3)))
