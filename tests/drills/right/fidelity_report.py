"""Right solutions of fidelity-report, written otherwise."""

import torch
from torch.nn import functional as F


def by_loops(student_logits, teacher_logits, labels):
    """One row at a time."""
    right = same = 0
    total = 0.0
    for s, t, y in zip(student_logits, teacher_logits, labels, strict=True):
        right += int(s.argmax() == y)
        same += int(s.argmax() == t.argmax())
        p, q = (t.softmax(0), s.softmax(0))
        total += float((p * (p / q).log()).sum())
    n = len(labels)
    return {"kl": total / n, "agreement": same / n, "accuracy": right / n}


def by_cross_entropy(student_logits, teacher_logits, labels):
    """Top-k and cross-entropy."""
    top = student_logits.topk(1, dim=1).indices.flatten()
    p = teacher_logits.softmax(1)
    entropy = torch.special.entr(p).sum(1).mean()
    return {
        "accuracy": 1 - (top != labels).float().mean(dtype=torch.float64).item(),
        "agreement": float((top - teacher_logits.max(1).indices).eq(0).sum()) / len(top),
        "kl": float(F.cross_entropy(student_logits, p) - entropy),
    }


RIGHT = (by_loops, by_cross_entropy)
