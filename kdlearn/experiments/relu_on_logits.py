"""What does one ReLU after the last layer do to a student, and to what distillation seems to gain?

The networks of a published exercise, LeNet and a student of three filters, on real digits. A logit
that the ReLU keeps at 0 for every image has no gradient and never comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.optim import SGD

from kdlearn.data import Split, mnist5k
from kdlearn.distill import Distiller, label_term, logit_term
from kdlearn.experiments.common import Row, check, measured_on, seeded
from kdlearn.losses import soft_target_loss
from kdlearn.measure import accuracy, predict
from kdlearn.training import fit


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images.
        epochs: passes of teacher and students.
        batch_size: images a step.
        learning_rate: of SGD, with momentum 0.5.
    """

    pool: int = 3000
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 0.01


@dataclass(frozen=True)
class Method:
    """A student.

    Attributes:
        relu: whether its logits go through a ReLU.
        distilled: whether it sees the teacher's soft targets.
    """

    relu: bool
    distilled: bool


METHODS = {
    "labels, ReLU on the logits": Method(relu=True, distilled=False),
    "KD, ReLU on the logits": Method(relu=True, distilled=True),
    "labels": Method(relu=False, distilled=False),
    "KD": Method(relu=False, distilled=True),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "dead")
KD = (label_term(0.1), logit_term("soft_targets", partial(soft_target_loss, temperature=4.0), 0.9))


def lenet() -> nn.Sequential:
    """Make the teacher."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def three_filters(relu: bool) -> nn.Sequential:
    """Make the student, with or without the ReLU after its last layer."""
    layers = (nn.Conv2d(1, 3, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(432, 10))
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def train(model: nn.Module, images: Split, *, recipe: Recipe, seed: int) -> None:
    """Train in place with the exercise's optimizer."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    fit(
        model,
        images,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=SGD(weights, recipe.learning_rate, momentum=0.5),
        seed=seed,
        progress=False,
    )


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``dead`` is the number of classes whose logit is above 0 for no image.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = mnist5k(train=recipe.pool, seed=seed)
    held_out = measured_on(data, on)

    def row(name: str, logits: Tensor) -> Row:
        return {
            "seed": seed,
            "method": name,
            "accuracy": 100 * accuracy(logits, held_out.labels),
            "dead": int((logits.amax(0) <= 0).sum()),
        }

    teacher = seeded(lenet, seed)
    train(teacher, data.train, recipe=recipe, seed=seed)
    yield row("teacher", predict(teacher, held_out.images))
    for name in methods:
        method = METHODS[name]
        student = seeded(partial(three_filters, method.relu), seed)
        model = Distiller(student, teacher, KD) if method.distilled else student
        train(model, data.train, recipe=recipe, seed=seed)
        yield row(name, predict(student, held_out.images))
