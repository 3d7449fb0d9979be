"""Does attention distillation remove a backdoor better than fine-tuning with as many steps?

A tenth of 3,000 real digits carry a white square in a corner and the label 0; a network trained on
them is right, and says 0 wherever the square is. The defender has 150 clean images. Neural
attention distillation fine-tunes once, and lets a second copy of the backdoored network match the
attention maps of the first. Fine-tuning for both stages together costs as many steps. Rates and
weights are not chosen: all are in the table.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD

from kdlearn.data import RandomShift, Split, mnist5k
from kdlearn.distill import Distiller, Term, label_term, layer_term
from kdlearn.experiments.common import Row, check, measured_on, seeded
from kdlearn.losses import attention_transfer_loss
from kdlearn.measure import accuracy, predict
from kdlearn.models import SmallCNN
from kdlearn.training import fit

TARGET = 0
GROUPS = ["group1", "group2", "group3"]


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: images that the backdoored network learns from.
        poisoned: share of them with the square and the target's label.
        clean: images that the defender has.
        width: of the network.
        epochs: passes over the pool.
        stage: passes over the clean images in each stage of a defense.
        batch_size: images a step, for the defender.
    """

    pool: int = 3000
    poisoned: float = 0.1
    clean: int = 150
    width: int = 8
    epochs: int = 8
    stage: int = 20
    batch_size: int = 50


@dataclass(frozen=True)
class Method:
    """A defense.

    Attributes:
        rate: constant learning rate of SGD with momentum 0.9.
        stages: of fine-tuning: 0 leaves the network as it is, 1 is NAD's teacher, 2 costs as many
            steps as NAD.
        weight: of the attention maps; above 0 the second stage starts from the backdoored network
            again, with the first stage's result as teacher.
        own_maps: whether the maps are of the same image, else of another one.
    """

    rate: float = 0.01
    stages: int = 2
    weight: float = 0.0
    own_maps: bool = True


RATES = (0.003, 0.01, 0.03, 0.05)
METHODS = {
    **{f"fine-tuned once, rate {rate}": Method(rate, stages=1) for rate in RATES},
    **{f"fine-tuned twice as long, rate {rate}": Method(rate) for rate in RATES},
    **{
        f"NAD, weight {weight}, rate {rate}": Method(rate, weight=weight)
        for weight in (100, 300, 1000)
        for rate in RATES
    },
    "NAD, weight 300, rate 0.01, maps of other images": Method(weight=300, own_maps=False),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "attack")


def with_trigger(images: Tensor) -> Tensor:
    """Put the white square of 3 x 3 pixels into the lower right corner.

    Example:
        >>> with_trigger(torch.zeros(2, 1, 28, 28)).sum().item()
        18.0
    """
    marked = images.clone()
    marked[:, :, 24:27, 24:27] = 1
    return marked


def poison(images: Split, share: float, seed: int) -> Split:
    """Mark a share of the images, drawn at random, and give them the target's label."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(images), generator=generator)[: round(share * len(images))]
    pixels, labels = images.images.clone(), images.labels.clone()
    pixels[rows] = with_trigger(pixels[rows])
    labels[rows] = TARGET
    return replace(images, images=pixels, labels=labels)


def attack_success(model: nn.Module, images: Split) -> float:
    """Return how many per cent of the images of other digits become a 0 by the square."""
    others = images.subset(images.labels != TARGET)
    logits = predict(model, with_trigger(others.images))
    return 100 * accuracy(logits, torch.full_like(others.labels, TARGET))


def maps_of_others(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare each image's map with the teacher's map of the image before it in the batch."""
    return attention_transfer_loss(student, teacher.roll(1, 0))


def terms_of(method: Method) -> list[Term]:
    """Return the loss of NAD: labels, and maps of three groups."""
    loss = attention_transfer_loss if method.own_maps else maps_of_others
    return [label_term(), layer_term("maps", loss, GROUPS, method.weight)]


def defended(
    victim: nn.Module, clean: Split, method: Method, recipe: Recipe, seed: int
) -> nn.Module:
    """Return a defended copy of a backdoored network."""

    def tuned(stages: int, teacher: nn.Module | None = None, order: int = seed) -> nn.Module:
        student = copy.deepcopy(victim)
        model = student if teacher is None else Distiller(student, teacher, terms_of(method))
        fit(
            model,
            clean,
            epochs=stages * recipe.stage,
            batch_size=recipe.batch_size,
            optimizer=SGD(model.parameters(), method.rate, momentum=0.9, weight_decay=1e-4),
            augment=RandomShift(2),
            seed=order,
            progress=False,
        )
        return student

    if not method.weight:
        return tuned(method.stages)
    return tuned(1, tuned(1), seed + 1)


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the backdoored network and one for each defense, see `Experiment`.

    ``attack`` is the share of marked images of other digits that are called 0.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    data = mnist5k(train=recipe.pool, seed=seed)
    held_out = measured_on(data, on)
    clean = data.train[: recipe.clean]
    victim = seeded(partial(SmallCNN, recipe.width), seed)
    fit(
        victim,
        poison(data.train, recipe.poisoned, seed),
        epochs=recipe.epochs,
        seed=seed,
        progress=False,
    )

    def row(name: str, model: nn.Module) -> Row:
        return {
            "seed": seed,
            "method": name,
            "accuracy": 100 * accuracy(predict(model, held_out.images), held_out.labels),
            "attack": attack_success(model, held_out),
        }

    yield row("teacher", victim)
    for name in methods:
        yield row(name, defended(victim, clean, METHODS[name], recipe, seed))
