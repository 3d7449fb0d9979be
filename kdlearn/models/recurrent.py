"""A recurrent language model: one state, whatever the length."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from kdlearn.core.checks import check_choice, check_sizes


class RecurrentLM(nn.Module):
    """Read tokens one after the other with a GRU or an LSTM, and predict the next one.

    Modules to tap: ``recurrent`` (its first output holds the states), ``classifier``.

    Args:
        symbols: number of different tokens.
        embedding: size of a token's vector.
        hidden: size of the state.
        cell: "gru", or "lstm".

    Shape:
        Tokens (B, L) to logits (B, L, symbols).

    Raises:
        ValueError: a size is smaller than 1, or there is no such cell.

    Source: K. Cho et al., EMNLP 2014, for the GRU; S. Hochreiter and J. Schmidhuber, Neural
        Computation 1997, for the LSTM.

    Example:
        >>> import torch
        >>> RecurrentLM(symbols=20)(torch.zeros(2, 7, dtype=torch.long)).shape
        torch.Size([2, 7, 20])
    """

    def __init__(
        self,
        symbols: int,
        *,
        embedding: int = 32,
        hidden: int = 96,
        cell: Literal["gru", "lstm"] = "gru",
    ) -> None:
        """Make the layers; the weights follow from torch's current seed."""
        super().__init__()
        check_sizes(symbols=symbols, embedding=embedding, hidden=hidden)
        check_choice(cell, "cell", ("gru", "lstm"))
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.token = nn.Embedding(symbols, embedding)
        self.recurrent = kind(embedding, hidden, batch_first=True)
        self.classifier = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at each place."""
        return self.continued(tokens)[0]

    def continued(self, tokens: Tensor, past: Any = None) -> tuple[Tensor, Any]:
        """Return the logits of more tokens (B, n), and the state to hand in with the next ones."""
        states, state = self.recurrent(self.token(tokens), past)
        return self.classifier(states), state
