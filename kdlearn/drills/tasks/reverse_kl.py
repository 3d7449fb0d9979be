"""Drill: reverse KL, the divergence of on-policy distillation."""

from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import REVERSE, example_logits, logits_edges, reverse_terms
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return KL(student || teacher) at T = 1, averaged over the batch.

    student_logits, teacher_logits: shape (B, V). The teacher is a constant; the student gets the
    full gradient, also through the probabilities that weigh the logarithms.
    """
    log_student = F.log_softmax(student_logits, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach(), dim=1)
    return F.kl_div(log_teacher, log_student, reduction="batchmean", log_target=True)


def example() -> Case:
    """Two rows, three tokens."""
    student, teacher = example_logits()
    return {"student_logits": student, "teacher_logits": teacher}


def cases(generator: Generator) -> list[Case]:
    """Batches of several sizes, the teacher surer than the student."""
    return [
        {
            "student_logits": draws.normal(generator, batch, vocabulary, scale=1.5),
            "teacher_logits": draws.normal(generator, batch, vocabulary, scale=2.5),
        }
        for batch, vocabulary in ((6, 11), (3, 5), (5, 4), (8, 23), (2, 7))
    ]


def edges() -> list[Edge]:
    """One row, equal sides, logits that underflow."""
    return logits_edges(example(), far=("student_logits", "teacher_logits"))


def family(wrong: Wrong, student: Tensor, teacher: Tensor) -> Tensor:
    """The loss with its switches."""
    t = 2 if {"softened", "softened-without-factor"} & wrong else 1
    s, z = student / t, teacher.detach() / t
    if "student-detached" in wrong:
        s = s.detach()
    if "softmax-twice-student" in wrong:
        s = s.softmax(1)
    if "softmax-twice-teacher" in wrong:
        z = z.softmax(1)
    log_q = s.log_softmax(0 if {"wrong-dimension", "wrong-dimension-student"} & wrong else 1)
    log_p = z.log_softmax(0 if "wrong-dimension" in wrong else 1)
    if "log-of-softmax" in wrong:
        log_q, log_p = s.softmax(1).log(), z.softmax(1).log()
    q, p = log_q.exp(), log_p.exp()
    if "guard-in-logarithm" in wrong:
        log_q, log_p = (q + 1e-8).log(), (p + 1e-8).log()
    given = log_p
    if "probabilities-as-input" in wrong:
        given = p
    if "logits-as-input" in wrong:
        given = z
    terms = reverse_terms(wrong, log_q, given)
    if "probability-target" in wrong:
        terms = F.kl_div(given, q, reduction="none")
    if "argmax-only" in wrong:
        terms = F.one_hot(q.argmax(1), q.shape[1]) * (log_q - given)
    total = terms.sum() / len(terms)
    if "mean-reduction" in wrong:
        total = terms.mean()
    if "sum-reduction" in wrong:
        total = terms.sum()
    if "mean-over-vocabulary-only" in wrong:
        total = terms.mean(1).sum()
    return total * (4 if "softened" in wrong else 1) * (-1 if "sign" in wrong else 1)


drill = Drill(
    id="reverse-kl",
    title="Reverse KL",
    task=(
        "Write the reverse KL of next-token distributions, $\\mathrm{KL}(p_s \\,\\|\\, p_t)$: the "
        "student's probabilities come first. It is used to train on what the student itself "
        "writes. Mind which part of the formula depends on the student now."
    ),
    minutes=6,
    level="core",
    hints=(
        "Write the sum: each logarithm of a ratio is weighted by a probability. Whose, and does "
        "it get a gradient?",
        "F.kl_div(log q, p) is KL(p || q). Which of its arguments is the student now, and in "
        "which form may a target come that has a gradient?",
        "Hold the weights constant in your mind: what is the gradient of the rest? If it is zero, "
        "nothing would be learned.",
    ),
    explanation=(
        "Two log-softmaxes and a sum: O(BV). Forward KL punishes a student that gives little where "
        "the teacher gives much, so a small student spreads out to cover everything; reverse KL "
        "punishes a student that gives something where the teacher gives nothing, so it keeps to a "
        "part of what the teacher does. The weight is the student's own distribution and belongs "
        "to the graph: with the weight held constant the gradient of $\\sum q \\log q$ is $q - q = "
        "0$ and the teacher's term is a constant, so nothing is learnt although the loss looks "
        "right. Holding the logarithms constant instead is exact, and is what policy-gradient code "
        "does, since $\\sum q \\, \\nabla \\log q = 0$. T stays 1: a language model is sampled at "
        "its own temperature, and softening changes which divergence is minimized. Where the "
        "teacher's probability is exactly 0 the value is infinite. The interviewer listens for: "
        "mode-seeking against mode-covering, the order of the arguments, and the entropy of the "
        "student as the term that keeps it from collapsing."
    ),
    reference=reverse_kl,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=REVERSE
    | switches(
        """
        # classes
        - argmax-only: only the student's most probable token counts: the sum runs over the whole
          vocabulary.
        # input
        - probabilities-as-input: F.kl_div wants the teacher's logarithms as its first argument, and
          got probabilities.
        - logits-as-input: F.kl_div wants the teacher's log-probabilities as its first argument, and
          got logits.
        # gradient
        - student-detached: the student gets no gradient: everything of it was detached.
        # temperature
        - softened: both sides are divided by T = 2 and the loss is multiplied by 4: a habit from
          classifiers. Here T is 1, as the student is sampled at T = 1 and is to match the teacher's
          own distribution.
        - softened-without-factor: both sides are divided by T = 2: here T is 1.
        # reduction
        - mean-reduction: your loss is V = {V} times too small: reduction='mean', the default of
          F.kl_div, divides by the vocabulary too. Use 'batchmean'.
          Seen in code: facebookresearch/deit issue 61
        - sum-reduction: your loss is B = {B} times too large: it is summed over the batch, not
          averaged.
        - mean-over-vocabulary-only: the loss is averaged over the vocabulary and summed over the
          batch: it should be the other way round.
        # dimension
        - wrong-dimension: the softmax runs over the batch, dim=0: the vocabulary is dim=1.
        - wrong-dimension-student: the student's softmax runs over the batch, dim=0: the vocabulary
          is dim=1.
        # softmax
        - softmax-twice-student: softmax is applied twice to the student.
        - softmax-twice-teacher: softmax is applied twice to the teacher.
        # logarithm
        - log-of-softmax: softmax(...).log() is -inf as soon as a probability underflows to 0, and
          the loss infinite or NaN: use log_softmax.
        - probability-target: the value is right, the gradient is NaN where the student's
          probability underflows to 0: F.kl_div takes the logarithm of a target given as
          probabilities, and here the target has a gradient. Give log_softmax with log_target=True.
        - guard-in-logarithm: a guard of 1e-8 inside a logarithm is too large: where a probability
          is smaller, the loss is wrong. log_softmax needs no guard.
        # sign
        - sign: the sign is wrong: your loss falls as student and teacher part.
        """
    ),
    sizes=lambda case: {"B": len(case["student_logits"]), "V": case["student_logits"].shape[1]},
    gradients=("student_logits",),
    detached=("teacher_logits",),
)
