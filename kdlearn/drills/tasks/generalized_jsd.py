"""Drill: the generalized Jensen-Shannon divergence, and what beta does and does not do."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import example_logits, logits_edges
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def generalized_jsd(student_logits: Tensor, teacher_logits: Tensor, *, beta: float) -> Tensor:
    """Return beta · KL(t || m) + (1 - beta) · KL(s || m), averaged over the batch.

    m = beta · t + (1 - beta) · s. t and s are the teacher's and the student's probabilities at T =
    1, m is a mixture of probabilities.
    student_logits, teacher_logits: shape (B, V). The teacher is a constant; the student's share of
    m is not.
    beta: from 0 to 1, both included. There are no special cases: the value is 0 at both ends.
    """
    log_student = F.log_softmax(student_logits, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach(), dim=1)
    shares = torch.tensor([beta, 1 - beta], dtype=log_student.dtype).log()
    log_mixture = torch.logaddexp(log_teacher + shares[0], log_student + shares[1])
    teacher_kl = F.kl_div(log_mixture, log_teacher, reduction="batchmean", log_target=True)
    student_kl = F.kl_div(log_mixture, log_student, reduction="batchmean", log_target=True)
    return beta * teacher_kl + (1 - beta) * student_kl


def example() -> Case:
    """Two rows, three tokens."""
    student, teacher = example_logits()
    return {"student_logits": student, "teacher_logits": teacher, "beta": 0.25}


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


def edges() -> list[Edge]:
    """Both ends of beta, one half, and logits so far apart that a probability rounds to 0."""
    case = example()
    hint = "The divergence is 0 there, without special cases."
    return [
        Edge("beta = 0", case | {"beta": 0.0}, hint),
        Edge("beta = 1", case | {"beta": 1.0}, hint),
        Edge("beta = 1/2", case | {"beta": 0.5}),
        *logits_edges(case, far=("student_logits", "teacher_logits")),
    ]


def family(wrong: Wrong, student: Tensor, teacher: Tensor, *, beta: float) -> Tensor:
    """The divergence with its switches."""
    if "other-beta" in wrong:
        beta = 1 - beta
    if "beta-ignored" in wrong:
        beta = 0.5
    if "log-of-zero-beta" in wrong and beta in (0, 1):
        raise ValueError("math domain error")
    dim = 0 if "wrong-dimension" in wrong else 1
    log_s, log_t = student.log_softmax(dim), teacher.detach().log_softmax(dim)
    if "special-ends" in wrong and beta in (0, 1):
        pair = (log_t, log_s) if beta == 0 else (log_s, log_t)
        return _kl(wrong, *pair)
    share = 1 - beta if "mixture-swapped" in wrong else beta
    if "mixture-of-halves" in wrong:
        share = 0.5
    shares = torch.tensor([share, 1 - share], dtype=log_s.dtype)
    log_m = torch.logaddexp(log_t + shares[0].log(), log_s + shares[1].log())
    if "log-of-mixture" in wrong:
        log_m = (shares[0] * log_t.exp() + shares[1] * log_s.exp()).log()
    if "guard-in-logarithm" in wrong:
        log_m = (shares[0] * log_t.exp() + shares[1] * log_s.exp() + 1e-8).log()
    if "logits-mixed" in wrong:
        log_m = (shares[0] * teacher.detach() + shares[1] * student).log_softmax(dim)
    if "logs-mixed" in wrong:
        log_m = shares[0] * log_t + shares[1] * log_s
    if "shares-missing" in wrong:
        log_m = torch.logaddexp(log_t, log_s)
    theirs, ours = beta, 1 - beta
    if "weights-swapped" in wrong:
        theirs, ours = ours, theirs
    if "weights-of-halves" in wrong:
        theirs = ours = 0.5
    if "weights-missing" in wrong:
        theirs = ours = 1.0
    if "interpolated" in wrong:
        return ours * _kl(wrong, log_t, log_s) + theirs * _kl(wrong, log_s, log_t)
    if "mixture-missing" in wrong:
        return theirs * _kl(wrong, log_t, log_s) + ours * _kl(wrong, log_s, log_t)
    if "reversed" in wrong:
        return theirs * _kl(wrong, log_m, log_t) + ours * _kl(wrong, log_m, log_s)
    one, other = _kl(wrong, log_t, log_m), _kl(wrong, log_s, log_m)
    if "student-part-detached" in wrong:
        other = other.detach()
    if "teacher-part-only" in wrong:
        return theirs * one
    return ours * other if "student-part-only" in wrong else theirs * one + ours * other


def _kl(wrong: Wrong, log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q), averaged over the batch."""
    p = log_p.exp().detach() if "weight-detached" in wrong else log_p.exp()
    terms = p * (log_p - log_q)
    if "mean-reduction" in wrong:
        return terms.mean()
    return terms.sum() if "sum-reduction" in wrong else terms.sum(1).mean()


drill = Drill(
    id="generalized-jsd",
    title="The generalized Jensen-Shannon divergence",
    task=(
        "Write the divergence of Generalized Knowledge Distillation: $\\beta\\,\\mathrm{KL}(t "
        "\\,\\|\\, m) + (1 - \\beta)\\,\\mathrm{KL}(s \\,\\|\\, m)$ with the mixture $m = \\beta t "
        "+ (1 - \\beta) s$. Before you write: what is its value at $\\beta = 0$ and at $\\beta = "
        "1$?"
    ),
    minutes=12,
    level="hard",
    hints=(
        "What is the mixture at beta = 0, and which of the two KLs has a weight there? The same "
        "at beta = 1.",
        "The mixture is one of probabilities, and F.kl_div wants its logarithm. How do you add "
        "probabilities whose logarithms you have, also where both underflow?",
        "At the ends a share is 0: which logarithm of it does not raise, and does a sum in "
        "logarithms take it?",
    ),
    explanation=(
        "Three log-distributions and two sums: O(BV). `logaddexp` keeps a logarithm where both "
        "probabilities underflow; `(beta * t + (1 - beta) * s).log()` does not. beta does **not** "
        "lead from forward to reverse KL: the divergence goes to 0 at both ends, divided by "
        "$\\beta$ it goes to KL(t || s) for $\\beta \\to 0$, and divided by $1 - \\beta$ to KL(s "
        "|| t) for $\\beta \\to 1$. So near an end beta acts as a learning rate. Libraries put the "
        "two KLs at beta = 0 and beta = 1 by special cases, and the value jumps there. At $\\beta "
        "= 1/2$ it is the Jensen-Shannon divergence, at most log 2, whatever the logits: its "
        "gradient stays bounded where a KL's value explodes. A mixture that is held constant gives "
        "the same gradient, as $\\sum m \\, \\nabla \\log m = 0$. The interviewer listens for: the "
        "limits, who is mixed with which share, and probabilities, not logits, in the mixture."
    ),
    reference=generalized_jsd,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # what
        - interpolated: you interpolate between KL(t || s) at beta = 0 and KL(s || t) at beta = 1:
          that is what beta is often said to do. The divergence asked for compares both sides with
          their mixture m, and is 0 at both ends.
          Seen claimed: modelscope/ms-swift issue 10078, documentation of beta
        - mixture-missing: the two sides are compared with each other, not with their mixture: this
          is a weighted sum of KL(t || s) and KL(s || t), which has no bound. Build m = beta t +
          (1 - beta) s first.
        - special-ends: between the ends all is right; at beta = 0 and beta = 1 you return the
          forward and the reverse KL, as libraries do. The divergence itself goes to 0 there: with
          the special cases it jumps.
          Seen in code: huggingface/trl pull request 3043
        - reversed: the KLs run the wrong way: you have KL(m || t) and KL(m || s). F.kl_div(log q,
          p) is KL(p || q), so the mixture comes first.
        - teacher-part-only: the student's part (1 - beta) KL(s || m) is missing.
        - student-part-only: the teacher's part beta KL(t || m) is missing.
        # mixture
        - mixture-swapped: the shares in the mixture are swapped: m holds beta of the teacher and
          1 - beta of the student.
          Seen in code: huggingface/trl before pull request 3043
        - mixture-of-halves: the mixture holds a half of each: its shares are beta and 1 - beta.
        - logits-mixed: you mixed logits: softmax(beta z_t + (1 - beta) z_s) is a geometric mean,
          which is small where either side is small. The mixture is one of probabilities.
        - logs-mixed: you mixed logarithms: beta log t + (1 - beta) log s is not the logarithm of a
          distribution, and it is very negative where either side is unlikely. Mix probabilities:
          torch.logaddexp of the shifted logarithms.
          Seen asked: huggingface/trl issue 2202
        - shares-missing: the shares are missing in the mixture: log(t + s) is the logarithm of no
          distribution.
        # weights
        - weights-swapped: the weights of the two KLs are swapped: beta goes with KL(t || m), the
          share that the teacher has in m. Your version does lead from forward to reverse KL, but it
          is not a Jensen-Shannon divergence.
          Seen proposed: modelscope/ms-swift pull request 10213, not merged
        - weights-of-halves: both KLs have the weight 1/2: their weights are beta and 1 - beta.
        - weights-missing: the two KLs are added without their weights beta and 1 - beta.
        # beta
        - other-beta: your beta is the student's share, everywhere: your value at beta is the right
          one at 1 - beta. Here beta goes with the teacher.
        - beta-ignored: beta is not used: this is the divergence at beta = 1/2.
        # reduction
        - mean-reduction: your loss is V = {V} times too small: the mean runs over the vocabulary
          too.
        - sum-reduction: your loss is B = {B} times too large: it is summed over the batch, not
          averaged.
        # dimension
        - wrong-dimension: the softmax runs over the batch, dim=0: the vocabulary is dim=1.
        # gradient
        - weight-detached: the student's probabilities before its logarithms were detached: the
          value is right, and the gradient is not.
        - student-part-detached: the student's part sends no gradient: only KL(t || m) is trained.
        # logarithm
        - log-of-mixture: (beta t + (1 - beta) s).log() is -inf where both probabilities underflow
          to 0, and the loss NaN: mix in logarithms with torch.logaddexp or torch.logsumexp.
          Seen in code: linkedin/Liger-Kernel issue 769
        - guard-in-logarithm: a guard of 1e-8 inside the mixture's logarithm is too large: where a
          probability is smaller, the loss is wrong.
        - log-of-zero-beta: math.log(0) raises, at beta = 0 or 1: both are allowed.
          torch.tensor(0.).log() is -inf, which logaddexp takes.
        """
    ),
    sizes=lambda case: {
        "B": len(case["student_logits"]),
        "V": case["student_logits"].shape[1],
        "beta": case["beta"],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)
