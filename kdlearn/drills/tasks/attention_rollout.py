"""Drill: attention rollout, which follows attention through all layers."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def attention_rollout(attentions: list[Tensor]) -> Tensor:
    """Return how much each position of the last layer attends to each input token, shape (B, L, L).

    attentions: one tensor of shape (B, heads, L, L) a layer, first layer first; each row sums to 1.
    Average the heads, mix each layer in equal parts with the identity for the residual connection,
    and multiply all layers.
    """
    identity = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype)
    rollout = identity
    for attention in attentions:
        rollout = (0.5 * attention.mean(dim=1) + 0.5 * identity) @ rollout
    return rollout


def example() -> Case:
    """One sequence of two tokens, two layers, two heads."""
    first = [[[0.5, 0.5], [0.2, 0.8]], [[1.0, 0.0], [0.4, 0.6]]]
    second = [[[0.9, 0.1], [0.3, 0.7]], [[0.6, 0.4], [0.0, 1.0]]]
    return {"attentions": [torch.tensor([layer], dtype=torch.float64) for layer in (first, second)]}


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


def edges() -> list[Edge]:
    """One layer, one head, one token."""
    layers = example()["attentions"]
    return [
        Edge("one layer", {"attentions": layers[:1]}, without="the product of layers"),
        Edge(
            "one head",
            {"attentions": [layer[:, :1] for layer in layers]},
            without="what joins the heads",
        ),
        Edge("one token", {"attentions": [torch.ones(2, 2, 1, 1).double()] * 2}),
        Edge("float32", {"attentions": [layer.float() for layer in layers]}),
    ]


def family(wrong: Wrong, attentions: list[Tensor]) -> Tensor:
    """Rollout with its switches."""
    eye = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype)
    if "ones-for-identity" in wrong:
        eye = torch.ones_like(eye)
    heads = {
        "heads-averaged-late": lambda one: one,
        "strongest-head": lambda one: one.amax(1),
        "weakest-head": lambda one: one.amin(1),
        "first-head": lambda one: one[:, 0],
        "heads-summed": lambda one: one.sum(1),
    }
    joined = next((heads[name] for name in heads if name in wrong), lambda one: one.mean(1))
    layers = []
    for number, attention in enumerate(attentions):
        layer = joined(attention)
        if "attention-transposed" in wrong:
            layer = layer.mT
        bare = bool({"no-residual", "residual-once"} & wrong)
        if "residual-at-first-only" in wrong:
            bare = number > 0
        if "residual-in-all-but-first" in wrong:
            bare = number == 0
        if "rows-not-normalized" in wrong:
            layer = layer + eye
        elif "residual-halved-only" in wrong:
            layer = layer / 2 + eye
        elif not bare:
            layer = (layer + eye) / 2
        layers.append(layer)
    if "last-layer-only" in wrong:
        layers = layers[-1:]
    if "first-layer-only" in wrong:
        layers = layers[:1]
    if "first-layer-left-out" in wrong:
        layers = layers[1:] or [torch.eye(len(eye), dtype=eye.dtype).expand_as(layers[0])]
    if "last-layer-left-out" in wrong:
        layers = layers[:-1] or [torch.eye(len(eye), dtype=eye.dtype).expand_as(layers[0])]
    if "first-layer-twice" in wrong:
        layers = [layers[0], *layers]
    result = layers[0]
    for layer in layers[1:]:
        if {"layers-averaged", "layers-added"} & wrong:
            result = result + layer
        elif "multiplied-element-wise" in wrong:
            result = result * layer
        else:
            result = result @ layer if "order-reversed" in wrong else layer @ result
    if "layers-averaged" in wrong:
        result = result / len(layers)
    if "residual-once" in wrong:
        result = (result + eye) / 2
    if "heads-averaged-late" in wrong:
        result = result.mean(1)
    if "normalized-afterwards" in wrong:
        result = result.softmax(-1)
    if "columns-normalized" in wrong:
        result = result / result.sum(-2, keepdim=True)
    return result.mT if "transposed" in wrong else result


drill = Drill(
    id="attention-rollout",
    title="Attention rollout",
    task=(
        "A transformer has six layers of attention. Which input tokens does an output position see "
        "in the end? Write attention rollout, with the residual connections taken into account."
    ),
    minutes=8,
    level="core",
    hints=(
        "What would the map of a layer be if its attention did nothing and only the residual "
        "connection passed?",
        "To what must each row of the result sum? Check that after every step that you write.",
        "The last layer's rows are the positions that you ask about. On which side of the product "
        "does its matrix stand?",
    ),
    explanation=(
        "One product of L x L matrices a layer: O(N L³) time for N layers, O(L²) memory an image "
        "or sentence. Rows stay distributions, because a product of matrices whose rows sum to 1 "
        "has rows that sum to 1; say so, it is the test that you would write first. The later "
        "layer stands on the left: its rows are the output positions, its columns the positions "
        "that the earlier product describes. The interviewer listens for the residual connection, "
        "for the order, and for the caveat: rollout knows nothing of the values and the "
        "feed-forward parts, so it is a summary of attention and no explanation of the decision. "
        "Source: [Abnar and Zuidema, ACL 2020](cite:abnar2020quantifying)."
    ),
    reference=attention_rollout,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # residual
        - no-residual: the residual connection is missing: attention alone spreads with each layer,
          until every position seems to see the same mixture. Mix each layer with the identity.
        - rows-not-normalized: the rows do not sum to 1: after adding the identity they sum to 2,
          and the sums grow as powers of 2 with the layers. Halve each layer, or divide by the row's
          sum.
        - residual-once: the identity is mixed in once, after the product: each layer has its own
          residual connection.
        - residual-at-first-only: the identity is mixed into the first layer alone: each layer has
          its own residual connection.
        - residual-in-all-but-first: the first layer is taken without its residual connection.
        - residual-halved-only: the attention is halved and the identity is added in full: mix both
          in equal parts.
        - ones-for-identity: a matrix of ones is mixed in, not the identity: the residual connection
          passes each position to itself.
        # order
        - order-reversed: the product is in the wrong order: the later layer belongs on the left, as
          its columns are what the earlier product's rows describe.
        - transposed: the result is transposed: rows are the positions of the last layer, columns
          the input tokens.
        - attention-transposed: each layer's map is transposed: its rows say where a position takes
          from.
        # layers
        - last-layer-only: this is the last layer's map alone: it says which hidden positions are
          read, and those have mixed the tokens already.
        - first-layer-only: this is the first layer's map alone: the later layers mix what it gives.
        - layers-averaged: the layers are averaged, not multiplied: what a layer reads was mixed by
          the ones before.
        - layers-added: the layers are added, not multiplied: what a layer reads was mixed by the
          ones before.
        - multiplied-element-wise: the layers are multiplied element by element: following attention
          through layers is a product of matrices.
        - first-layer-left-out: the first layer is left out of the product.
        - last-layer-left-out: the last layer is left out of the product.
        - first-layer-twice: the first layer is in the product twice: the loop begins with it again.
        # heads
        - heads-averaged-late: the heads are averaged after the product: that follows head 1 through
          head 1 only, while each layer mixes all heads of the one before. Average them in each
          layer first.
        - strongest-head: the strongest head is taken in place of the mean: the rows no longer sum
          to 1. That is a known variant, and not what the task asks for.
        - weakest-head: the smallest entry over the heads is taken in place of the mean: the rows no
          longer sum to 1.
        - first-head: only the first head is used: average them.
        - heads-summed: the heads are summed, not averaged: rows sum to their number.
        # afterwards
        - normalized-afterwards: each row is brought to sum 1 at the end by a softmax: rows of such
          a product sum to 1 already.
        - columns-normalized: the columns are brought to sum 1, not the rows.
        """
    ),
    sizes=lambda case: {"layers": len(case["attentions"]), "L": case["attentions"][0].shape[-1]},
)
