"""A language model that is nothing but a table, for what is to be computed exactly."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.core.checks import check_sizes, checks_values


class TableLM(nn.Module):
    """Logits of the next token for each place and each choice of the last few tokens.

    It cannot know more than its window shows, whatever its training: a student of small capacity.

    Args:
        symbols: number of different tokens that it predicts; token ``symbols`` starts a string.
        length: longest string.
        window: how many tokens it looks back.

    Shape:
        Tokens (B, L) to logits (B, L, symbols); the first token is the start.

    Raises:
        ValueError: a size is smaller than 1, or there are more tokens than places.

    Example:
        >>> TableLM(symbols=4, length=6, window=2)(torch.tensor([[4, 0, 1]])).shape
        torch.Size([1, 3, 4])
    """

    def __init__(self, symbols: int, length: int, window: int) -> None:
        """Make the table; its entries, of deviation 0.3, follow from torch's current seed."""
        super().__init__()
        check_sizes(symbols=symbols, length=length, window=window)
        self.window = window
        self.table = nn.Parameter(0.3 * torch.randn(length, (symbols + 1) ** window, symbols))

    @classmethod
    def exact(cls, strings: Tensor, log_probs: Tensor) -> TableLM:
        """Return the model that gives these log-probabilities as its logits, and makes no error.

        Its window is the whole string.

        Args:
            strings: all strings of one length, int64, shape (V^L, L).
            log_probs: of each token at each place of each string, shape (V^L, L, V), such as
                `kdlearn.data.dyck.DyckLanguage.next_log_probs` gives.

        Example:
            >>> strings = torch.cartesian_prod(torch.arange(2), torch.arange(2))
            >>> teacher = TableLM.exact(strings, torch.randn(4, 2, 2))
            >>> teacher(torch.tensor([[2, 0]])).shape
            torch.Size([1, 2, 2])
        """
        length, symbols = log_probs.shape[1:]
        model = cls(symbols, length, window=length)
        tokens = F.pad(strings[:, :-1], (1, 0), value=symbols)
        model.table.data[torch.arange(length), model._windows(tokens)] = log_probs
        return model.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at each place.

        Raises:
            ValueError: there are more tokens than places.
            IndexError: a number is no token.
        """
        places, length = len(self.table), tokens.shape[1]
        if length > places:
            raise ValueError(f"{length} tokens and {places} places: make it with length={length}.")
        start = self.table.shape[2]
        if checks_values() and not 0 <= int(tokens.min()) <= int(tokens.max()) <= start:
            raise IndexError(
                f"tokens go from {int(tokens.min())} to {int(tokens.max())}: expected numbers from "
                f"0, and {start} for the start."
            )
        return self.table[torch.arange(length, device=tokens.device), self._windows(tokens)]

    def _windows(self, tokens: Tensor) -> Tensor:
        """The number of what each place sees, (B, L)."""
        symbols = self.table.shape[2]
        padded = F.pad(tokens, (self.window - 1, 0), value=symbols)
        base = (symbols + 1) ** torch.arange(self.window - 1, -1, -1, device=tokens.device)
        return (padded.unfold(1, self.window, 1) * base).sum(dim=-1)
