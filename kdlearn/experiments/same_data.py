"""Does a student gain from a teacher that saw nothing more than the student does?

The student of warped digits, with all 12,000 images or with 500 of them, from labels or from the
teacher as well. Whatever it is told, it makes as many steps as its teacher did, or three times as
many where the name says so, sees every image warped anew, and starts from the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data import Split, balanced_subset
from kdlearn.experiments.calibration import best_temperature
from kdlearn.experiments.common import MEASURED, Bench, Recipe, Row, descend, rows_of, seeded
from kdlearn.experiments.lanes import Lanes
from kdlearn.losses import soft_target_loss
from kdlearn.measure import expected_calibration_error, predict
from kdlearn.models import SmallCNN

UNKNOWN = -100
# The best of T = 1, 4, 8 and w = 0.5, 0.9, 1 on the validation split of seed 5, which is not
# reported.
TEMPERATURE, WEIGHT = 8.0, 0.9


@dataclass(frozen=True)
class Method:
    """What a student sees and who tells it.

    Attributes:
        weight: w of the soft targets; 1 - w is the labels'. 0 is labels alone.
        temperature: of the soft targets.
        shown: "all" images, the "few", or all of them while only the labels of the few are known
            ("few labeled").
        width: of the student.
        longer: how many times as long it trains.
    """

    weight: float = 0.0
    temperature: float = TEMPERATURE
    shown: str = "all"
    width: int = 4
    longer: int = 1


METHODS = {
    "labels": Method(),
    "KD": Method(WEIGHT),
    "500 labels": Method(shown="few"),
    "500 labels, KD": Method(WEIGHT, shown="few"),
    "500 labels, KD T=1": Method(WEIGHT, 1.0, shown="few"),
    "500 labels, KD on all": Method(WEIGHT, shown="few labeled"),
    "labels, width 2": Method(width=2),
    "KD, width 2": Method(WEIGHT, width=2),
    "labels, width 8": Method(width=8),
    "KD, width 8": Method(WEIGHT, width=8),
    "labels, 3x": Method(longer=3),
    "KD, 3x": Method(WEIGHT, longer=3),
}
RECIPE = Recipe.read("warped-digits")
COLUMNS = (*MEASURED, "temperature", "ece_scaled")


def known_labels(student_logits: Tensor, labels: Tensor) -> Tensor:
    """Average the cross-entropy over the images whose label is known; 0 where there is none.

    Example:
        >>> known_labels(torch.zeros(3, 2), torch.tensor([1, UNKNOWN, UNKNOWN])).item()
        0.6931...
        >>> known_labels(torch.zeros(3, 2), torch.full((3,), UNKNOWN)).item()
        0.0
    """
    total = F.cross_entropy(student_logits, labels, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)


def labels_of_few(pool: Split, size: int, seed: int) -> Tensor:
    """Return the labels of the pool with all but those of the few images unknown."""
    numbered = replace(pool, base=torch.arange(len(pool)))
    few = balanced_subset(numbered, size, seed=seed).base
    labels = torch.full_like(pool.labels, UNKNOWN)
    labels[few] = pool.labels[few]
    return labels


def source_of(method: Method) -> str:
    """Return which images are shown: "all" or the "few"."""
    return "few" if method.shown == "few" else "all"


def train_students(bench: Bench[Recipe], methods: Sequence[Method]) -> Iterator[nn.Module]:
    """Train students as long as their teacher, times ``longer``, which is the same for all.

    Yields:
        The students in the order of the methods, as networks of one lane.
    """
    recipe, pool = bench.recipe, bench.data.train
    (longer,) = {method.longer for method in methods}
    steps = longer * recipe.teacher_epochs * -(-len(pool) // recipe.batch_size)
    order = sorted(range(len(methods)), key=lambda i: methods[i].width)
    groups = [list(group) for _, group in groupby(order, key=lambda i: methods[i].width)]
    students = [
        Lanes([seeded(partial(SmallCNN, methods[i].width), bench.seed) for i in group])
        for group in groups
    ]
    sources = {"all": pool, "few": bench.images}
    rows = {name: rows_of(split, recipe.batch_size, bench.seed) for name, split in sources.items()}
    generator = torch.Generator().manual_seed(bench.seed)
    labels = {
        "all": pool.labels,
        "few": bench.images.labels,
        "few labeled": labels_of_few(pool, len(bench.images), bench.seed),
    }
    augment = recipe.augment
    assert augment is not None

    def next_loss() -> Tensor:
        batch, seen, taught = {}, {}, {}
        for name in sorted({source_of(method) for method in methods}):
            batch[name] = next(rows[name])
            seen[name] = augment(sources[name].images[batch[name]], generator)
            with torch.no_grad():
                taught[name] = bench.teacher(seen[name])
        loss = torch.zeros(())
        for group, lanes in zip(groups, students, strict=True):
            names = [source_of(methods[i]) for i in group]
            logits = lanes(torch.cat([seen[name] for name in names], dim=1))
            for i, name, own in zip(group, names, logits, strict=True):
                method = methods[i]
                told = labels[method.shown][batch[name]]
                loss = loss + (1 - method.weight) * known_labels(own, told)
                if method.weight:
                    soft = soft_target_loss(own, taught[name], temperature=method.temperature)
                    loss = loss + method.weight * soft
        return loss

    weights = (weight for lanes in students for weight in lanes.parameters())
    losses = (next_loss() for _ in range(steps))
    descend(weights, losses, rate=recipe.student_rate, steps=steps)
    alone = {
        i: lanes.lane(place)
        for group, lanes in zip(groups, students, strict=True)
        for place, i in enumerate(group)
    }
    yield from (alone[i] for i in range(len(methods)))


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``temperature`` is what the finished model's logits are divided by so that the labels of the
    validation split are most probable, and ``ece_scaled`` the calibration error after that.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    held_out, seen = bench.held_out, bench.data.validation
    # Half the time of its forward pass.
    bench.teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def row(name: str, model: nn.Module) -> Row:
        logits = predict(model, held_out.images)
        temperature = best_temperature(predict(model, seen.images), seen.labels)
        ece = expected_calibration_error(logits / temperature, held_out.labels)
        return {
            **bench.row(name, logits),
            "temperature": temperature,
            "ece_scaled": 100 * ece,
        }

    yield row("teacher", bench.teacher)
    by_length = sorted(methods, key=lambda name: METHODS[name].longer)
    for _, names in groupby(by_length, key=lambda name: METHODS[name].longer):
        together = list(names)
        students = train_students(bench, [METHODS[name] for name in together])
        for name, student in zip(together, students, strict=True):
            yield row(name, student)
