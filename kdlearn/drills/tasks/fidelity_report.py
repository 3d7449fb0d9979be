"""Drill: report how well a student does, and how well it follows its teacher."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def fidelity_report(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> dict[str, float]:
    """Return what a distilled student should be judged by, as Python numbers.

    student_logits, teacher_logits: (N, C); labels: (N,). "accuracy": share of rows where the student's class is the
    label. "agreement": share of rows where student and teacher give the same class, right or wrong. "kl":
    KL(teacher || student) at T = 1 in nats, averaged over rows. Shares are from 0 to 1.
    """
    student, teacher = student_logits.argmax(dim=1), teacher_logits.argmax(dim=1)
    log_q, log_p = student_logits.log_softmax(dim=1), teacher_logits.log_softmax(dim=1)
    return {
        "accuracy": (student == labels).double().mean().item(),
        "agreement": (student == teacher).double().mean().item(),
        "kl": F.kl_div(log_q, log_p, reduction="batchmean", log_target=True).item(),
    }


def cases(generator: Generator) -> list[Case]:
    """A teacher that is often right, and a student that often follows it."""
    made = []
    for rows, classes in ((60, 4), (45, 6), (80, 3)):
        labels = draws.whole(generator, 0, classes - 1, rows)
        truth = 2 * F.one_hot(labels, classes).double()
        teacher = truth + draws.normal(generator, rows, classes, scale=1.5)
        student = 0.7 * teacher + draws.normal(generator, rows, classes, scale=1.2)
        made.append({"student_logits": student, "teacher_logits": teacher, "labels": labels})
    return made


drill = Drill(
    id="fidelity-report",
    title="More than accuracy",
    task=(
        "Your student reaches the teacher's accuracy. Did it learn the teacher's function? Write the report that tells."
    ),
    minutes=5,
    level="warm-up",
    hints=(
        "Two models with the same accuracy can be wrong on different images. What shows that?",
        "Compare the classes with the labels, and with the teacher's classes; then the whole distributions.",
        "accuracy from argmax == labels, agreement from argmax == argmax, F.kl_div of log_softmaxes with 'batchmean'",
    ),
    explanation=(
        "O(NC). Accuracy says how good the student is, fidelity how much it is the teacher: Stanton et al. "
        "(NeurIPS 2021) find students that generalize well and agree with their teachers on far from all inputs. "
        "Agreement looks at the largest logit alone; the divergence sees all classes, in the direction in which "
        "the teacher's classes count. Use T = 1: it is the distribution that is used. The interviewer listens for "
        "test data, not training data, and for why you would want fidelity at all (calibration, safety reviews, a "
        "drop-in replacement)."
    ),
    reference=fidelity_report,
    cases=cases,
    observe=lambda case, result: dict(result),
)


@drill.alternative
def by_loops(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> dict[str, float]:
    """One row at a time."""
    right = same = 0
    total = 0.0
    for s, t, y in zip(student_logits, teacher_logits, labels, strict=True):
        right += int(s.argmax() == y)
        same += int(s.argmax() == t.argmax())
        p, q = t.softmax(0), s.softmax(0)
        total += float((p * (p / q).log()).sum())
    n = len(labels)
    return {"kl": total / n, "agreement": same / n, "accuracy": right / n}


@drill.alternative
def by_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> dict[str, float]:
    """Top-k and cross-entropy."""
    top = student_logits.topk(1, dim=1).indices.flatten()
    p = teacher_logits.softmax(1)
    entropy = torch.special.entr(p).sum(1).mean()
    return {
        "accuracy": 1 - (top != labels).float().mean(dtype=torch.float64).item(),
        "agreement": float((top - teacher_logits.max(1).indices).eq(0).sum()) / len(top),
        "kl": float(F.cross_entropy(student_logits, p) - entropy),
    }


@drill.mistake(
    "accuracy-only",
    "only the accuracy is reported: it does not tell whether the student follows its teacher. Agreement and "
    "divergence are missing.",
    seen="most published reports; Stanton et al. 2021 measure what they miss",
)
def accuracy_only(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> dict[str, float]:
    """Report one number."""
    return {"accuracy": (student_logits.argmax(1) == labels).double().mean().item()}


@drill.mistake(
    "agreement-with-labels",
    "the agreement compares the teacher with the labels: that is the teacher's accuracy. Compare the student's "
    "class with the teacher's.",
)
def with_labels(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Confuse agreement and the teacher's accuracy."""
    report = fidelity_report(student_logits, teacher_logits, labels)
    return report | {"agreement": (teacher_logits.argmax(1) == labels).double().mean().item()}


@drill.mistake(
    "agreement-where-right",
    "rows count as agreement only where both are right: a student that shares its teacher's errors agrees with it "
    "there too.",
)
def both_right(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Leave common errors out."""
    report = fidelity_report(student_logits, teacher_logits, labels)
    student, teacher = student_logits.argmax(1), teacher_logits.argmax(1)
    both = (student == labels) & (teacher == labels)
    return report | {"agreement": both.double().mean().item()}


@drill.mistake(
    "reversed",
    "this is KL(student || teacher): it is blind where the student gives nothing. The teacher's probabilities "
    "weigh the sum.",
)
def reversed_kl(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Swap the sides of the divergence."""
    report = fidelity_report(student_logits, teacher_logits, labels)
    return report | {"kl": fidelity_report(teacher_logits, student_logits, labels)["kl"]}


@drill.mistake(
    "in-per-cent",
    "the shares are in per cent: the task asks for numbers from 0 to 1.",
)
def per_cent(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Multiply by a hundred."""
    report = fidelity_report(student_logits, teacher_logits, labels)
    shares = {name: 100 * report[name] for name in ("accuracy", "agreement")}
    return report | shares


@drill.mistake(
    "in-bits",
    "the divergence is in bits: log2 in place of the natural logarithm. Losses are in nats.",
)
def bits(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Use log2."""
    report = fidelity_report(student_logits, teacher_logits, labels)
    return report | {"kl": report["kl"] / math.log(2)}


@drill.mistake(
    "softened",
    "the divergence is taken at T = 4: that is the training loss. At T = 1 it tells about the distribution that "
    "is used.",
)
def softened(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Leave the training temperature on."""
    report = fidelity_report(student_logits, teacher_logits, labels)
    soft = fidelity_report(student_logits / 4, teacher_logits / 4, labels)
    return report | {"kl": soft["kl"]}
