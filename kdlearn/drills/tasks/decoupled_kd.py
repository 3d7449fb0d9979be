"""Drill: decoupled knowledge distillation."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def decoupled_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """Return T² · (alpha · TCKD + beta · NCKD), averaged over the batch; the teacher is a constant.

    student_logits, teacher_logits: (B, C); labels: (B,). TCKD: KL(teacher || student) of two events, "the label" and
    "any other class", at temperature T. NCKD: KL(teacher || student) of the distributions over the C - 1 other classes,
    each of which sums to 1, at temperature T.
    """
    parts = []
    for logits in (student_logits, teacher_logits.detach()):
        label = F.one_hot(labels, logits.shape[1]).bool()
        log_p = F.log_softmax(logits / temperature, dim=1)
        inside = log_p[label]
        others = log_p.masked_select(~label).view(len(logits), -1)
        outside = others.logsumexp(dim=1)
        parts.append((torch.stack([inside, outside], dim=1), others - outside[:, None]))
    (two_s, rest_s), (two_t, rest_t) = parts
    tckd = F.kl_div(two_s, two_t, reduction="batchmean", log_target=True)
    nckd = F.kl_div(rest_s, rest_t, reduction="batchmean", log_target=True)
    return temperature**2 * (alpha * tckd + beta * nckd)


def cases(generator: Generator) -> list[Case]:
    """Batches with weights that are never equal."""
    return [
        {
            "student_logits": draws.normal(generator, batch, classes, scale=2),
            "teacher_logits": draws.normal(generator, batch, classes, scale=3),
            "labels": draws.whole(generator, 0, classes - 1, batch),
            "temperature": draws.real(generator, 1.5, 6),
            "alpha": draws.real(generator, 0.5, 1),
            "beta": draws.real(generator, 3, 8),
        }
        for batch, classes in ((8, 10), (3, 5), (5, 4), (6, 17))
    ]


drill = Drill(
    id="decoupled-kd",
    title="Decoupled distillation",
    task=(
        "The distillation loss hides a product: the sure teacher silences what it knows about the other classes. "
        "Split it into the part about the label and the part about the rest, and give each a weight of its own."
    ),
    minutes=15,
    level="hard",
    hints=(
        "Write KL over C classes as KL over two events, plus p(other) times a KL over the other classes.",
        "The distribution over the other classes is a softmax of their logits alone: leave the label out before it.",
        "log_p of the label, logsumexp of the others; others - logsumexp(others) is the log of the second distribution",
    ),
    explanation=(
        "O(BC), like plain distillation. The identity is KD = TCKD + (1 - p_y) NCKD, with the teacher's p_y: "
        "where the teacher is sure, 1 - p_y is near 0 and the dark knowledge has no weight. DKD replaces that "
        "factor by beta. Keep everything in logarithms: 1 - p_y rounds to 0, logsumexp of the others does not. "
        "Masking by adding -1000 to the label's logit, as published code does, is the same up to rounding. The "
        "interviewer listens for the identity and for which factor was removed. Source: Zhao et al., CVPR 2022, "
        "section 3."
    ),
    reference=decoupled_kd_loss,
    cases=cases,
    sizes=lambda case: {
        "B": len(case["labels"]),
        "C": case["student_logits"].shape[1],
        "T": case["temperature"],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)


def _parts(
    s: Tensor, t: Tensor, y: Tensor, temperature: float, *, exclude: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """TCKD and NCKD for each row, and the teacher's probability of the label."""
    p, q = (t / temperature).softmax(1), (s / temperature).softmax(1)
    p_y, q_y = p.gather(1, y[:, None]), q.gather(1, y[:, None])
    tckd = (p_y * (p_y / q_y).log() + (1 - p_y) * ((1 - p_y) / (1 - q_y)).log()).squeeze(1)
    label = F.one_hot(y, s.shape[1]).bool()
    hide = label if exclude else torch.zeros_like(label)
    log_p = (t / temperature).masked_fill(hide, -torch.inf).log_softmax(1)
    log_q = (s / temperature).masked_fill(hide, -torch.inf).log_softmax(1)
    terms = (log_p.exp() * (log_p - log_q)).masked_fill(label, 0)
    return tckd, terms.sum(1), p_y.squeeze(1)


@drill.alternative
def in_probabilities(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """Probabilities in place of logarithms."""
    tckd, nckd, _ = _parts(student_logits, teacher_logits.detach(), labels, temperature)
    return (alpha * tckd + beta * nckd).mean() * temperature**2


@drill.alternative
def from_the_identity(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """NCKD as what plain distillation has beyond TCKD, over 1 - p_y."""
    t = teacher_logits.detach()
    tckd, _, p_y = _parts(student_logits, t, labels, temperature)
    log_p, log_q = ((z / temperature).log_softmax(1) for z in (t, student_logits))
    whole = (log_p.exp() * (log_p - log_q)).sum(1)
    nckd = (whole - tckd) / (1 - p_y)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


@drill.mistake(
    "still-coupled",
    "the second part is still multiplied by 1 - p_y, the teacher's probability of not being the label: with both "
    "weights 1 this is plain distillation. Leaving that factor out is the point of the method.",
)
def coupled(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """Keep the factor."""
    tckd, nckd, p_y = _parts(student_logits, teacher_logits.detach(), labels, temperature)
    return temperature**2 * (alpha * tckd + beta * (1 - p_y) * nckd).mean()


@drill.mistake(
    "label-not-excluded",
    "the softmax of the second part runs over all classes and the label is dropped afterwards: what is left does "
    "not sum to 1. Leave the label out before the softmax.",
)
def all_classes(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """Normalize over all classes."""
    t = teacher_logits.detach()
    tckd, nckd, _ = _parts(student_logits, t, labels, temperature, exclude=False)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


@drill.mistake(
    "weights-swapped",
    "alpha and beta are swapped: alpha weighs the part about the label, beta the part about the other classes.",
)
def swapped(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """Exchange the weights."""
    return decoupled_kd_loss(
        student_logits, teacher_logits, labels, temperature=temperature, alpha=beta, beta=alpha
    )


@drill.mistake(
    "t-squared-missing",
    "T² is missing: the gradient shrinks as 1/T², and the weights would mean something else at each T.",
)
def no_square(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """Forget T²."""
    tckd, nckd, _ = _parts(student_logits, teacher_logits.detach(), labels, temperature)
    return (alpha * tckd + beta * nckd).mean()


@drill.mistake(
    "one-event",
    'the first part has one event, not two: KL of "the label" alone is no divergence and can be negative. The '
    'event "any other class" belongs to it.',
)
def one_event(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """Compare the label's probability alone."""
    t = teacher_logits.detach()
    _, nckd, p_y = _parts(student_logits, t, labels, temperature)
    q_y = (student_logits / temperature).softmax(1).gather(1, labels[:, None]).squeeze(1)
    return temperature**2 * (alpha * p_y * (p_y / q_y).log() + beta * nckd).mean()


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant here. Use teacher_logits.detach().",
)
def live_teacher(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """Leave the teacher in the graph."""
    tckd, nckd, _ = _parts(student_logits, teacher_logits, labels, temperature)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()
