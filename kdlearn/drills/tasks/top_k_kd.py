"""Drill: distillation from the teacher's K most probable tokens, with one class for all others."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def top_k_kd_loss(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Return KL(teacher || student) over K + 1 events, averaged over the batch, at T = 1.

    Of the teacher only the K largest log-probabilities were stored, from a softmax over all V classes. The first K
    events are these classes; the last one, the tail, is "any other class", with what is left of the probability on
    either side.
    student_logits: shape (B, V), V > K.
    teacher_log_probs: shape (B, K), a constant. Their probabilities sum to at most 1; a tail of 0 costs nothing.
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


def cases(generator: Generator) -> list[Case]:
    """Several batches, vocabularies and K, with a teacher that leaves a good part to the tail."""
    made: list[Case] = []
    for batch, vocabulary, kept in ((6, 11, 4), (3, 9, 2), (5, 7, 3), (8, 23, 5), (2, 13, 6)):
        teacher = draws.normal(generator, batch, vocabulary, scale=1.2).log_softmax(dim=1)
        log_probs, indices = teacher.topk(kept, dim=1)
        student = draws.normal(generator, batch, vocabulary, scale=1.5)
        made.append({"student_logits": student, "teacher_log_probs": log_probs, "indices": indices})
    return made


def extremes(generator: Generator) -> list[Case]:
    """A student that is sure of the stored classes, and a teacher that left nothing to the others."""
    case = cases(generator)[0]
    student, log_probs, indices = (
        case[name] for name in ("student_logits", "teacher_log_probs", "indices")
    )
    sure = student + torch.zeros_like(student).scatter(1, indices, 500.0)
    alone = torch.zeros_like(log_probs)
    alone[:, 1:] = -800.0 + draws.normal(generator, len(log_probs), log_probs.shape[1] - 1)
    return [case | {"student_logits": sure}, case | {"teacher_log_probs": alone}]


drill = Drill(
    id="top-k-kd",
    title="Distillation from stored top-K logits",
    task=(
        "A vocabulary has 100,000 tokens, so of the teacher only the $K$ largest log-probabilities and their token "
        "numbers were stored. Write the forward KL against the student that does not pretend that these are all: "
        "$K$ classes, and one more event that holds the rest on both sides."
    ),
    minutes=12,
    level="core",
    hints=(
        "The student's log-softmax goes over all V classes; only then are the K classes picked with gather.",
        "The student's tail is a logsumexp of the classes that were not stored: put -inf where the stored ones are, "
        "with scatter. log(1 - sum) fails when the stored classes have nearly everything.",
        "rest = log_s.scatter(1, indices, -torch.inf).logsumexp(1); tail = (1 - t.exp().sum(1)).clamp_min(0); the sum "
        "of t.exp() * (t - log_s.gather(1, indices)) plus torch.xlogy(tail, tail) - tail * rest; the mean of that.",
    ),
    explanation=(
        "O(BV) for the student's softmax, O(BK) to store: at K = 64 of 100,000 that is over a thousand times "
        "less. Merging events can only lower a KL, so the loss is a lower bound of the full one, is 0 at the "
        "right student, and never negative. Renormalizing the K probabilities tells the student that nothing else "
        "is possible: it becomes over-confident, the more the flatter the teacher was. Renormalizing both sides "
        "leaves the rest of the vocabulary free, and with K = 1 the loss is 0 for every student. The plain sum "
        "over K can be negative, and its minimum gives the tail nothing. Sampling tokens from the teacher instead "
        "of cutting gives an estimate without bias. Numerics: the student's tail in logarithms, the teacher's as "
        "a probability with xlogy, so that an empty tail is 0 · log 0 = 0. The interviewer listens for: what "
        "happens to the rest, and softmax before gather."
    ),
    reference=top_k_kd_loss,
    cases=cases,
    extremes=extremes,
    sizes=lambda case: {
        "B": case["student_logits"].shape[0],
        "V": case["student_logits"].shape[1],
        "K": case["indices"].shape[1],
    },
    gradients=("student_logits",),
    detached=("teacher_log_probs",),
)


@drill.alternative
def row_by_row(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """One sample after the other, with an explicit list of the other classes and K + 1 events."""
    losses = []
    for logits, log_t, chosen in zip(student_logits, teacher_log_probs, indices, strict=True):
        others = [c for c in range(len(logits)) if c not in chosen.tolist()]
        events = torch.cat([logits[chosen], logits[others].logsumexp(0, keepdim=True)])
        p = log_t.detach().exp()
        p = torch.cat([p, (1 - p.sum()).clamp_min(0)[None]])
        losses.append(torch.xlogy(p, p).sum() - (p * events.log_softmax(0)).sum())
    return torch.stack(losses).mean()


@drill.alternative
def masked_logits(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """A boolean mask of what was stored, and F.kl_div over the joined events."""
    stored = F.one_hot(indices, student_logits.shape[1]).sum(1).bool()
    tail_logit = student_logits.masked_fill(stored, -torch.inf).logsumexp(1, keepdim=True)
    events = torch.cat([student_logits.gather(1, indices), tail_logit], dim=1)
    probabilities = teacher_log_probs.detach().exp()
    tail = torch.relu(1 - probabilities.sum(1, keepdim=True))
    target = torch.cat([probabilities, tail], dim=1)
    return F.kl_div(F.log_softmax(events, dim=1), target, reduction="batchmean")


def _events(
    student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """Student's log-probabilities and teacher's probabilities of the K + 1 events."""
    log_student = F.log_softmax(student_logits, dim=1)
    rest = log_student.scatter(1, indices, -torch.inf).logsumexp(dim=1, keepdim=True)
    p = teacher_log_probs.exp()
    tail = (1 - p.sum(dim=1, keepdim=True)).clamp_min(0)
    return torch.cat([log_student.gather(1, indices), rest], 1), torch.cat([p, tail], 1)


@drill.mistake(
    "renormalized",
    "the K probabilities were divided by their sum, as if the teacher had said nothing else: the student learns to "
    "give the tail no probability, and becomes over-confident. Keep them as they are, and add the tail.",
    seen="ACL 2025, long paper 885, which describes it",
)
def renormalized(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Take the stored classes for all there are."""
    log_q = F.log_softmax(student_logits, dim=1).gather(1, indices)
    log_p = F.log_softmax(teacher_log_probs.detach(), dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@drill.mistake(
    "renormalized-both",
    "both sides were divided by their sum over the K classes: what the student gives to all other classes costs "
    "nothing, and with K = 1 every student has loss 0. Add the tail as one more event.",
)
def renormalized_both(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Compare the stored classes among themselves."""
    log_q = F.log_softmax(student_logits.gather(1, indices), dim=1)
    log_p = F.log_softmax(teacher_log_probs.detach(), dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@drill.mistake(
    "gathered-first",
    "the student's softmax goes over the K gathered logits only, so its probabilities sum to 1 there and the tail is "
    "out of sight, while the teacher's do not. log_softmax over all V classes first, gather then.",
)
def gathered_first(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Gather logits, then take the softmax of those."""
    log_q = F.log_softmax(student_logits.gather(1, indices), dim=1)
    return F.kl_div(log_q, teacher_log_probs.detach(), reduction="batchmean", log_target=True)


@drill.mistake(
    "tail-ignored",
    "the tail is missing: the sum over the K stored classes alone is no divergence. It can be negative, and its "
    "minimum gives the other classes nothing. Add the event that holds the rest on both sides.",
)
def tail_ignored(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Sum over what was stored."""
    log_q = F.log_softmax(student_logits, dim=1).gather(1, indices)
    return F.kl_div(log_q, teacher_log_probs.detach(), reduction="batchmean", log_target=True)


@drill.mistake(
    "own-top-k",
    "the student's own K largest are compared with the teacher's, rank by rank: these are different classes. Take the "
    "student's values at the stored indices.",
)
def own_top_k(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Ignore which classes were stored."""
    own = student_logits.topk(indices.shape[1], dim=1).indices
    return top_k_kd_loss(student_logits, teacher_log_probs, own)


@drill.mistake(
    "tail-spread",
    "the teacher's tail is spread evenly over the V - K other classes, and each is compared: that teaches the student "
    "a uniform tail, which nobody said. Compare the sums of the tails as one event.",
)
def tail_spread(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Make up probabilities for what was not stored."""
    p = teacher_log_probs.detach().exp()
    others = student_logits.shape[1] - indices.shape[1]
    tail = (1 - p.sum(dim=1, keepdim=True)).clamp_min(0) / others
    target = tail.expand_as(student_logits).scatter(1, indices, p)
    return F.kl_div(F.log_softmax(student_logits, dim=1), target, reduction="batchmean")


@drill.mistake(
    "mean-reduction",
    "your loss is K + 1 times too small (K = {K}): it is averaged over the events as well. Sum over the events of a "
    "sample, then take the mean over samples.",
)
def mean_reduction(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Take the mean over everything."""
    loss = top_k_kd_loss(student_logits, teacher_log_probs, indices)
    return loss / (indices.shape[1] + 1)


@drill.mistake(
    "reversed",
    "this is KL(student || teacher) over the K + 1 events: the teacher comes first. F.kl_div(log q, p) is KL(p || q).",
)
def swapped(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Swap the sides."""
    log_q, p = _events(student_logits, teacher_log_probs.detach(), indices)
    return (log_q.exp() * (log_q - p.log())).sum(dim=1).mean()


@drill.mistake(
    "teacher-gradient",
    "the stored log-probabilities received a gradient: they are constants. Use teacher_log_probs.detach().",
)
def live_teacher(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Leave the stored values in the graph."""
    return F.kl_div(*_events(student_logits, teacher_log_probs, indices), reduction="batchmean")


@drill.mistake(
    "log-of-one-minus",
    "log(1 - sum) of the student is -inf when the stored classes have nearly all of its probability: 1 - sum rounds "
    "to 0 long before the tail is 0. Take the logsumexp of the log-probabilities that were not stored.",
)
def unstable(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Subtract the student's stored probabilities from 1."""
    log_q = F.log_softmax(student_logits, dim=1).gather(1, indices)
    log_rest = (1 - log_q.exp().sum(dim=1, keepdim=True)).clamp_min(0).log()
    _, p = _events(student_logits, teacher_log_probs.detach(), indices)
    return F.kl_div(torch.cat([log_q, log_rest], dim=1), p, reduction="batchmean")


@drill.mistake(
    "empty-tail",
    "where the teacher's stored probabilities sum to 1, its tail is 0, and 0 · log 0 is NaN when written out: the "
    "limit is 0. Use torch.xlogy, or F.kl_div with probabilities as target.",
)
def empty_tail(student_logits: Tensor, teacher_log_probs: Tensor, indices: Tensor) -> Tensor:
    """Take the logarithm of a tail of 0."""
    log_q, p = _events(student_logits, teacher_log_probs.detach(), indices)
    log_p = torch.cat([teacher_log_probs.detach(), p[:, -1:].log()], dim=1)
    return (p * (log_p - log_q)).sum(dim=1).mean()
