"""Drill: labels and soft targets together."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import (
    MIXTURE,
    chosen,
    divergence_knobs,
    example_logits,
    logits_edges,
    mixture,
)
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Return (1 - weight) · cross-entropy + weight · T² · KL(teacher || student) at temperature T.

    student_logits, teacher_logits: (B, C); labels: (B,), class numbers. Both terms are averaged
    over the batch. The teacher is a constant.
    """
    hard = F.cross_entropy(student_logits, labels)
    logs = F.log_softmax(student_logits / temperature, dim=1)
    targets = F.softmax(teacher_logits.detach() / temperature, dim=1)
    soft = temperature**2 * F.kl_div(logs, targets, reduction="batchmean")
    return (1 - weight) * hard + weight * soft


def example() -> Case:
    """Two rows, three classes; the teacher is wrong about the first."""
    student, teacher = example_logits()
    return {
        "student_logits": student,
        "teacher_logits": teacher,
        "labels": torch.tensor([2, 1]),
        "temperature": 2.0,
        "weight": 0.75,
    }


def cases(generator: Generator) -> list[Case]:
    """Batches with labels that the teacher does not always know."""
    return [
        {
            "student_logits": draws.normal(generator, batch, classes, scale=2),
            "teacher_logits": draws.normal(generator, batch, classes, scale=3),
            "labels": draws.whole(generator, 0, classes - 1, batch),
            "temperature": draws.real(generator, 1.5, 8),
            "weight": draws.real(generator, 0.6, 0.95),
        }
        for batch, classes in ((8, 10), (3, 5), (5, 4), (6, 17))
    ]


def edges() -> list[Edge]:
    """One of the two terms alone, and no temperature."""
    case = example()
    return [
        Edge("weight = 0, the labels alone", case | {"weight": 0.0}, without="the soft term"),
        Edge("weight = 1, the soft term alone", case | {"weight": 1.0}, without="the labels' term"),
        Edge("T = 1", case | {"temperature": 1.0}, without="the temperature and its factor"),
        *logits_edges(case, rows=("labels",)),
    ]


drill = Drill(
    id="kd-total",
    title="The whole loss",
    task=(
        "Write the loss that a student is trained with: labels and the teacher's soft targets. "
        "Where does the temperature go, and where does it not?"
    ),
    minutes=8,
    level="core",
    hints=(
        "The labels' term is what you would use without a teacher. Does anything in it know of T?",
        "T divides logits in one of the terms, on both of its sides. What does the gradient of "
        "that term do when T grows, and what makes up for it?",
        "Try your loss at weight = 0 and at weight = 1: which well-known loss must come out, and "
        "over what is each averaged?",
    ),
    explanation=(
        "O(BC). T² keeps the soft term's gradient comparable with the labels' when T changes, so "
        "weight means the same at each T. The labels' term is at T = 1, as the student is used. "
        "With weight = 1 no labels are needed. In papers the weight has many names and sides: "
        "Hinton et al. call the soft term's weight the considerably larger one, libraries differ "
        "in what alpha multiplies. Say which one you mean; the interviewer listens for that, and "
        "for labels that are not replaced by anything."
    ),
    reference=distillation_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=mixture,
    knobs=chosen(divergence_knobs("the soft term"), "sign", "logarithm") | MIXTURE,
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "C": case["student_logits"].shape[1],
        "T": case["temperature"],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)
