"""Right solutions of kd-total, written otherwise."""

import torch
from torch.nn import functional as F


def _soft(s, t, temperature):
    """T² · KL."""
    log_q, log_p = ((s / temperature).log_softmax(1), (t.detach() / temperature).log_softmax(1))
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()


def written_out(student_logits, teacher_logits, labels, *, temperature, weight):
    """Both terms by their definitions."""
    rows = torch.arange(len(labels))
    hard = -student_logits.log_softmax(1)[rows, labels].mean()
    return hard + weight * (_soft(student_logits, teacher_logits, temperature) - hard)


def by_cross_entropies(student_logits, teacher_logits, labels, *, temperature, weight):
    """Two cross-entropies, less the teacher's entropy."""
    p = (teacher_logits.detach() / temperature).softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    soft = F.cross_entropy(student_logits / temperature, p) - entropy
    one_hot = F.one_hot(labels, student_logits.shape[1]).to(p.dtype)
    hard = F.cross_entropy(student_logits, one_hot)
    return torch.lerp(hard, temperature**2 * soft, weight)


RIGHT = (written_out, by_cross_entropies)
