"""A translation task whose alignment is known: which input symbol each output symbol comes from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdlearn.core.checks import check_sizes
from kdlearn.core.randomness import generator_of

LETTERS = "abcdefghij"
DIGITS = "0123456789"
SYMBOLS = LETTERS + DIGITS
START = len(SYMBOLS)
"""The token that a decoder sees before its first output."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sources, their translations and the true alignment.

    Attributes:
        source: int64, shape (N, L), tokens that index :data:`SYMBOLS`.
        target: int64, shape (N, L).
        alignment: int64, shape (N, L): output i is the source symbol at ``alignment[i]``.
    """

    source: Tensor
    target: Tensor
    alignment: Tensor

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.source)


def reordering_task(sequences: int, *, length: int = 8, seed: int = 0) -> Sequences:
    """Make strings of letters and digits and their translation into a foreign word order.

    The foreign language says the letters first, from left to right, and then the digits, from
    right to left: ``3a7b`` becomes ``ab73``. So the alignment depends on the content, it is
    neither diagonal nor fixed, and it can be checked.

    Args:
        sequences: how many.
        length: symbols in each.
        seed: which data set; same seed, same tensors.

    Raises:
        ValueError: a size is smaller than 1.

    Example:
        >>> data = reordering_task(1, length=6)
        >>> torch.equal(data.source[0, data.alignment[0]], data.target[0])
        True
    """
    check_sizes(sequences=sequences, length=length)
    generator = generator_of(seed)
    source = torch.randint(len(SYMBOLS), (sequences, length), generator=generator)
    place = torch.arange(length).expand(sequences, length)
    rank = torch.where(source < len(LETTERS), place, 2 * length - place)
    alignment = rank.argsort(dim=1)
    return Sequences(source, source.gather(1, alignment), alignment)


def spell(tokens: Tensor) -> str:
    """Return a row of tokens as text.

    Raises:
        ValueError: not one row, or a token has no symbol.

    Example:
        >>> spell(torch.tensor([0, 1, 17]))
        'ab7'
    """
    if tokens.dim() != 1 or (len(tokens) and not 0 <= tokens.min() <= tokens.max() < START):
        raise ValueError(f"expected one row of tokens from 0 to {START - 1}, got {tokens}.")
    return "".join(SYMBOLS[token] for token in tokens.tolist())
