"""Drill: the soft-target loss of Hinton et al."""

from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import divergence, divergence_knobs, example_logits, logits_edges
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Return T² · KL(teacher || student), both sides softened by T, averaged over the batch.

    student_logits, teacher_logits: shape (B, C). The teacher is a constant.
    """
    log_student = F.log_softmax(student_logits / temperature, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    kl = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * kl


def example() -> Case:
    """Two rows, three classes."""
    student, teacher = example_logits()
    return {"student_logits": student, "teacher_logits": teacher, "temperature": 2.0}


def cases(generator: Generator) -> list[Case]:
    """Batches of several sizes and temperatures."""
    return [
        {
            "student_logits": draws.normal(generator, batch, classes, scale=2),
            "teacher_logits": draws.normal(generator, batch, classes, scale=3),
            "temperature": draws.real(generator, 1.5, 8),
        }
        for batch, classes in ((8, 10), (3, 5), (5, 4), (6, 17), (2, 7))
    ]


def edges() -> list[Edge]:
    """One row, equal sides, small probabilities, logits that underflow."""
    return logits_edges(example(), far=("student_logits", "teacher_logits"))


drill = Drill(
    id="kd-loss",
    title="The distillation loss",
    task=(
        "Write the soft-target loss of knowledge distillation: KL(teacher || student) of the "
        "softened distributions, scaled so that its gradient keeps its size when T changes."
    ),
    minutes=8,
    level="core",
    hints=(
        "Write KL(teacher || student) as a sum over classes first. Which of the two distributions "
        "stands in front of the logarithm, and what does T do to each?",
        "F.kl_div(log q, p) is KL(p || q). Over how many numbers does its default reduction "
        "divide, and over how many does the task?",
        "How does the gradient of the KL at temperature T shrink when T grows? The factor in "
        "front makes up for just that. And which side may not get a gradient?",
    ),
    explanation=(
        "Two log-softmaxes and one sum: O(BC) time and memory, nothing beside the forward pass of "
        "a network. The logarithms are taken inside log_softmax, which subtracts the maximum "
        "first; `softmax(...).log()` gives -inf as soon as a probability underflows. The factor T² "
        "is there because the gradient of the KL with respect to a logit is (q - p) / T, and q - p "
        "itself shrinks like 1/T at high T. The interviewer listens for: the order of the "
        "arguments, 'batchmean', T on both sides, T², and a teacher that gets no gradient."
    ),
    reference=kd_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=divergence,
    knobs=divergence_knobs(),
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "C": case["student_logits"].shape[1],
        "T": case["temperature"],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)
