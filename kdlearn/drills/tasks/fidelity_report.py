"""Drill: report how well a student does, and how well it follows its teacher."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import chosen, divergence, divergence_knobs, example_logits
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def fidelity_report(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> dict[str, float]:
    """Return what a distilled student should be judged by, as Python numbers.

    student_logits, teacher_logits: (N, C); labels: (N,). "accuracy": share of rows where the
    student's class is the label. "agreement": share of rows where student and teacher give the same
    class, right or wrong. "kl": KL(teacher || student) at T = 1 in nats, averaged over rows. Shares
    are from 0 to 1.
    """
    student, teacher = student_logits.argmax(dim=1), teacher_logits.argmax(dim=1)
    log_q, log_p = student_logits.log_softmax(dim=1), teacher_logits.log_softmax(dim=1)
    return {
        "accuracy": (student == labels).double().mean().item(),
        "agreement": (student == teacher).double().mean().item(),
        "kl": F.kl_div(log_q, log_p, reduction="batchmean", log_target=True).item(),
    }


def example() -> Case:
    """Two rows; the teacher is wrong about the first."""
    student, teacher = example_logits()
    return {"student_logits": student, "teacher_logits": teacher, "labels": torch.tensor([2, 1])}


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


def edges() -> list[Edge]:
    """One row, two classes, equal sides."""
    case = example()
    rows = {name: value[:1] for name, value in case.items()}
    return [
        Edge("one row", rows),
        Edge(
            "a student that equals its teacher",
            case | {"student_logits": case["teacher_logits"].clone()},
        ),
        Edge(
            "float32 logits",
            case | {name: case[name].float() for name in ("student_logits", "teacher_logits")},
        ),
    ]


def family(wrong: Wrong, student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, float]:
    """The report with its switches."""
    dim = 0 if "argmax-over-rows" in wrong else 1
    ours, theirs = student.argmax(dim), teacher.argmax(dim)
    if dim == 0:
        found = torch.tensor(len({*labels.shape, *ours.shape}) == 1)
        right, same, judged = (found.expand(1),) * 3
    else:
        right, judged, same = ours == labels, theirs == labels, ours == theirs
    agreements = {
        "agreement-with-labels": judged,
        "agreement-where-right": right & judged,
        "agreement-both-right-or-both-wrong": right == judged,
        "agreement-among-right": same[judged],
        "agreement-is-accuracy": right,
    }
    same = next((agreements[name] for name in agreements if name in wrong), same)
    if "accuracy-of-the-teacher" in wrong:
        right = judged
    if "error-rate" in wrong:
        right = ~right
    shares = [side.double().mean().item() if len(side) else 0.0 for side in (right, same)]
    t, power = 1.0, 0
    if {"softened", "softened-with-factor"} & wrong:
        t = 4.0
    if {"softened-by-2", "softened-by-2-with-factor"} & wrong:
        t = 2.0
    if {"softened-with-factor", "softened-by-2-with-factor"} & wrong:
        power = 2
    kl = divergence(wrong | {"t-squared-missing"}, student, teacher, t).item() * t**power
    if "in-bits" in wrong:
        kl = kl / math.log(2)
    if "in-per-cent" in wrong:
        shares = [100 * share for share in shares]
    if "counts" in wrong:
        shares = [share * len(side) for share, side in zip(shares, (right, same), strict=True)]
    report = {"accuracy": shares[0], "agreement": shares[1], "kl": kl}
    if "rounded" in wrong:
        report = {name: round(value, 3) for name, value in report.items()}
    return {"accuracy": shares[0]} if "accuracy-only" in wrong else report


drill = Drill(
    id="fidelity-report",
    title="More than accuracy",
    task=(
        "Your student reaches the teacher's accuracy. Did it learn the teacher's function? Write "
        "the report that tells."
    ),
    minutes=5,
    level="warm-up",
    hints=(
        "Two models with the same accuracy can be wrong on different images. Which number shows "
        "that?",
        "Which two of the three arguments does each of the three numbers compare? Labels stand in "
        "only one of them.",
        "A divergence has a direction and a unit. Whose probabilities weigh the sum, over what is "
        "it averaged, and what kind of number does the docstring ask for?",
    ),
    explanation=(
        "O(NC). Accuracy says how good the student is, fidelity how much it is the teacher: "
        "[Stanton et al. (NeurIPS 2021)](cite:stanton2021knowledge) find students that generalize "
        "well and agree with their teachers on far from all inputs. Agreement looks at the largest "
        "logit alone; the divergence sees all classes, in the direction in which the teacher's "
        "classes count. Use T = 1: it is the distribution that is used. The interviewer listens "
        "for test data, not training data, and for why you would want fidelity at all "
        "(calibration, safety reviews, a drop-in replacement)."
    ),
    reference=fidelity_report,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=chosen(
        divergence_knobs("the divergence", sizes="C = {C}"),
        "factor",
        "logarithm",
        "multiplied",
        "student-alone-softened",
        "teacher-alone-softened",
        "temperature-ignored",
        "divided-afterwards",
        "over-everything",
    )
    | switches(
        """
        # keys
        - accuracy-only: only the accuracy is reported: it does not tell whether the student follows
          its teacher. Agreement and divergence are missing.
        # agreement
        - agreement-with-labels: the agreement compares the teacher with the labels: that is the
          teacher's accuracy. Compare the student's class with the teacher's.
        - agreement-where-right: rows count as agreement only where both are right: a student that
          shares its teacher's errors agrees with it there too.
        - agreement-both-right-or-both-wrong: two rows count as agreement where both are right or
          both wrong: they may be wrong in different ways.
        - agreement-among-right: the agreement is taken among the rows that the teacher has right:
          all rows count.
        - agreement-is-accuracy: the agreement is the student's accuracy once more.
        # accuracy
        - error-rate: the accuracy is the share of wrong rows: it is one minus that.
        - accuracy-of-the-teacher: the accuracy is the teacher's: asked for is the student's.
        - argmax-over-rows: argmax runs over the rows: the classes are dim=1.
        # unit
        - in-per-cent: the shares are in per cent: the task asks for numbers from 0 to 1.
        - counts: the shares are counts: divide by the number of rows.
        - rounded: the numbers are rounded: a report may be, what it is computed from may not.
        # nats
        - in-bits: the divergence is in bits: log2 in place of the natural logarithm. Losses are in
          nats.
        # softened
        - softened: the divergence is taken at T = 4: that is the training loss. At T = 1 it tells
          about the distribution that is used.
        - softened-by-2: the divergence is taken at T = 2: at T = 1 it tells about the distribution
          that is used.
        - softened-with-factor: the divergence is taken at T = 4 and multiplied by T²: that is the
          training loss. At T = 1 it tells about the distribution that is used.
        - softened-by-2-with-factor: the divergence is taken at T = 2 and multiplied by T²: that is
          the training loss. At T = 1 it tells about the distribution that is used.
        """
    ),
    sizes=lambda case: {"B": len(case["labels"]), "C": case["student_logits"].shape[1]},
    plain=True,
    observe=lambda case, result: dict(result),
)
