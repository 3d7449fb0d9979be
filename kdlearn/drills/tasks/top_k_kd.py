"""Drill: distillation from the teacher's K most probable tokens, with one class for all others."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def top_k_kd_loss(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Return KL(teacher || student) over K + 1 events, averaged over the batch, at T = 1.

    Of the teacher only the K largest log-probabilities were stored, from a softmax over all V
    classes. The first K events are these classes; the last one, the tail, is "any other class",
    with what is left of the probability on either side.
    student_logits: shape (B, V), V > K.
    teacher_log_probs: shape (B, K), a constant. Their probabilities sum to at most 1; a tail of 0
    costs nothing.
    indices: torch.int64, shape (B, K), the classes they belong to; different within a row.
    """
    log_student = F.log_softmax(student_logits, dim=1)
    log_stored = log_student.gather(1, indices)
    log_rest = log_student.scatter(1, indices, -torch.inf).logsumexp(dim=1)
    log_teacher = teacher_log_probs.detach()
    tail = (1 - log_teacher.exp().sum(dim=1)).clamp_min(0)
    stored_terms = (log_teacher.exp() * (log_teacher - log_stored)).sum(dim=1)
    tail_terms = torch.xlogy(tail, tail) - tail * log_rest
    return (stored_terms + tail_terms).mean()


def example() -> Case:
    """Two rows, four classes of which two were stored."""
    student = torch.tensor([[1.0, 0.0, 2.0, -1.0], [0.0, 3.0, 1.0, 0.0]], dtype=torch.float64)
    probabilities = torch.tensor([[0.5, 0.25], [0.6, 0.3]], dtype=torch.float64)
    indices = torch.tensor([[0, 2], [1, 3]])
    return {"student_logits": student, "teacher_log_probs": probabilities.log(), "indices": indices}


def cases(generator: Generator) -> list[Case]:
    """Several batches, vocabularies and K, with a teacher that leaves a good part to the tail."""
    made: list[Case] = []
    for batch, vocabulary, kept in ((6, 11, 4), (3, 9, 2), (5, 7, 3), (8, 23, 5), (2, 13, 6)):
        teacher = draws.normal(generator, batch, vocabulary, scale=1.2).log_softmax(dim=1)
        log_probs, indices = teacher.topk(kept, dim=1)
        student = draws.normal(generator, batch, vocabulary, scale=1.5)
        made.append({"student_logits": student, "teacher_log_probs": log_probs, "indices": indices})
    return made


def edges() -> list[Edge]:
    """A sure student, a teacher that left nothing, one stored class, all but one, any order."""
    case = example()
    student, log_probs, indices = (case[name] for name in case)
    sure = student + torch.zeros_like(student).scatter(1, indices, 500.0)
    alone = torch.full_like(log_probs, -800.0)
    alone[:, 0] = 0.0
    every = draws.normal(Generator().manual_seed(0), 2, 3).log_softmax(1)
    return [
        Edge(
            "a student that is sure of the stored classes",
            case | {"student_logits": sure},
            "1 - sum rounds to 0 there: logsumexp of the rest does not.",
        ),
        Edge(
            "a teacher that left nothing to the others",
            case | {"teacher_log_probs": alone},
            "0 · log 0 is NaN when written out: torch.xlogy gives its limit.",
        ),
        Edge(
            "one stored class",
            case | {"teacher_log_probs": log_probs[:, :1], "indices": indices[:, :1]},
        ),
        Edge(
            "all classes but one",
            {
                "student_logits": student[:, :3],
                "teacher_log_probs": every[:, :2],
                "indices": torch.tensor([[2, 0], [1, 2]]),
            },
        ),
        Edge("one row", {name: value[:1] for name, value in case.items()}),
        Edge(
            "float32",
            case | {"student_logits": student.float(), "teacher_log_probs": log_probs.float()},
        ),
    ]


class Events(NamedTuple):
    """The K + 1 events on both sides, with faults; each of shape (B, K) or (B, 1)."""

    p: Tensor
    log_p: Tensor
    tail: Tensor
    log_q: Tensor
    log_rest: Tensor


def events(wrong: Wrong, student: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Events:
    """Make the events from the student's logits and what was stored of the teacher."""
    log_p, k = teacher_log_probs.detach(), indices.shape[1]
    if "own-top-k" in wrong:
        indices = student.topk(k, dim=1).indices
    if "first-k" in wrong:
        indices = torch.arange(k).expand_as(indices)
    p = log_p.exp()
    if "logs-as-probabilities" in wrong:
        p = log_p
    if "exp-of-softmax" in wrong:
        p = log_p.softmax(1)
    tail = (1 - p.sum(1, keepdim=True)).clamp_min(0)
    if "softmax-twice" in wrong:
        student = student.softmax(1)
    log_s = student.log_softmax(0 if "wrong-dimension" in wrong else 1)
    stored = log_s.gather(1, indices)
    rest = log_s.scatter(1, indices, -torch.inf).logsumexp(1, keepdim=True)
    if "log-of-one-minus" in wrong:
        rest = (1 - stored.exp().sum(1, keepdim=True)).clamp_min(0).log()
    if "guarded-one-minus" in wrong:
        rest = (1 - stored.exp().sum(1, keepdim=True)).clamp_min(1e-12).log()
    if "tail-detached" in wrong:
        rest = rest.detach()
    if {"renormalized", "renormalized-both"} & wrong:
        log_p = log_p.log_softmax(1)
        p = log_p.exp()
    if {"gathered-first", "renormalized-both"} & wrong:
        stored = student.gather(1, indices).log_softmax(1)
    return Events(p, log_p, tail, stored, rest)


def total(wrong: Wrong, parts: list[Tensor], k: int) -> Tensor:
    """Return the sum over the events that count, averaged over the batch, with faults."""
    if "mean-over-k" in wrong:
        parts = [parts[0] / k, parts[1]]
    if {"renormalized", "renormalized-both", "gathered-first", "tail-ignored"} & wrong:
        parts = parts[:1]
    if "tail-alone" in wrong:
        parts = parts[1:]
    return reduced(wrong, torch.cat(parts, 1))


def reduced(wrong: Wrong, terms: Tensor) -> Tensor:
    """Return the sum over events, averaged over the batch, with faults."""
    if "mean-reduction" in wrong:
        return terms.mean()
    return terms.sum() if "sum-reduction" in wrong else terms.sum(1).mean()


def family(wrong: Wrong, student: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """The loss with its switches."""
    p, log_p, tail, log_q, log_rest = events(wrong, student, teacher_log_probs, indices)
    if "tail-spread" in wrong:
        others = student.shape[1] - indices.shape[1]
        target = (tail / others).expand_as(student).scatter(1, indices, p)
        terms = torch.xlogy(target, target) - target * student.log_softmax(1)
        return reduced(wrong, terms)
    own = tail * tail.log() if "empty-tail" in wrong else torch.xlogy(tail, tail)
    if "tail-without-teacher" in wrong:
        own = torch.zeros_like(own)
    parts = [p * (log_p - log_q), own - tail * log_rest]
    if "reversed" in wrong:
        parts = [log_q.exp() * (log_q - log_p), log_rest.exp() * (log_rest - tail.log())]
    if "cross-entropy" in wrong:
        parts = [-p * log_q, -tail * log_rest]
    return total(wrong, parts, indices.shape[1])


drill = Drill(
    id="top-k-kd",
    title="Distillation from stored top-K logits",
    task=(
        "A vocabulary has 100,000 tokens, so of the teacher only the $K$ largest log-probabilities "
        "and their token numbers were stored. Write the forward KL against the student that does "
        "not pretend that these are all: $K$ classes, and one more event that holds the rest on "
        "both sides."
    ),
    minutes=12,
    level="core",
    hints=(
        "The student has a probability for each of V classes. Which comes first for it: the "
        "softmax, or picking the K stored classes?",
        "The student's tail is a sum of many small probabilities, in logarithms. Why does log(1 - "
        "sum) fail where the stored classes have nearly everything, and what adds logarithms "
        "instead?",
        "The teacher's tail can be 0. What should 0 · log 0 add to the loss, and which function "
        "of torch knows that?",
    ),
    explanation=(
        "O(BV) for the student's softmax, O(BK) to store: at K = 64 of 100,000 that is over a "
        "thousand times less. Merging events can only lower a KL, so the loss is a lower bound of "
        "the full one, is 0 at the right student, and never negative. Renormalizing the K "
        "probabilities tells the student that nothing else is possible: it becomes over-confident, "
        "the more the flatter the teacher was. Renormalizing both sides leaves the rest of the "
        "vocabulary free, and with K = 1 the loss is 0 for every student. The plain sum over K can "
        "be negative, and its minimum gives the tail nothing. Sampling tokens from the teacher "
        "instead of cutting gives an estimate without bias. Numerics: the student's tail in "
        "logarithms, the teacher's as a probability with xlogy, so that an empty tail is 0 · log 0 "
        "= 0. The interviewer listens for: what happens to the rest, and softmax before gather."
    ),
    reference=top_k_kd_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # events
        - renormalized: the K probabilities were divided by their sum, as if the teacher had said
          nothing else: the student learns to give the tail no probability, and becomes
          over-confident. Keep them as they are, and add the tail.
          Seen claimed: ACL 2025, long paper 885, which describes it
        - renormalized-both: both sides were divided by their sum over the K classes: what the
          student gives to all other classes costs nothing, and with K = 1 every student has loss 0.
          Add the tail as one more event.
        - gathered-first: the student's softmax goes over the K gathered logits only, so its
          probabilities sum to 1 there and the tail is out of sight, while the teacher's do not.
          log_softmax over all V classes first, gather then.
        - tail-ignored: the tail is missing: the sum over the K stored classes alone is no
          divergence. It can be negative, and its minimum gives the other classes nothing. Add the
          event that holds the rest on both sides.
        - tail-spread: the teacher's tail is spread evenly over the V - K other classes, and each is
          compared: that teaches the student a uniform tail, which nobody said. Compare the sums of
          the tails as one event.
        - tail-alone: only the tail is compared: the K stored classes are missing.
        - tail-without-teacher: the tail of the teacher has no logarithm of its own: its entropy is
          missing, so the loss is not 0 for the right student.
        # classes
        - own-top-k: the student's own K largest are compared with the teacher's, rank by rank:
          these are different classes. Take the student's values at the stored indices.
        - first-k: the first K classes of the student are taken: take those of the stored indices.
        # direction
        - reversed: this is KL(student || teacher) over the K + 1 events: the teacher comes first.
          F.kl_div(log q, p) is KL(p || q).
        - cross-entropy: this is the cross-entropy over the K + 1 events: the teacher's entropy is
          still in it.
        # reduction
        - mean-reduction: your loss is K + 1 times too small (K = {K}): it is averaged over the
          events as well. Sum over the events of a sample, then take the mean over samples.
        - mean-over-k: the K stored terms are averaged, not summed.
        - sum-reduction: your loss is B = {B} times too large: it is summed over the batch, not
          averaged.
        # dimension
        - wrong-dimension: the student's softmax runs over the batch, dim=0: the vocabulary is
          dim=1.
        # teacher
        - logs-as-probabilities: the stored log-probabilities are used as probabilities: exp() is
          missing.
        - exp-of-softmax: softmax is applied to the stored log-probabilities: that renormalizes
          them. exp() gives the probabilities.
        # student
        - softmax-twice: softmax is applied to the student before log_softmax.
        - tail-detached: the student's tail sends no gradient: it belongs to the graph.
        # numbers
        - log-of-one-minus: log(1 - sum) of the student is -inf when the stored classes have nearly
          all of its probability: 1 - sum rounds to 0 long before the tail is 0. Take the logsumexp
          of the log-probabilities that were not stored.
        - guarded-one-minus: log(1 - sum + guard) of the student is wrong when the stored classes
          have nearly all of its probability: take the logsumexp of the log-probabilities that were
          not stored.
        - empty-tail: where the teacher's stored probabilities sum to 1, its tail is 0, and 0 · log
          0 is NaN when written out: the limit is 0. Use torch.xlogy, or F.kl_div with probabilities
          as target.
        """
    ),
    sizes=lambda case: {
        "B": case["student_logits"].shape[0],
        "V": case["student_logits"].shape[1],
        "K": case["indices"].shape[1],
    },
    gradients=("student_logits",),
    detached=("teacher_log_probs",),
)
