"""Drill: attention rollout, which follows attention through all layers."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def attention_rollout(attentions: list[Tensor]) -> Tensor:
    """Return how much each position of the last layer attends to each input token, shape (B, L, L).

    attentions: one tensor of shape (B, heads, L, L) a layer, first layer first; each row sums to 1. Average the heads,
    mix each layer in equal parts with the identity for the residual connection, and multiply all layers.
    """
    identity = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype)
    rollout = identity
    for attention in attentions:
        rollout = (0.5 * attention.mean(dim=1) + 0.5 * identity) @ rollout
    return rollout


def cases(generator: Generator) -> list[Case]:
    """Stacks of several depths, heads and lengths."""
    return [
        {
            "attentions": [
                draws.normal(generator, batch, heads, length, length, scale=2).softmax(-1)
                for _ in range(layers)
            ]
        }
        for layers, batch, heads, length in ((3, 2, 4, 5), (2, 3, 2, 7), (4, 1, 3, 6))
    ]


drill = Drill(
    id="attention-rollout",
    title="Attention rollout",
    task=(
        "A transformer has six layers of attention. Which input tokens does an output position see in the end? Write "
        "attention rollout, with the residual connections taken into account."
    ),
    minutes=8,
    level="core",
    hints=(
        "What would the map of a layer be if its attention did nothing and only the residual connection passed?",
        "A layer is 0.5 A + 0.5 I, A being the mean over heads. Its rows say where a position takes from.",
        "Start with I; for each layer from the first on: rollout = (0.5 * A.mean(1) + 0.5 * I) @ rollout",
    ),
    explanation=(
        "One product of L x L matrices a layer: O(N L³) time for N layers, O(L²) memory an image or sentence. "
        "Rows stay distributions, because a product of matrices whose rows sum to 1 has rows that sum to 1; say "
        "so, it is the test that you would write first. The later layer stands on the left: its rows are the "
        "output positions, its columns the positions that the earlier product describes. The interviewer listens "
        "for the residual connection, for the order, and for the caveat: rollout knows nothing of the values and "
        "the feed-forward parts, so it is a summary of attention and no explanation of the decision. Source: "
        "Abnar and Zuidema, ACL 2020."
    ),
    reference=attention_rollout,
    cases=cases,
)


@drill.alternative
def with_einsum(attentions: list[Tensor]) -> Tensor:
    """From the last layer down."""
    length = attentions[0].shape[-1]
    result = torch.eye(length, dtype=attentions[0].dtype).repeat(len(attentions[0]), 1, 1)
    for attention in reversed(attentions):
        mixed = (attention.mean(1) + torch.eye(length)) / 2
        result = torch.einsum("bij,bjk->bik", result, mixed)
    return result


@drill.alternative
def with_normalization(attentions: list[Tensor]) -> Tensor:
    """Add the identity, then divide each row by its sum."""
    stacked = torch.stack(attentions).mean(dim=2) + torch.eye(attentions[0].shape[-1])
    stacked = stacked / stacked.sum(dim=-1, keepdim=True)
    result = stacked[0]
    for layer in stacked[1:]:
        result = layer.matmul(result)
    return result


@drill.mistake(
    "no-residual",
    "the residual connection is missing: attention alone spreads with each layer, until every position seems to "
    "see the same mixture. Mix each layer with the identity.",
)
def attention_alone(attentions: list[Tensor]) -> Tensor:
    """Multiply the maps alone."""
    result = attentions[0].mean(1)
    for attention in attentions[1:]:
        result = attention.mean(1) @ result
    return result


@drill.mistake(
    "order-reversed",
    "the product is in the wrong order: the later layer belongs on the left, as its columns are what the earlier "
    "product's rows describe.",
)
def reversed_order(attentions: list[Tensor]) -> Tensor:
    """Put the later layer on the right."""
    return attention_rollout(attentions[::-1])


@drill.mistake(
    "rows-not-normalized",
    "the rows do not sum to 1: after adding the identity they sum to 2, and the sums grow as powers of 2 with the "
    "layers. Halve each layer, or divide by the row's sum.",
)
def not_halved(attentions: list[Tensor]) -> Tensor:
    """Add the identity and leave it so."""
    identity = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype)
    result = identity
    for attention in attentions:
        result = (attention.mean(1) + identity) @ result
    return result


@drill.mistake(
    "heads-averaged-late",
    "the heads are averaged after the product: that follows head 1 through head 1 only, while each layer mixes "
    "all heads of the one before. Average them in each layer first.",
)
def late_mean(attentions: list[Tensor]) -> Tensor:
    """Roll out each head by itself."""
    identity = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype)
    result = (attentions[0] + identity) / 2
    for attention in attentions[1:]:
        result = (attention + identity) / 2 @ result
    return result.mean(dim=1)


@drill.mistake(
    "last-layer-only",
    "this is the last layer's map alone: it says which hidden positions are read, and those have mixed the tokens "
    "already.",
)
def last_layer(attentions: list[Tensor]) -> Tensor:
    """Look at the last layer."""
    return 0.5 * attentions[-1].mean(1) + 0.5 * torch.eye(attentions[-1].shape[-1])


@drill.mistake(
    "strongest-head",
    "the strongest head is taken in place of the mean: the rows no longer sum to 1. That is a known variant, and "
    "not what the task asks for.",
)
def strongest(attentions: list[Tensor]) -> Tensor:
    """Take the maximum over heads."""
    return attention_rollout([attention.amax(1, keepdim=True) for attention in attentions])
