"""Which loss on hidden layers helps, alone and beside soft targets?

Each canvas has a real digit somewhere and a texture that says nothing beside it. A narrower student
sees 200 digits, on eight canvases each, and its teacher 3,000. All students have the same first
weights, order and number of steps. So few digits and that width were set on the validation split of
seed 10, where soft targets then gain 8 points: with 1,000 digits and width 4 they gained 5 in one
seed and lost 4 in another. The learning rate is the better of 0.005 and 0.02 for labels alone.

Every method has three trials, each a row: three weights, of labels alone three learning rates, of
soft targets alone three temperatures. `chosen` takes the best on the validation split. The middle
weight of a loss is one at which its gradient was about as large as that of the labels (a student
after 250 steps, seed 10); the others are a fifth and five times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from kdlearn.data import Split, Splits, mnist5k
from kdlearn.distill import (
    ConvProjector,
    CRDLoss,
    Distiller,
    LinearProjector,
    Outputs,
    Taps,
    Term,
    crd_term,
    label_term,
    layer_term,
    logit_term,
)
from kdlearn.experiments.common import MEASURED, Bench, Row, check, measured_on, seeded
from kdlearn.experiments.shortcut import canvases, network
from kdlearn.losses import (
    attention_transfer_loss,
    contrastive_loss,
    fsp_loss,
    hint_loss,
    nst_loss,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_preserving_loss,
    soft_target_loss,
)
from kdlearn.losses.maps import activation_map
from kdlearn.measure import accuracy, pointing_game, predict
from kdlearn.training import fit

# Channels of a layer, in units of the network's width; "flatten" is the pooled group 3.
CHANNELS = {"group1": 1, "group2": 2, "group3": 4, "flatten": 4}


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: digits that the teacher learns from.
        images: how many of them a student sees.
        copies: canvases drawn of each digit.
        teacher: width of its first group.
        student: the same of the student.
        teacher_epochs: passes of the teacher over its canvases.
        student_epochs: passes of every student over its own.
        batch_size: canvases a step.
        learning_rate: peak of the one-cycle schedules.
        soft_targets: their weight; the labels have the rest.
    """

    pool: int = 3000
    images: int = 200
    copies: int = 8
    teacher: int = 12
    student: int = 8
    teacher_epochs: int = 2
    student_epochs: int = 25
    batch_size: int = 64
    learning_rate: float = 2e-2
    soft_targets: float = 0.5

    def make_data(self, seed: int) -> Splits:
        """Draw the canvases; those of the test and of validation show each digit twice."""
        digits = mnist5k(train=self.pool, seed=seed)
        generator = torch.Generator().manual_seed(seed)

        def drawn(split: Split, copies: int) -> Split:
            return canvases(split, copies, shortcut=False, generator=generator)

        return Splits(
            drawn(digits.train, self.copies), drawn(digits.validation, 2), drawn(digits.test, 2)
        )

    def train_teacher(self, data: Splits, seed: int) -> nn.Module:
        """Train the teacher on all canvases, from labels."""
        teacher = seeded(partial(network, self.teacher), seed)
        fit(
            teacher,
            data.train,
            epochs=self.teacher_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            progress=False,
        )
        return teacher


class Projected(nn.Module):
    """A loss between the teacher's features and what projectors make of the student's.

    Args:
        loss: of the projected student and the teacher.
        projectors: one for each of the layers that the loss compares; trained with the student.

    Example:
        >>> loss = Projected(hint_loss, nn.Identity())
        >>> loss(torch.ones(2, 3), torch.zeros(2, 3)).item()
        1.0
    """

    def __init__(self, loss: Callable[..., Tensor], *projectors: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.projectors = nn.ModuleList(projectors)

    def forward(self, student: Tensor | tuple[Tensor, ...], teacher: Tensor) -> Tensor:
        """Return the loss of one layer, or of a pair of them."""
        if isinstance(student, Tensor):
            return self.loss(self.projectors[0](student), teacher)
        pairs = zip(self.projectors, student, strict=True)
        return self.loss(tuple(projector(features) for projector, features in pairs), teacher)


def mlp_projector(student_channels: int, teacher_channels: int) -> nn.Module:
    """Return two 1 x 1 convolutions with a ReLU between, and a batch normalization at the end."""
    return nn.Sequential(
        nn.Conv2d(student_channels, teacher_channels, 1),
        nn.ReLU(),
        ConvProjector(teacher_channels, teacher_channels),
    )


def frozen_projector(student_channels: int, teacher_channels: int) -> nn.Module:
    """Return a projector that keeps its first weights: a random map."""
    return ConvProjector(student_channels, teacher_channels).requires_grad_(False)


def rkd_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Add distances and angles in RepDistiller's proportion of 25 to 50."""
    distances = rkd_distance_loss(student_embeddings, teacher_embeddings)
    return distances + 2 * rkd_angle_loss(student_embeddings, teacher_embeddings)


@dataclass(frozen=True)
class Feature:
    """A loss on layers, and where it is used.

    Attributes:
        loss: of the student's features and the teacher's.
        layers: each compared for itself, or all at once where ``joint``.
        projector: makes the student's channels the teacher's; None where the loss needs none.
        joint: whether the loss takes all layers together, as FSP does.
    """

    loss: Callable[..., Tensor]
    layers: tuple[str, ...] = ("group2", "group3")
    projector: Callable[[int, int], nn.Module] | None = None
    joint: bool = False

    def terms(self, weight: float, recipe: Recipe, labels: Tensor) -> list[Term]:
        """Return the terms of the loss; projectors are new, and labels are not read."""

        def loss_of(*layers: str) -> Callable[..., Tensor]:
            if self.projector is None:
                return self.loss
            widths = [
                (CHANNELS[name] * recipe.student, CHANNELS[name] * recipe.teacher)
                for name in layers
            ]
            return Projected(self.loss, *(self.projector(*pair) for pair in widths))

        if not self.joint:
            return [layer_term(name, loss_of(name), [name], weight) for name in self.layers]

        def together(
            student: Outputs, teacher: Outputs, labels: object
        ) -> list[tuple[object, ...]]:
            return [
                tuple(tuple(side.taps[name] for name in self.layers) for side in (student, teacher))
            ]

        layers = {name: name for name in self.layers}
        return [Term("flow", weight, loss_of(*self.layers), together, layers)]


class Remembered:
    """CRD on the pooled group 3, with negatives that are as large a share of the data as theirs."""

    def terms(self, weight: float, recipe: Recipe, labels: Tensor) -> list[Term]:
        """Return the term of the loss; embeddings and memories are new."""
        layer, share = "flatten", 16384 / 50000
        student, teacher = (CHANNELS[layer] * width for width in (recipe.student, recipe.teacher))
        loss = CRDLoss(student, teacher, labels, negatives=int(share * len(labels)))
        return [crd_term("crd", loss, layer, layer, weight)]


EMBEDDING = ("flatten",)
FEATURES: dict[str, Feature | Remembered] = {
    "hint": Feature(hint_loss, projector=ConvProjector),
    "AT": Feature(attention_transfer_loss),
    "NST": Feature(nst_loss),
    "FSP": Feature(fsp_loss, projector=ConvProjector, joint=True),
    "SP": Feature(similarity_preserving_loss, EMBEDDING),
    "RKD": Feature(rkd_loss, EMBEDDING),
    "PKT": Feature(pkt_loss, EMBEDDING),
    "contrastive": Feature(contrastive_loss, EMBEDDING, LinearProjector),
    "CRD": Remembered(),
}
TRIALS = {
    "labels": (0.01, 0.02, 0.04),
    "KD": (2.0, 4.0, 8.0),
    "hint": (0.3, 1.5, 7.5),
    "AT": (10.0, 50.0, 250.0),
    "NST": (1.6, 8.0, 40.0),
    "FSP": (1.0, 5.0, 25.0),
    "SP": (120.0, 600.0, 3000.0),
    "RKD": (1.0, 5.0, 25.0),
    "PKT": (4000.0, 20000.0, 100000.0),
    "contrastive": (0.16, 0.8, 4.0),
    "CRD": (0.16, 0.8, 4.0),
}


@dataclass(frozen=True)
class Method:
    """What a student is told beside the labels.

    Attributes:
        feature: the loss on layers, if any.
        weight: of it.
        temperature: of the soft targets; None for none.
        rate: peak of the learning rate; None for that of the recipe.
    """

    feature: Feature | Remembered | None = None
    weight: float = 0.0
    temperature: float | None = None
    rate: float | None = None

    def terms(self, recipe: Recipe, labels: Tensor) -> list[Term]:
        """Return the terms of the loss for training data with these labels; projectors are new."""
        terms = [label_term()]
        if self.temperature is not None:
            soft = partial(soft_target_loss, temperature=self.temperature)
            share = recipe.soft_targets
            terms = [label_term(1 - share), logit_term("soft_targets", soft, share)]
        return terms + (self.feature.terms(self.weight, recipe, labels) if self.feature else [])


def _methods() -> dict[str, Method]:
    methods = {f"labels {rate:g}": Method(rate=rate) for rate in TRIALS["labels"]}
    methods |= {f"KD {t:g}": Method(temperature=t) for t in TRIALS["KD"]}
    for name, feature in FEATURES.items():
        for weight in TRIALS[name]:
            methods[f"{name} {weight:g}"] = Method(feature, weight)
            methods[f"KD+{name} {weight:g}"] = Method(feature, weight, temperature=4.0)
    # Variants at the middle weight.
    weight = TRIALS["hint"][1]
    for name, projector in (("MLP", mlp_projector), ("frozen", frozen_projector)):
        methods[f"hint, {name} projector"] = Method(Feature(hint_loss, projector=projector), weight)
    for name, loss, of in (
        ("hint", hint_loss, ConvProjector),
        ("AT", attention_transfer_loss, None),
    ):
        for group in ("group1", "group2", "group3"):
            feature = Feature(loss, (group,), of)
            methods[f"{name}, {group}"] = Method(feature, TRIALS[name][1])
    return methods


METHODS = _methods()
RECIPE = Recipe()
COLUMNS = (*MEASURED, "pointing", "accuracy_validation")


def chosen(results: pd.DataFrame) -> pd.DataFrame:
    """Keep of each method the trial that was best on validation, on average over all seeds.

    Args:
        results: rows of this experiment.

    Returns:
        The same rows of the trials that were kept, by the name of the method alone, with the trial
        in the column ``trial``; of the others, which had no trials, nothing.

    Example:
        >>> rows = [["KD 2", 70.0, 1.0], ["KD 4", 72.0, 3.0], ["teacher", 90.0, 9.0]]
        >>> chosen(pd.DataFrame(rows, columns=["method", "accuracy_validation", "accuracy"]))
          method  accuracy_validation  accuracy trial
        0     KD                 72.0       3.0     4
    """
    names = results["method"].str.extract(r"^(?P<name>\S+) (?P<trial>[\d.e+]+)$")
    tried = results.assign(method=names["name"], trial=names["trial"]).dropna(subset="trial")
    means = tried.groupby(["method", "trial"], sort=False)["accuracy_validation"].mean()
    best = means.groupby("method", sort=False).idxmax()
    kept = [pair in set(best) for pair in zip(tried["method"], tried["trial"], strict=True)]
    return tried[kept].reset_index(drop=True)


def prepare(seed: int, recipe: Recipe, on: str) -> Bench[Recipe]:
    """Draw the canvases, train the teacher, and choose the digits that students see."""
    data = recipe.make_data(seed)
    teacher = recipe.train_teacher(data, seed)
    shown = torch.arange(len(data.train)) % recipe.pool < recipe.images
    held_out = measured_on(data, on)
    logits = predict(teacher, held_out.images)
    return Bench(seed, recipe, data, data.train.subset(shown), teacher, held_out, logits)


def train_student(bench: Bench[Recipe], method: Method) -> nn.Module:
    """Train a student with one method."""
    recipe = bench.recipe
    student = seeded(partial(network, recipe.student), bench.seed)
    labels = bench.images.labels
    distiller = seeded(
        lambda: Distiller(student, bench.teacher, method.terms(recipe, labels)), bench.seed
    )
    fit(
        distiller,
        bench.images,
        epochs=recipe.student_epochs,
        batch_size=recipe.batch_size,
        learning_rate=method.rate or recipe.learning_rate,
        seed=bench.seed,
        progress=False,
    )
    return student


def pointing(model: nn.Module, split: Split) -> float:
    """Return the share of canvases, in per cent, where group 3 has its peak on the digit."""
    assert split.boxes is not None
    with Taps(model, ["group3"]) as taps:
        predict(model, split.images, batch_size=len(split))
        return 100 * pointing_game(activation_map(taps["group3"]), split.boxes)


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``pointing`` is the share of canvases, in per cent, where the map of group 3 has its peak in the
    digit's box, which is a quarter of the canvas. ``accuracy_validation`` is what a trial is chosen
    by.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    bench = prepare(seed, recipe, on)

    seen = bench.data.validation

    def row(name: str, model: nn.Module) -> Row:
        return {
            **bench.row(name, predict(model, bench.held_out.images)),
            "pointing": pointing(model, bench.held_out),
            "accuracy_validation": 100 * accuracy(predict(model, seen.images), seen.labels),
        }

    yield row("teacher", bench.teacher)
    for name in methods:
        yield row(name, train_student(bench, METHODS[name]))
