"""Drill: the gradient of the distillation loss, by hand."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def kd_gradient(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Return the gradient of T² · KL(teacher || student), averaged over the batch, by the student's logits.

    student_logits, teacher_logits: (B, C), softened by T on both sides. Do not use autograd. Result: (B, C).
    """
    q = (student_logits / temperature).softmax(dim=1)
    p = (teacher_logits / temperature).softmax(dim=1)
    return temperature * (q - p) / len(student_logits)


def cases(generator: Generator) -> list[Case]:
    """Batches of several sizes and temperatures."""
    return [
        {
            "student_logits": draws.normal(generator, batch, classes, scale=2),
            "teacher_logits": draws.normal(generator, batch, classes, scale=3),
            "temperature": draws.real(generator, 1.5, 8),
        }
        for batch, classes in ((8, 10), (3, 5), (5, 4), (6, 17))
    ]


drill = Drill(
    id="kd-gradient",
    title="The gradient by hand",
    task=(
        "On the whiteboard: what is the gradient of $T^2 \\,\\mathrm{KL}(p_t^T \\| p_s^T)$ with respect to a "
        "logit of the student? Then program it, without autograd, and say what becomes of it for large T."
    ),
    minutes=8,
    level="core",
    hints=(
        "For T = 1 it is the gradient of cross-entropy with a soft target. Which one is that?",
        "The chain rule through z / T gives one factor 1/T. T² stands in front.",
        "T * (softmax(z_s / T) - softmax(z_t / T)) / B",
    ),
    explanation=(
        "O(BC). The gradient of the KL with respect to z_s / T is q - p; the inner derivative is 1/T; T² in front "
        "leaves T (q - p). For large T, q - p is about (z_s - z_t) / (C T) where each row of logits has mean 0, "
        "so the whole tends to (z_s - z_t) / C: matching logits. Without T² it would vanish as 1/T². The rows sum "
        "to 0, because adding a constant to all logits changes nothing: a check that you can say aloud. Source: "
        "Hinton et al. 2015, section 2.1."
    ),
    reference=kd_gradient,
    cases=cases,
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "C": case["student_logits"].shape[1],
        "T": case["temperature"],
    },
)


@drill.alternative
def in_logarithms(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Through log-probabilities."""
    log_q = (student_logits / temperature).log_softmax(1)
    log_p = (teacher_logits / temperature).log_softmax(1)
    return log_q.exp().sub(log_p.exp()).mul(temperature).div(student_logits.shape[0])


@drill.alternative
def by_the_jacobian(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float
) -> Tensor:
    """The derivative of the loss by q, times the Jacobian of the softmax."""
    q = (student_logits / temperature).softmax(1)
    p = (teacher_logits / temperature).softmax(1)
    by_q = -p / q
    jacobian = torch.diag_embed(q) - q[:, :, None] * q[:, None, :]
    return temperature * torch.einsum("bi,bij->bj", by_q, jacobian) / len(q)


@drill.mistake(
    "sign",
    "the sign is wrong: this is the step of gradient descent, not the gradient. It is student minus teacher.",
)
def negative(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Subtract the other way."""
    return -kd_gradient(student_logits, teacher_logits, temperature=temperature)


@drill.mistake(
    "t-squared-missing",
    "T² is missing: this is the gradient of the KL alone, (q - p) / T, and it shrinks as 1/T² when T grows.",
)
def no_square(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Leave T² out."""
    return kd_gradient(student_logits, teacher_logits, temperature=temperature) / temperature**2


@drill.mistake(
    "inner-derivative-missing",
    "the inner derivative 1/T is missing: T² (q - p) is the gradient with respect to z / T, not to z.",
)
def no_inner(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Forget the chain rule."""
    return kd_gradient(student_logits, teacher_logits, temperature=temperature) * temperature


@drill.mistake(
    "batch-not-averaged",
    "the loss is averaged over the batch, and so is its gradient: divide by B = {B}.",
)
def summed(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Forget the batch."""
    gradient = kd_gradient(student_logits, teacher_logits, temperature=temperature)
    return gradient * len(student_logits)


@drill.mistake(
    "not-softened",
    "the distributions are those at T = 1: both softmaxes run over logits divided by T.",
)
def sharp(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Soften nothing."""
    gap = student_logits.softmax(1) - teacher_logits.softmax(1)
    return temperature * gap / len(student_logits)


@drill.mistake(
    "logits-matched",
    "this is (z_s - z_t) / (C B), the limit for large T: at this T the softmaxes are not linear yet.",
)
def limit(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Use the limit of high temperature."""
    batch, classes = student_logits.shape
    return (student_logits - teacher_logits) / (classes * batch)
