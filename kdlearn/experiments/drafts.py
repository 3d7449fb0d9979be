"""Which loss trains the draft whose tokens are accepted most?

A teacher says the next token after each of 256 contexts; the student, a table of low rank, cannot
copy it and has to choose. Speculative decoding accepts a drafted token x with probability
min(1, p(x) / q(x)), that is, 1 - TV(p, q) of them. Everything is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdlearn.experiments.common import Row, check
from kdlearn.losses import forward_kl, reverse_kl, total_variation


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one.

    Attributes:
        contexts: before which a token is drafted.
        tokens: of the vocabulary.
        teacher_rank: of the teacher's table of logits.
        student_rank: of the student's.
        steps: of Adam at 0.03.
        drawn: drafted tokens for the acceptance that is counted.
    """

    contexts: int = 256
    tokens: int = 64
    teacher_rank: int = 16
    student_rank: int = 4
    steps: int = 600
    drawn: int = 100_000


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward KL": forward_kl,
    "reverse KL": reverse_kl,
    "total variation": total_variation,
}
RECIPE = Recipe()
COLUMNS = ("acceptance", "counted", "kl_to_teacher")


def accepted(teacher: Tensor, student: Tensor, drawn: int, generator: torch.Generator) -> float:
    """Return the share of the student's drafts that the rule accepts, counted on samples.

    Args:
        teacher: probabilities, shape (contexts, tokens).
        student: the same of the draft.
        drawn: how many drafts.
        generator: draws contexts, drafts, and the coin of each.

    Source: Y. Leviathan, M. Kalman and Y. Matias, Fast Inference from Transformers via Speculative
        Decoding, ICML 2023, section 2.3.

    Example:
        >>> p = torch.tensor([[0.5, 0.5]])
        >>> accepted(p, p, 1000, torch.Generator())
        1.0
    """
    rows = torch.randint(len(teacher), (drawn,), generator=generator)
    tokens = torch.multinomial(student[rows], 1, generator=generator)[:, 0]
    ratio = teacher[rows, tokens] / student[rows, tokens]
    return (torch.rand(drawn, generator=generator) < ratio).double().mean().item()


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``acceptance`` is 1 - TV from the tables, ``counted`` the share of drawn drafts that were
    accepted, both in per cent; ``kl_to_teacher`` is the forward KL in nats.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(recipe.contexts, recipe.teacher_rank, generator=generator)
    right = torch.randn(recipe.teacher_rank, recipe.tokens, generator=generator)
    teacher = left @ right / 2

    def row(name: str, student: Tensor) -> Row:
        counted = accepted(teacher.softmax(1), student.softmax(1), recipe.drawn, generator)
        return {
            "seed": seed,
            "method": name,
            "acceptance": 100 * (1 - total_variation(student, teacher).item()),
            "counted": 100 * counted,
            "kl_to_teacher": forward_kl(student, teacher).item(),
        }

    starts = [
        0.3 * torch.randn(shape, generator=generator)
        for shape in (
            (recipe.contexts, recipe.student_rank),
            (recipe.student_rank, recipe.tokens),
            (1, recipe.tokens),
        )
    ]
    yield row("teacher", teacher)
    for name in methods:
        weights = [start.clone().requires_grad_() for start in starts]
        optimizer = torch.optim.Adam(weights, 0.03)
        for _ in range(recipe.steps):
            loss = METHODS[name](weights[0] @ weights[1] + weights[2], teacher)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield row(name, (weights[0] @ weights[1] + weights[2]).detach())
