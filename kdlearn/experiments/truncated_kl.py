"""Where does a student's probability go when a KL is cut to the teacher's 20 best tokens?

One distribution over 1,000 tokens, Zipf's law times noise, and a student with a free logit for each
token, so that nothing but the loss decides where it ends. Everything is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kdlearn.experiments.common import Row, check
from kdlearn.losses import forward_kl, reverse_kl, top_k_kl


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one.

    Attributes:
        tokens: size of the vocabulary.
        kept: k.
        steps: of Adam at 0.05.
    """

    tokens: int = 1000
    kept: int = 20
    steps: int = 800


Loss = Callable[[Tensor, Tensor, int], Tensor]
LOWEST = -0.01  # a loss below it counts as negative; above, it may be rounding


def forward_top_k(student: Tensor, teacher: Tensor, kept: int, *, tail: str) -> Tensor:
    """Forward KL of the teacher's k best tokens, see :func:`kdlearn.losses.top_k_kl`."""
    top = teacher.log_softmax(-1).topk(kept)
    return top_k_kl(student, top.values, top.indices, tail=tail)  # type: ignore[arg-type]


def reverse_top_k(student: Tensor, teacher: Tensor, kept: int) -> Tensor:
    r"""Reverse KL cut to the teacher's k best tokens, :math:`\sum_j s_j \log (s_j / t_j)`.

    Its minimum is at :math:`s_j = t_j / e`: there the student keeps 1/e of the teacher's mass.

    Example:
        >>> teacher = torch.zeros(1, 10)
        >>> reverse_top_k(teacher, teacher, 2).item()
        0.0
    """
    top = teacher.log_softmax(-1).topk(kept)
    student = student.log_softmax(-1).gather(-1, top.indices)
    return (student.exp() * (student - top.values)).sum(-1).mean()


METHODS: dict[str, Loss] = {
    "forward KL": lambda student, teacher, kept: forward_kl(student, teacher),
    "forward KL, top k": partial(forward_top_k, tail="ignore"),
    "forward KL, top k, clamped": lambda *a: forward_top_k(*a, tail="ignore").clamp_min(0),
    "forward KL, top k renormalized": partial(forward_top_k, tail="renormalize"),
    "forward KL, top k and the rest": partial(forward_top_k, tail="bucket"),
    "reverse KL": lambda student, teacher, kept: reverse_kl(student, teacher),
    "reverse KL, top k": reverse_top_k,
}
RECIPE = Recipe()
COLUMNS = ("mass", "negative", "kl_to_teacher")


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``mass`` is what a distribution gives to the teacher's k best tokens, ``negative`` the share of
    steps at which the loss was below 0, both in per cent; ``kl_to_teacher`` the full forward KL at
    the end, in nats.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    generator = torch.Generator().manual_seed(seed)
    zipf = -1.1 * torch.arange(1, recipe.tokens + 1).log()
    teacher = (zipf + 0.3 * torch.randn(recipe.tokens, generator=generator))[None]
    start = 0.5 * torch.randn(1, recipe.tokens, generator=generator)
    best = teacher.topk(recipe.kept).indices

    def mass(logits: Tensor) -> float:
        return 100 * logits.softmax(-1).gather(-1, best).sum().item()

    yield {"seed": seed, "method": "teacher", "mass": mass(teacher), "kl_to_teacher": 0.0}
    for name in methods:
        student = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([student], 0.05)
        negative = 0
        for _ in range(recipe.steps):
            loss = METHODS[name](student, teacher, recipe.kept)
            negative += loss.item() < LOWEST
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        end = student.detach()
        yield {
            "seed": seed,
            "method": name,
            "mass": mass(end),
            "negative": 100 * negative / recipe.steps,
            "kl_to_teacher": forward_kl(end, teacher).item(),
        }
