"""Drill: the soft-target loss of Hinton et al."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Return T² · KL(teacher || student) of the distributions softened by T, averaged over the batch.

    student_logits, teacher_logits: shape (B, C). The teacher is a constant.
    """
    log_student = F.log_softmax(student_logits / temperature, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    kl = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * kl


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


def extremes(generator: Generator) -> list[Case]:
    """Logits so far apart that a probability is 0 in floating point."""
    case = cases(generator)[0]
    return [case | {name: 2e4 * case[name] for name in ("student_logits", "teacher_logits")}]


drill = Drill(
    id="kd-loss",
    title="The distillation loss",
    task=(
        "Write the soft-target loss of knowledge distillation: the KL divergence from the student's to the teacher's "
        "softened distribution, scaled so that its gradient keeps its size when T changes."
    ),
    minutes=8,
    level="core",
    hints=(
        "Divide both logits by T. Which distribution does F.kl_div want as logarithms, and which comes first?",
        "F.kl_div(log q, p) is KL(p || q). Its default reduction divides by the number of elements, not of samples.",
        "T² · F.kl_div(log_softmax(z_s / T), log_softmax(z_t.detach() / T), reduction='batchmean', log_target=True)",
    ),
    explanation=(
        "Two log-softmaxes and one sum: O(BC) time and memory, nothing beside the forward pass of a network. "
        "The logarithms are taken inside log_softmax, which subtracts the maximum first; `softmax(...).log()` gives "
        "-inf as soon as a probability underflows. The factor T² is there because the gradient of the KL with "
        "respect to a logit is (q - p) / T, and q - p itself shrinks like 1/T at high T. The interviewer listens for: "
        "the order of the arguments, 'batchmean', T on both sides, T², and a teacher that gets no gradient."
    ),
    reference=kd_loss,
    cases=cases,
    extremes=extremes,
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "C": case["student_logits"].shape[1],
        "T": case["temperature"],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)


@drill.alternative
def written_out(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """The definition of KL, with logsumexp."""
    with torch.no_grad():
        z = teacher_logits / temperature
        log_p = z - z.logsumexp(dim=1, keepdim=True)
    scaled = student_logits / temperature
    log_q = scaled - scaled.logsumexp(dim=1, keepdim=True)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum() / len(z)


@drill.alternative
def per_sample(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Sum over classes, then mean over samples."""
    log_q = (student_logits / temperature).log_softmax(-1)
    log_p = (teacher_logits.detach() / temperature).log_softmax(-1)
    pointwise = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    return pointwise.sum(-1).mean() * temperature * temperature


@drill.mistake(
    "mean-reduction",
    "your loss is C = {C} times too small: reduction='mean', the default of F.kl_div, divides by the classes too. "
    "Use 'batchmean'.",
    seen="facebookresearch/deit issue 61",
)
def mean_reduction(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Leave the default reduction."""
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).mean()


@drill.mistake(
    "sum-reduction",
    "your loss is B = {B} times too large: it is summed over the batch, not averaged.",
)
def sum_reduction(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Sum over everything."""
    return len(student_logits) * kd_loss(student_logits, teacher_logits, temperature=temperature)


@drill.mistake(
    "t-squared-missing",
    "T² is missing: the gradient shrinks as 1/T², so the weight of this term would mean something else at each T.",
    seen="keras-team/keras-io before pull request 870",
)
def no_square(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Forget T²."""
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    return F.kl_div(log_q, p, reduction="batchmean")


@drill.mistake(
    "probabilities-as-input",
    "F.kl_div wants the logarithms of the student's probabilities as its first argument, and got probabilities: the "
    "result can be negative, which a KL divergence never is.",
    seen="microsoft/ProDA issue 43",
)
def probabilities(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Give probabilities on both sides."""
    q = F.softmax(student_logits / temperature, dim=1)
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean")


@drill.mistake(
    "reversed",
    "this is KL(student || teacher): the arguments of F.kl_div are swapped. F.kl_div(log q, p) is KL(p || q), so the "
    "student's logarithms come first.",
    seen="Exorust/TorchLeet, docstring of its distillation exercise",
)
def swapped(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Swap the sides."""
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


@drill.mistake(
    "log-target",
    "F.kl_div took the teacher's logarithms for probabilities: pass log_target=True, or give it probabilities.",
    seen="nlp-with-transformers/notebooks issue 94",
)
def forgotten_flag(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Give logarithms without saying so."""
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean")


@drill.mistake(
    "one-sided-temperature",
    "only the teacher's logits are divided by T: the student is asked to be as soft as the teacher at T = 1, which "
    "matches another distribution. Both sides use the same T.",
)
def one_sided(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Soften the teacher alone."""
    log_q = F.log_softmax(student_logits, dim=1)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@drill.mistake(
    "softmax-twice",
    "softmax twice: log_softmax is applied to what softmax has already made probabilities, so that both distributions "
    "are nearly uniform.",
)
def twice(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Apply softmax before log_softmax."""
    log_q = F.log_softmax(F.softmax(student_logits / temperature, dim=1), dim=1)
    log_p = F.log_softmax(F.softmax(teacher_logits.detach() / temperature, dim=1), dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant here. Use teacher_logits.detach(), or run it under no_grad().",
)
def live_teacher(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Leave the teacher in the graph."""
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    p = F.softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, p, reduction="batchmean")


@drill.mistake(
    "log-of-softmax",
    "softmax(...).log() is -inf as soon as a probability underflows to 0, and the loss NaN: use log_softmax.",
)
def unstable(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Take the logarithm afterwards."""
    q = F.softmax(student_logits / temperature, dim=1)
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * (p * (p.log() - q.log())).sum() / len(q)


@drill.mistake(
    "multiplied",
    "the logits are multiplied by T, not divided: both distributions get sharper, and the loss explodes with T.",
    seen="a computer-vision distillation page of Hugging Face (commit 01080da)",
)
def multiplied(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Multiply by T."""
    log_q = F.log_softmax(student_logits * temperature, dim=1)
    log_p = F.log_softmax(teacher_logits.detach() * temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@drill.mistake(
    "student-alone-softened",
    "only the student's logits are divided by T: the teacher's target is as hard as it is at T = 1, and the dark "
    "knowledge stays hidden. Both sides use the same T.",
)
def student_alone(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Soften the student alone."""
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    log_p = F.log_softmax(teacher_logits.detach(), dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@drill.mistake(
    "wrong-dimension",
    "the softmax runs over the batch, dim=0: images compete with one another for a class. The classes are dim=1.",
)
def over_the_batch(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Normalize over the batch."""
    log_q = F.log_softmax(student_logits / temperature, dim=0)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=0)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@drill.mistake(
    "cross-entropy",
    "this is the cross-entropy with soft targets: it has the right gradient, and the teacher's entropy is still "
    "in the value, so that it is not 0 for a student that equals its teacher. Subtract it, or use F.kl_div.",
)
def cross_entropy(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Leave the entropy in."""
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * F.cross_entropy(student_logits / temperature, p)


@drill.mistake(
    "argmax-only",
    "only the teacher's most probable class counts: that is hard distillation, a legitimate method and another "
    "one. What the teacher says of the other classes is lost.",
)
def argmax_only(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Use the teacher's argmax as a label."""
    return F.cross_entropy(student_logits, teacher_logits.argmax(dim=1))
