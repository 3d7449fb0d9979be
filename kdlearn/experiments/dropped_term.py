"""What does a reverse KL of each token leave out of the reverse KL of the whole string?

A language of 4,096 strings, a teacher that knows the probability of each, and a student that sees
two tokens back, so that it cannot copy the teacher. All losses and gradients are sums over all
strings: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.data.dyck import START, SYMBOLS, dyck_language
from kdlearn.experiments.common import Row, check, seeded
from kdlearn.models import TableLM


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one.

    Attributes:
        length: of the strings.
        window: how many tokens the student looks back.
        steps: of Adam at 0.05.
    """

    length: int = 6
    window: int = 2
    steps: int = 250


@dataclass(frozen=True)
class Both:
    """What student and teacher say of all N strings of L tokens.

    Attributes:
        student: log-probabilities of the next token at each place, (N, L, V), with a graph.
        teacher: the same of the teacher.
        strings: the tokens, (N, L).
    """

    student: Tensor
    teacher: Tensor
    strings: Tensor

    def taken(self, log_probs: Tensor) -> Tensor:
        """Return the log-probability of each token that stands in a string, (N, L)."""
        return log_probs.gather(2, self.strings[..., None]).squeeze(2)

    def log_student(self) -> Tensor:
        """Return log s of each string, (N,)."""
        return self.taken(self.student).sum(dim=1)

    def log_teacher(self) -> Tensor:
        """Return log t of each string, (N,)."""
        return self.taken(self.teacher).sum(dim=1)


def forward_kl(both: Both) -> Tensor:
    """KL(t || s) of strings: also the sum of each token's, on the teacher's strings."""
    log_t = both.log_teacher()
    return (log_t.exp() * (log_t - both.log_student())).sum()


def token_forward_kl(both: Both) -> Tensor:
    """KL(t || s) of each token, on the student's strings, which are taken as given."""
    rows = (both.teacher.exp() * (both.teacher - both.student)).sum(dim=2)
    return (both.log_student().detach().exp()[:, None] * rows).sum()


def token_reverse_kl(both: Both) -> Tensor:
    """KL(s || t) of each token, on the student's strings, which are taken as given."""
    rows = (both.student.exp() * (both.student - both.teacher)).sum(dim=2)
    return (both.log_student().detach().exp()[:, None] * rows).sum()


def sequence_reverse_kl(both: Both) -> Tensor:
    """KL(s || t) of strings: the same value, and the gradient sees what a token leads to."""
    log_s = both.log_student()
    return (log_s.exp() * (log_s - both.log_teacher())).sum()


METHODS: dict[str, Callable[[Both], Tensor]] = {
    "forward KL": forward_kl,
    "on-policy forward KL, each token": token_forward_kl,
    "reverse KL, each token": token_reverse_kl,
    "reverse KL, the string": sequence_reverse_kl,
}
RECIPE = Recipe()
COLUMNS = ("valid", "reverse_kl", "kl_to_teacher", "entropy")


def of_all_strings(student: nn.Module, teacher: Tensor, strings: Tensor) -> Both:
    """Ask a student about all strings, of which the teacher has said its log-probabilities."""
    tokens = F.pad(strings[:, :-1], (1, 0), value=START)
    return Both(student(tokens).log_softmax(dim=-1), teacher, strings)


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``valid`` is the share of well nested strings that a model writes, in per cent; the KL of
    strings in both directions and the entropy are in nats.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    language = dyck_language(recipe.length, seed=seed)

    def row(name: str, both: Both) -> Row:
        log_s, log_t = both.log_student(), both.log_teacher()
        return {
            "seed": seed,
            "method": name,
            "valid": 100 * log_s.exp()[language.valid].sum().item(),
            "reverse_kl": (log_s.exp() * (log_s - log_t)).sum().item(),
            "kl_to_teacher": (log_t.exp() * (log_t - log_s)).sum().item(),
            "entropy": -(log_s.exp() * log_s).sum().item(),
        }

    exact = language.next_log_probs()
    yield row("teacher", Both(exact, exact, language.strings))
    for name in methods:
        student = seeded(lambda: TableLM(len(SYMBOLS), recipe.length, recipe.window), seed)
        optimizer = torch.optim.Adam(student.parameters(), 0.05)
        for _ in range(recipe.steps):
            loss = METHODS[name](of_all_strings(student, exact, language.strings))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            yield row(name, of_all_strings(student, exact, language.strings))
