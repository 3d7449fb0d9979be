"""A causal transformer small enough to train in seconds, with its attention in the open."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdlearn.core.checks import check_sizes

HIDDEN = -10_000.0
"""The score of what lies in the future: finite, so that losses on scores stay finite too."""


class TinyTransformer(nn.Module):
    """Pre-norm causal transformer: predicts, at each place, the next token.

    Modules to tap, for each layer i: ``layers.i.attention.scores`` (before the softmax, shape
    (B, heads, L, L), the future at -10000), ``layers.i.attention.weights`` (after it; rows sum to
    1), ``layers.i`` (the hidden states); and ``classifier``.

    Args:
        symbols: number of different tokens.
        length: longest sequence.
        width: size of a token's vector.
        heads: attention heads in each layer; must divide ``width``.
        layers: number of layers.

    Shape:
        Tokens (B, L) to logits (B, L, symbols).

    Raises:
        ValueError: a size is smaller than 1, or ``heads`` does not divide ``width``.

    Example:
        >>> TinyTransformer(width=32)(torch.zeros(2, 32, dtype=torch.long)).shape
        torch.Size([2, 32, 32])
    """

    def __init__(
        self, symbols: int = 32, length: int = 32, width: int = 64, heads: int = 2, layers: int = 2
    ) -> None:
        """Make the layers; the weights follow from torch's current seed."""
        super().__init__()
        check_sizes(symbols=symbols, length=length, width=width, heads=heads, layers=layers)
        if width % heads:
            raise ValueError(f"{heads} heads cannot share a width of {width} evenly.")
        self.token = nn.Embedding(symbols, width)
        self.position = nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at each place.

        Raises:
            ValueError: the sequence is longer than the model can count.
        """
        length = tokens.shape[1]
        if length > self.position.num_embeddings:
            raise ValueError(
                f"the sequence has {length} tokens, the model was made for "
                f"{self.position.num_embeddings}: make it with length={length}."
            )
        places = torch.arange(length, device=tokens.device)
        return self.classifier(self.norm(self.layers(self.token(tokens) + self.position(places))))


class Layer(nn.Module):
    """Attention, then a two-layer network, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        """Make the layers."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Return the new states (B, L, width)."""
        states = states + self.attention(self.norm1(states))
        return states + self.mlp(self.norm2(states))


class CausalAttention(nn.Module):
    r"""Scaled dot-product attention in which no place sees a later one.

    .. math:: \mathrm{softmax}\bigl(Q K^\top / \sqrt{d}\bigr) V

    Source: A. Vaswani et al., Attention Is All You Need, NeurIPS 2017, eq. 1.
    """

    def __init__(self, width: int, heads: int) -> None:
        """Make the four projections; scores and weights are modules so that they can be tapped."""
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.scores = CausalScores()
        self.weights = nn.Softmax(dim=-1)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """Return what each place collects from the places before it."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.query_key_value(states).chunk(3, dim=-1)
        )
        weights = self.weights(self.scores(query, key))
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class CausalScores(nn.Module):
    """Products of queries and keys over the root of their size; the future is set to -10000."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the scores (B, heads, L, L)."""
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        return scores.masked_fill(~past, HIDDEN)
