"""Which strings does a student write, after each divergence from one and the same teacher?

All strings of a small language are listed, so that every divergence, gradient and measure is a sum
over them, without sampling. The student is a table. With the last two tokens in sight it cannot
know which brackets are open, so it has to choose what to get wrong; with the whole string in sight
it could be the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.data import dyck_language
from kdlearn.data.dyck import START, SYMBOLS, DyckLanguage
from kdlearn.experiments.common import Row, check, seeded
from kdlearn.losses import forward_kl, generalized_jsd, reverse_kl, skew_kl
from kdlearn.models import TableLM


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one.

    Attributes:
        length: of the strings.
        window: how many tokens the small student looks back.
        steps: of Adam at 0.05.
    """

    length: int = 6
    window: int = 2
    steps: int = 400


@dataclass(frozen=True)
class Method:
    """What a student minimizes.

    Attributes:
        loss: of logits over strings, student's and teacher's.
        whole: whether the student sees the whole string.
    """

    loss: Callable[..., Tensor]
    whole: bool = False


METHODS = {
    "forward KL": Method(forward_kl),
    "skew KL 0.1": Method(partial(skew_kl, skew=0.1)),
    "JSD 0.1": Method(partial(generalized_jsd, beta=0.1)),
    "JSD 0.5": Method(partial(generalized_jsd, beta=0.5)),
    "JSD 0.9": Method(partial(generalized_jsd, beta=0.9)),
    "reverse KL": Method(reverse_kl),
    "forward KL, able": Method(forward_kl, whole=True),
    "reverse KL, able": Method(reverse_kl, whole=True),
}
RECIPE = Recipe()
COLUMNS = ("valid", "covered", "entropy", "teacher_nll", "kl_to_teacher", "kl_reverse")


def string_log_probs(student: TableLM, strings: Tensor) -> Tensor:
    """Return log q of whole strings (N, L), shape (N,): the sum over their tokens.

    Example:
        >>> student = TableLM(symbols=4, length=2, window=1)
        >>> strings = dyck_language(2).strings
        >>> round(string_log_probs(student, strings).exp().sum().item(), 4)
        1.0
    """
    tokens = F.pad(strings[:, :-1], (1, 0), value=START)
    log_probs = student(tokens).log_softmax(dim=-1)
    return log_probs.gather(2, strings[..., None]).squeeze(2).sum(dim=1)


def measures(log_q: Tensor, language: DyckLanguage) -> dict[str, float]:
    r"""Return what is measured of a distribution over all strings.

    ``valid`` is the probability of a well nested string; ``covered`` that of the teacher on the
    strings to which the student gives at least a tenth of the teacher's probability; both in per
    cent. In nats: ``entropy`` of q, ``teacher_nll`` :math:`-\sum q \log p`, ``kl_to_teacher`` the
    forward KL and ``kl_reverse`` the other one.

    Example:
        >>> language = dyck_language(4)
        >>> told = measures(language.log_probs, language)
        >>> round(told["valid"], 1), round(told["covered"], 1), told["kl_reverse"]
        (99.0, 100.0, 0.0)
    """
    log_p = language.log_probs
    p, q = log_p.exp(), log_q.exp()
    return {
        "valid": 100 * q[language.valid].sum().item(),
        "covered": 100 * p[q >= p / 10].sum().item(),
        "entropy": -(q * log_q).sum().item(),
        "teacher_nll": -(q * log_p).sum().item(),
        "kl_to_teacher": (p * (log_p - log_q)).sum().item(),
        "kl_reverse": (q * (log_q - log_p)).sum().item(),
    }


def train_student(method: Method, language: DyckLanguage, recipe: Recipe, seed: int) -> TableLM:
    """Train a student on the exact gradient of its divergence."""
    window = recipe.length if method.whole else recipe.window
    student = seeded(lambda: TableLM(len(SYMBOLS), recipe.length, window), seed)
    optimizer = torch.optim.Adam(student.parameters(), 0.05)
    for _ in range(recipe.steps):
        log_q = string_log_probs(student, language.strings)
        loss = method.loss(log_q[None], language.log_probs[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    The columns are those of :func:`measures`.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    language = dyck_language(recipe.length, seed=seed)
    yield {"seed": seed, "method": "teacher", **measures(language.log_probs, language)}
    for name in methods:
        student = train_student(METHODS[name], language, recipe, seed)
        with torch.no_grad():
            log_q = string_log_probs(student, language.strings)
        yield {"seed": seed, "method": name, **measures(log_q, language)}
