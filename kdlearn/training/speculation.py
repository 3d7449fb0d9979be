"""Speculative decoding: a small model proposes, a large one disposes, and the text is its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from kdlearn.core.checks import check_sizes
from kdlearn.core.inputs import call, evaluating
from kdlearn.training.generation import check_prompts, draw


@dataclass(frozen=True, eq=False)
class Speculation:
    """What was written in some calls of the target, and how the draft did.

    Attributes:
        tokens: int64, shape (B, P + calls (ahead + 1)).
        mask: bool, the same shape: True where a token was written; rows differ in length.
        proposed: how many proposals were tested; those behind a rejection are not.
        accepted: how many of these were accepted.
        expected: how many should have been on average: the sum of 1 - TV at the places tested.
    """

    tokens: Tensor
    mask: Tensor
    proposed: int
    accepted: int
    expected: float


@torch.no_grad()
def speculate(
    target: nn.Module,
    draft: nn.Module,
    prompts: Tensor,
    calls: int,
    *,
    ahead: int = 4,
    generator: Generator | None = None,
) -> Speculation:
    r"""Sample from the target at temperature 1, with a draft model that writes ahead.

    Convention
        In each call the draft writes some tokens, the target scores all of them at once, and
        :func:`accept` decides how many stay; one more comes from the target. So a call gives 1 to
        ``ahead + 1`` tokens, and they have exactly the target's distribution, whatever the draft:
        a bad one costs calls.
        Both models compute all tokens anew at each step, without a cache, since rows grow at
        different speeds: count calls here, do not measure seconds.

    Args:
        target: from tokens (B, L) to logits (B, L, V), causal.
        draft: the same, of the same vocabulary.
        prompts: int64, shape (B, P), at least one token each.
        calls: how often the target runs.
        ahead: how many tokens the draft writes before the target looks, gamma.
        generator: of the draws; by default torch's own.

    Raises:
        TypeError: the prompts are no whole numbers.
        ValueError: the prompts are no (B, P), a size is smaller than 1, or the vocabularies differ.

    Source: Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative
        Decoding", ICML 2023, algorithm 1.

    Example:
        >>> from kdlearn.models import RecurrentLM
        >>> model = RecurrentLM(symbols=5)
        >>> done = speculate(model, model, torch.zeros(2, 1, dtype=torch.long), calls=3)
        >>> done.mask.sum(dim=1).tolist(), done.accepted
        ([15, 15], 24)
    """
    check_prompts(prompts)
    check_sizes(calls=calls, ahead=ahead)
    tokens = F.pad(prompts, (0, calls * (ahead + 1)))
    rows, places = torch.arange(len(tokens)), torch.arange(tokens.shape[1])
    lengths = torch.full_like(rows, prompts.shape[1])
    proposed, accepted, expected = 0, 0, 0.0
    with evaluating(target), evaluating(draft):
        for _ in range(calls):
            q = []
            for step in range(ahead):
                q.append(_next(draft, tokens, lengths[:, None] + step)[:, 0])
                tokens[rows, lengths + step] = draw(q[-1], generator)
            p = _next(target, tokens, lengths[:, None] + torch.arange(ahead + 1))
            written = tokens.gather(1, (lengths[:, None] + torch.arange(ahead)).to(tokens.device))
            count, final = accept(p, torch.stack(q, dim=1), written, generator)
            tokens[rows, lengths + count.cpu()] = final
            tested = torch.arange(ahead, device=count.device) <= count[:, None]
            proposed, accepted = proposed + int(tested.sum()), accepted + int(count.sum())
            overlap = torch.minimum(p[:, :-1], torch.stack(q, dim=1)).sum(dim=-1)
            expected += (overlap * tested).sum().item()
            lengths = lengths + count.cpu() + 1
    mask = (places >= prompts.shape[1]) & (places < lengths[:, None])
    return Speculation(tokens, mask.to(tokens.device), proposed, accepted, expected)


def accept(
    target: Tensor, draft: Tensor, proposals: Tensor, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    r"""Decide how many of a draft's tokens stay, and draw the token that comes after them.

    .. math:: P(\text{accept } x) = \min\Bigl(1, \frac{p(x)}{q(x)}\Bigr), \qquad
        P(\text{accept}) = \sum_x \min(p(x), q(x)) = 1 - \mathrm{TV}(p, q)

    The first rejection ends it, and a token of :func:`residual` takes that place; if all stay, a
    token of the target comes after them.

    Args:
        target: p at each proposal's place and the one after, shape (B, n + 1, V).
        draft: q at each proposal's place, shape (B, n, V).
        proposals: tokens that were drawn from q, int64, shape (B, n).
        generator: of the draws; by default torch's own.

    Returns:
        How many stay, shape (B,), and the token after them, shape (B,).

    Raises:
        ValueError: the shapes do not fit, such as those of two vocabularies.

    Source: Leviathan, Kalman and Matias, 2023, sections 2.3 and 3.1 to 3.3.

    Example:
        >>> p, q = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), torch.tensor([[[0.5, 0.5]]])
        >>> accept(p, q, torch.tensor([[0]])), accept(p, q, torch.tensor([[1]]))
        ((tensor([0]), tensor([1])), (tensor([1]), tensor([0])))
    """
    rows, ahead = torch.arange(len(proposals), device=proposals.device), proposals.shape[1]
    if target[:, :ahead].shape != draft.shape or target.shape[1] != ahead + 1:
        raise ValueError(
            f"the target has shape {tuple(target.shape)}, the draft {tuple(draft.shape)} and the "
            f"proposals {tuple(proposals.shape)}: expected (B, n + 1, V), (B, n, V) and (B, n), of "
            "one vocabulary."
        )
    ratio = target[:, :ahead] / draft
    home = target.device if generator is None else generator.device
    chance = torch.rand(proposals.shape, generator=generator, device=home).to(target.device)
    stays = chance < ratio.gather(-1, proposals[..., None]).squeeze(-1)
    count = stays.long().cumprod(dim=1).sum(dim=1)
    after = F.pad(draft, (0, 0, 0, 1))  # nothing was proposed after the last
    return count, draw(residual(target[rows, count], after[rows, count]), generator)


def residual(target: Tensor, draft: Tensor) -> Tensor:
    r"""Return what a token is drawn from after a rejection, :math:`\propto \max(0, p - q)`.

    Where p equals q, nothing is ever rejected; then it is p.

    Args:
        target: p, shape (..., V).
        draft: q, the same shape.

    Example:
        >>> residual(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6]))
        tensor([0.7500, 0.2500, 0.0000])
    """
    left = (target - draft).clamp_min(0)
    total = left.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, left / torch.where(total > 0, total, 1.0), target)


def _next(model: nn.Module, tokens: Tensor, places: Tensor) -> Tensor:
    """Probabilities of the tokens at places (B, n), given all before each; (B, n, V)."""
    logits = call(model, tokens[:, : int(places.max())])
    rows = torch.arange(len(tokens))[:, None]
    return logits[rows, places - 1].softmax(dim=-1)
