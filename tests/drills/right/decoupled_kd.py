"""Right solutions of decoupled-kd, written otherwise."""

import torch
from torch.nn import functional as F


def by_selection(student_logits, teacher_logits, labels, *, temperature, alpha, beta):
    """Boolean selection of the other classes, before their own softmax."""
    label = F.one_hot(labels, student_logits.shape[1]).bool()
    sides = [side / temperature for side in (student_logits, teacher_logits.detach())]
    rest = [side[~label].view(len(labels), -1).log_softmax(1) for side in sides]
    logs = [side.log_softmax(1) for side in sides]
    two = [
        torch.stack([log[label], log.masked_fill(label, -torch.inf).logsumexp(1)], 1)
        for log in logs
    ]
    tckd, nckd = ((q[1].exp() * (q[1] - q[0])).sum(1) for q in (two, rest))
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


def row_by_row(student_logits, teacher_logits, labels, *, temperature, alpha, beta):
    """A loop over the samples, with the classes of each picked by their numbers."""
    losses = []
    for s, t, label in zip(student_logits, teacher_logits.detach(), labels.tolist(), strict=True):
        others = [number for number in range(len(s)) if number != label]
        s, t = s / temperature, t / temperature
        events = [torch.stack([z[label], z[others].logsumexp(0)]).log_softmax(0) for z in (s, t)]
        rest = [z[others].log_softmax(0) for z in (s, t)]
        tckd, nckd = (F.kl_div(q, p, reduction="sum", log_target=True) for q, p in (events, rest))
        losses.append(alpha * tckd + beta * nckd)
    return temperature**2 * sum(losses) / len(losses)


RIGHT = (by_selection, row_by_row)
