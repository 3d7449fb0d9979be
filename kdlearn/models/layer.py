"""A transformer layer whose attention map can be read, and is formed only while it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.core.checks import check_mask, check_sizes

HIDDEN = -10_000.0
"""The score of what may not be seen: finite, so that losses on scores stay finite too."""

Past = tuple[Tensor, Tensor]
"""What attention remembers of earlier tokens: their keys and values, or sums over them."""


class Layer(nn.Module):
    """Attention, then a two-layer network, each added to what came in (pre-norm).

    Args:
        width: size of a token's vector.
        heads: attention heads; must divide ``width``.
        causal: whether a place sees only itself and what stands before it.

    Raises:
        ValueError: a size is smaller than 1, or ``heads`` does not divide ``width``.

    Example:
        >>> Layer(8, heads=2, causal=True)(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the new states (B, L, width); ``mask`` (B, L) is True where a token counts."""
        states = states + self.attention(self.norm1(states), mask)
        return states + self.mlp(self.norm2(states))

    def continued(self, states: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """Return the new states of more tokens, and what to remember of all so far."""
        attended, past = self.attention.continued(self.norm1(states), past)
        states = states + attended
        return states + self.mlp(self.norm2(states)), past


class Attention(nn.Module):
    r"""Scaled dot-product attention of several heads.

    .. math:: \mathrm{softmax}\bigl(Q K^\top / \sqrt{d}\bigr) V

    Modules to tap: ``scores`` (before the softmax, shape (B, heads, L, L), what may not be seen at
    -10000) and ``weights`` (after it; rows sum to 1). While neither has a hook, ``scores.mix``
    computes the same output without forming the map.

    Args:
        width: size of a token's vector.
        heads: attention heads; must divide ``width``.
        causal: whether a place sees only itself and what stands before it.

    Raises:
        ValueError: a size is smaller than 1, or ``heads`` does not divide ``width``.

    Source: A. Vaswani et al., Attention Is All You Need, NeurIPS 2017, eq. 1.

    Example:
        >>> Attention(8, heads=2)(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        check_sizes(width=width, heads=heads)
        if width % heads:
            raise ValueError(f"{heads} heads cannot share a width of {width} evenly.")
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.scores: nn.Module = Scores(causal)
        self.weights = nn.Softmax(dim=-1)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what each place collects from the places that it sees.

        Args:
            states: shape (B, L, width).
            mask: torch.bool, shape (B, L), True where a token counts; not of causal attention.

        Raises:
            ValueError: a mask for causal attention.
        """
        if mask is not None and self.scores.causal:
            raise ValueError(
                "causal attention takes no mask: put the padding at the end, where no token sees "
                "it, and leave it out of the loss."
            )
        query, key, value = self._by_head(states)
        if _watched(self.scores) or _watched(self.weights):
            mixed = self.weights(self.scores(query, key, mask)) @ value
        else:
            mixed = self.scores.mix(query, key, value, mask)  # type: ignore[operator]
        return self._joined(mixed)

    def continued(self, states: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """Return what more places collect, of themselves and the past, and the longer past."""
        query, key, value = self._by_head(states)
        mixed, past = self.scores.continued(query, key, value, past)  # type: ignore[operator]
        return self._joined(mixed), past

    def _by_head(self, states: Tensor) -> list[Tensor]:
        parts = self.query_key_value(states).chunk(3, dim=-1)
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]

    def _joined(self, mixed: Tensor) -> Tensor:
        return self.output(mixed.transpose(1, 2).flatten(2))


class Scores(nn.Module):
    """Products of queries and keys over the root of their size; what is hidden gets -10000.

    Args:
        causal: whether a query sees only keys up to its own place, the last query's being the last.

    Example:
        >>> Scores(causal=True)(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4)).squeeze().tolist()
        [[2.0, -10000.0], [2.0, 2.0]]
    """

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the scores (B, heads, L, L); ``mask`` (B, L) is True where a key counts."""
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], HIDDEN)
        return without_future(scores) if self.causal else scores

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the softmax of the scores times the values, without forming the scores."""
        seen = None if mask is None else mask[:, None, None]
        causal = self.causal
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=causal)

    def continued(
        self, query: Tensor, key: Tensor, value: Tensor, past: Past | None
    ) -> tuple[Tensor, Past]:
        """Return the mixture for more queries, and all keys and values so far."""
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        seen = _past(query.shape[2], key.shape[2], query.device)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return mixed, (key, value)


def without_future(scores: Tensor) -> Tensor:
    """Return scores (B, heads, Q, K) with -10000 where a key stands behind its query.

    Example:
        >>> without_future(torch.zeros(1, 1, 2, 2)).squeeze()
        tensor([[     0., -10000.],
                [     0.,      0.]])
    """
    queries, keys = scores.shape[-2:]
    return scores.masked_fill(~_past(queries, keys, scores.device), HIDDEN)


def check_tokens(tokens: Tensor, longest: int, mask: Tensor | None = None) -> None:
    """Refuse more tokens than a model has positions for, or a sequence without any that counts.

    Example:
        >>> check_tokens(torch.zeros(1, 13, dtype=torch.long), longest=12)
        Traceback (most recent call last):
        ...
        ValueError: the sequence has 13 tokens, the model was made for 12: make it with length=13.
    """
    length = tokens.shape[1]
    if length > longest:
        raise ValueError(
            f"the sequence has {length} tokens, the model was made for {longest}: make it with "
            f"length={length}."
        )
    if mask is not None:
        check_mask(mask, tokens.shape[:2])
        if not bool(mask.any(dim=1).all()):
            raise ValueError("the mask hides a whole sequence: leave it out of the batch.")


def _past(queries: int, keys: int, device: torch.device) -> Tensor:
    """Where a key stands no later than the query; the last of both is the same token."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
