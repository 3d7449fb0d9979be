"""On-policy distillation: the student writes, the teacher scores what it wrote."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Generator, Tensor, nn

from kdlearn.core.checks import check_fraction, check_mask, check_sizes, check_temperature
from kdlearn.core.inputs import join
from kdlearn.data.batch import Batch
from kdlearn.data.samples import Samples
from kdlearn.training.generation import check_prompts, generate

IGNORED = -100
"""The label of a token that does not count, as in Hugging Face."""


def next_tokens(tokens: Tensor, mask: Tensor) -> Batch:
    """Return sequences as a language model learns them: each token is the label of the one before.

    Args:
        tokens: int64, shape (B, L).
        mask: bool, shape (B, L), True where a token is to be learned: the answer, not the prompt.

    Returns:
        A batch with inputs (B, L - 1) and labels (B, L - 1), -100 where a token does not count.

    Raises:
        TypeError: the tokens are no whole numbers, or the mask no truth values.
        ValueError: the shapes differ, there is no second token, or the mask keeps none.

    Example:
        >>> import torch
        >>> batch = next_tokens(torch.tensor([[7, 8, 9]]), torch.tensor([[False, False, True]]))
        >>> batch.inputs.tolist(), batch.labels.tolist()
        ([[7, 8]], [[-100, 9]])
    """
    check_prompts(tokens)
    check_mask(mask, tokens.shape)
    check_mask(mask[:, 1:], tokens[:, 1:].shape)
    return Batch(tokens[:, :-1], tokens[:, 1:].masked_fill(~mask[:, 1:], IGNORED))


def answer_mask(batch: Batch) -> Tensor:
    """Return where the labels of a batch count, for ``mask=`` of a term.

    Raises:
        ValueError: there are no labels.

    Example:
        >>> import torch
        >>> answer_mask(Batch(torch.zeros(1, 2), torch.tensor([[-100, 9]])))
        tensor([[False,  True]])
    """
    if not isinstance(batch.labels, Tensor):
        raise ValueError(
            "the batch has no labels, by which answers are known: pass the tokens that come next, "
            "as next_tokens makes them (OnPolicy with a share keeps some of the data's)."
        )
    return batch.labels != IGNORED


@dataclass(frozen=True)
class OnPolicy:
    r"""Views in which the student answers the prompts of the data itself.

    Handed to `kdlearn.training.fit` as ``augment``. Every step, the student writes to the prompts
    of the batch, and student and teacher are compared on what it wrote: which loss does that is
    the term's business.

    Convention
        The student writes as it is before the step, in ``eval()`` and without gradient: no
        gradient goes through the choice of tokens. So a loss over the vocabulary, such as
        `kdlearn.losses.reverse_kl`, takes the states as given and does not see what a token leads
        to; `kdlearn.losses.sequence_reverse_kl` does.
        A batch has inputs (B, P + new_tokens - 1) and labels that are the tokens which come next,
        -100 in the prompt and after the first stop, see `next_tokens` and `answer_mask`.
        Of B sequences the student writes round(share B); the others stay as the data have them
        (off policy), with labels of the data.

    Args:
        student: the model that `fit` trains.
        prompt: P, how many tokens of the data are the prompt.
        new_tokens: how many the student writes.
        share: of the sequences that the student writes, from 0 to 1; the lambda of GKD.
        stop: the token that ends an answer.
        temperature: of the draws, above 0.

    Raises:
        TypeError: the student is no module.
        ValueError: a size, the share or the temperature is out of its range; the data have fewer
            tokens than the prompt, or, where some are kept, another length than prompt and answer.

    Source: Agarwal et al., "On-Policy Distillation of Language Models" (GKD), ICLR 2024, algorithm
        1, which draws for each batch who writes; here it is a share of each batch.

    Example:
        >>> import torch
        >>> from kdlearn.models import RecurrentLM
        >>> views = OnPolicy(RecurrentLM(symbols=5), prompt=2, new_tokens=3)
        >>> batch = views.of_batch(Batch(torch.tensor([[1, 2], [3, 4]])), Generator())
        >>> batch.inputs.shape, answer_mask(batch)[0].tolist()
        (torch.Size([2, 4]), [False, True, True, True])
    """

    student: nn.Module
    prompt: int
    new_tokens: int
    share: float = 1.0
    stop: int | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.student, nn.Module):
            raise TypeError(f"student is {self.student!r}: expected the module that fit trains.")
        check_sizes(prompt=self.prompt, new_tokens=self.new_tokens)
        check_fraction(self.share, "share")
        check_temperature(self.temperature)

    def of_epoch(self, samples: Samples, epoch: int) -> Samples:
        """Return them as they are: the student writes when the batch comes."""
        return samples

    def of_batch(self, batch: Batch, generator: Generator) -> Batch:
        """Return a batch that the student wrote, or a share of it."""
        tokens: Any = batch.inputs
        check_prompts(tokens)
        if tokens.shape[1] < self.prompt:
            raise ValueError(
                f"the data have {tokens.shape[1]} tokens and prompt is {self.prompt}: expected at "
                "least the prompt."
            )
        count = round(self.share * len(batch))
        if count == 0:
            return batch
        home = next(self.student.parameters()).device
        written = generate(
            self.student,
            tokens[:count, : self.prompt].to(home),
            self.new_tokens,
            temperature=self.temperature,
            stop=self.stop,
            generator=generator,
        )
        own = next_tokens(*written).to(tokens.device)
        if batch.mask is not None:  # that of the data is about tokens which are gone
            own = replace(own, mask=answer_mask(own))
        if count < len(batch):
            own = self._with_the_rest(own, batch.take(slice(count, None)))
        return replace(batch, inputs=own.inputs, labels=own.labels, mask=own.mask)

    def _with_the_rest(self, own: Batch, rest: Batch) -> Batch:
        if not isinstance(rest.labels, Tensor) or rest.labels.shape[1:] != own.labels.shape[1:]:
            given = getattr(rest.labels, "shape", None)
            raise ValueError(
                f"a part of each batch is kept as it is and its labels have shape {given}, beside "
                f"{tuple(own.labels.shape)} of what the student wrote: make the data with "
                f"next_tokens, of {self.prompt + self.new_tokens} tokens each."
            )
        if rest.mask is not None and rest.mask.shape[1:] != own.labels.shape[1:]:
            raise ValueError(
                f"a part of each batch is kept as it is and its mask has shape "
                f"{tuple(rest.mask.shape)}, beside {tuple(own.labels.shape)} of what the student "
                "wrote: give one truth value a token."
            )
        inputs, labels, mask = join(
            [[own.inputs, own.labels, own.mask], [rest.inputs, rest.labels, rest.mask]]
        )
        return Batch(inputs, labels, mask=mask)
