"""Queries, keys and values to play with: which token attends to which, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdlearn.show.pictures import finite
from kdlearn.show.widgets.figure import HTMLFigure, static_table

MOST_TOKENS = 12


def query_explorer(
    tokens: Sequence[str], queries: Tensor, keys: Tensor, values: Tensor
) -> HTMLFigure:
    r"""Show who attends to whom, with head, causal mask and scale to switch.

    .. math:: a_{ij} = \mathrm{softmax}_j\Bigl(\frac{q_i \cdot k_j}{\sqrt d}\Bigr), \qquad
        o_i = \sum_j a_{ij} v_j

    The page works the weights out by itself. The causal mask leaves position i the keys up to i;
    the scale is :math:`1/\sqrt d` or 1. It starts at the first head and the last token, without
    mask, scaled. One image can hold patches for tokens too.

    Args:
        tokens: L names, 2 to 12.
        queries: shape (heads, L, d), or (L, d) for one head. Rounded to 3 decimals, as are the
            others.
        keys: the same shape.
        values: shape (heads, L, d_v), or (L, d_v).

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` tells the last token's row.

    Raises:
        ValueError: the shapes do not fit one another or the tokens, there are too many or too few
            tokens, or a number is NaN or infinite.

    Example:
        >>> q = k = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> query_explorer(["a", "b"], q, k, torch.eye(2))
        Attention weights of 2 tokens in 1 head, with controls for query, mask and scale. Head 1, no mask, scaled: b attends to a 0.0558, b 0.9442; entropy 0.215 of at most 0.693 nats.
    """  # noqa: E501
    names = [str(token) for token in tokens]
    given = {"queries": queries, "keys": keys, "values": values}
    q, k, v = (
        (1000 * each if each.dim() == 3 else 1000 * each[None]).round() / 1000
        for each in (finite(values, name) for name, values in given.items())
    )
    fits = q.dim() == k.dim() == v.dim() == 3 and q.shape == k.shape and q.shape[:2] == v.shape[:2]
    if not fits or q.shape[1] != len(names) or not 2 <= len(names) <= MOST_TOKENS:
        raise ValueError(
            "expected queries and keys of shape (heads, L, d), values (heads, L, d_v) and L "
            f"tokens, 2 to {MOST_TOKENS}, got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)} "
            f"and {len(names)} tokens: give one sample, cut to a short sentence."
        )
    rows = (q @ k.mT / math.sqrt(q.shape[2])).softmax(dim=2)
    last = rows[0, -1]
    told = ", ".join(f"{name} {w:.4f}" for name, w in zip(names, last.tolist(), strict=True))
    text = (
        f"Attention weights of {len(names)} tokens in {len(q)} head{'s' * (len(q) > 1)}, with "
        f"controls for query, mask and scale. Head 1, no mask, scaled: {names[-1]} attends to "
        f"{told}; entropy {torch.special.entr(last).sum().item():.3f} of at most "
        f"{math.log(len(names)):.3f} nats."
    )
    fallback = static_table(
        "Attention weights of head 1, a row for each token that asks. With scripts on (in a "
        "notebook: run this cell), head, mask and scale can be changed.",
        ["asks", *names],
        [
            [name, *(f"{weight:.2f}" for weight in row)]
            for name, row in zip(names, rows[0].tolist(), strict=True)
        ],
    )
    data = {
        "tokens": names,
        "queries": q.tolist(),
        "keys": k.tolist(),
        "values": v.tolist(),
    }
    return HTMLFigure("query", data, fallback, text)
