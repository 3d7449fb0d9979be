"""From a checked recipe to data, networks and losses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from kdlearn import losses
from kdlearn.data import (
    FixedCopies,
    RandomAffine,
    RandomCropFlip,
    RandomShift,
    Splits,
    balanced_subset,
    cifar,
    cluttered_digits,
    warped_digits,
)
from kdlearn.data.views import Augment
from kdlearn.distill import Distiller, Term, label_term, layer_term, logit_term
from kdlearn.models import SlimWRN, SmallCNN
from kdlearn.recipes.schema import (
    LABELS,
    LOGIT_LOSSES,
    ModelTable,
    Recipe,
    RecipeError,
    TrainingTable,
)
from kdlearn.store import AttentionMap, CachedTeacher, cache_teacher

WITH_LABELS = ("dkd_loss", "target_class_loss", "nontarget_class_loss")


@dataclass(frozen=True)
class Built:
    """Data and networks of a recipe, not trained yet.

    Attributes:
        data: train, validation and test; ``train`` is what the student sees.
        pool: what the teacher sees.
        teacher: the large network.
        student: the small one.

    Example:
        >>> from kdlearn.recipes import load
        >>> built = build(load("warped-digits"), seed=0)
        >>> len(built.data.train.images), len(built.pool.images)
        (500, 12000)
    """

    data: Splits
    pool: object
    teacher: nn.Module
    student: nn.Module


def build(recipe: Recipe, *, seed: int) -> Built:
    """Make the data and the networks of a recipe; the student's first weights follow from the seed.

    Raises:
        RecipeError: more images are asked for than there are.

    Example: see `Built`.
    """
    table = recipe.data
    if table.name in ("cifar10", "cifar100"):
        data = cifar(table.name, folder=table.folder)
    elif table.name == "warped-digits":
        data = warped_digits(seed=table.seed)
    else:
        data = cluttered_digits(seed=table.seed)
    pool = data.train
    if table.images is not None:
        try:
            few = balanced_subset(data.train, table.images, seed=table.seed)
        except ValueError as error:
            raise RecipeError(f"data.images: {error}") from None
        data = Splits(few, data.validation, data.test)
    classes, channels = int(pool.labels.max()) + 1, pool.images.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(table.seed)
        teacher = _network(recipe.teacher, classes, channels)
        torch.manual_seed(seed)
        student = _network(recipe.student, classes, channels)
    return Built(data, pool, teacher, student)


def terms_of(recipe: Recipe, method: str) -> list[Term]:
    """Return the terms of a method; what a store need not hold whole is kept as a map.

    Example:
        >>> from kdlearn.recipes import load
        >>> [term.name for term in terms_of(load("warped-digits"), "KD")]
        ['soft_target_loss']
    """
    names: dict[str, int] = {}
    terms: list[Term] = []
    for table in recipe.methods[method]:
        names[table.loss] = names.get(table.loss, 0) + 1
        name = table.loss if names[table.loss] == 1 else f"{table.loss}_{names[table.loss]}"
        if table.loss == LABELS:
            terms.append(label_term(table.weight, F.cross_entropy, name))
            continue
        loss = partial(getattr(losses, table.loss), **table.options)
        if table.loss in LOGIT_LOSSES:
            with_labels = table.loss in WITH_LABELS
            terms.append(logit_term(name, loss, table.weight, with_labels=with_labels))
        else:
            is_map = table.loss == "attention_transfer_loss" and recipe.cache is not None
            keep = AttentionMap(p=float(table.options.get("p", 2))) if is_map else None
            terms.append(layer_term(name, loss, table.layers, table.weight, keep=keep))
    return terms


def distiller(
    recipe: Recipe, method: str, student: nn.Module, teacher: nn.Module | CachedTeacher
) -> Distiller:
    """Put a method's terms between student and teacher.

    Raises:
        RecipeError: the recipe has no such method, or a network has no such layer.

    Example:
        >>> from kdlearn.recipes import load
        >>> recipe = load("warped-digits")
        >>> built = build(recipe, seed=0)
        >>> [term.name for term in distiller(recipe, "KD", built.student, built.teacher).terms]
        ['soft_target_loss']
    """
    if method not in recipe.methods:
        raise RecipeError(
            f"there is no method {method!r}: choose from {', '.join(map(repr, recipe.methods))}."
        )
    try:
        return Distiller(student, teacher, terms_of(recipe, method))
    except KeyError as error:
        raise RecipeError(f"method {method!r}: {error.args[0]}") from None


def stored_teacher(
    recipe: Recipe, method: str, built: Built, folder: Path, *, progress: bool = True
) -> CachedTeacher:
    """Compute what a method needs of the teacher once, or open it where that was done.

    Raises:
        RecipeError: the recipe has no ``[cache]``.
    """
    if recipe.cache is None:
        raise RecipeError("the recipe has no [cache] table: add one, e.g. copies = 8.")
    return cache_teacher(
        built.teacher,
        built.data.train.images,
        folder,
        terms_of(recipe, method),
        copies=fixed_copies(recipe),
        dtype=getattr(torch, recipe.cache.dtype),
        progress=progress,
    )


def make_augment(recipe: Recipe, table: TrainingTable) -> Augment | None:
    """Make the augmentation of a training table.

    Example:
        >>> from kdlearn.recipes import load
        >>> recipe = load("warped-digits")
        >>> make_augment(recipe, recipe.training)
        RandomAffine(rotation=30.0, scale=0.25, shear=0.3, shift=0.1)
    """
    return {
        "none": None,
        "affine": RandomAffine(),
        "shift": RandomShift(),
        "crop-flip": RandomCropFlip(),
    }[table.augment]


def fixed_copies(recipe: Recipe) -> FixedCopies | None:
    """Give the fixed copies that a recipe's store is made of, None for the plain images.

    Example:
        >>> from kdlearn.recipes import load
        >>> fixed_copies(load("warped-digits")) is None
        True
    """
    if recipe.cache is None or not recipe.cache.copies:
        return None
    views = make_augment(recipe, recipe.training)
    assert views is not None and not isinstance(views, FixedCopies)
    return FixedCopies(views, tuple(range(recipe.cache.copies)))


def make_optimizer(
    table: TrainingTable, model: nn.Module, steps: int
) -> tuple[Optimizer, LRScheduler]:
    """Make the optimizer and the schedule of a training table for so many steps in all.

    Example:
        >>> table = TrainingTable(epochs=1, optimizer="sgd", learning_rate=0.1, decay_at=(0.5,))
        >>> optimizer, _ = make_optimizer(table, nn.Linear(2, 2), steps=100)
        >>> optimizer.param_groups[0]["lr"]
        0.1
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer: Optimizer
    if table.optimizer == "adamw":
        optimizer = torch.optim.AdamW(trained, lr=table.learning_rate)
        return optimizer, OneCycleLR(optimizer, max_lr=table.learning_rate, total_steps=steps)
    optimizer = torch.optim.SGD(
        trained,
        lr=table.learning_rate,
        momentum=table.momentum,
        weight_decay=table.weight_decay,
        nesterov=table.momentum > 0,
    )
    places = [round(share * steps) for share in table.decay_at]
    return optimizer, MultiStepLR(optimizer, places, gamma=table.decay_by)


def _network(table: ModelTable, classes: int, channels: int) -> nn.Module:
    if table.model == "small-cnn":
        return SmallCNN(table.width, classes=classes)
    return SlimWRN(
        table.widths,
        blocks=table.blocks,
        classes=classes,
        channels=channels,
        stem_stride=table.stem_stride,
    )
