"""Let a language model write: sampled or greedy, batch by batch, without computing twice."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from kdlearn.core.checks import check_number, check_sizes, check_temperature
from kdlearn.core.inputs import call, evaluating


@runtime_checkable
class Continues(Protocol):
    """A model that can go on where it stopped, such as `kdlearn.models.TinyTransformer`."""

    def continued(self, tokens: Tensor, past: Any = None) -> tuple[Tensor, Any]:
        """Return the logits of more tokens, and what to hand in with the next ones."""


class Written(NamedTuple):
    """Prompts, and what a model wrote after them.

    Attributes:
        tokens: int64, shape (B, P + new tokens).
        mask: bool, the same shape: True where the model wrote, up to and with the first stop.

    Example:
        >>> Written(torch.tensor([[5, 1]]), torch.tensor([[False, True]])).mask.sum().item()
        1
    """

    tokens: Tensor
    mask: Tensor


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Tensor,
    new_tokens: int,
    *,
    temperature: float = 1.0,
    stop: int | None = None,
    generator: Generator | None = None,
) -> Written:
    r"""Continue each prompt, token by token, :math:`y_i \sim \mathrm{softmax}(z_i / T)`.

    Convention
        The model runs in ``eval()`` and without gradient, and is put back into its mode. A model
        with ``continued`` computes each token once and keeps what it needs of the past (KV cache,
        recurrent state, sums of linear attention); any other computes all tokens again at each
        step. Both write the same up to rounding.
        After a stop token comes the same token until the end.

    Args:
        model: from tokens (B, L) to logits (B, L, V), position i predicting token i + 1.
        prompts: int64, shape (B, P), at least one token each and all of one length.
        new_tokens: how many to write.
        temperature: T; 0 takes the most likely token each time (greedy).
        stop: the token that ends a text.
        generator: of the draws; by default torch's own.

    Raises:
        TypeError: the prompts are no whole numbers.
        ValueError: the prompts are no (B, P), ``new_tokens`` is smaller than 1, or the temperature
            is negative or not finite.

    Example:
        >>> from kdlearn.models import RecurrentLM
        >>> written = generate(RecurrentLM(symbols=5), torch.zeros(2, 1, dtype=torch.long), 3)
        >>> written.tokens.shape, written.mask[0].tolist()
        (torch.Size([2, 4]), [False, True, True, True])
    """
    check_prompts(prompts)
    check_sizes(new_tokens=new_tokens)
    check_number(temperature, "temperature")
    if temperature != 0:
        check_temperature(temperature)
    tokens, newest, past = prompts, prompts, None
    over = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
    counts = torch.zeros_like(prompts, dtype=torch.bool)
    with evaluating(model):
        for _ in range(new_tokens):
            if isinstance(model, Continues):
                logits, past = model.continued(newest, past)
            else:
                logits = call(model, tokens)
            newest = choose(logits[:, -1], temperature, generator)[:, None]
            if stop is not None:
                newest = newest.masked_fill(over[:, None], stop)
            tokens = torch.cat([tokens, newest], dim=1)
            counts = torch.cat([counts, ~over[:, None]], dim=1)
            if stop is not None:
                over = over | (newest[:, 0] == stop)
    return Written(tokens, counts)


def choose(logits: Tensor, temperature: float, generator: Generator | None) -> Tensor:
    """Choose a token for each row of logits (B, V): drawn, or the most likely one at 0.

    Example:
        >>> choose(torch.tensor([[0.0, 3.0]]), 0, None)
        tensor([1])
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    return draw((logits.float() / temperature).softmax(dim=-1), generator)


def draw(probs: Tensor, generator: Generator | None) -> Tensor:
    """Draw one token from each row of probabilities (B, V), where the generator lives.

    Example:
        >>> draw(torch.tensor([[0.0, 1.0]]), Generator())
        tensor([1])
    """
    home = probs if generator is None else probs.to(generator.device)
    return torch.multinomial(home, 1, generator=generator).squeeze(1).to(probs.device)


def check_prompts(prompts: Tensor) -> None:
    """Refuse what is no batch of prompts.

    Example:
        >>> check_prompts(torch.zeros(3, dtype=torch.long))
        Traceback (most recent call last):
        ...
        ValueError: prompts have shape (3,): expected (batch, length), with at least one token each.
    """
    if not isinstance(prompts, Tensor) or prompts.dtype != torch.int64:
        given = prompts.dtype if isinstance(prompts, Tensor) else type(prompts).__name__
        raise TypeError(f"prompts are {given}: expected token numbers of torch.int64.")
    if prompts.dim() != 2 or prompts.numel() == 0:
        raise ValueError(
            f"prompts have shape {tuple(prompts.shape)}: expected (batch, length), with at least "
            "one token each."
        )
