"""Can a teacher's unfinished checkpoints teach what its finished answers hide?

The label is the product of a few of many signs: no sign by itself tells anything about it, and a
network searches for a long time before it learns all at once. A wide network searches faster; a
narrow one learns from labels, from its finished answers, or from those it gave on the way.

Sizes, steps and rates were chosen on seeds 5 to 7, which are not reported, so that the teacher is
always right in the end: one that is not tells something by its mistakes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.experiments.common import Row, check, descend


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        signs: of an input.
        support: how many of them, the first ones, are multiplied.
        teacher: hidden units.
        student: hidden units.
        teacher_rate: peak of the one-cycle schedule.
        student_rate: the same of the students.
        weight_decay: of both.
        teacher_steps: of the teacher.
        student_steps: of every student.
        batch_size: new inputs a step.
        checkpoints: of the teacher, at equal distances; the last is the finished one.
        held_out: inputs to measure on.
    """

    signs: int = 40
    support: int = 4
    teacher: int = 256
    student: int = 12
    teacher_rate: float = 6e-3
    student_rate: float = 1e-2
    weight_decay: float = 1.0
    teacher_steps: int = 1600
    student_steps: int = 1600
    batch_size: int = 64
    checkpoints: int = 40
    held_out: int = 4000


@dataclass(frozen=True)
class Method:
    """Who answers, and when.

    Attributes:
        taught: by "labels", the "final" teacher, its checkpoints "in order", or "one" of them in
            the first quarter and the final one after it.
        hard: whether the answers are yes or no instead of probabilities.
        elsewhere: whether that one checkpoint is asked about signs in another order, so that what
            it hints at is not what counts.
    """

    taught: str
    hard: bool = False
    elsewhere: bool = False


METHODS = {
    "labels": Method("labels"),
    "final teacher": Method("final"),
    "checkpoints in order": Method("in order"),
    "checkpoints in order, hard": Method("in order", hard=True),
    "one checkpoint, then final": Method("one"),
    "one checkpoint, then final, hard": Method("one", hard=True),
    "one checkpoint, other signs": Method("one", elsewhere=True),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "steps_to_90", "support_signal", "other_signal")


class Networks(nn.Module):
    """Networks of one hidden layer with the same first weights, trained side by side.

    Shape:
        (B, signs) to (count, B): above 0 means that the product is +1.

    Example:
        >>> Networks(3, 40, 16, seed=0)(torch.ones(5, 40)).shape
        torch.Size([3, 5])
    """

    def __init__(self, count: int, signs: int, hidden: int, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, last = nn.Linear(signs, hidden), nn.Linear(hidden, 1)
        parts = {"w": first.weight.T, "b": first.bias[None], "v": last.weight.T, "c": last.bias}
        self.parts = nn.ParameterDict(
            {
                name: part.detach().reshape(1, -1, part.shape[-1]).repeat(count, 1, 1)
                for name, part in parts.items()
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of all networks."""
        w, b, v, c = (self.parts[name] for name in "wbvc")
        hidden = torch.baddbmm(b, x.expand(len(w), -1, -1), w).relu()
        return torch.baddbmm(c, hidden, v)[..., 0]


def draw(size: int, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw signs, and whether the product of the first ones is +1.

    Example:
        >>> x, y = draw(4, RECIPE, torch.Generator().manual_seed(0))
        >>> torch.equal(y, (x[:, :4].prod(1) > 0).float())
        True
    """
    shape = (size, recipe.signs)
    x = 2.0 * torch.randint(2, shape, generator=generator) - 1
    return x, (x[:, : recipe.support].prod(1) > 0).float()


def signals(logits: Tensor, x: Tensor, support: int) -> tuple[float, float]:
    """Return how strongly logits correlate with one sign, on average: in the support and outside.

    Example:
        >>> x = 2.0 * torch.cartesian_prod(*[torch.arange(2)] * 3) - 1
        >>> signals(x[:, 0] + x[:, 1], x, support=2)
        (0.7071..., 0.0)
    """
    centered = logits - logits.mean()
    each = ((centered[:, None] * x).mean(0) / centered.std(correction=0)).abs()
    return each[:support].mean().item(), each[support:].mean().item()


def train_teacher(recipe: Recipe, seed: int) -> list[Networks]:
    """Train the wide network on labels, and return it at each checkpoint, the finished one last."""
    teacher = Networks(1, recipe.signs, recipe.teacher, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    path: list[Networks] = []

    def losses() -> Iterator[Tensor]:
        every = recipe.teacher_steps // recipe.checkpoints
        for step in range(recipe.teacher_steps):
            if step and step % every == 0:
                path.append(deepcopy(teacher))
            x, y = draw(recipe.batch_size, recipe, generator)
            yield F.binary_cross_entropy_with_logits(teacher(x)[0], y)

    descend(
        teacher.parameters(),
        losses(),
        rate=recipe.teacher_rate,
        steps=recipe.teacher_steps,
        weight_decay=recipe.weight_decay,
    )
    return [*path, teacher]


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``steps_to_90`` is missing where 90 % are not reached. The signals of the teacher are those of
    the one checkpoint, which is the first to be right for 55 % of fresh inputs.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    other = torch.Generator().manual_seed(10_000 + 2 * seed + (on == "test"))
    x, y = draw(recipe.held_out, recipe, other)

    def right(logits: Tensor) -> Tensor:
        return 100 * ((logits > 0) == (y > 0)).float().mean(-1)

    path = train_teacher(recipe, seed)
    final = path[-1]
    scores = [right(teacher(x)).item() for teacher in path]
    one = path[next((i for i, score in enumerate(scores) if score > 55), -1)]
    inside, outside = signals(one(x)[0].detach(), x, recipe.support)
    yield {
        "seed": seed,
        "method": "teacher",
        "accuracy": scores[-1],
        "support_signal": inside,
        "other_signal": outside,
    }

    asked = [METHODS[name] for name in methods]
    students = Networks(len(asked), recipe.signs, recipe.student, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    turned = torch.arange(recipe.signs).roll(recipe.support)
    reached: dict[str, int] = {}

    @torch.no_grad()
    def answers(method: Method, step: int, x: Tensor, y: Tensor) -> Tensor:
        if method.taught == "labels":
            return y
        place = len(path) * 2 * step // recipe.student_steps
        teacher = final
        if method.taught == "in order":
            teacher = path[min(place, len(path) - 1)]
        elif method.taught == "one" and 4 * step < recipe.student_steps:
            teacher = one
        logits = teacher(x[:, turned] if method.elsewhere and teacher is one else x)[0]
        return (logits > 0).float() if method.hard else logits.sigmoid()

    @torch.no_grad()
    def measure(step: int) -> None:
        for name, score in zip(methods, right(students(x)).tolist(), strict=True):
            if score >= 90:
                reached.setdefault(name, step)

    def losses() -> Iterator[Tensor]:
        for step in range(recipe.student_steps):
            if step % 25 == 0:
                measure(step)
            seen, labels = draw(recipe.batch_size, recipe, generator)
            targets = torch.stack([answers(method, step, seen, labels) for method in asked])
            logits = students(seen)
            each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            yield each.mean(1).sum()

    descend(
        students.parameters(),
        losses(),
        rate=recipe.student_rate,
        steps=recipe.student_steps,
        weight_decay=recipe.weight_decay,
    )
    for name, score in zip(methods, right(students(x)).tolist(), strict=True):
        row: Row = {"seed": seed, "method": name, "accuracy": score}
        if name in reached:
            row["steps_to_90"] = reached[name]
        yield row
