"""Two tokenizers over one language: which loss finds what the teacher knows?

A language of six letters, each drawn from the one before. The teacher's tokens are letters and its
probabilities are exact; the student's tokens are all 36 pairs of letters. What the teacher says of
a pair is a product of two of its probabilities, so that the truth is known, and 0 can be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from kdlearn.experiments.common import Row, check
from kdlearn.losses import cross_entropy, forward_kl, uld_loss

LETTERS = 6


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one.

    Attributes:
        labels: pairs with the letter before them, as a text has them.
        steps: of Adam, whose rate falls from 0.05 to 0.
    """

    labels: int = 1000
    steps: int = 400


@dataclass(frozen=True)
class Language:
    """The truth about the next letter, and about the next two.

    Attributes:
        letters: log p(a | the letter before), shape (6, 6).
        pairs: log p(a, b | the letter before), shape (6, 36).
        before: letters before the labels, shape (N,).
        labels: pairs drawn from the truth, shape (N,).
    """

    letters: Tensor
    pairs: Tensor
    before: Tensor
    labels: Tensor


def draw(labels: int, generator: Generator) -> Language:
    """Draw a language, and labels in it."""
    letters = (1.5 * torch.randn(LETTERS, LETTERS, generator=generator)).log_softmax(1)
    pairs = (letters[:, :, None] + letters[None]).flatten(1)
    before = torch.randint(LETTERS, (labels,), generator=generator)
    drawn = torch.multinomial(pairs.exp()[before], 1, generator=generator).squeeze(1)
    return Language(letters, pairs, before, drawn)


def span_kl(student: Tensor, language: Language) -> Tensor:
    """KL on pairs, whose probability is the product of the teacher's two letters."""
    return forward_kl(student, language.pairs)


def first_letter_kl(student: Tensor, language: Language) -> Tensor:
    """KL on the first letter: the sum of the pairs that begin with it."""
    begins = student.log_softmax(1).unflatten(1, (LETTERS, LETTERS)).logsumexp(2)
    return forward_kl(begins, language.letters)


def label_loss(student: Tensor, language: Language) -> Tensor:
    """Cross-entropy on drawn pairs."""
    return cross_entropy(student[language.before], language.labels)


Loss = Callable[[Tensor, Language], Tensor]
METHODS: dict[str, Loss] = {
    "spans": span_kl,
    "first letter": first_letter_kl,
    "ULD": lambda student, language: uld_loss(student, language.letters),
    "ULD, same tokens": lambda student, language: uld_loss(student, language.pairs),
    "labels": label_loss,
    "labels and ULD": lambda student, language: (
        label_loss(student, language) + uld_loss(student, language.letters)
    ),
    "labels and spans": lambda student, language: (
        label_loss(student, language) + span_kl(student, language)
    ),
}
RECIPE = Recipe()
COLUMNS = ("kl_to_teacher", "best_pair", "loss")


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``kl_to_teacher`` is KL(truth || student) of pairs in nats, a mean over the six letters before;
    ``best_pair`` in how many per cent of these the likeliest pair is the right one; ``loss`` what
    was left of the loss. The teacher's row is the truth, with the loss that ULD has there.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    generator = Generator().manual_seed(seed)
    language = draw(recipe.labels, generator)
    start = torch.randn(language.pairs.shape, generator=generator)

    def row(name: str, student: Tensor, loss: float) -> Row:
        right = student.argmax(1) == language.pairs.argmax(1)
        return {
            "seed": seed,
            "method": name,
            "kl_to_teacher": forward_kl(student, language.pairs).item(),
            "best_pair": 100 * right.float().mean().item(),
            "loss": loss,
        }

    yield row("teacher", language.pairs, METHODS["ULD"](language.pairs, language).item())
    for name in methods:
        student = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([student], 0.05)
        for step in range(recipe.steps):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / recipe.steps)
            loss = METHODS[name](student, language)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield row(name, student.detach(), loss.item())
