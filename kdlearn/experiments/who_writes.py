"""Who should write the text that a student learns from, and how much should the teacher say of it?

Walks to a goal, in which a wrong move can be made good. The teacher knows from everywhere which
moves bring the goal nearer; the student has one small layer and has to keep count of its own moves.
All students see the same goals, and as many walks, but where a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from kdlearn.data import Batch
from kdlearn.data.walk import (
    MOVES,
    PROMPT,
    STEPS,
    STOP,
    SYMBOLS,
    Walks,
    arrived,
    good_moves,
    shortest_walks,
    walk_goals,
    wrong_moves,
)
from kdlearn.distill import Distiller, Outputs, Term, label_term, logit_term
from kdlearn.experiments.common import Row, check, seeded
from kdlearn.losses import forward_kl, reverse_kl
from kdlearn.models import TinyTransformer
from kdlearn.training import Engine, OnPolicy, adamw, answer_mask, fit, generate, next_tokens


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        walks: that the teacher wrote, and whose goals the student gets where it writes itself.
        many: the same where a name says so.
        width: of the student's one layer.
        warm_steps: on the teacher's walks, with which a student begins that is not cold.
        steps: in all, with those.
        batch_size: walks a step, whoever writes them.
        learning_rate: of AdamW; it rises over 20 steps and falls over the last 30 % of each part.
        held_out: goals that are walked to at the end.
    """

    walks: int = 128
    many: int = 4096
    width: int = 16
    warm_steps: int = 200
    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 1e-2
    held_out: int = 512


@dataclass(frozen=True)
class Arm:
    """What differs from student to student.

    Attributes:
        signal: what the teacher says of a walk: ``"token"``, ``"forward"``, ``"reverse"``, or
            ``"reward"``, 1 for a walk that arrived.
        writes: whether the student writes.
        warm: whether it begins with the teacher's walks.
        detour: random moves at most before the teacher takes over, in walks that it wrote.
        many: whether there are many walks.
        longer: so many times the steps.
    """

    signal: str
    writes: bool = False
    warm: bool = True
    detour: int = 0
    many: bool = False
    longer: int = 1


METHODS: dict[str, Arm] = {
    "SFT": Arm("token", warm=False),
    "SFT, 3x": Arm("token", warm=False, longer=3),
    "off-policy forward KL": Arm("forward"),
    "off-policy forward KL, detours": Arm("forward", detour=3),
    "off-policy reverse KL": Arm("reverse"),
    "on-policy forward KL": Arm("forward", writes=True),
    "on-policy reverse KL": Arm("reverse", writes=True),
    "reward": Arm("reward", writes=True),
    "on-policy forward KL, cold": Arm("forward", writes=True, warm=False),
    "on-policy reverse KL, cold": Arm("reverse", writes=True, warm=False),
    "SFT, many": Arm("token", warm=False, many=True),
    "on-policy forward KL, many": Arm("forward", writes=True, many=True),
}
RECIPE = Recipe()
COLUMNS = ("right", "greedy", "wrong_moves", "recovered")
NOISE = 0.001


class Guide(nn.Module):
    """A teacher without error: all moves that bring the goal nearer are alike, any other is rare.

    Shape:
        Tokens (B, L) to logits (B, L, 14), logarithms of probabilities.

    Example:
        >>> Guide()(torch.tensor([[4, 5, 9]]))[0, -1].exp().argmax().item()  # it is there: STOP
        13
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at each place; inside the prompt all are alike."""
        good = good_moves(tokens).float()
        moves = F.pad(good / good.sum(dim=-1, keepdim=True), (SYMBOLS - MOVES - 1, 0))
        known = (1 - NOISE) * moves + NOISE / SYMBOLS
        prompt = torch.full_like(known[:, : PROMPT - 1], 1 / SYMBOLS)
        return torch.cat([prompt, known], dim=1).log()


def reward_loss(logits: Tensor, batch: Batch) -> Tensor:
    r"""REINFORCE with the mean reward of the batch as baseline.

    .. math:: L = -\frac1N \sum_b (R_b - \bar R) \sum_i \log s(y_i)

    with R = 1 for a walk that arrived, and N tokens that count.
    """
    labels: Tensor = batch.labels
    mask = answer_mask(batch)
    last = labels[:, -1:].masked_fill(~mask[:, -1:], STOP)
    reward = arrived(torch.cat([batch.inputs, last], dim=1)).float()  # type: ignore[list-item]
    taken = logits.log_softmax(-1).gather(2, labels.clamp_min(0)[..., None]).squeeze(2)
    return -((reward - reward.mean())[:, None] * taken * mask).sum() / mask.sum()


def term_of(signal: str) -> Term:
    """Return the term of the loss that reads the signal."""

    def walks(student: Outputs, teacher: Outputs, labels: object) -> list[tuple[object, ...]]:
        return [(student.logits, student.batch)]

    terms: dict[str, Callable[[], Term]] = {
        "token": label_term,
        "forward": lambda: logit_term("forward", forward_kl, mask=answer_mask),
        "reverse": lambda: logit_term("reverse", reverse_kl, mask=answer_mask),
        "reward": lambda: Term("reward", 1.0, reward_loss, walks, wants=()),
    }
    return terms[signal]()


def make_student(recipe: Recipe, seed: int) -> TinyTransformer:
    """Make the student; its first weights follow from the seed."""
    shape = {"symbols": SYMBOLS, "length": PROMPT + STEPS, "width": recipe.width}
    return seeded(lambda: TinyTransformer(**shape, heads=2, layers=1), seed)


def trained(arm: Arm, *, recipe: Recipe = RECIPE, seed: int) -> TinyTransformer:
    """Make a student and train it; what two arms share is the same in both."""
    student, steps = make_student(recipe, seed), recipe.steps * arm.longer
    count = recipe.many if arm.many else recipe.walks
    if arm.warm:
        begin = Arm("token")
        _train(student, begin, shortest_walks(count, seed=seed), recipe.warm_steps, recipe, seed)
        steps -= recipe.warm_steps
    walks = shortest_walks(count, detour=arm.detour, seed=seed)
    _train(student, arm, walks, steps, recipe, seed)
    return student


def _train(
    student: nn.Module, arm: Arm, walks: Walks, steps: int, recipe: Recipe, seed: int
) -> None:
    batch_size = min(recipe.batch_size, len(walks))
    optimizer = adamw(student.parameters(), recipe.learning_rate)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / 20, max(0.05, (1 - step / steps) / 0.3))

    fit(
        Distiller(student, Guide(), [term_of(arm.signal)]),
        next_tokens(walks.tokens, walks.mask),
        epochs=steps * batch_size // len(walks),
        batch_size=batch_size,
        optimizer=optimizer,
        scheduler=LambdaLR(optimizer, rate),
        augment=OnPolicy(student, PROMPT, STEPS, stop=STOP) if arm.writes else None,
        engine=Engine(clip_norm=1.0),
        seed=seed,
        progress=False,
    )


def walked(student: nn.Module, goals: Tensor, seed: int) -> dict[str, float]:
    """Let a student walk, and return the columns of the table, in per cent.

    ``right`` is the share of walks that stop at the goal, drawn at temperature 1, ``greedy`` the
    same with the likeliest move each time; ``wrong_moves`` the share of moves that do not bring the
    goal nearer, and ``recovered`` the share of right ones among the walks that have such a move.
    """
    generator = Generator().manual_seed(seed)
    drawn = generate(student, goals, STEPS, stop=STOP, generator=generator)
    right, wrong = arrived(drawn.tokens), wrong_moves(drawn.tokens)
    strayed = wrong.any(dim=1)
    greedy = generate(student, goals, STEPS, temperature=0, stop=STOP).tokens
    row = {
        "right": right.float().mean(),
        "greedy": arrived(greedy).float().mean(),
        "wrong_moves": wrong.sum() / drawn.mask.sum(),
        "recovered": right[strayed].float().mean(),
    }
    return {name: 100 * value.item() for name, value in row.items()}


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    The columns are those of :func:`walked`.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    goals = walk_goals(recipe.held_out, seed=seed + (2000 if on == "validation" else 1000))
    yield {"seed": seed, "method": "teacher", **walked(Guide(), goals, seed)}
    for name in methods:
        student = trained(METHODS[name], recipe=recipe, seed=seed)
        yield {"seed": seed, "method": name, **walked(student, goals, seed)}
