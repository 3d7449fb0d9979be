"""Right solutions of linear-attention-map, written otherwise."""

import torch
from torch.nn import functional as F


def through_a_softmax(queries, keys):
    """The logarithm of the products in place of scores: the softmax divides by their sum."""

    def log_feature(x):
        return torch.where(x > 0, x.clamp(min=0).log1p(), x.clamp(max=0))

    pairs = log_feature(queries)[..., :, None, :] + log_feature(keys)[..., None, :, :]
    scores = pairs.logsumexp(-1)
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1)


def place_by_place(queries, keys):
    """Each query with the keys that it may see, and zeros behind."""

    def feature(x):
        return F.relu(x) + x.clamp(max=0).exp()

    length, rows = queries.shape[2], []
    for place in range(length):
        weights = torch.einsum(
            "bhd,bhsd->bhs", feature(queries[:, :, place]), feature(keys[:, :, : place + 1])
        )
        rows.append(F.pad(weights / weights.sum(-1, keepdim=True), (0, length - place - 1)))
    return torch.stack(rows, 2)


RIGHT = (through_a_softmax, place_by_place)
