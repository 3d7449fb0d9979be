"""Associative recall: look up, by attention, what stood beside a key earlier in the sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdlearn.core.checks import check_sizes
from kdlearn.core.randomness import generator_of


@dataclass(frozen=True, eq=False)
class Recall:
    """Sequences with their answers and the place where each answer can be read.

    Attributes:
        tokens: int64, shape (N, L): key, value, key, value, ... and then the same keys again, in
            another order, each followed by its value. L is 4 times the number of pairs.
        queries: int64, shape (pairs,): the positions of the second keys, the same in every row.
            The model has to predict the next token there.
        answers: int64, shape (N, pairs): the right values.
        sources: int64, shape (N, pairs): the position of that value in the first half.
    """

    tokens: Tensor
    queries: Tensor
    answers: Tensor
    sources: Tensor

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.tokens)


def associative_recall(
    sequences: int, *, pairs: int = 8, keys: int = 16, values: int = 16, seed: int = 0
) -> Recall:
    """Make sequences in which every question was answered once before.

    Keys are the tokens 0 to ``keys`` - 1 and differ within a sequence; values are the tokens
    ``keys`` to ``keys + values`` - 1 and may repeat. Guessing one of the values seen in the
    sequence is right about once in ``pairs``.

    Args:
        sequences: how many.
        pairs: key-value pairs in a sequence.
        keys: number of different keys.
        values: number of different values.
        seed: which data set; same seed, same tensors.

    Raises:
        ValueError: a size is smaller than 1, or there are more pairs than keys.

    Example:
        >>> data = associative_recall(1, pairs=2, keys=4, values=4)
        >>> torch.equal(data.tokens[0, data.sources[0]], data.answers[0])
        True
    """
    check_sizes(sequences=sequences, pairs=pairs, keys=keys, values=values)
    if pairs > keys:
        raise ValueError(f"{pairs} pairs and {keys} keys: need a different key for each pair.")
    generator = generator_of(seed)
    key = torch.rand(sequences, keys, generator=generator).argsort(dim=1)[:, :pairs]
    value = keys + torch.randint(values, (sequences, pairs), generator=generator)
    order = torch.rand(sequences, pairs, generator=generator).argsort(dim=1)
    answers = value.gather(1, order)
    first = torch.stack([key, value], dim=2).flatten(1)
    second = torch.stack([key.gather(1, order), answers], dim=2).flatten(1)
    return Recall(
        tokens=torch.cat([first, second], dim=1),
        queries=2 * pairs + 2 * torch.arange(pairs),
        answers=answers,
        sources=2 * order + 1,
    )
