"""Does a student look where its teacher looks, and does that help? Digits among clutter.

Every student of a seed has the same teacher, first weights, images and order of batches; only the
loss differs. ``run_seed`` yields a row for the teacher and one for each method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from kdlearn.data import RandomShift, Split, Splits, balanced_subset, cluttered_digits
from kdlearn.distill import Distiller, Term, label_term, layer_term, logit_term
from kdlearn.distill.taps import Taps
from kdlearn.experiments.common import Row, check_methods, held_out, measure, seeded
from kdlearn.losses import attention_transfer_loss, soft_target_loss
from kdlearn.losses.maps import activation_map
from kdlearn.measure.metrics import energy_in_box, pointing_game, predict
from kdlearn.models import SlimWRN
from kdlearn.training.fit import fit

GROUPS = ("group1", "group2", "group3")


@dataclass(frozen=True)
class Recipe:
    """Every number of the experiment; chosen on the validation split.

    Attributes:
        pool: images that the teacher learns from.
        images: how many of them the student may see.
        teacher_widths: channels of the teacher's groups, 2 blocks each.
        student_widths: the same of the student, 1 block each.
        teacher_epochs: passes over the pool; 6 are 942 steps.
        student_epochs: passes over the student's images; 86 of 7 steps.
        teacher_rate: peak of the teacher's one-cycle schedule.
        student_rate: the same of the student's.
        batch_size: images a step.
        shift: largest shift of the augmentation, pixels.
        weight: of the soft targets; the labels have 1 - weight.
        beta: weight of the attention maps, in the convention of the official code.
    """

    pool: int = 10000
    images: int = 400
    teacher_widths: tuple[int, int, int] = (16, 32, 64)
    student_widths: tuple[int, int, int] = (8, 16, 32)
    teacher_epochs: int = 6
    student_epochs: int = 86
    teacher_rate: float = 3e-3
    student_rate: float = 4e-3
    batch_size: int = 64
    shift: int = 8
    weight: float = 0.9
    beta: float = 20.0


@dataclass(frozen=True)
class Method:
    """What a student is told.

    Attributes:
        soft_targets: the teacher's probabilities, at T = 4.
        attention: the teacher's maps, "own", or those of "another" image, or none.
        augmented: whether images are shifted at random.
    """

    soft_targets: bool = False
    attention: str = ""
    augmented: bool = True

    def terms(self, recipe: Recipe) -> list[Term]:
        """Return the terms of the loss; labels alone need no teacher."""
        terms = [label_term(1 - recipe.weight if self.soft_targets else 1.0)]
        if self.soft_targets:
            terms.append(logit_term("soft_targets", soft_target_loss, recipe.weight))
        if self.attention:
            loss = attention_transfer_loss if self.attention == "own" else another_images_maps
            terms.append(layer_term("attention", loss, GROUPS, recipe.beta))
        return terms


def another_images_maps(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Transfer attention from the map of the next image of the batch: a control."""
    return attention_transfer_loss(student_features, teacher_features.roll(1, dims=0))


METHODS = {
    "scratch": Method(),
    "KD": Method(soft_targets=True),
    "AT": Method(attention="own"),
    "KD+AT": Method(soft_targets=True, attention="own"),
    "AT, shuffled maps": Method(attention="another"),
    "scratch, not augmented": Method(augmented=False),
    "KD+AT, not augmented": Method(soft_targets=True, attention="own", augmented=False),
}
RECIPE = Recipe()


def make_teacher(recipe: Recipe = RECIPE) -> SlimWRN:
    """Return a new teacher."""
    return SlimWRN(recipe.teacher_widths, blocks=2, stem_stride=2)


def make_student(recipe: Recipe = RECIPE) -> SlimWRN:
    """Return a new student: half the width, half the blocks."""
    return SlimWRN(recipe.student_widths, blocks=1, stem_stride=2)


def train_teacher(data: Splits, *, recipe: Recipe = RECIPE, seed: int = 0) -> SlimWRN:
    """Train the teacher on the whole pool, from labels."""
    teacher = seeded(lambda: make_teacher(recipe), seed)
    fit(
        teacher,
        data.train,
        epochs=recipe.teacher_epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.teacher_rate,
        seed=seed,
        progress=False,
    )
    return teacher


def train_student(
    teacher: SlimWRN, images: Split, method: Method, *, recipe: Recipe = RECIPE, seed: int = 0
) -> SlimWRN:
    """Train a student with one method on the images that it may see."""
    student = seeded(lambda: make_student(recipe), seed)
    terms = method.terms(recipe)
    fit(
        Distiller(student, teacher, terms) if len(terms) > 1 else student,
        images,
        epochs=recipe.student_epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.student_rate,
        augment=RandomShift(recipe.shift) if method.augmented else None,
        seed=seed,
        progress=False,
    )
    return student


def attention_maps(model: SlimWRN, images: Tensor) -> dict[str, Tensor]:
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
    """Train a teacher and the students of one seed, and yield a row for each.

    Args:
        seed: of data, teacher, student and order.
        recipe: the numbers; a shorter one for a live run.
        methods: names from :data:`METHODS`.
        on: the split to measure on; ``"validation"`` while choosing.

    Yields:
        Columns ``accuracy``, ``agreement``, ``kl_to_teacher`` (nats, T = 1), ``ece``, and for
        each group ``pointing_group3`` (share of maps with their maximum in the box, per cent) and
        ``energy_group3`` (share of the map's energy in the box, per cent).

    Raises:
        KeyError: an unknown method.
        ValueError: an unknown split.
    """
    methods = list(methods)
    check_methods(methods, METHODS)
    data = cluttered_digits(train=recipe.pool, seed=seed)
    split = held_out(data, on)
    assert split.boxes is not None
    boxes = split.boxes
    teacher = train_teacher(data, recipe=recipe, seed=seed)
    images = balanced_subset(data.train, recipe.images, seed=seed)
    teacher_logits = predict(teacher, split.images)

    def row(name: str, model: SlimWRN) -> Row:
        result: Row = {
            "seed": seed,
            "method": name,
            **measure(predict(model, split.images), teacher_logits, split.labels),
        }
        for group, maps in attention_maps(model, split.images).items():
            result[f"pointing_{group}"] = 100 * pointing_game(maps, boxes)
            result[f"energy_{group}"] = 100 * energy_in_box(maps, boxes)
        return result

    yield row("teacher", teacher)
    for name in methods:
        student = train_student(teacher, images, METHODS[name], recipe=recipe, seed=seed)
        yield row(name, student)
