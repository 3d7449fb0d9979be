"""Drill: the hint of FitNets, with its projection."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def hint_loss(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared error, over all elements, of the projected student and the teacher.

    student: features (B, Cs, H, W). teacher: features (B, Ct, H, W), a constant. weight: (Ct, Cs),
    a trainable projection of the student's channels at each position, without a bias.
    """
    projected = F.conv2d(student, weight[:, :, None, None])
    return F.mse_loss(projected, teacher.detach())


def example() -> Case:
    """One image of one by two positions; two channels become three."""
    return {
        "student": torch.tensor([[[[1.0, 2.0]], [[0.0, -1.0]]]] * 2, dtype=torch.float64),
        "teacher": torch.tensor(
            [[[[1.0, 0.0]], [[2.0, 1.0]], [[0.0, -1.0]]]] * 2, dtype=torch.float64
        ),
        "weight": torch.tensor([[1.0, 0.0], [0.5, 1.0], [-1.0, 2.0]], dtype=torch.float64),
    }


def cases(generator: Generator) -> list[Case]:
    """Several sizes; in one both sides have equal channels, so that a transposed weight runs."""
    sizes = ((4, 3, 6, 5, 7), (2, 5, 5, 4, 3), (3, 2, 9, 6, 2), (5, 4, 3, 2, 8))
    return [
        {
            "student": draws.normal(generator, batch, ours, height, width),
            "teacher": draws.normal(generator, batch, theirs, height, width),
            "weight": draws.normal(generator, theirs, ours),
        }
        for batch, ours, theirs, height, width in sizes
    ]


def edges() -> list[Edge]:
    """One image, one position, float32."""
    case = example()
    sides = ("student", "teacher")
    return [
        Edge("a batch of one image", case | {name: case[name][:1] for name in sides}),
        Edge("one position", case | {name: case[name][..., :1, :1] for name in sides}),
        Edge("float32 features", {name: value.float() for name, value in case.items()}),
    ]


def family(wrong: Wrong, student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """The hint with its switches."""
    teacher = teacher.detach()
    if "frozen-projector" in wrong:
        weight = weight.detach()
    if "student-detached" in wrong:
        student = student.detach()
    if "projection-transposed" in wrong:
        weight = weight.mT
    one, other = torch.einsum("bshw,ts->bthw", student, weight), teacher
    if "teacher-projected" in wrong:
        one, other = student, torch.einsum("bthw,ts->bshw", teacher, weight)
    if "reshaped-not-permuted" in wrong:
        batch, channels, height, width = student.shape
        rows = student.reshape(-1, channels) @ weight.mT
        one = rows.reshape(batch, -1, height, width)
    if "projection-missing" in wrong:
        one = student
    if "relu-after-projection" in wrong:
        one = one.relu()
    if "pooled-first" in wrong:
        one, other = (side.mean((2, 3), keepdim=True) for side in (one, other))
    if "normalized-first" in wrong:
        one, other = (F.normalize(side, dim=1) for side in (one, other))
    terms = (one - other).square()
    if "absolute-error" in wrong:
        terms = (one - other).abs()
    if "smooth-error" in wrong:
        terms = F.smooth_l1_loss(one, other, reduction="none")
    total = terms.mean()
    if "sum-reduction" in wrong:
        total = terms.sum()
    if "mean-over-batch-only" in wrong:
        total = terms.sum() / len(terms)
    if "sum-over-channels" in wrong:
        total = terms.sum(1).mean()
    if "sum-over-positions" in wrong:
        total = terms.sum((2, 3)).mean()
    if "not-squared" in wrong:
        total = total.sqrt()
    return 0.5 * total if "halved" in wrong else total


drill = Drill(
    id="hint-loss",
    title="The hint of FitNets",
    task=(
        "A student's layer has fewer channels than the teacher's. Write the hint loss of FitNets: "
        "a trainable 1 x 1 projection, then a squared distance."
    ),
    minutes=6,
    level="core",
    hints=(
        "Which of the two sides may be changed by the projection, and what would happen if it "
        "were the other?",
        "A 1 x 1 convolution multiplies the vector of channels at each position by one matrix. "
        "Which shape must that matrix have as a kernel?",
        "Which of the three arguments must get a gradient, and which must not?",
    ),
    explanation=(
        "The projection costs O(B H W Cs Ct), like a 1 x 1 layer; the loss itself is one pass. The "
        "student is projected, never the teacher: a trainable projection of the teacher could go "
        "to zero and the loss with it. The weight must reach the optimizer, else the student is "
        "matched through a fixed random map. The interviewer listens for both, and for the "
        "question that you ask back: which layer, and does the projection stay in the shipped "
        "model? It does not. Source: [Romero et al., FitNets, ICLR 2015](cite:romero2015fitnets), "
        "section 2.2."
    ),
    reference=hint_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # projection
        - teacher-projected: the teacher is projected, not the student: a trainable projection can
          then make the teacher small and the loss with it. The student moves toward the teacher's
          space.
        - projection-transposed: the projection is transposed: weight has a row for each channel of
          the teacher.
        - reshaped-not-permuted: the features are reshaped to rows of channels without moving the
          channels to the end: a row mixes positions. Permute first, or use a 1 x 1 convolution.
        - projection-missing: the projection is not used: the student's channels are compared as
          they are.
        # gradient
        - frozen-projector: the projection gets no gradient: the student is matched through a map
          that never learns. Leave weight in the graph, and give it to the optimizer.
        - student-detached: the student gets no gradient: only the projection learns.
        # after
        - relu-after-projection: a ReLU follows the projection: the teacher's negative values can
          never be reached, and where the projection is negative no gradient flows.
        - pooled-first: both sides are averaged over the positions before they are compared: the
          hint no longer says where. Compare position with position.
        - normalized-first: both sides' channels are normalized to length 1 before they are
          compared: FitNets compares the values.
        # distance
        - absolute-error: the differences are not squared: this is the mean absolute error.
        - smooth-error: this is the smooth L1 loss: large differences are not squared.
        # reduction
        - sum-reduction: the squares are summed, not averaged: the loss grows with the layer's size
          and with the batch, and its weight would have to shrink with them.
        - mean-over-batch-only: the squares are averaged over the batch and summed over all else:
          asked for is the mean over all elements.
        - sum-over-channels: the squares are summed over channels, averaged over batch and
          positions: asked for is the mean over all elements.
        - sum-over-positions: the squares are summed over positions, averaged over batch and
          channels: asked for is the mean over all elements.
        # root
        - not-squared: the distance is not squared: a root is taken of the squares, and its gradient
          does not shrink near the teacher.
        - halved: the loss is halved, as in the paper's equation: the task asks for the mean squared
          error.
        """
    ),
    sizes=lambda case: {
        "B": len(case["student"]),
        "Ct": case["teacher"].shape[1],
        "P": case["student"][0, 0].numel(),
    },
    gradients=("student", "weight"),
    detached=("teacher",),
)
