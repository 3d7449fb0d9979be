"""Drill: scaled dot-product attention weights with a mask."""

import math

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def attention_weights(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Return how much each query attends to each key, shape (B, heads, L, S).

    queries: (B, heads, L, D). keys: (B, heads, S, D). mask: bool, (B, S), True at keys that may be attended. Each row
    sums to 1 over the keys that may be attended, others have 0. Where no key may be attended, the row is all 0.
    """
    scores = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    allowed = mask[:, None, None, :]
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~allowed, 0)


def cases(generator: Generator) -> list[Case]:
    """Unequal numbers of queries and keys; every sequence keeps a key and hides one."""
    made = []
    for batch, heads, queries, keys, width in ((2, 3, 4, 5, 6), (3, 2, 5, 4, 8), (1, 4, 3, 6, 5)):
        mask = torch.rand(batch, keys, generator=generator) > 0.4
        mask[:, 0], mask[:, -1] = True, False
        made.append(
            {
                "queries": draws.normal(generator, batch, heads, queries, width),
                "keys": draws.normal(generator, batch, heads, keys, width),
                "mask": mask,
            }
        )
    return made


def extremes(generator: Generator) -> list[Case]:
    """A sequence in which nothing may be attended."""
    case = cases(generator)[0]
    mask = case["mask"].clone()
    mask[0] = False
    return [case | {"mask": mask}]


drill = Drill(
    id="attention-weights",
    title="Attention weights",
    task="Write the weights of scaled dot-product attention for a padded batch, without the values.",
    minutes=6,
    level="warm-up",
    hints=(
        "Which of the three dimensions B, L, S does the softmax run over, and where does the mask go: before or "
        "after it?",
        "Scores are divided by the root of the width of a head. Hidden keys get a score that the softmax turns into 0.",
        "scores = Q @ K.transpose(-2, -1) / sqrt(D), masked_fill(~mask[:, None, None, :], lowest), softmax(-1), "
        "then zeros",
    ),
    explanation=(
        "O(B h L S D) time, O(B h L S) memory: the memory is why fast kernels never form this matrix, and why a "
        "distillation that wants it must ask for the slow path. The root of D keeps the scores' variance at 1 for "
        "independent entries; without it the softmax saturates as heads get wider. The mask goes before the "
        "softmax, or rows no longer sum to 1. A row of nothing but -inf is NaN, and one NaN spoils the batch's "
        "loss. The interviewer listens for the dimension, the root, and padded rows. Source: Vaswani et al., "
        "NeurIPS 2017, section 3.2.1."
    ),
    reference=attention_weights,
    cases=cases,
    extremes=extremes,
    gradients=("queries", "keys"),
)


@drill.alternative
def with_inf(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Exponentials and their sum."""
    scores = torch.einsum("bhld,bhsd->bhls", queries, keys) / queries.shape[-1] ** 0.5
    scores = scores - scores.amax(-1, keepdim=True).detach()
    powers = scores.exp() * mask[:, None, None, :]
    total = powers.sum(-1, keepdim=True)
    return powers / torch.where(total == 0, torch.ones_like(total), total)


@drill.alternative
def scaled_first(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Scale the queries, and add the mask to the scores."""
    bias = torch.zeros(mask.shape, dtype=queries.dtype).masked_fill(~mask, -1e9)[:, None, None]
    weights = torch.softmax((queries * queries.shape[-1] ** -0.5) @ keys.mT + bias, dim=-1)
    return torch.where(mask[:, None, None], weights, torch.zeros_like(weights))


def _weights(queries: Tensor, keys: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The right weights with another scale."""
    return attention_weights(queries * scale * math.sqrt(queries.shape[-1]), keys, mask)


@drill.mistake(
    "not-scaled",
    "the scores are not divided by the root of the width: wide heads give large scores, and the softmax puts "
    "everything on one key, where its gradient is 0.",
)
def unscaled(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Leave the scores as they are."""
    return _weights(queries, keys, mask, 1.0)


@drill.mistake(
    "divided-by-width",
    "the scores are divided by the width, not by its root: attention becomes nearly uniform.",
)
def by_width(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Divide by D."""
    return _weights(queries, keys, mask, 1 / queries.shape[-1])


@drill.mistake(
    "masked-after-softmax",
    "the mask is applied after the softmax: what hidden keys got is lost, and the rows sum to less than 1.",
)
def masked_late(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Set hidden weights to zero at the end only."""
    return attention_weights(queries, keys, torch.ones_like(mask)) * mask[:, None, None]


@drill.mistake(
    "softmax-over-queries",
    "the softmax runs over the queries: columns sum to 1, so the queries compete for a key. It belongs on the "
    "last dimension.",
)
def over_queries(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Normalize the wrong dimension."""
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    return scores.softmax(dim=-2) * mask[:, None, None]


@drill.mistake(
    "mask-inverted",
    "the mask is inverted: True marks keys that may be attended here. Libraries differ in this; look it up each time.",
)
def inverted(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Hide what may be seen."""
    return attention_weights(queries, keys, ~mask)


@drill.mistake(
    "softmax-twice",
    "softmax is applied twice: the second one makes the rows nearly uniform.",
    seen="asked in mit-han-lab/once-for-all issue 5, for logits",
)
def twice(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Apply softmax to weights."""
    weights = attention_weights(queries, keys, mask)
    return weights.softmax(-1) * mask[:, None, None]


@drill.mistake(
    "energy-map",
    "this is an activation map, the energy of the keys: it is the same for every query. Self-attention compares "
    "each query with each key.",
)
def energy(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """The normalized energy of each key."""
    strength = keys.square().sum(-1) * mask[:, None]
    share = strength / strength.sum(-1, keepdim=True)
    return share[:, :, None].expand(-1, -1, queries.shape[2], -1) + 0 * queries.sum()


@drill.mistake(
    "nan-rows",
    "a row in which nothing may be attended is NaN: the softmax of nothing but -inf. One such row makes the loss "
    "of the whole batch NaN; return zeros there.",
)
def nan_rows(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Fill with minus infinity."""
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    return scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1)
