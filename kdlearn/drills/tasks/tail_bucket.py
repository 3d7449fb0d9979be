"""Drill: reverse KL against a teacher that gives its K largest probabilities only."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.drills.families import REVERSE, chosen, reverse_terms
from kdlearn.drills.grader.drill import Drill, Edge, Wrong, switches
from kdlearn.drills.tasks import top_k_kd


def tail_bucket_reverse_kl(
    student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor
) -> Tensor:
    """Return KL(student || teacher) over K + 1 events, averaged over the batch, at T = 1.

    The first K events are the classes that a served teacher gave; the last one, the bucket, is "any
    other class", with what is left of the probability on either side.
    student_logits: shape (B, V), V > K. All of it gets a gradient, the weights in front included.
    teacher_log_probs: shape (B, K), a constant. Their probabilities sum to less than 1.
    indices: torch.int64, shape (B, K), the classes they belong to; different within a row.
    """
    log_student = F.log_softmax(student_logits, dim=1)
    log_rest = log_student.scatter(1, indices, -torch.inf).logsumexp(dim=1, keepdim=True)
    log_q = torch.cat([log_student.gather(1, indices), log_rest], dim=1)
    log_given = teacher_log_probs.detach()
    log_tail = torch.log1p(-log_given.exp().sum(dim=1, keepdim=True))
    log_p = torch.cat([log_given, log_tail], dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def edges() -> list[Edge]:
    """The edges of the forward direction, and a student whose other classes underflow."""
    case = top_k_kd.example()
    logits, indices = case["student_logits"], case["indices"]
    sure = logits + torch.zeros_like(logits).scatter(1, indices, 1000.0)
    forward = [edge for edge in top_k_kd.edges() if "left nothing" not in edge.title]
    return [*forward, Edge("a bucket that underflows to 0", case | {"student_logits": sure})]


def family(wrong: Wrong, student: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """The loss with its switches."""
    p, log_p, tail, log_q, log_rest = top_k_kd.events(wrong, student, teacher_log_probs, indices)
    log_tail = tail.log()
    if "guarded-tail" in wrong:
        log_tail = (tail + 1e-3).log()
    if "tail-spread" in wrong:
        log_tail = log_tail - torch.tensor(float(student.shape[1] - indices.shape[1])).log()
    if "probabilities-for-logarithms" in wrong:
        log_p = p
    parts = [reverse_terms(wrong, log_q, log_p), reverse_terms(wrong, log_rest, log_tail)]
    if "tail-without-teacher" in wrong:
        parts[1] = log_rest.exp() * log_rest
    if "tail-weighed-by-teacher" in wrong:
        parts[1] = tail * (log_rest - log_tail)
    if "probability-target" in wrong:
        sides = torch.cat([log_p, log_tail], 1), torch.cat([log_q, log_rest], 1)
        parts = list(F.kl_div(sides[0], sides[1].exp(), reduction="none").split([p.shape[1], 1], 1))
    if "squared-tail" in wrong:
        parts[1] = (log_rest.exp() - tail).square()
    if "clamped" in wrong:
        return parts[0].sum(1).clamp_min(0).mean()
    return top_k_kd.total(wrong, parts, indices.shape[1])


drill = Drill(
    id="tail-bucket",
    title="The tail bucket of a reverse KL",
    task=(
        "On-policy distillation, and a teacher behind a server that returns its $K$ largest "
        "log-probabilities per token. A colleague summed the reverse KL over these $K$ classes: "
        "the loss went below 0, and the student gave them ever less. Write the loss with one more "
        "event that holds the rest on both sides, so that neither can happen."
    ),
    minutes=10,
    level="core",
    hints=(
        "A KL divergence is never negative because either side sums to 1. Over how many events do "
        "the two sides here, and what is missing?",
        "The weights are the student's now. Where does its probability for 'any other class' come "
        "from when the K given classes have nearly all of it?",
        "In F.kl_div the second argument weighs the logarithms. Whose is it, and may it have a "
        "gradient in that form?",
    ),
    explanation=(
        "O(BV). Without the bucket the sum over K classes is smallest at q = p / e in each of "
        "them: the derivative of q log(q/p) is log(q/p) + 1, and nothing makes the rest cost "
        "anything. So the student's mass on the teacher's K best falls to P/e, where P is the "
        "teacher's, and the loss to -P/e. Clamping at 0 hides the number, and stops the gradient "
        "wherever the sum is negative. Dividing either side by its sum gives a divergence again, "
        "and one that no longer sees how much mass lies outside. With the bucket both sides sum to "
        "1: never negative, 0 only if all K + 1 agree, and a lower bound of the full reverse KL, "
        "since merging events can only lower it. What stays unseen is how the rest is shared out. "
        "The teacher's bucket must not be 0, or the value is infinite: a server's rounding can do "
        "that. The interviewer listens for: why the plain sum collapses, the minimum p / e, what "
        "the bucket does not teach."
    ),
    reference=tail_bucket_reverse_kl,
    example=top_k_kd.example,
    cases=top_k_kd.cases,
    edges=edges,
    family=family,
    knobs=chosen(
        top_k_kd.drill.knobs,
        "direction",
        "numbers",
        "teacher",
        "renormalized",
        "renormalized-both",
        "tail-ignored",
        "tail-spread",
        "tail-without-teacher",
    )
    | REVERSE
    | switches(
        """
        # bucket
        - tail-ignored: the bucket is missing: the sum over the K classes alone is no divergence. It
          can be negative, and its minimum is the student's q = p / e: the student moves its
          probability to where nothing costs. Add the event that holds the rest on both sides.
          Seen in code: verl-project/verl pull request 5041, which left it out again for that
        - clamped: the sum over the K classes is cut off at 0: that hides its sign, and where it is
          negative nothing is learned. Add the event that holds the rest on both sides.
          Seen in code: as verl-project/verl issue 7856 tells of the forward direction
        - renormalized: the teacher's K probabilities are divided by their sum: it says then that
          nothing else is possible. Keep them as they are, and add the bucket.
        - renormalized-both: both sides are divided by their sums over the K classes: what the
          student gives to all others costs nothing. Add the bucket.
        - tail-spread: the teacher's bucket is shared out evenly among the V - K other classes: it
          holds them all at once, as one event.
        - tail-without-teacher: the bucket has only the student's logarithm: the teacher's is
          missing, so the loss is not 0 for the right student.
        - squared-tail: the bucket enters as a squared difference: as an event of the divergence it
          has a logarithm like the others.
        - tail-weighed-by-teacher: the bucket's log-ratio is weighed by the teacher's probability,
          the K classes' by the student's: a divergence has one side's weights.
        # teacher
        - probabilities-for-logarithms: the teacher's K log-probabilities are exponentiated and then
          used as logarithms.
        # numbers
        - probability-target: the value is right, the gradient is NaN where the student's bucket
          underflows to 0: F.kl_div takes the logarithm of a target given as probabilities, and here
          the target has a gradient. Give logarithms, with log_target=True.
        - log-of-one-minus: log(1 - sum) of the student is -inf when the given classes have nearly
          all of its probability, and 0 times that is NaN. Take the logsumexp of the
          log-probabilities that were not given.
        - guarded-tail: a guard is added to the teacher's bucket: where it is small, that is another
          number.
        """
    ),
    sizes=top_k_kd.drill.sizes,
    gradients=("student_logits",),
    detached=("teacher_log_probs",),
)
