"""From a checked recipe to data, networks and losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from kdlearn.data import (
    FixedCopies,
    RandomAffine,
    RandomCropFlip,
    RandomShift,
    Split,
    Splits,
    balanced_subset,
)
from kdlearn.data.views import Augment
from kdlearn.distill import Distiller, Term, label_term, layer_term, logit_term
from kdlearn.distill.outputs import Keep
from kdlearn.recipes.names import loss, make
from kdlearn.recipes.schema import ModelTable, Recipe, RecipeError, TermTable, TrainingTable
from kdlearn.store import AttentionMap, CachedTeacher, Relation
from kdlearn.training import adamw

# Where less than the features of a layer says the same: what is stored, by the options of the loss.
KEPT: Mapping[str, Callable[[Mapping[str, Any]], Keep]] = {
    "attention_transfer_loss": lambda options: AttentionMap(p=options.get("p", 2)),
    "relation_loss": lambda options: Relation(options["relation_heads"]),
}


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
    pool: Split
    teacher: nn.Module
    student: nn.Module


def build(recipe: Recipe, *, seed: int) -> Built:
    """Make data and networks of a recipe; the student's first weights follow from the seed.

    Raises:
        RecipeError: a function refuses its options or returns something else, or there are too few
            images.

    Example: see `Built`.
    """
    table = recipe.data
    data = _made("data", lambda: make(table.function, table.options, seed=table.seed), Splits)
    for name, part in vars(data).items():
        if not _is_split(part):
            given = f"a {type(part).__name__}"
            if isinstance(part, Split):
                given = f"{len(part)} images in a {type(part.images).__name__}"
            raise RecipeError(
                f"data: {name} is {given}: expected a Split whose images (N, C, ...) and labels "
                "(N,) are tensors, N at least 1."
            )
    pool = data.train
    classes, channels = int(pool.labels.max()) + 1, pool.images.shape[1]
    if table.images is not None:
        if table.images < classes:
            raise RecipeError(
                f"data.images: {table.images} images cannot show {classes} classes: expected "
                f"{classes} or more."
            )
        draw = partial(balanced_subset, pool, table.images, seed=table.seed)
        few = _made("data.images", draw, Split)
        data = Splits(few, data.validation, data.test)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(table.seed)
        teacher = _network("teacher", recipe.teacher, classes, channels)
        torch.manual_seed(seed)
        student = _network("student", recipe.student, classes, channels)
    return Built(data, pool, teacher, student)


def _is_split(part: Any) -> bool:
    tensors = isinstance(part, Split) and isinstance(part.images, Tensor)
    return tensors and len(part) > 0 and part.images.dim() > 1


def _network(place: str, table: ModelTable, classes: int, channels: int) -> nn.Module:
    return _made(place, lambda: table.make(classes=classes, channels=channels), nn.Module)


def _made(place: str, maker: Callable[[], Any], kind: type) -> Any:
    """Call what a recipe names; whatever it complains about is the recipe's."""
    try:
        made = maker()
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise RecipeError(f"{place}: {error}") from error
    except Exception as error:  # whose message may say little alone, as that of a KeyError
        raise RecipeError(f"{place}: {error!r}") from error
    if not isinstance(made, kind):
        raise RecipeError(
            f"{place}: its function returned a {type(made).__name__}: expected a {kind.__name__}."
        )
    return made


def terms(recipe: Recipe, method: str, *, seed: int = 0) -> list[Term]:
    """Make the terms of a method; first weights of projectors follow from the seed.

    Raises:
        RecipeError: the recipe has no such method, or a loss refuses its options.

    Example:
        >>> from kdlearn.recipes import load
        >>> [term.name for term in terms(load("cluttered-digits"), "KD")]
        ['labels', 'soft_target_loss']
    """
    if method not in recipe.methods:
        raise RecipeError(
            f"there is no method {method!r}: choose from {', '.join(map(repr, recipe.methods))}."
        )
    seen: Counter[str] = Counter()
    made = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for table in recipe.methods[method]:
            seen[table.loss] += 1
            name = table.loss if seen[table.loss] == 1 else f"{table.loss}_{seen[table.loss]}"
            made.append(
                _made(
                    f"method {method!r}",
                    partial(_term, name, table, recipe.cache is not None),
                    Term,
                )
            )
    return made


def _term(name: str, table: TermTable, stored: bool) -> Term:
    found = loss(table.loss)
    as_class = isinstance(found.function, type)
    called = (
        found.function(**table.options) if as_class else partial(found.function, **table.options)
    )
    if found.reads == "layers":
        keep = KEPT[table.loss](table.options) if stored and table.loss in KEPT else None
        return layer_term(name, called, table.layers, table.weight, keep=keep)
    if found.reads == "labels":
        return label_term(table.weight, called, name)
    with_labels = found.reads == "logits and labels"
    return logit_term(name, called, table.weight, with_labels=with_labels)


def distiller(
    recipe: Recipe,
    method: str,
    student: nn.Module,
    teacher: nn.Module | CachedTeacher,
    *,
    seed: int = 0,
) -> Distiller:
    """Put a method's terms between student and teacher; no teacher where none reads it.

    Raises:
        RecipeError: the recipe has no such method, or a network has no such layer.

    Example:
        >>> from kdlearn.recipes import load
        >>> recipe = load("warped-digits")
        >>> built = build(recipe, seed=0)
        >>> [term.name for term in distiller(recipe, "KD", built.student, built.teacher).terms]
        ['soft_target_loss']
    """
    made = terms(recipe, method, seed=seed)
    taught = any(term.wants for term in made)
    try:
        return Distiller(student, teacher if taught else None, made)
    except KeyError as error:
        raise RecipeError(f"method {method!r}: {error.args[0]}") from None


def make_augment(table: TrainingTable) -> Augment | None:
    """Make the augmentation of a training table.

    Example:
        >>> from kdlearn.recipes import load
        >>> make_augment(load("warped-digits").training)
        RandomAffine(rotation=30.0, scale=0.25, shear=0.3, shift=0.1)
    """
    return {
        "none": None,
        "affine": RandomAffine(),
        "shift": RandomShift(),
        "crop-flip": RandomCropFlip(),
    }[table.augment]


def copies(recipe: Recipe) -> FixedCopies | None:
    """Return the fixed copies that a recipe's store is made of, None for the plain images.

    Example:
        >>> from kdlearn.recipes import load
        >>> copies(load("warped-digits")) is None
        True
    """
    augment = make_augment(recipe.training)
    if recipe.cache is None or augment is None:
        return None
    return FixedCopies(augment, tuple(range(recipe.cache.copies)))


def make_optimizer(
    table: TrainingTable, model: nn.Module, samples: int
) -> tuple[Optimizer, LRScheduler]:
    """Make the optimizer and the schedule of a training table for so many samples an epoch.

    Example:
        >>> table = TrainingTable(epochs=1, optimizer="sgd", learning_rate=0.1, decay_at=[0.5])
        >>> optimizer, _ = make_optimizer(table, nn.Linear(2, 2), samples=100)
        >>> optimizer.param_groups[0]["lr"]
        0.1
    """
    steps = table.epochs * -(-samples // table.batch_size)
    optimizer: Optimizer
    if table.optimizer == "adamw":
        optimizer = adamw(model.parameters(), table.learning_rate)
        return optimizer, OneCycleLR(optimizer, max_lr=table.learning_rate, total_steps=steps)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        trained, lr=table.learning_rate, momentum=0.9, weight_decay=table.weight_decay
    )
    places = [round(share * steps) for share in table.decay_at]
    return optimizer, MultiStepLR(optimizer, places, gamma=table.decay_by)
