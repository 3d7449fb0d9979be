"""Drill: decoupled knowledge distillation."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import example_logits, logits_edges
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


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

    student_logits, teacher_logits: (B, C); labels: (B,). TCKD: KL(teacher || student) of two
    events, "the label" and "any other class", at temperature T. NCKD: KL(teacher || student) of the
    distributions over the C - 1 other classes, each of which sums to 1, at temperature T.
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


def example() -> Case:
    """Two rows, three classes."""
    student, teacher = example_logits()
    return {
        "student_logits": student,
        "teacher_logits": teacher,
        "labels": torch.tensor([2, 1]),
        "temperature": 2.0,
        "alpha": 1.0,
        "beta": 4.0,
    }


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


def edges() -> list[Edge]:
    """One part alone, one row, no temperature."""
    case = example()
    return [
        Edge(
            "beta = 0, the label's part alone",
            case | {"beta": 0.0},
            without="the part about the other classes",
        ),
        Edge(
            "alpha = 0, the other classes alone",
            case | {"alpha": 0.0},
            without="the part about the label",
        ),
        Edge("T = 1", case | {"temperature": 1.0}, without="the temperature and its factor"),
        *logits_edges(
            case, rows=("labels",), far=("student_logits", "teacher_logits"), sure=0, size=1e3
        ),
    ]


def _logs(logits: Tensor, y: Tensor, wrong: Wrong) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of all classes, of the two events, of the others with 0 at the label."""
    label = F.one_hot(y, logits.shape[1]).bool()
    log = logits.log_softmax(1)
    inside = log.gather(1, y[:, None])
    outside = log.masked_fill(label, -torch.inf).logsumexp(1, keepdim=True)
    hidden = logits.masked_fill(label, -torch.inf)
    if {"label-not-excluded", "plain-second-part"} & wrong:
        hidden = logits
    if "label-zeroed" in wrong:
        hidden = logits.masked_fill(label, 0.0)
    others = hidden.log_softmax(1)
    if not {"plain-second-part", "label-zeroed"} & wrong:
        others = others.masked_fill(label, 0.0)
    return log, torch.cat([inside, outside], 1), others


def family(
    wrong: Wrong,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """The loss with its switches."""
    t, teacher = temperature, teacher.detach()
    ours = theirs = 1 / t
    if {"temperature-ignored", "teacher-alone-softened"} & wrong:
        ours = 1.0
    if {"temperature-ignored", "student-alone-softened"} & wrong:
        theirs = 1.0
    if "multiplied" in wrong:
        ours = theirs = t
    y = teacher.argmax(1) if "argmax-as-labels" in wrong else labels
    log_q, two_q, rest_q = _logs(student * ours, y, wrong)
    log_p, two_p, rest_p = _logs(teacher * theirs, y, wrong)
    p_y, q_y = two_p[:, 0].exp(), two_q[:, 0].exp()
    if "first-part-not-softened" in wrong:
        (_, two_q, _), (_, two_p, _) = _logs(student, y, wrong), _logs(teacher, y, wrong)
    if {"reversed", "first-reversed"} & wrong:
        two_q, two_p = two_p, two_q
    if {"reversed", "second-reversed"} & wrong:
        rest_q, rest_p = rest_p, rest_q
    first = two_p.exp() * (two_p - two_q)
    if "one-event" in wrong:
        first = first[:, :1]
    if "first-part-is-cross-entropy" in wrong:
        first = -two_q[:, :1]
    if "first-part-entropy" in wrong:
        first = -two_p.exp() * two_q
    second = rest_p.exp() * (rest_p - rest_q)
    tckd, nckd = first.sum(1), second.sum(1)
    if {"mean-reduction", "mean-over-events", "first-mean"} & wrong:
        tckd = tckd / 2
    if {"mean-reduction", "second-mean"} & wrong:
        nckd = nckd / student.shape[1]
    if {"mean-over-events", "second-mean-of-others"} & wrong:
        nckd = nckd / (student.shape[1] - 1)
    if "still-coupled" in wrong:
        nckd = (1 - p_y) * nckd
    if "coupled-by-student" in wrong:
        nckd = (1 - q_y) * nckd
    weights = {
        "weights-swapped": (beta, alpha),
        "weights-missing": (1.0, 1.0),
        "alpha-missing": (1.0, beta),
        "beta-missing": (alpha, 1.0),
        "first-part-missing": (0.0, beta),
        "second-part-missing": (alpha, 0.0),
        "one-minus-alpha": (alpha, 1 - alpha),
    }
    a, b = next((weights[name] for name in weights if name in wrong), (alpha, beta))
    power = {"t-squared-missing": 0, "t-not-squared": 1}
    factor = t ** next((power[name] for name in power if name in wrong), 2)
    a = a * (1 if "t-squared-on-second" in wrong else factor)
    b = b * (1 if "t-squared-on-first" in wrong else factor)
    rows = a * tckd + b * nckd
    return rows.sum() if "sum-reduction" in wrong else rows.mean()


drill = Drill(
    id="decoupled-kd",
    title="Decoupled distillation",
    task=(
        "The distillation loss hides a product: the sure teacher silences what it knows about the "
        "other classes. Split it into the part about the label and the part about the rest, and "
        "give each a weight of its own."
    ),
    minutes=15,
    level="hard",
    hints=(
        "Write KL over C classes as KL over two events, plus p(other) times a KL over the other "
        "classes. Which factor does the method remove?",
        "The distribution over the other classes sums to 1 by itself. What must happen to the "
        "label before its softmax, not after?",
        'The probability of "any other class" is a sum of probabilities. How do you add '
        "probabilities whose "
        "logarithms you have?",
    ),
    explanation=(
        "O(BC), like plain distillation. The identity is KD = TCKD + (1 - p_y) NCKD, with the "
        "teacher's p_y: where the teacher is sure, 1 - p_y is near 0 and the dark knowledge has no "
        "weight. DKD replaces that factor by beta. Keep everything in logarithms: 1 - p_y rounds "
        "to 0, logsumexp of the others does not. Masking by adding -1000 to the label's logit, as "
        "published code does, is the same up to rounding while no logit leads by about a thousand "
        "after the division by T. The interviewer listens for the identity "
        "and for which factor was removed. Source: [Zhao et al., CVPR "
        "2022](cite:zhao2022decoupled), section 3."
    ),
    reference=decoupled_kd_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # second part
        - still-coupled: the second part is still multiplied by 1 - p_y, the teacher's probability
          of not being the label: with both weights 1 this is plain distillation. Leaving that
          factor out is the point of the method.
        - coupled-by-student: the second part is multiplied by the student's 1 - q_y: it has no
          factor but beta.
        - label-not-excluded: the softmax of the second part runs over all classes and the label is
          dropped afterwards: what is left does not sum to 1. Leave the label out before the
          softmax.
        - plain-second-part: the second part is the KL over all classes, the label included.
        - label-zeroed: the label's logit is set to 0 in the second part, which leaves it a
          probability: leave it out, or set it to -inf.
        # first part
        - one-event: the first part has one event, not two: KL of "the label" alone is no divergence
          and can be negative. The event "any other class" belongs to it.
        - first-part-is-cross-entropy: the first part is the cross-entropy with the labels: it
          compares the teacher's probability of the label with the student's, as a KL of two events.
        - first-part-entropy: the first part is the cross-entropy of the two events: the teacher's
          entropy is still in it.
        # label
        - argmax-as-labels: the teacher's most probable class stands in place of the label.
        # weights
        - weights-swapped: alpha and beta are swapped: alpha weighs the part about the label, beta
          the part about the other classes.
        - weights-missing: alpha and beta are not used: each part has its weight.
        - alpha-missing: alpha is not used: it weighs the part about the label.
        - beta-missing: beta is not used: it weighs the part about the other classes.
        - first-part-missing: the part about the label is missing.
        - second-part-missing: the part about the other classes is missing.
        - one-minus-alpha: the second part is weighed by 1 - alpha, not by beta.
        # factor
        - t-squared-missing: T² is missing: the gradient shrinks as 1/T², and the weights would mean
          something else at each T.
        - t-not-squared: the factor is T, not T².
        - t-squared-on-first: T² multiplies the part about the label alone: it stands before both.
        - t-squared-on-second: T² multiplies the part about the other classes alone: it stands
          before both.
        # temperature
        - temperature-ignored: the logits are not divided by T.
        - multiplied: the logits are multiplied by T, not divided.
        - student-alone-softened: only the student's logits are divided by T.
        - teacher-alone-softened: only the teacher's logits are divided by T.
        - first-part-not-softened: the part about the label is taken at T = 1: both parts are at T.
        # direction
        - reversed: both parts are KL(student || teacher): the teacher comes first.
        - second-reversed: the part about the other classes is KL(student || teacher): the teacher
          comes first.
        - first-reversed: the part about the label is KL(student || teacher): the teacher comes
          first.
        # reduction
        - sum-reduction: the loss is summed over the batch, not averaged: it is B = {B} times too
          large.
        - mean-reduction: each part is averaged over its events too, as reduction='mean' does: sum
          over events, average over the batch.
        - mean-over-events: each part is averaged over its events too, two and C - 1: sum over
          events, average over the batch.
        - second-mean-of-others: the part about the other classes is averaged over the C - 1 classes
          too: sum over them.
        - second-mean: the part about the other classes is averaged over the classes too: sum over
          them.
        - first-mean: the part about the label is averaged over its two events too: sum over them.
        """
    ),
    sizes=lambda case: {
        "B": len(case["labels"]),
        "C": case["student_logits"].shape[1],
        "T": case["temperature"],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)
