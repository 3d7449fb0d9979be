"""Right solutions of at-layers, written otherwise."""

import torch
from torch.nn import functional as F


def _sizes(one, other):
    """The smaller side in each dimension."""
    return (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))


def _pooled(features, size):
    """Features at another size."""
    return F.adaptive_avg_pool2d(features, size)


def with_cosines(student, teacher):
    """The squared distance of two vectors of length 1 is 2 - 2 cos."""
    if len(student) != len(teacher):
        raise ValueError("unequal numbers of layers")
    losses = []
    for s, t in zip(student, teacher, strict=True):
        size = _sizes(s, t)
        mine, theirs = (_pooled(side, size).pow(2).sum(1).flatten(1) for side in (s, t.detach()))
        losses.append((2 - 2 * F.cosine_similarity(mine, theirs)).mean() / (size[0] * size[1]))
    return torch.stack(losses).sum()


def one_dimension_at_a_time(student, teacher):
    """Pool each side only where it is larger."""
    if len(teacher) != len(student):
        raise ValueError("unequal numbers of layers")
    total = 0.0 * student[0].sum()
    for number in range(len(student)):
        maps = []
        for mine, others in ((student, teacher), (teacher, student)):
            features, other = (mine[number], others[number])
            rows = min(features.shape[2], other.shape[2])
            columns = min(features.shape[3], other.shape[3])
            features = F.adaptive_avg_pool2d(features, (rows, features.shape[3]))
            features = F.adaptive_avg_pool2d(features, (rows, columns))
            energy = torch.einsum("bchw,bchw->bhw", features, features)
            maps.append(energy / energy.square().sum((1, 2), keepdim=True).sqrt())
        total = total + (maps[0] - maps[1].detach()).pow(2).mean()
    return total


RIGHT = (with_cosines, one_dimension_at_a_time)
