"""Drill: the generalized Jensen-Shannon divergence, and what beta does and does not do."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def generalized_jsd(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Return beta · KL(t || m) + (1 - beta) · KL(s || m), with m = beta · t + (1 - beta) · s, averaged over the batch.

    t and s are the teacher's and the student's probabilities at T = 1, m is a mixture of probabilities.
    student_logits, teacher_logits: shape (B, V). The teacher is a constant; the student's share of m is not.
    beta: from 0 to 1, both included. There are no special cases: the value is 0 at both ends.
    """
    log_student = F.log_softmax(student_logits, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach(), dim=1)
    shares = torch.tensor([beta, 1 - beta], dtype=log_student.dtype).log()
    log_mixture = torch.logaddexp(log_teacher + shares[0], log_student + shares[1])
    teacher_kl = F.kl_div(log_mixture, log_teacher, reduction="batchmean", log_target=True)
    student_kl = F.kl_div(log_mixture, log_student, reduction="batchmean", log_target=True)
    return beta * teacher_kl + (1 - beta) * student_kl


def cases(generator: Generator) -> list[Case]:
    """Batches of several sizes, with beta on both sides of a half."""
    return [
        {
            "student_logits": draws.normal(generator, batch, vocabulary, scale=1.5),
            "teacher_logits": draws.normal(generator, batch, vocabulary, scale=2.5),
            "beta": draws.real(generator, low, low + 0.3),
        }
        for batch, vocabulary, low in (
            (6, 11, 0.1),
            (3, 5, 0.6),
            (5, 4, 0.1),
            (8, 23, 0.6),
            (2, 7, 0.1),
        )
    ]


def extremes(generator: Generator) -> list[Case]:
    """Both ends of beta, and logits so far apart that a probability is 0 in floating point."""
    case = cases(generator)[0]
    far = {name: 1e4 * case[name] for name in ("student_logits", "teacher_logits")}
    return [case | {"beta": 0.0}, case | {"beta": 1.0}, case | far]


drill = Drill(
    id="generalized-jsd",
    title="The generalized Jensen-Shannon divergence",
    task=(
        "Write the divergence of Generalized Knowledge Distillation: "
        "$\\beta\\,\\mathrm{KL}(t \\,\\|\\, m) + (1 - \\beta)\\,\\mathrm{KL}(s \\,\\|\\, m)$ with the mixture "
        "$m = \\beta t + (1 - \\beta) s$. Before you write: what is its value at $\\beta = 0$ and at $\\beta = 1$?"
    ),
    minutes=12,
    level="hard",
    hints=(
        "At beta = 0 the mixture is the student, and the only KL that has a weight is KL(s || s). So 0, at both ends.",
        "The mixture is one of probabilities, and F.kl_div wants its logarithm: log(beta t + (1 - beta) s) is a "
        "logaddexp of log t + log beta and log s + log(1 - beta). math.log(0) raises; torch.tensor(0.).log() is -inf.",
        "log_m = torch.logaddexp(log_t + shares[0], log_s + shares[1]); KL(t || m) is F.kl_div(log_m, log_t, "
        "reduction='batchmean', log_target=True), KL(s || m) the same with log_s; weigh by beta and 1 - beta.",
    ),
    explanation=(
        "Three log-distributions and two sums: O(BV). `logaddexp` keeps a logarithm where both probabilities "
        "underflow; `(beta * t + (1 - beta) * s).log()` does not. beta does **not** lead from forward to reverse KL: "
        "the divergence goes to 0 at both ends, divided by $\\beta$ it goes to KL(t || s) for $\\beta \\to 0$, and "
        "divided by $1 - \\beta$ to KL(s || t) for $\\beta \\to 1$. So near an end beta acts as a learning rate. "
        "Libraries put the two KLs at beta = 0 and beta = 1 by special cases, and the value jumps there. At "
        "$\\beta = 1/2$ it is the Jensen-Shannon divergence, at most log 2, whatever the logits: its gradient stays "
        "bounded where a KL's value explodes. A mixture that is held constant gives the same gradient, as "
        "$\\sum m \\, \\nabla \\log m = 0$. The interviewer listens for: the limits, who is mixed with which share, "
        "and probabilities, not logits, in the mixture."
    ),
    reference=generalized_jsd,
    cases=cases,
    extremes=extremes,
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "V": case["student_logits"].shape[1],
        "beta": case["beta"],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)


@drill.alternative
def entropies(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """The mixture's entropy minus the mean entropy."""
    log_s, log_t = student_logits.log_softmax(-1), teacher_logits.detach().log_softmax(-1)
    log_m = torch.stack([log_t, log_s])
    log_m = torch.logsumexp(log_m + torch.tensor([[[beta]], [[1 - beta]]]).double().log(), dim=0)
    m = beta * log_t.exp() + (1 - beta) * log_s.exp()
    rest = beta * (log_t.exp() * log_t) + (1 - beta) * (log_s.exp() * log_s)
    return (rest - m * log_m).sum(-1).mean()


@drill.alternative
def constant_mixture(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """The mixture outside of the graph, which leaves the gradient as it is, and the definition of KL."""
    log_s = student_logits - student_logits.logsumexp(1, keepdim=True)
    log_t = teacher_logits.detach() - teacher_logits.detach().logsumexp(1, keepdim=True)
    with torch.no_grad():
        if beta in (0, 1):
            log_m = log_t if beta else log_s.clone()
        else:
            log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log1p(-beta))
    total = beta * log_t.exp() * (log_t - log_m) + (1 - beta) * log_s.exp() * (log_s - log_m)
    return total.sum() / len(total)


def _logs(student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the student and of the teacher."""
    return F.log_softmax(student_logits, dim=1), F.log_softmax(teacher_logits.detach(), dim=1)


def _log_mixture(log_s: Tensor, log_t: Tensor, share: float) -> Tensor:
    """log(share · t + (1 - share) · s)."""
    shares = torch.tensor([share, 1 - share], dtype=log_s.dtype).log()
    return torch.logaddexp(log_t + shares[0], log_s + shares[1])


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q), averaged over the batch."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()


@drill.mistake(
    "interpolated",
    "you interpolate between KL(t || s) at beta = 0 and KL(s || t) at beta = 1: that is what beta is often said to do. "
    "The divergence asked for compares both sides with their mixture m, and is 0 at both ends.",
    seen="modelscope/ms-swift issue 10078, documentation of beta",
)
def interpolated(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Go in a straight line from forward to reverse KL."""
    log_s, log_t = _logs(student_logits, teacher_logits)
    return (1 - beta) * _kl(log_t, log_s) + beta * _kl(log_s, log_t)


@drill.mistake(
    "mixture-missing",
    "the two sides are compared with each other, not with their mixture: this is a weighted sum of KL(t || s) and "
    "KL(s || t), which has no bound. Build m = beta t + (1 - beta) s first.",
)
def no_mixture(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Weigh the two KLs as in the formula, without the mixture."""
    log_s, log_t = _logs(student_logits, teacher_logits)
    return beta * _kl(log_t, log_s) + (1 - beta) * _kl(log_s, log_t)


@drill.mistake(
    "special-ends",
    "between the ends all is right; at beta = 0 and beta = 1 you return the forward and the reverse KL, as libraries "
    "do. The divergence itself goes to 0 there: with the special cases it jumps.",
    seen="huggingface/trl pull request 3043",
)
def special_ends(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Put the two KLs at the ends."""
    log_s, log_t = _logs(student_logits, teacher_logits)
    if beta == 0:
        return _kl(log_t, log_s)
    if beta == 1:
        return _kl(log_s, log_t)
    return generalized_jsd(student_logits, teacher_logits, beta=beta)


@drill.mistake(
    "mixture-swapped",
    "the shares in the mixture are swapped: m holds beta of the teacher and 1 - beta of the student.",
    seen="huggingface/trl before pull request 3043",
)
def mixture_swapped(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Give beta to the student in the mixture."""
    log_s, log_t = _logs(student_logits, teacher_logits)
    log_m = _log_mixture(log_s, log_t, 1 - beta)
    return beta * _kl(log_t, log_m) + (1 - beta) * _kl(log_s, log_m)


@drill.mistake(
    "weights-swapped",
    "the weights of the two KLs are swapped: beta goes with KL(t || m), the share that the teacher has in m. Your "
    "version does lead from forward to reverse KL, but it is not a Jensen-Shannon divergence.",
    seen="modelscope/ms-swift pull request 10213, not merged",
)
def weights_swapped(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Give 1 - beta to the teacher's KL."""
    log_s, log_t = _logs(student_logits, teacher_logits)
    log_m = _log_mixture(log_s, log_t, beta)
    return (1 - beta) * _kl(log_t, log_m) + beta * _kl(log_s, log_m)


@drill.mistake(
    "other-beta",
    "your beta is the student's share, everywhere: your value at beta is the right one at 1 - beta. Here beta goes "
    "with the teacher.",
)
def other_beta(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Take beta for the student's share."""
    return generalized_jsd(student_logits, teacher_logits, beta=1 - beta)


@drill.mistake(
    "logits-mixed",
    "you mixed logits: softmax(beta z_t + (1 - beta) z_s) is a geometric mean, which is small where either side is "
    "small. The mixture is one of probabilities.",
)
def logits_mixed(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Mix before the softmax."""
    log_s, log_t = _logs(student_logits, teacher_logits)
    log_m = F.log_softmax(beta * teacher_logits.detach() + (1 - beta) * student_logits, dim=1)
    return beta * _kl(log_t, log_m) + (1 - beta) * _kl(log_s, log_m)


@drill.mistake(
    "logs-mixed",
    "you mixed logarithms: beta log t + (1 - beta) log s is not the logarithm of a distribution, and it is very "
    "negative where either side is unlikely. Mix probabilities: torch.logaddexp of the shifted logarithms.",
    seen="huggingface/trl issue 2202",
)
def logs_mixed(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Mix log-probabilities."""
    log_s, log_t = _logs(student_logits, teacher_logits)
    log_m = beta * log_t + (1 - beta) * log_s
    return beta * _kl(log_t, log_m) + (1 - beta) * _kl(log_s, log_m)


@drill.mistake(
    "reversed",
    "the KLs run the wrong way: you have KL(m || t) and KL(m || s). F.kl_div(log q, p) is KL(p || q), so the mixture "
    "comes first.",
)
def reversed_kls(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Put the mixture in front."""
    log_s, log_t = _logs(student_logits, teacher_logits)
    log_m = _log_mixture(log_s, log_t, beta)
    return beta * _kl(log_m, log_t) + (1 - beta) * _kl(log_m, log_s)


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant, also inside the mixture. Use teacher_logits.detach().",
)
def live_teacher(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Leave the teacher in the graph."""
    log_s, log_t = F.log_softmax(student_logits, dim=1), F.log_softmax(teacher_logits, dim=1)
    log_m = _log_mixture(log_s, log_t, beta)
    return beta * _kl(log_t, log_m) + (1 - beta) * _kl(log_s, log_m)


@drill.mistake(
    "log-of-mixture",
    "(beta t + (1 - beta) s).log() is -inf where both probabilities underflow to 0, and the loss NaN: mix in "
    "logarithms with torch.logaddexp or torch.logsumexp.",
    seen="linkedin/Liger-Kernel issue 769",
)
def unstable(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Mix probabilities, then take the logarithm."""
    log_s, log_t = _logs(student_logits, teacher_logits)
    log_m = (beta * log_t.exp() + (1 - beta) * log_s.exp()).log()
    return beta * _kl(log_t, log_m) + (1 - beta) * _kl(log_s, log_m)
