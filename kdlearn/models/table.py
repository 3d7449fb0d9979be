"""A language model that is nothing but a table, for what is to be computed exactly."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.core.checks import check_sizes


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

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at each place.

        Raises:
            ValueError: there are more tokens than places.
        """
        places, length = len(self.table), tokens.shape[1]
        if length > places:
            raise ValueError(f"{length} tokens and {places} places: make it with length={length}.")
        symbols = self.table.shape[2]
        padded = F.pad(tokens, (self.window - 1, 0), value=symbols)
        base = (symbols + 1) ** torch.arange(self.window - 1, -1, -1, device=tokens.device)
        seen = (padded.unfold(1, self.window, 1) * base).sum(dim=-1)
        return self.table[torch.arange(length, device=tokens.device), seen]
