"""A teacher that answers over a wire: log-probabilities of a few tokens, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kdlearn.core.identity import described
from kdlearn.core.inputs import Inputs, device_of, map_tensors
from kdlearn.data.batch import Batch
from kdlearn.data.samples import Samples
from kdlearn.data.views import Views
from kdlearn.distill.outputs import LOGITS, Keep, Outputs, Want


class ServedTeacher:
    """A teacher behind a server that gives the log-probabilities of a few tokens at each place.

    Its outputs are asked for at every step, so that it can score what the student has just
    written, see `kdlearn.training.OnPolicy`. What a server gave for fixed data is better stored,
    see `kdlearn.store`.

    Args:
        score: from inputs to log-probabilities and token numbers, both (B, L, k), place i telling
            of token i + 1, at temperature 1 and out of the whole vocabulary.
        keep: what of the logits that is, `kdlearn.store.TopK` or `kdlearn.store.Sampled`; the
            same as of the `kdlearn.distill.sparse_term` that reads it.

    Raises:
        TypeError: ``score`` is no function.
        ValueError: it returned something else than two tensors of one shape.

    Example:
        >>> from kdlearn.store import TopK
        >>> def score(tokens):  # would ask a server
        ...     return torch.randn(2, 5, 50).log_softmax(-1).topk(3)
        >>> teacher = ServedTeacher(score, TopK(3))
        >>> outputs = teacher.outputs(Batch(torch.zeros(2, 5, dtype=torch.long)))
        >>> outputs.kept[Want(LOGITS, TopK(3))][0].shape
        torch.Size([2, 5, 3])
    """

    def __init__(self, score: Callable[[Inputs], tuple[Tensor, Tensor]], keep: Keep) -> None:
        if not callable(score):
            raise TypeError(f"score is {score!r}: expected a function from inputs to the answer.")
        self.score = score
        self.want = Want(LOGITS, keep)

    def check(self, wants: Iterable[Want]) -> None:
        """Raise a KeyError for anything else than what is served."""
        for want in wants:
            if want != self.want:
                raise KeyError(
                    f"{want} is not served, {self.want} is: read it with sparse_term(..., keep)."
                )

    def check_run(self, samples: Samples, views: Views) -> None:
        """Accept all: it answers whatever is shown."""

    def identity(self, samples: Samples) -> dict[str, Any]:
        """Return what it answers to a few of the samples."""
        log_probs = self.outputs(samples.few(4)).kept[self.want][0]
        first = [round(value, 4) for value in log_probs.flatten()[:256].tolist()]
        return {"served": described(self.score), "answers": first}

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Outputs:
        """Ask for a batch."""
        answer: Any = self.score(batch.inputs)
        pair = isinstance(answer, tuple) and len(answer) == 2
        if not pair or not all(isinstance(part, Tensor) for part in answer):
            raise ValueError(
                f"score returned a {type(answer).__name__}: expected (log_probs, indices), two "
                "tensors."
            )
        if answer[0].shape != answer[1].shape or len(answer[0]) != len(batch):
            raise ValueError(
                f"score returned shapes {tuple(answer[0].shape)} and {tuple(answer[1].shape)} for "
                f"{len(batch)} samples: expected both (B, L, k)."
            )
        home = device_of(batch.inputs)
        kept = map_tensors(lambda tensor: tensor.to(home), tuple(answer))
        return Outputs(None, kept={self.want: kept}, batch=batch)
