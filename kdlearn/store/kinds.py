"""What may be kept of a teacher's layer or logits instead of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from kdlearn.core.checks import check_logit_values, check_whole
from kdlearn.core.numerics import matmul, pool, widen
from kdlearn.losses.maps import activation_map


@dataclass(frozen=True)
class AttentionMap:
    r"""Keep the normalized attention map of a layer instead of its features.

    Convention
        Kept is :math:`\hat Q`, shape (B, \*spatial). Losses get :math:`\hat Q^{1/p}` as features of
        one channel, whose attention map is :math:`\hat Q` again, so
        `kdlearn.losses.attention_transfer_loss` with the same ``p`` gives the number that the
        features give, up to rounding.
        Where the student's layer is smaller than the teacher's, that loss pools the teacher's
        features *before* the power, which a map cannot undo: keep it with ``size``, the student's.

    Args:
        p: the power, as in the loss.
        size: pool the features to this smaller spatial size first; None for their own.

    Raises:
        ValueError: p is below 1, the teacher's layer is smaller than size, or in a loss the
            student's layer is smaller than the map.

    Example:
        >>> features = torch.rand(2, 3, 4, 4)
        >>> kind = AttentionMap()
        >>> again = kind.restore(kind.reduce(features))
        >>> again.shape, torch.allclose(activation_map(again), activation_map(features))
        (torch.Size([2, 1, 4, 4]), True)
    """

    p: float = 2
    size: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.p >= 1:
            raise ValueError(f"p is {self.p}: expected a number from 1, the p of the loss.")

    def reduce(self, output: Tensor, generator: Generator | None = None) -> Tensor:
        """Return the map, shape (B, *spatial)."""
        if self.size is None:
            return activation_map(output, p=self.p)
        own = output.shape[2:]
        if any(here < there for here, there in zip(own, self.size, strict=False)):
            raise ValueError(
                f"the teacher's layer is {_by(own)} and a map of {_by(self.size)} was asked for: "
                "the loss would pool the student's to that of the teacher. Leave size out."
            )
        return activation_map(pool(widen(output), self.size), p=self.p)

    def restore(self, kept: Tensor, student: Tensor | None = None) -> Tensor:
        """Return features of one channel with this map, shape (B, 1, *spatial)."""
        own = kept.shape[1:] if student is None else student.shape[2:]
        if any(here < there for here, there in zip(own, kept.shape[1:], strict=False)):
            raise ValueError(
                f"the student's layer is {_by(own)} and the teacher's map {_by(kept.shape[1:])}: "
                "the loss would pool the teacher's features before the power. Keep "
                f"AttentionMap(size={tuple(own)})."
            )
        return kept.pow(1 / self.p).unsqueeze(1)


@dataclass(frozen=True)
class Relation:
    r"""Keep the scores of MiniLM's relation of a layer, (B, heads, L, L), instead of its states.

    Convention
        Kept are :math:`R_a = X_a X_a^\top/\sqrt{d_r}` for queries, keys or values X; for a pair
        :math:`X_a Y_a^\top/\sqrt{d_r}`; both up to a constant in each row. Losses get the
        pair :math:`(\sqrt{L}\,R_a, I)`, whose relation is R again, so
        `kdlearn.losses.relation_loss` with the same heads gives the number that the states give.

    Args:
        heads: relation heads; they divide the width of the states.

    Example:
        >>> states = torch.rand(2, 5, 12)
        >>> kept = Relation(4).reduce(states)
        >>> kept.shape, Relation(4).restore(kept)[0].shape
        (torch.Size([2, 4, 5, 5]), torch.Size([2, 5, 20]))
    """

    heads: int

    def __post_init__(self) -> None:
        check_whole(self.heads, "heads")

    def reduce(
        self, output: Tensor | tuple[Tensor, Tensor], generator: Generator | None = None
    ) -> Tensor:
        """Return the scores, shape (B, heads, L, L)."""
        first, second = (output, output) if isinstance(output, Tensor) else output
        if first.shape[-1] % self.heads:
            raise ValueError(
                f"the states have width {first.shape[-1]}, which {self.heads} heads do not divide."
            )
        second = widen(second)
        # A softmax over keys does not see what they have in common, which may be large.
        second = second - second.mean(dim=1, keepdim=True)
        first, second = (
            widen(side).unflatten(2, (self.heads, -1)).transpose(1, 2) for side in (first, second)
        )
        return matmul(first, second.mT) / first.shape[-1] ** 0.5

    def restore(self, kept: Tensor, student: Any = None) -> tuple[Tensor, Tensor]:
        """Return a pair of states (B, L, heads L) with these scores."""
        length = kept.shape[-1]
        identity = torch.eye(length, dtype=kept.dtype, device=kept.device)
        second = identity.expand(len(kept), self.heads, length, length)
        first = kept * length**0.5
        return tuple(side.transpose(1, 2).flatten(2) for side in (first, second))  # type: ignore[return-value]


@dataclass(frozen=True)
class TopK:
    """Keep the k most probable classes or tokens instead of all logits.

    Convention
        Kept are log-probabilities at temperature 1 and indices, shape (..., k), for
        `kdlearn.losses.top_k_kl`; computed in float32 or more. What half precision rounds up to
        more than probability 1 in all is scaled back.

    Args:
        k: how many, at least 1.

    Example:
        >>> log_probs, indices = TopK(2).reduce(torch.tensor([[0.0, 2.0, 1.0]]))
        >>> indices.tolist()
        [[1, 2]]
    """

    k: int

    def __post_init__(self) -> None:
        check_whole(self.k, "k")

    def reduce(self, output: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and indices of the k largest."""
        if self.k > output.shape[-1]:
            raise ValueError(
                f"k is {self.k} and there are {output.shape[-1]} classes: keep at most so many."
            )
        check_logit_values(output, "the teacher's logits")
        log_probs, indices = widen(output).log_softmax(-1).topk(self.k, dim=-1)
        return log_probs, indices

    def restore(self, kept: tuple[Tensor, Tensor], student: Any = None) -> tuple[Tensor, Tensor]:
        """Return both, the probabilities of a row at most 1 together."""
        log_probs, indices = kept
        # Rounding brings a sum to exp(0.02) at most: what is more is for the loss to refuse.
        return log_probs - log_probs.logsumexp(-1, keepdim=True).clamp(0, 0.03), indices


@dataclass(frozen=True)
class Sampled:
    """Keep tokens drawn from the teacher, for an estimate that is right on average.

    Convention
        Kept are draws with replacement from the teacher's probabilities at temperature 1:
        log-probabilities and indices, shape (..., draws), for `kdlearn.losses.sampled_kl`. A live
        teacher draws anew for each batch, a stored one has the draws that were stored.

    Args:
        draws: how many, at least 1.
        seed: fixes the draws of a store.

    Example:
        >>> generator = Generator().manual_seed(0)
        >>> log_probs, indices = Sampled(5).reduce(torch.tensor([[0.0, 9.0]]), generator)
        >>> indices.tolist()
        [[1, 1, 1, 1, 1]]
    """

    draws: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self.draws, "draws")

    def reduce(self, output: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and indices of the draws."""
        check_logit_values(output, "the teacher's logits")
        log_probs = widen(output).log_softmax(-1)
        rows = log_probs.flatten(0, -2).exp()
        if generator is not None:
            rows = rows.to(generator.device)
        drawn = torch.multinomial(rows, self.draws, replacement=True, generator=generator)
        indices = drawn.view(*log_probs.shape[:-1], self.draws).to(log_probs.device)
        return log_probs.gather(-1, indices), indices

    def restore(self, kept: tuple[Tensor, Tensor], student: Any = None) -> tuple[Tensor, Tensor]:
        """Return both."""
        return kept


def _by(size: torch.Size | tuple[int, ...]) -> str:
    return "x".join(map(str, size))
