"""Several teachers, a peer, or a student's own past: what do they give at an equal budget?

Warped digits. All networks are of one size, make 800 steps on images that are warped anew, and
learned from the same 500 labels; those that are compared start from the same first weights. The
five teachers differ by their first weights alone. Some students also see the pool, whose labels
nobody reads.

Every taught student learns half from labels and half from soft targets at T = 1, as mutual learning
does. Neither was tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kdlearn.data import RandomAffine, Split, balanced_subset, warped_digits
from kdlearn.experiments.common import Row, check, descend, measured_on, rows_of, seeded
from kdlearn.experiments.lanes import Lanes
from kdlearn.losses import soft_target_loss
from kdlearn.measure import accuracy, agreement, expected_calibration_error, predict
from kdlearn.models import SmallCNN

OTHER_START = 1000
PARTNER = "partner"


Loss = Callable[[Lanes, Tensor, Tensor], Tensor]
"""From networks side by side, a batch of warped images and its labels."""


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images without labels.
        images: images with labels.
        members: how many teachers.
        steps: of every network.
        batch_size: images a step; where the pool is shown, half of them are from it.
        learning_rate: peak of the one-cycle schedules.
        decay: how much of itself an averaged teacher keeps in a step.
    """

    pool: int = 12_000
    images: int = 500
    members: int = 5
    steps: int = 800
    batch_size: int = 64
    learning_rate: float = 3e-3
    decay: float = 0.99


@dataclass(frozen=True)
class Method:
    """Who teaches a student, besides the labels.

    Attributes:
        teacher: whose answers are the soft targets.
        pool: whether they are given for images of the pool; else for the labeled ones.
    """

    teacher: str
    pool: bool = False


# What the five say without any student, see `of_members`.
MEMBERS = ("one of five", "best of five", "five together, logits")
STUDENTS = {
    "labels": Method("none"),
    "born again": Method("one"),
    "born again twice": Method("generation 1"),
    "born again three times": Method("generation 2"),
    "ensemble": Method("probabilities"),
    "ensemble, logits": Method("logits"),
    "surest of five": Method("surest"),
    "mutual learning": Method(PARTNER),
    "pool, one teacher": Method("one", pool=True),
    "pool, ensemble": Method("probabilities", pool=True),
    "pool, noisy student": Method("plain", pool=True),
    "pool, averaged teacher": Method("average", pool=True),
}
METHODS = {**dict.fromkeys(MEMBERS), **STUDENTS}
RECIPE = Recipe()
COLUMNS = ("accuracy", "agreement", "ece")


def together(answers: Tensor) -> dict[str, Tensor]:
    r"""Make one answer of those of several models, in four ways.

    .. math:: z_\text{probabilities} = \log \frac{1}{M} \sum_m \sigma(z_m), \qquad
              z_\text{logits} = \frac{1}{M} \sum_m z_m

    "surest" is, for each image, the model that gives its own choice the largest probability, and
    "one" is always the first.

    Args:
        answers: logits, shape (M, B, C).

    Example:
        >>> answers = torch.tensor([[[2.0, 0.0]], [[0.0, 8.0]]])
        >>> {name: logits.argmax(1).item() for name, logits in together(answers).items()}
        {'one': 0, 'probabilities': 1, 'logits': 1, 'surest': 1}
    """
    sure = answers.softmax(-1).amax(-1).argmax(0)
    return {
        "one": answers[0],
        "probabilities": answers.log_softmax(-1).logsumexp(0),  # a softmax takes the 1 / M away
        "logits": answers.mean(0),
        "surest": answers[sure, torch.arange(len(sure))],
    }


@torch.no_grad()
def follow(average: SmallCNN, model: SmallCNN, decay: float) -> None:
    """Move an average of weights, and of batch normalizations, by one step towards a model.

    Source: A. Tarvainen and H. Valpola, Mean Teachers Are Better Role Models, NeurIPS 2017.
    """
    new = model.state_dict()
    for name, values in average.state_dict().items():
        if values.is_floating_point():
            values.lerp_(new[name], 1 - decay)


def train(
    starts: Sequence[SmallCNN],
    few: Split,
    loss: Loss,
    recipe: Recipe,
    seed: int,
) -> list[SmallCNN]:
    """Train networks side by side, on the images with labels."""
    lanes = Lanes(starts)
    generator = Generator().manual_seed(seed)
    losses = (
        loss(lanes, RandomAffine()(few.images[rows], generator), few.labels[rows])
        for rows in rows_of(few, recipe.batch_size, seed)
    )
    descend(lanes.parameters(), losses, rate=recipe.learning_rate, steps=recipe.steps)
    return [lanes.lane(place) for place in range(len(starts))]


def from_labels(lanes: Lanes, images: Tensor, labels: Tensor) -> Tensor:
    """Sum the cross-entropies of all networks."""
    count = len(lanes.weight)
    logits = lanes(images.expand(-1, count, -1, -1))
    return count * F.cross_entropy(logits.flatten(0, 1), labels.repeat(count))


def taught(own: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Learn half from labels, on the first images, and half from soft targets, on the last ones."""
    hard = F.cross_entropy(own[: len(labels)], labels)
    return (hard + soft_target_loss(own[-len(target) :], target, temperature=1.0)) / 2


def from_teacher(teacher: SmallCNN) -> Loss:
    """Return the loss of one student with one teacher."""

    def loss(lanes: Lanes, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(images)
        return taught(lanes(images)[0], labels, target)

    return loss


class Lesson:
    """The loss of all students at once.

    Args:
        students: by name, one a lane.
        members: the five teachers.
        generations: the first of them, its student, and that one's student.
        average: starts as the student that learns from its own average.
        pool: images whose labels are not read.
        recipe: the numbers.
        seed: of the order of the pool, and how its images are warped.
    """

    def __init__(
        self,
        students: dict[str, Method],
        members: Lanes,
        generations: Sequence[SmallCNN],
        average: SmallCNN,
        pool: Split,
        recipe: Recipe,
        seed: int,
    ) -> None:
        self.students, self.members, self.generations = students, members, generations
        self.average, self.pool, self.decay = average.eval(), pool, recipe.decay
        self.generator = Generator().manual_seed(seed)
        self.rows = rows_of(pool, recipe.batch_size // 2, seed)

    def __call__(self, lanes: Lanes, images: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the students' losses on a batch, and half a batch of the pool."""
        half, names = len(images) // 2, list(self.students)
        plain = self.pool.images[next(self.rows)[: len(images) - half]]
        unlabeled, another_view = (RandomAffine()(plain, self.generator) for _ in range(2))
        mixed = torch.cat([images[:half], unlabeled])
        shown = [mixed if method.pool else images for method in self.students.values()]
        logits = dict(zip(names, lanes(torch.cat(shown, dim=1)), strict=True))
        if "pool, averaged teacher" in names:
            follow(self.average, lanes.lane(names.index("pool, averaged teacher")), self.decay)
        with torch.no_grad():
            of_labeled = self.of_members(images)
            for number in (1, 2):
                of_labeled[f"generation {number}"] = self.generations[number](images)
            of_pool = self.of_members(unlabeled)
            of_pool["plain"] = self.of_members(plain)["one"]
            of_pool["average"] = self.average(another_view)
        total = torch.zeros(())
        for name, method in self.students.items():
            own = logits[name]
            if method.teacher == "none":
                total = total + F.cross_entropy(own, labels)
            elif method.pool:
                total = total + taught(own, labels[:half], of_pool[method.teacher])
            else:
                peer = logits.get(method.teacher)
                target = of_labeled[method.teacher] if peer is None else peer.detach()
                total = total + taught(own, labels, target)
        return total

    def of_members(self, images: Tensor) -> dict[str, Tensor]:
        """Return what the teachers say together, see :func:`together`."""
        return together(self.members(images.expand(-1, len(self.members.weight), -1, -1)))


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    The first row is the five together, by the mean of their probabilities, and agreement is with
    them. The row "one of five" is the mean of their rows, and the best one is chosen on validation
    images.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = warped_digits(train=recipe.pool, seed=seed)
    few = balanced_subset(data.train, recipe.images, seed=seed)
    measured = measured_on(data, on)

    def start(number: int) -> SmallCNN:
        return seeded(partial(SmallCNN, 4), seed + OTHER_START * number)

    members = train([start(1 + m) for m in range(recipe.members)], few, from_labels, recipe, seed)
    five = torch.stack([predict(member, measured.images) for member in members])
    said = together(five)

    def row(name: str, logits: Tensor) -> Row:
        return {
            "seed": seed,
            "method": name,
            "accuracy": 100 * accuracy(logits, measured.labels),
            "agreement": 100 * agreement(logits, said["probabilities"]),
            "ece": 100 * expected_calibration_error(logits, measured.labels),
        }

    each = [row("one of five", logits) for logits in five]
    seen = data.validation
    best = max(
        range(recipe.members),
        key=lambda m: accuracy(predict(members[m], seen.images), seen.labels),
    )
    rows = {
        "one of five": {
            **each[0],
            **{c: sum(float(r[c]) for r in each) / len(each) for c in COLUMNS},
        },
        "best of five": row("best of five", five[best]),
        "five together, logits": row("five together, logits", said["logits"]),
    }
    yield row("teacher", said["probabilities"])
    yield from (rows[name] for name in methods if name in MEMBERS)

    generations = [members[0].eval()]
    for number in (1, 2):
        loss = from_teacher(generations[-1])
        generations += train([start(recipe.members + number)], few, loss, recipe, seed)
        generations[-1].eval()
    students = {name: STUDENTS[name] for name in methods if name in STUDENTS}
    if "mutual learning" in students:
        students[PARTNER] = Method("mutual learning")
    starts = [start(recipe.members + 3 if name == PARTNER else 0) for name in students]
    lesson = Lesson(
        students, Lanes(members).eval(), generations, start(0), data.train, recipe, seed
    )
    trained = train(starts, few, lesson, recipe, seed)
    for name, student in zip(students, trained, strict=True):
        if name != PARTNER:
            yield row(name, predict(student, measured.images))
