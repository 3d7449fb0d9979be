"""Right solutions of marginmse, written otherwise."""

import torch


def one_difference(queries, positives, negatives, teacher_positive, teacher_negative):
    """The margin is the query's product with a difference of documents."""
    margins = ((positives[:, None] - negatives) @ queries[..., None]).squeeze(-1)
    wanted = (teacher_positive.unsqueeze(1) - teacher_negative).detach()
    return (margins - wanted).pow(2).mean()


def negative_by_negative(queries, positives, negatives, teacher_positive, teacher_negative):
    """One negative of each query after the other."""
    positive = torch.einsum("bd,bd->b", queries, positives)
    count, total = negatives.shape[1], 0.0
    for number in range(count):
        margin = positive - (queries * negatives[:, number]).sum(1)
        wanted = teacher_positive - teacher_negative[:, number]
        total = total + torch.nn.functional.mse_loss(margin, wanted.detach())
    return total / count


RIGHT = (one_difference, negative_by_negative)
