"""A bidirectional transformer, as BERT is one, with its attention in the open."""

from __future__ import annotations

from torch import Tensor, nn

from kdlearn.core.checks import check_sizes
from kdlearn.models.layer import Layer, check_tokens


class TinyEncoder(nn.Module):
    """Pre-norm transformer in which every place sees every token that counts.

    Modules to tap, for each layer i: ``layers.i.attention.scores`` (shape (B, heads, L, L), keys
    that do not count at -10000), ``layers.i.attention.weights``, ``layers.i``; and ``embedding``
    (what goes into the first layer), ``classifier``.

    Args:
        symbols: number of different tokens.
        classes: number of answers at each place; that of the tokens for masked language modeling.
        length: longest sequence.
        width: size of a token's vector.
        heads: attention heads in each layer; must divide ``width``.
        layers: number of layers.

    Shape:
        Tokens (B, L) to logits (B, L, classes). A class of the whole sequence is read at the first
        place.

    Raises:
        ValueError: a size is smaller than 1, or ``heads`` does not divide ``width``.

    Source: J. Devlin et al., BERT, NAACL 2019, in pre-norm form (R. Xiong et al., On Layer
        Normalization in the Transformer Architecture, ICML 2020).

    Example:
        >>> import torch
        >>> tokens, mask = torch.tensor([[3, 1, 0]]), torch.tensor([[True, True, False]])
        >>> TinyEncoder(symbols=10, classes=2)(tokens, mask).shape
        torch.Size([1, 3, 2])
    """

    def __init__(
        self,
        symbols: int,
        classes: int,
        *,
        length: int = 32,
        width: int = 64,
        heads: int = 2,
        layers: int = 2,
    ) -> None:
        """Make the layers; the weights follow from torch's current seed."""
        super().__init__()
        check_sizes(symbols=symbols, classes=classes, length=length, width=width, layers=layers)
        self.token = nn.Embedding(symbols, width)
        self.position = nn.Embedding(length, width)
        self.embedding = nn.Identity()
        self.layers = nn.ModuleList(Layer(width, heads, causal=False) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits at each place.

        Args:
            tokens: shape (B, L).
            mask: torch.bool, shape (B, L), True where a token counts; no place looks at the others,
                whose own logits mean nothing.

        Raises:
            ValueError: the sequence is longer than the model can count, or has no token that
                counts.
        """
        check_tokens(tokens, self.position.num_embeddings, mask)
        states = self.embedding(self.token(tokens) + self.position.weight[: tokens.shape[1]])
        for layer in self.layers:
            states = layer(states, mask)
        return self.classifier(self.norm(states))
