"""Right solutions of tail-bucket, written otherwise."""

import torch


def row_by_row(student_logits, teacher_log_probs, indices):
    """The events of each row, the bucket from the logits that are left over."""
    losses = []
    for logits, given, classes in zip(student_logits, teacher_log_probs, indices, strict=True):
        given = given.detach()
        left = torch.ones(len(logits), dtype=torch.bool)
        left[classes] = False
        parts = torch.cat([logits[classes], logits[left].logsumexp(0, keepdim=True)])
        log_q = parts - logits.logsumexp(0)
        log_p = torch.cat([given, (1 - given.exp().sum()).log().reshape(1)])
        losses.append((log_q.exp() * (log_q - log_p)).sum())
    return torch.stack(losses).mean()


def constant_logarithms(student_logits, teacher_log_probs, indices):
    """The log-ratio as a constant: the part of the gradient that is left out is zero."""
    log_q = student_logits.log_softmax(1)
    teacher = teacher_log_probs.detach()
    chosen = torch.zeros_like(student_logits, dtype=torch.bool).scatter(1, indices, True)
    log_rest = log_q.masked_fill(chosen, -torch.inf).logsumexp(1)
    log_tail = (1 - teacher.exp().sum(1)).log()
    ratios = torch.zeros_like(log_q).scatter(1, indices, log_q.gather(1, indices) - teacher)
    ratios = torch.where(chosen, ratios, (log_rest - log_tail)[:, None]).detach()
    return (log_q.exp() * ratios).sum() / len(log_q)


RIGHT = (row_by_row, constant_logarithms)
