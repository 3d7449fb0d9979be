"""Right solutions of attention-rollout, written otherwise."""

import torch


def with_einsum(attentions):
    """From the last layer down."""
    length = attentions[0].shape[-1]
    result = torch.eye(length, dtype=attentions[0].dtype).repeat(len(attentions[0]), 1, 1)
    for attention in reversed(attentions):
        mixed = (attention.mean(1) + torch.eye(length)) / 2
        result = torch.einsum("bij,bjk->bik", result, mixed)
    return result


def with_normalization(attentions):
    """Add the identity, then divide each row by its sum."""
    stacked = torch.stack(attentions).mean(dim=2) + torch.eye(attentions[0].shape[-1])
    stacked = stacked / stacked.sum(dim=-1, keepdim=True)
    result = stacked[0]
    for layer in stacked[1:]:
        result = layer.matmul(result)
    return result


RIGHT = (with_einsum, with_normalization)
