"""Right solutions of ensemble-targets, written otherwise."""

import torch


def teacher_by_teacher(teacher_logits, weights, *, temperature):
    """A running sum, divided at the end."""
    total = torch.zeros_like(teacher_logits[0])
    with torch.no_grad():
        for logits, weight in zip(teacher_logits, weights, strict=True):
            powers = ((logits - logits.amax(1, keepdim=True)) / temperature).exp()
            total += weight * powers / powers.sum(1, keepdim=True)
        return total / weights.sum()


def in_logarithms(teacher_logits, weights, *, temperature):
    """The weighted mean as a logsumexp over teachers."""
    log_p = (teacher_logits.detach() / temperature).log_softmax(2)
    log_w = weights.log().log_softmax(0)
    return (log_p + log_w[:, None, None]).logsumexp(0).exp()


RIGHT = (teacher_by_teacher, in_logarithms)
