"""A causal transformer small enough to train in seconds, with its attention in the open."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from kdlearn.core.checks import check_sizes
from kdlearn.models.layer import Layer, Past, check_tokens


class Decoded(NamedTuple):
    """What a `TinyTransformer` remembers of the tokens so far.

    Attributes:
        length: how many there were.
        layers: each layer's past.
    """

    length: int
    layers: list[Past]


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
        >>> import torch
        >>> TinyTransformer(width=32)(torch.zeros(2, 32, dtype=torch.long)).shape
        torch.Size([2, 32, 32])
    """

    def __init__(
        self, symbols: int = 32, length: int = 32, width: int = 64, heads: int = 2, layers: int = 2
    ) -> None:
        """Make the layers; the weights follow from torch's current seed."""
        super().__init__()
        check_sizes(symbols=symbols, length=length, width=width, heads=heads, layers=layers)
        self.token = nn.Embedding(symbols, width)
        self.position = nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, heads, causal=True) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at each place.

        Raises:
            ValueError: the sequence is longer than the model can count.
        """
        return self.classifier(self.norm(self.layers(self._embedded(tokens, start=0))))

    def continued(self, tokens: Tensor, past: Decoded | None = None) -> tuple[Tensor, Decoded]:
        """Return the logits of more tokens (B, n), and what to hand in with the next ones.

        The logits are those that ``forward`` gives at these places of the whole sequence; what it
        would compute again, the keys and values of earlier tokens, is kept instead (the KV cache).

        Raises:
            ValueError: the sequence is longer than the model can count.
        """
        start, pasts = (0, None) if past is None else past
        states, kept = self._embedded(tokens, start), []
        for number, layer in enumerate(self.layers):
            before = None if pasts is None else pasts[number]
            states, after = layer.continued(states, before)  # type: ignore[operator]
            kept.append(after)
        return self.classifier(self.norm(states)), Decoded(start + tokens.shape[1], kept)

    def _embedded(self, tokens: Tensor, start: int) -> Tensor:
        stop = start + tokens.shape[1]
        check_tokens(tokens.new_empty(1, stop), self.position.num_embeddings)
        return self.token(tokens) + self.position.weight[start:stop]
