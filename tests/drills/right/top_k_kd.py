"""Right solutions of top-k-kd, written otherwise."""

import torch
from torch.nn import functional as F


def row_by_row(student_logits, teacher_log_probs, indices):
    """One sample after the other, with an explicit list of the other classes and K + 1 events."""
    losses = []
    for logits, log_t, chosen in zip(student_logits, teacher_log_probs, indices, strict=True):
        others = [c for c in range(len(logits)) if c not in chosen.tolist()]
        events = torch.cat([logits[chosen], logits[others].logsumexp(0, keepdim=True)])
        p = log_t.detach().exp()
        p = torch.cat([p, (1 - p.sum()).clamp_min(0)[None]])
        losses.append(torch.xlogy(p, p).sum() - (p * events.log_softmax(0)).sum())
    return torch.stack(losses).mean()


def masked_logits(student_logits, teacher_log_probs, indices):
    """A boolean mask of what was stored, and F.kl_div over the joined events."""
    stored = F.one_hot(indices, student_logits.shape[1]).sum(1).bool()
    tail_logit = student_logits.masked_fill(stored, -torch.inf).logsumexp(1, keepdim=True)
    events = torch.cat([student_logits.gather(1, indices), tail_logit], dim=1)
    probabilities = teacher_log_probs.detach().exp()
    tail = torch.relu(1 - probabilities.sum(1, keepdim=True))
    target = torch.cat([probabilities, tail], dim=1)
    return F.kl_div(F.log_softmax(events, dim=1), target, reduction="batchmean")


RIGHT = (row_by_row, masked_logits)
