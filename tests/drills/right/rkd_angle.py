"""Right solutions of rkd-angle, written otherwise."""

import torch
from torch.nn import functional as F


def _huber(gap):
    """The Huber function with beta 1."""
    size = gap.abs()
    return torch.where(size < 1, 0.5 * gap.square(), size - 0.5)


def _cosines(e):
    """Cosines at each sample."""
    d = F.normalize(e[None] - e[:, None], dim=2)
    return torch.einsum("ijd,ikd->ijk", d, d)


def by_einsum(student, teacher):
    """Einsum, and the Huber function written out."""
    return _huber(_cosines(student) - _cosines(teacher.detach())).mean()


def vertex_by_vertex(student, teacher):
    """One sample at a time, in order to save memory."""
    total = student.new_zeros(())
    for i in range(len(student)):
        one, other = (F.normalize(e - e[i], dim=1) for e in (student, teacher.detach()))
        total = total + F.huber_loss(one @ one.T, other @ other.T, reduction="sum")
    return total / len(student) ** 3


def _where_there_is_a_direction(e):
    """Differences over their lengths, which are 1 where there is none."""
    d = e[None] - e[:, None]
    squares = (d * d).sum(-1)
    d = d / torch.where(squares > 0, squares, 1.0).sqrt()[..., None]
    return d @ d.mT


def without_a_guard(student, teacher):
    """No eps: no length of 0 is ever divided by."""
    cosines = [_where_there_is_a_direction(e) for e in (student, teacher.detach())]
    return F.smooth_l1_loss(*cosines)


def by_cosine_similarity(student, teacher):
    """All pairs of differences at once."""
    cosines = []
    for e in (student, teacher.detach()):
        d = e[None] - e[:, None]
        cosines.append(F.cosine_similarity(d[:, :, None], d[:, None], dim=-1))
    return F.smooth_l1_loss(*cosines)


RIGHT = (by_einsum, vertex_by_vertex, without_a_guard, by_cosine_similarity)
