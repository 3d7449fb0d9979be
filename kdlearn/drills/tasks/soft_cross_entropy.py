"""Drill: cross-entropy with soft targets."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def soft_cross_entropy(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Return the mean over the batch of -Σ_c p_c · log q_c, with q the student's softmax at T = 1.

    student_logits: (B, C). target_probabilities: (B, C), rows that sum to 1, a constant.
    """
    logs = F.log_softmax(student_logits, dim=1)
    return -(target_probabilities.detach() * logs).sum(dim=1).mean()


def cases(generator: Generator) -> list[Case]:
    """Batches of several sizes."""
    return [
        {
            "student_logits": draws.normal(generator, batch, classes, scale=2),
            "target_probabilities": draws.normal(generator, batch, classes, scale=2).softmax(1),
        }
        for batch, classes in ((8, 10), (3, 5), (5, 4), (6, 17))
    ]


def extremes(generator: Generator) -> list[Case]:
    """A student so sure that a probability is 0 in floating point."""
    case = cases(generator)[0]
    return [case | {"student_logits": 1e4 * case["student_logits"]}]


drill = Drill(
    id="soft-cross-entropy",
    title="Cross-entropy with soft targets",
    task="Labels are one-hot rows; a teacher gives whole rows. Write the cross-entropy for such targets.",
    minutes=4,
    level="warm-up",
    hints=(
        "Which of the two rows is inside the logarithm?",
        "Take log_softmax of the logits, weigh by the target, sum over classes, average over the batch.",
        "-(target_probabilities.detach() * F.log_softmax(student_logits, dim=1)).sum(dim=1).mean()",
    ),
    explanation=(
        "O(BC). It differs from KL(target || student) by the target's entropy, which is constant for the student: "
        'the same gradient, another number. A KL of 0 means "equal", a cross-entropy of its minimum does not '
        "say so; report the KL. F.cross_entropy accepts probabilities as targets and gives the same. The "
        "interviewer listens for log_softmax in place of log(softmax), for the sum over classes, and for targets "
        "that are probabilities already."
    ),
    reference=soft_cross_entropy,
    cases=cases,
    extremes=extremes,
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "C": case["student_logits"].shape[1],
    },
    gradients=("student_logits",),
    detached=("target_probabilities",),
)


@drill.alternative
def by_torch(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """F.cross_entropy takes probabilities."""
    return F.cross_entropy(student_logits, target_probabilities.detach())


@drill.alternative
def by_logsumexp(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """The log-partition less the expected logit."""
    p = target_probabilities.detach()
    expected = torch.einsum("bc,bc->b", p, student_logits)
    return (student_logits.logsumexp(1) * p.sum(1) - expected).mean()


@drill.mistake(
    "softmax-twice",
    "softmax is applied to targets that are probabilities already: they become nearly uniform, and the student is "
    "taught that all classes are alike.",
    seen="asked in mit-han-lab/once-for-all issue 5",
)
def twice(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Soften what is soft."""
    return soft_cross_entropy(student_logits, target_probabilities.softmax(1))


@drill.mistake(
    "logits-softmaxed-first",
    "softmax is applied before log_softmax: the student's distribution becomes nearly uniform whatever it says. Give "
    "log_softmax the logits.",
    seen="proposed in haitongli/knowledge-distillation-pytorch issue 10",
)
def student_twice(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Soften the student's side twice."""
    return soft_cross_entropy(student_logits.softmax(1), target_probabilities)


@drill.mistake(
    "mean-over-classes",
    "your loss is C = {C} times too small: the sum over classes became a mean.",
)
def mean_everything(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Average over everything."""
    return -(target_probabilities.detach() * student_logits.log_softmax(1)).mean()


@drill.mistake(
    "argmax-targets",
    "only the most probable class of the target counts: that is hard distillation. The probabilities of the other "
    "classes are lost.",
)
def hard(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Take the target's argmax."""
    return F.cross_entropy(student_logits, target_probabilities.argmax(1))


@drill.mistake(
    "divergence",
    "this is KL(target || student): the target's entropy was subtracted. The gradient is the same, the number is not.",
)
def divergence(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Subtract the entropy."""
    p = target_probabilities.detach()
    return F.kl_div(student_logits.log_softmax(1), p, reduction="batchmean")


@drill.mistake(
    "sides-swapped",
    "the logarithm is of the target, and the student's probabilities weigh it: cross-entropy has the target "
    "outside and the student inside the logarithm.",
)
def swapped(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Exchange the sides."""
    return -(student_logits.softmax(1) * target_probabilities.detach().log()).sum(1).mean()


@drill.mistake(
    "log-of-softmax",
    "softmax(...).log() is -inf as soon as a probability underflows to 0: use log_softmax.",
)
def unstable(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Take the logarithm afterwards."""
    return -(target_probabilities.detach() * student_logits.softmax(1).log()).sum(1).mean()


@drill.mistake(
    "teacher-gradient",
    "the targets received a gradient: they are constants here. Use target_probabilities.detach().",
)
def live(student_logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Leave the targets in the graph."""
    return F.cross_entropy(student_logits, target_probabilities)
