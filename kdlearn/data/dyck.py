"""A language whose strings can all be listed: two kinds of brackets, with exact probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdlearn.core.checks import check_fraction, check_whole
from kdlearn.core.randomness import generator_of

SYMBOLS = "([)]"
START = len(SYMBOLS)
"""The token that a model sees before the first bracket."""


@dataclass(frozen=True, eq=False)
class DyckLanguage:
    """All strings of one length with a probability each.

    Attributes:
        strings: int64, shape (4^L, L): every string of the tokens of :data:`SYMBOLS`, in order.
        valid: bool, shape (4^L,): whether the brackets match (Dyck-2).
        log_probs: float32, shape (4^L,): log p of each string.
    """

    strings: Tensor
    valid: Tensor
    log_probs: Tensor

    def __len__(self) -> int:
        """Return the number of strings."""
        return len(self.strings)

    def next_log_probs(self) -> Tensor:
        r"""Return :math:`\log p(v \mid x_{<i})` at each place of each string, (4^L, L, 4).

        A sum over all strings that begin alike, so a teacher without any error.

        Example:
            >>> language = dyck_language(4)
            >>> taken = language.next_log_probs().gather(2, language.strings[..., None]).squeeze(2)
            >>> torch.allclose(taken.sum(dim=1), language.log_probs, atol=1e-4)
            True
        """
        length, symbols = self.strings.shape[1], len(SYMBOLS)
        found = []
        for place in range(length):
            joint = self.log_probs.view(symbols**place, symbols, -1).logsumexp(dim=2)
            found.append(joint.log_softmax(dim=1).repeat_interleave(symbols ** (length - place), 0))
        return torch.stack(found, dim=1)


def dyck_language(
    length: int, *, sharpness: float = 1.2, noise: float = 0.01, seed: int = 0
) -> DyckLanguage:
    r"""List all strings and draw a teacher's distribution over the valid ones.

    .. math:: p = (1 - \epsilon)\, \mathrm{softmax}(\beta z)_{\text{valid}} + \epsilon / 4^L,
        \qquad z \sim N(0, 1)

    Args:
        length: L, even, at most 8 (65,536 strings).
        sharpness: beta: at 0 all valid strings are equally likely.
        noise: epsilon, the share of all strings, so that nothing is impossible; above 0.
        seed: which distribution; same seed, same tensors.

    Raises:
        ValueError: ``length`` is odd or out of its range, or ``noise`` is not above 0, or above 1.

    Example:
        >>> language = dyck_language(6)
        >>> len(language), int(language.valid.sum())
        (4096, 40)
        >>> round(language.log_probs.exp()[language.valid].sum().item(), 2)
        0.99
    """
    if check_whole(length, "length", least=2) % 2 or length > 8:
        raise ValueError(f"length is {length}: expected 2, 4, 6 or 8.")
    check_fraction(noise, "noise")
    if noise == 0:
        raise ValueError("noise is 0: expected more, an impossible string has no logarithm.")
    strings = torch.cartesian_prod(*[torch.arange(len(SYMBOLS))] * length)
    valid = brackets_match(strings)
    scores = torch.randn(int(valid.sum()), generator=generator_of(seed))
    probs = torch.full((len(strings),), noise / len(strings))
    probs[valid] += (1 - noise) * (sharpness * scores).softmax(dim=0)
    return DyckLanguage(strings, valid, probs.log())


def brackets_match(strings: Tensor) -> Tensor:
    """Tell which strings (N, L) of the tokens 0 "(", 1 "[", 2 ")", 3 "]" are well nested.

    Example:
        >>> brackets_match(torch.tensor([[0, 1, 3, 2], [0, 1, 2, 3]]))
        tensor([ True, False])
    """
    rows = torch.arange(len(strings))
    stack = torch.full((len(strings), strings.shape[1] + 1), -1)
    depth = torch.zeros(len(strings), dtype=torch.int64)
    right = torch.ones(len(strings), dtype=torch.bool)
    for token in strings.unbind(dim=1):
        opens = token < 2
        right &= opens | (stack[rows, depth] == token - 2)
        depth = (depth + torch.where(opens, 1, -1)).clamp_min(0)
        stack[rows, depth] = torch.where(opens, token, stack[rows, depth])
    return right & (depth == 0)
