"""Drill: reverse KL, the divergence of on-policy distillation."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return KL(student || teacher) at T = 1, averaged over the batch.

    student_logits, teacher_logits: shape (B, V). The teacher is a constant; the student gets the full gradient, also
    through the probabilities that weigh the logarithms.
    """
    log_student = F.log_softmax(student_logits, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach(), dim=1)
    return F.kl_div(log_teacher, log_student, reduction="batchmean", log_target=True)


def cases(generator: Generator) -> list[Case]:
    """Batches of several sizes, the teacher surer than the student."""
    return [
        {
            "student_logits": draws.normal(generator, batch, vocabulary, scale=1.5),
            "teacher_logits": draws.normal(generator, batch, vocabulary, scale=2.5),
        }
        for batch, vocabulary in ((6, 11), (3, 5), (5, 4), (8, 23), (2, 7))
    ]


def extremes(generator: Generator) -> list[Case]:
    """Logits so far apart that a probability is 0 in floating point."""
    case = cases(generator)[0]
    return [case | {name: 1e4 * value for name, value in case.items()}]


drill = Drill(
    id="reverse-kl",
    title="Reverse KL",
    task=(
        "Write the reverse KL of next-token distributions, $\\mathrm{KL}(p_s \\,\\|\\, p_t)$: the student's "
        "probabilities come first. It is used to train on what the student itself writes. Mind which part of the "
        "formula depends on the student now."
    ),
    minutes=6,
    level="core",
    hints=(
        "Write the sum: each logarithm of a ratio is weighted by a probability. Whose, and does it get a gradient?",
        "F.kl_div(log q, log p, log_target=True) is KL(p || q): now the student is p, the second argument.",
        "F.kl_div(log_softmax(teacher.detach()), log_softmax(student), reduction='batchmean', log_target=True)",
    ),
    explanation=(
        "Two log-softmaxes and a sum: O(BV). Forward KL punishes a student that gives little where the teacher gives "
        "much, so a small student spreads out to cover everything; reverse KL punishes a student that gives something "
        "where the teacher gives nothing, so it keeps to a part of what the teacher does. The weight is the student's "
        "own distribution and belongs to the graph: with the weight held constant the gradient of "
        "$\\sum q \\log q$ is $q - q = 0$ and the teacher's term is a constant, so nothing is learnt although the loss "
        "looks right. Holding the logarithms constant instead is exact, and is what "
        "policy-gradient code does, since $\\sum q \\, \\nabla \\log q = 0$. T stays 1: a language model is sampled at "
        "its own temperature, and softening changes which divergence is minimized. Where the teacher's probability is "
        "exactly 0 the value is infinite. The interviewer listens for: mode-seeking against mode-covering, the order "
        "of the arguments, and the entropy of the student as the term that keeps it from collapsing."
    ),
    reference=reverse_kl,
    cases=cases,
    extremes=extremes,
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "V": case["student_logits"].shape[1],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)


@drill.alternative
def written_out(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """The definition of KL, with logsumexp."""
    teacher = teacher_logits.detach()
    log_q = student_logits - student_logits.logsumexp(dim=1, keepdim=True)
    log_p = teacher - teacher.logsumexp(dim=1, keepdim=True)
    return torch.einsum("bv,bv->", log_q.exp(), log_q - log_p) / len(log_q)


@drill.alternative
def policy_gradient(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """The log-ratio as a constant reward: the part of the gradient that is left out is zero."""
    reward = (student_logits.log_softmax(-1) - teacher_logits.log_softmax(-1)).detach()
    return (student_logits.softmax(-1) * reward).sum(-1).mean()


@drill.mistake(
    "forward",
    "this is the forward KL(teacher || student): F.kl_div(log q, p) is KL(p || q), so for the reverse KL the student "
    "is the second argument.",
    seen="siyan-zhao/OPSD issue 14",
)
def forward(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute the other direction."""
    log_q = F.log_softmax(student_logits, dim=1)
    p = F.softmax(teacher_logits.detach(), dim=1)
    return F.kl_div(log_q, p, reduction="batchmean")


@drill.mistake(
    "log-target",
    "F.kl_div took the student's logarithms for probabilities, and logarithms of negative numbers are NaN: pass "
    "log_target=True, or give it probabilities.",
)
def forgotten_flag(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Swap the arguments and give logarithms without saying so."""
    log_q = F.log_softmax(student_logits, dim=1)
    log_p = F.log_softmax(teacher_logits.detach(), dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean")


@drill.mistake(
    "constant-weight",
    "the value is right, the gradient is zero: the student's probabilities in front of the log-ratio were detached, "
    "and what is left cancels. The weight is the student's, and it belongs to the graph.",
)
def constant_weight(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Detach the weights, as for a teacher that comes first."""
    log_q = F.log_softmax(student_logits, dim=1)
    log_p = F.log_softmax(teacher_logits.detach(), dim=1)
    return (log_q.detach().exp() * (log_q - log_p)).sum(dim=1).mean()


@drill.mistake(
    "entropy-missing",
    "this is the cross-entropy of the student against the teacher, without the student's entropy. In the forward KL "
    "the entropy left out is the teacher's, a constant; here it is the student's, and without it the minimum is a "
    "student that is certain of the teacher's first choice.",
)
def cross_entropy(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Leave out the term that was constant in the forward direction."""
    q = F.softmax(student_logits, dim=1)
    return F.cross_entropy(teacher_logits.detach(), q)


@drill.mistake(
    "softened",
    "both sides are divided by T = 2: a habit from classifiers. Here T is 1, as the student is sampled at T = 1 and "
    "is to match the teacher's own distribution.",
)
def softened(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Soften by 2, with the factor of 4 that goes with it."""
    return 4 * reverse_kl(student_logits / 2, teacher_logits / 2)


@drill.mistake(
    "mean-reduction",
    "your loss is V = {V} times too small: reduction='mean', the default of F.kl_div, divides by the vocabulary too. "
    "Use 'batchmean'.",
)
def mean_reduction(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Leave the default reduction."""
    log_q = F.log_softmax(student_logits, dim=1)
    log_p = F.log_softmax(teacher_logits.detach(), dim=1)
    return (log_q.exp() * (log_q - log_p)).mean()


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant here. Use teacher_logits.detach(), or run it under no_grad().",
)
def live_teacher(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Leave the teacher in the graph."""
    log_q = F.log_softmax(student_logits, dim=1)
    log_p = F.log_softmax(teacher_logits, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


@drill.mistake(
    "log-of-softmax",
    "softmax(...).log() is -inf as soon as a probability underflows to 0, and the loss infinite or NaN: use "
    "log_softmax.",
)
def unstable(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Take the logarithm afterwards."""
    q = F.softmax(student_logits, dim=1)
    p = F.softmax(teacher_logits.detach(), dim=1)
    return (q * (q.log() - p.log())).sum() / len(q)


@drill.mistake(
    "probability-target",
    "the value is right, the gradient is NaN where the student's probability underflows to 0: F.kl_div takes the "
    "logarithm of a target given as probabilities, and here the target has a gradient. Give log_softmax with "
    "log_target=True.",
)
def probability_target(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Give the student's probabilities as the target."""
    log_p = F.log_softmax(teacher_logits.detach(), dim=1)
    return F.kl_div(log_p, F.softmax(student_logits, dim=1), reduction="batchmean")
