"""Which loss on hidden layers helps, alone and beside soft targets?

Each canvas has a real digit somewhere and a texture that says nothing beside it. A narrow student
sees 1,000 digits, on eight canvases each, and its teacher 3,000. All students have the same first
weights, order and number of steps, and each loss had the same number of trials of its weight.

Chosen on the validation split of seed 10, which is not reported: the learning rate, for labels
alone; then each weight, once beside the labels and once beside soft targets (`WEIGHTS`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from kdlearn.data import Split, Splits, mnist5k
from kdlearn.distill import (
    ConvProjector,
    Distiller,
    LinearProjector,
    Outputs,
    Taps,
    Term,
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
from kdlearn.measure import pointing_game, predict
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
        temperature: of the soft targets.
        soft_targets: their weight; the labels have the rest.
    """

    pool: int = 3000
    images: int = 1000
    copies: int = 8
    teacher: int = 12
    student: int = 4
    teacher_epochs: int = 2
    student_epochs: int = 6
    batch_size: int = 64
    learning_rate: float = 2e-2
    temperature: float = 4.0
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

    def terms(self, weight: float, recipe: Recipe) -> list[Term]:
        """Return the terms of the loss; projectors are new."""

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


EMBEDDING = ("flatten",)
FEATURES = {
    "hint": Feature(hint_loss, projector=ConvProjector),
    "AT": Feature(attention_transfer_loss),
    "NST": Feature(nst_loss),
    "FSP": Feature(fsp_loss, projector=ConvProjector, joint=True),
    "SP": Feature(similarity_preserving_loss, EMBEDDING),
    "RKD": Feature(rkd_loss, EMBEDDING),
    "PKT": Feature(pkt_loss, EMBEDDING),
    "contrastive": Feature(contrastive_loss, EMBEDDING, LinearProjector),
}
# Beside the labels, and beside labels and soft targets.
WEIGHTS = {name: (1.0, 1.0) for name in FEATURES}


@dataclass(frozen=True)
class Method:
    """What a student is told beside the labels.

    Attributes:
        feature: the loss on layers, if any.
        weight: of it.
        soft_targets: whether it sees the teacher's probabilities too.
    """

    feature: Feature | None = None
    weight: float = 0.0
    soft_targets: bool = False

    def terms(self, recipe: Recipe) -> list[Term]:
        """Return the terms of the loss; projectors are new."""
        terms = [label_term()]
        if self.soft_targets:
            soft = partial(soft_target_loss, temperature=recipe.temperature)
            share = recipe.soft_targets
            terms = [label_term(1 - share), logit_term("soft_targets", soft, share)]
        return terms + (self.feature.terms(self.weight, recipe) if self.feature else [])


def _methods() -> dict[str, Method]:
    methods = {"labels": Method(), "KD": Method(soft_targets=True)}
    for name, feature in FEATURES.items():
        alone, beside = WEIGHTS[name]
        methods[name] = Method(feature, alone)
        methods[f"KD+{name}"] = Method(feature, beside, soft_targets=True)
    weight = WEIGHTS["hint"][0]
    for name, projector in (("MLP", mlp_projector), ("frozen", frozen_projector)):
        methods[f"hint, {name} projector"] = Method(Feature(hint_loss, projector=projector), weight)
    for name in ("hint", "AT"):
        for group in ("group1", "group2", "group3"):
            feature = Feature(FEATURES[name].loss, (group,), FEATURES[name].projector)
            methods[f"{name}, {group}"] = Method(feature, WEIGHTS[name][0])
    return methods


METHODS = _methods()
RECIPE = Recipe()
COLUMNS = (*MEASURED, "pointing")


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
    terms = seeded(lambda: method.terms(recipe), bench.seed)
    fit(
        Distiller(student, bench.teacher, terms),
        bench.images,
        epochs=recipe.student_epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
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
    digit's box, which is a quarter of the canvas.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    bench = prepare(seed, recipe, on)

    def row(name: str, model: nn.Module) -> Row:
        logits = predict(model, bench.held_out.images)
        return {**bench.row(name, logits), "pointing": pointing(model, bench.held_out)}

    yield row("teacher", bench.teacher)
    for name in methods:
        yield row(name, train_student(bench, METHODS[name]))
