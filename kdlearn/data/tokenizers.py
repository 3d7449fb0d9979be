"""Two tokenizers over one language: single characters, and pairs merged by frequency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdlearn.core.checks import check_whole

Pair = tuple[str, str]


@dataclass(frozen=True)
class Tokenizer:
    """From text to token numbers and back, by characters and the pairs merged of them.

    Convention
        Merges are applied in the order in which they were learned, each from left to right, also
        across spaces. Without merges a token is a character.

    Attributes:
        alphabet: the characters, each once; they are the first tokens.
        merges: pairs of pieces that become one, in the order of learning.

    Example:
        >>> tokenizer = Tokenizer("ab", (("a", "b"),))
        >>> tokenizer.encode("abba").tolist(), tokenizer.pieces
        ([2, 1, 0], ('a', 'b', 'ab'))
    """

    alphabet: str
    merges: tuple[Pair, ...] = ()

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """The text of each token."""
        return (*self.alphabet, *("".join(pair) for pair in self.merges))

    def __len__(self) -> int:
        return len(self.pieces)

    def split(self, text: str) -> list[str]:
        """Cut a text into pieces, which joined are the text again.

        Raises:
            ValueError: a character is not in the alphabet.

        Example:
            >>> Tokenizer("ab", (("a", "b"),)).split("abba")
            ['ab', 'b', 'a']
        """
        unknown = sorted(set(text) - set(self.alphabet))
        if unknown:
            raise ValueError(
                f"the text has {unknown[:5]!r} and the alphabet has not: learn the tokenizer on "
                "text that has all characters."
            )
        pieces = list(text)
        for pair in self.merges:
            pieces = _merged(pieces, pair)
        return pieces

    def encode(self, text: str) -> Tensor:
        """Return the token numbers of a text, int64, shape (L,).

        Raises:
            ValueError: a character is not in the alphabet.
        """
        number = {piece: index for index, piece in reversed(list(enumerate(self.pieces)))}
        return torch.tensor([number[piece] for piece in self.split(text)], dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """Return the text of some token numbers, shape (L,)."""
        return "".join(self.pieces[token] for token in tokens.tolist())


def learn_pairs(text: str, merges: int) -> Tokenizer:
    """Learn a tokenizer: merge the most frequent pair of neighbors, again and again.

    Of equally frequent pairs the first in the alphabet's order is taken, so that the result follows
    from the text alone.

    Args:
        text: what to learn from.
        merges: how many; 0 leaves single characters. Fewer are learned where no pair comes twice.

    Raises:
        ValueError: the text is empty, or ``merges`` is negative.

    Source: R. Sennrich, B. Haddow and A. Birch, Neural Machine Translation of Rare Words with
        Subword Units, ACL 2016, section 3.2 (BPE), here over the whole text, not inside words.

    Example:
        >>> learn_pairs("the cat that sat", merges=2).merges
        (('a', 't'), ('at', ' '))
    """
    count = check_whole(merges, "merges", least=0)
    if not text:
        raise ValueError("the text is empty: there is nothing to learn tokens from.")
    pieces, learned = list(text), []
    for _ in range(count):
        pairs = Counter(zip(pieces, pieces[1:], strict=False))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        learned.append(best)
        pieces = _merged(pieces, best)
    return Tokenizer("".join(sorted(set(text))), tuple(learned))


def shared_spans(left: Sequence[str], right: Sequence[str]) -> list[tuple[slice, slice]]:
    """Pair up the shortest runs of pieces that cover the same text in two splits of it.

    At the end of such a span two models have read the same characters, whatever their tokens, so
    that what they say of the whole span can be compared.

    Args:
        left: pieces of a text.
        right: other pieces of the same text.

    Raises:
        ValueError: they are not of the same text.

    Example:
        >>> shared_spans(["ab", "c", "d"], ["a", "b", "cd"])
        [(slice(0, 1, None), slice(0, 2, None)), (slice(1, 3, None), slice(2, 3, None))]
    """
    if "".join(left) != "".join(right):
        raise ValueError("the pieces are of two different texts: split the same text twice.")
    ends = [_ends(side) for side in (left, right)]
    spans, before = [], (0, 0)
    for end in sorted(ends[0].keys() & ends[1].keys()):
        now = ends[0][end], ends[1][end]
        spans.append((slice(before[0], now[0]), slice(before[1], now[1])))
        before = now
    return spans


def _ends(pieces: Sequence[str]) -> dict[int, int]:
    """How many characters have been read to how many pieces."""
    ends, read = {}, 0
    for number, piece in enumerate(pieces, start=1):
        read += len(piece)
        ends[read] = number
    return ends


def _merged(pieces: list[str], pair: Pair) -> list[str]:
    first, second = pair
    merged: list[str] = []
    for piece in pieces:
        if piece == second and merged and merged[-1] == first:
            merged[-1] = first + second
        else:
            merged.append(piece)
    return merged
