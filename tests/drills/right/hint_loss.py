"""Right solutions of hint-loss, written otherwise."""

import torch
from torch.nn import functional as F


def with_einsum(student, teacher, weight):
    """Sum over the student's channels."""
    projected = torch.einsum("bshw,ts->bthw", student, weight)
    return (projected - teacher.detach()).square().mean()


def channels_last(student, teacher, weight):
    """A linear layer on the last dimension."""
    projected = F.linear(student.movedim(1, -1), weight).movedim(-1, 1)
    gap = projected - teacher.detach()
    return (gap * gap).sum() / gap.numel()


RIGHT = (with_einsum, channels_last)
