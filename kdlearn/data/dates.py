"""A translation task with two right answers: dates as people write them, into digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdlearn.core.checks import check_fraction, check_sizes
from kdlearn.core.randomness import generator_of

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
SYMBOLS = "".join(sorted(set("0123456789 ,-/of" + "".join(MONTHS))))
"""What stands in a source or a target, by token number; sources end in spaces."""
SOURCE, TARGET = 15, 10
# How a date is written: what stands where.
WRITTEN = (
    "{day} {month} {year}",
    "{month} {day}, {year}",
    "{year} {month} {day}",
    "{day} of {month}, {year}",
)
# What each output symbol says: year, month or day; nothing in between.
FIELDS = ("yyyy mm dd", "dd mm yyyy")


@dataclass(frozen=True, eq=False)
class Dates:
    """Dates in words, their translations, and which source symbols decide each output symbol.

    Attributes:
        source: int64, shape (N, 15), tokens that index :data:`SYMBOLS`.
        target: int64, shape (N, 10): one of the two right answers, drawn.
        answers: int64, shape (2, N, 10): both of them, ``1998-05-03`` and ``03/05/1998``.
        alignment: bool, shape (2, N, 10, 15): for each answer, where in the source stands the
            year, month or day that an output symbol is a part of; nowhere for ``-`` and ``/``.
        second: bool, shape (N,): whether the target is the second answer.
    """

    source: Tensor
    target: Tensor
    answers: Tensor
    alignment: Tensor
    second: Tensor

    def __len__(self) -> int:
        """Return the number of dates."""
        return len(self.source)


def written_dates(count: int, *, dashes: float = 0.6, seed: int = 0) -> Dates:
    """Write days of 1900 to 2099 in four ways, each to be translated in one of two.

    ``3 may 1998``, ``may 3, 1998``, ``1998 may 3`` and ``3 of may, 1998`` become ``1998-05-03``
    or ``03/05/1998``. Nothing in the source says which, so a model has to give both a probability.

    Args:
        count: how many; days 1 to 28, so that each month has them all.
        dashes: the share of ``1998-05-03``.
        seed: which data set; same seed, same tensors.

    Raises:
        ValueError: ``count`` is smaller than 1, or the share no number from 0 to 1.

    Example:
        >>> dates = written_dates(1)
        >>> spell(dates.source[0]), spell(dates.target[0])
        ('22 of jan, 2063', '2063-01-22')
    """
    check_sizes(count=count)
    check_fraction(dashes, "dashes")
    generator = generator_of(seed)

    def draw(low: int, high: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()

    second = torch.rand(count, generator=generator) >= dashes
    sources, places, first, last = [], [], [], []
    for way, day, month, year in zip(
        draw(0, len(WRITTEN)), draw(1, 29), draw(1, 13), draw(1900, 2100), strict=True
    ):
        parts = {"day": str(day), "month": MONTHS[month - 1], "year": str(year)}
        sources.append(WRITTEN[way].format(**parts).ljust(SOURCE))
        marks = {name: name[0] * len(text) for name, text in parts.items()}
        places.append(WRITTEN[way].format(**marks).replace("of", "  ").ljust(SOURCE))
        first.append(f"{year}-{month:02d}-{day:02d}")
        last.append(f"{day:02d}/{month:02d}/{year}")
    answers = _tokens(first + last).view(2, count, TARGET)
    fields = _codes(FIELDS)[:, None, :, None]
    return Dates(
        source=_tokens(sources),
        target=torch.where(second[:, None], answers[1], answers[0]),
        answers=answers,
        alignment=(_codes(places)[:, None] == fields) & (fields != ord(" ")),
        second=second,
    )


def spell(tokens: Tensor) -> str:
    """Return a row of tokens as text.

    Example:
        >>> spell(torch.tensor([0, 3]))
        ' /'
    """
    return "".join(SYMBOLS[token] for token in tokens.tolist())


def _codes(texts: Sequence[str]) -> Tensor:
    """Return the code of each symbol, a row for each text; all are of one length."""
    together = bytearray("".join(texts), "ascii")
    return torch.frombuffer(together, dtype=torch.uint8).view(len(texts), -1)


def _tokens(texts: Sequence[str]) -> Tensor:
    return torch.searchsorted(_codes([SYMBOLS])[0], _codes(texts))
