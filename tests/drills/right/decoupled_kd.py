"""Right solutions of decoupled-kd, written otherwise."""

import torch
from torch.nn import functional as F


def _parts(s, t, y, temperature, *, exclude=True):
    """TCKD and NCKD for each row, and the teacher's probability of the label."""
    p, q = ((t / temperature).softmax(1), (s / temperature).softmax(1))
    p_y, q_y = (p.gather(1, y[:, None]), q.gather(1, y[:, None]))
    tckd = (p_y * (p_y / q_y).log() + (1 - p_y) * ((1 - p_y) / (1 - q_y)).log()).squeeze(1)
    label = F.one_hot(y, s.shape[1]).bool()
    hide = label if exclude else torch.zeros_like(label)
    log_p = (t / temperature).masked_fill(hide, -torch.inf).log_softmax(1)
    log_q = (s / temperature).masked_fill(hide, -torch.inf).log_softmax(1)
    terms = (log_p.exp() * (log_p - log_q)).masked_fill(label, 0)
    return (tckd, terms.sum(1), p_y.squeeze(1))


def in_probabilities(student_logits, teacher_logits, labels, *, temperature, alpha, beta):
    """Probabilities in place of logarithms."""
    tckd, nckd, _ = _parts(student_logits, teacher_logits.detach(), labels, temperature)
    return (alpha * tckd + beta * nckd).mean() * temperature**2


def from_the_identity(student_logits, teacher_logits, labels, *, temperature, alpha, beta):
    """NCKD as what plain distillation has beyond TCKD, over 1 - p_y."""
    t = teacher_logits.detach()
    tckd, _, p_y = _parts(student_logits, t, labels, temperature)
    log_p, log_q = ((z / temperature).log_softmax(1) for z in (t, student_logits))
    whole = (log_p.exp() * (log_p - log_q)).sum(1)
    nckd = (whole - tckd) / (1 - p_y)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


RIGHT = (in_probabilities, from_the_identity)
