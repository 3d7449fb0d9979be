"""Right solutions of attention-weights, written otherwise."""

import torch


def with_inf(queries, keys, mask):
    """Exponentials and their sum."""
    scores = torch.einsum("bhld,bhsd->bhls", queries, keys) / queries.shape[-1] ** 0.5
    scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
    scores = scores - scores.amax(-1, keepdim=True).detach()
    powers = scores.exp() * mask[:, None, None, :]
    total = powers.sum(-1, keepdim=True)
    return powers / torch.where(total == 0, torch.ones_like(total), total)


def scaled_first(queries, keys, mask):
    """Scale the queries, and add the mask to the scores."""
    bias = torch.zeros(mask.shape, dtype=queries.dtype).masked_fill(~mask, -torch.inf)
    scores = queries * queries.shape[-1] ** (-0.5) @ keys.mT + bias[:, None, None]
    hidden = ~mask.any(1)[:, None, None, None]
    weights = torch.softmax(scores.masked_fill(hidden, 0), dim=-1)
    return torch.where(hidden, torch.zeros_like(weights), weights)


RIGHT = (with_inf, scaled_first)
