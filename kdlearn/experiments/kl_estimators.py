"""How much do the three estimators of a KL from one sample scatter, near the teacher and far?

With x drawn from q and r = log p(x) - log q(x): k1 = -r, k2 = r²/2, k3 = e^r - 1 - r. Two hundred
pairs of distributions over 20 tokens; every mean and variance is a sum over the tokens, so that
nothing is estimated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdlearn.experiments.common import Row, check


@dataclass(frozen=True)
class Recipe:
    """The numbers.

    Attributes:
        pairs: of distributions.
        tokens: of the vocabulary.
    """

    pairs: int = 200
    tokens: int = 20


ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda r: -r,
    "k2": lambda r: r.square() / 2,
    "k3": lambda r: r.expm1() - r,
}
# How far the logits of p are from those of q: the factor of standard normal noise.
DISTANCES = {"near": 0.1, "farther": 1.0, "far": 3.0}
METHODS = {f"{k}, {where}": (k, where) for where in DISTANCES for k in ESTIMATORS}
RECIPE = Recipe()
COLUMNS = ("scatter", "bias", "kl")


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``scatter`` is the standard deviation of one estimate over the true KL, ``bias`` how far its
    mean is from the true KL, in per cent of it, and ``kl`` the true KL in nats: medians over the
    pairs. The teacher's row is what an exact sum would have.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    yield {"seed": seed, "method": "teacher", "scatter": 0.0, "bias": 0.0}
    for name in methods:
        estimator, where = METHODS[name]
        generator = torch.Generator().manual_seed(seed)
        shape = (recipe.pairs, recipe.tokens)
        student = torch.randn(shape, generator=generator, dtype=torch.float64)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        log_q = student.log_softmax(1)
        r = (student + DISTANCES[where] * noise).log_softmax(1) - log_q
        q = log_q.exp()
        truth = -(q * r).sum(1)
        values = ESTIMATORS[estimator](r)
        mean = (q * values).sum(1)
        std = (q * (values - mean[:, None]).square()).sum(1).sqrt()
        yield {
            "seed": seed,
            "method": name,
            "scatter": (std / truth).median().item(),
            "bias": 100 * ((mean - truth) / truth).median().item(),
            "kl": truth.median().item(),
        }
