"""Does a student look where its teacher looks, and does that help? Digits among clutter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from kdlearn import recipes
from kdlearn.data import Split, Splits
from kdlearn.distill import Distiller, Term
from kdlearn.distill.taps import Taps
from kdlearn.experiments.common import MEASURED, Bench, Recipe, Row, seeded
from kdlearn.losses import attention_transfer_loss
from kdlearn.losses.maps import activation_map
from kdlearn.measure import energy_in_box, pointing_game, predict
from kdlearn.training import fit

GROUPS = ("group1", "group2", "group3")
PLAN = recipes.load("cluttered-digits")
RECIPE = Recipe.read("cluttered-digits")
COLUMNS = (*MEASURED, *(f"{what}_{group}" for group in GROUPS for what in ("pointing", "energy")))


@dataclass(frozen=True)
class Method:
    """What a student is told.

    Attributes:
        told: a method of the recipe.
        shuffled: whether attention is that of another image: a control.
        augmented: whether images are shifted at random.
    """

    told: str
    shuffled: bool = False
    augmented: bool = True

    def terms(self) -> list[Term]:
        """Return the terms of the loss; labels alone need no teacher."""
        terms = recipes.terms(PLAN, self.told)
        if self.shuffled:
            terms[-1] = replace(terms[-1], loss=another_images_maps)
        return terms


def another_images_maps(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Transfer attention from the map of the next image of the batch: a control."""
    return attention_transfer_loss(student_features, teacher_features.roll(1, dims=0))


METHODS = {
    "scratch": Method("student"),
    "KD": Method("KD"),
    "AT": Method("AT"),
    "KD+AT": Method("AT+KD"),
    "AT, shuffled maps": Method("AT", shuffled=True),
    "scratch, not augmented": Method("student", augmented=False),
    "KD+AT, not augmented": Method("AT+KD", augmented=False),
}


def make_teacher(recipe: Recipe = RECIPE) -> nn.Module:
    """Return a new teacher."""
    return recipe.make_teacher()


def make_student(recipe: Recipe = RECIPE) -> nn.Module:
    """Return a new student: half the width, half the blocks."""
    return recipe.make_student()


def train_teacher(data: Splits, *, recipe: Recipe = RECIPE, seed: int = 0) -> nn.Module:
    """Train the teacher on the whole pool, from labels."""
    return recipe.train_teacher(data, seed)


def train_student(
    teacher: nn.Module, images: Split, method: Method, *, recipe: Recipe = RECIPE, seed: int = 0
) -> nn.Module:
    """Train a student with one method on the images that it may see."""
    student = seeded(recipe.make_student, seed)
    terms = method.terms()
    fit(
        Distiller(student, teacher, terms) if method.told != "student" else student,
        images,
        epochs=recipe.student_epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.student_rate,
        augment=recipe.augment if method.augmented else None,
        seed=seed,
        progress=False,
    )
    return student


def attention_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the activation maps of the three groups, each (B, H, W), by name of the group."""
    with Taps(model, list(GROUPS)) as taps:
        predict(model, images, batch_size=len(images))
        return {group: activation_map(taps[group]) for group in GROUPS}


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    For each group, ``pointing_group3`` is the share of maps with their maximum in the digit's box,
    and ``energy_group3`` the share of the map's energy in the box, both in per cent.
    """
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    images, boxes = bench.held_out.images, bench.held_out.boxes
    assert boxes is not None

    def row(name: str, model: nn.Module) -> Row:
        result = bench.row(name, predict(model, images))
        for group, maps in attention_maps(model, images).items():
            result[f"pointing_{group}"] = 100 * pointing_game(maps, boxes)
            result[f"energy_{group}"] = 100 * energy_in_box(maps, boxes)
        return result

    yield row("teacher", bench.teacher)
    for name in methods:
        student = train_student(
            bench.teacher, bench.images, METHODS[name], recipe=recipe, seed=seed
        )
        yield row(name, student)
