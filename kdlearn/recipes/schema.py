"""What a recipe may say, and the sentence that each mistake gets."""

from __future__ import annotations

import difflib
import inspect
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdlearn import losses

LABELS = "labels"
LOGIT_LOSSES = (
    "soft_target_loss",
    "soft_cross_entropy",
    "logit_mse_loss",
    "dkd_loss",
    "target_class_loss",
    "nontarget_class_loss",
    "dist_loss",
)
LAYER_LOSSES = (
    "attention_transfer_loss",
    "hint_loss",
    "nst_loss",
    "hcl_loss",
    "activation_boundary_loss",
    "factor_transfer_loss",
    "similarity_preserving_loss",
    "rkd_distance_loss",
    "rkd_angle_loss",
    "pkt_loss",
    "correlation_congruence_loss",
    "contrastive_loss",
)
Positive = Annotated[int, Field(ge=1)]
Data = Literal["warped-digits", "cluttered-digits", "cifar10", "cifar100"]
Views = Literal["none", "affine", "shift", "crop-flip"]


class RecipeError(ValueError):
    """A recipe that cannot be run; each line of the message names one place and what to write there.

    Example:
        >>> str(RecipeError("training.epochs: 0 is below 1"))
        'training.epochs: 0 is below 1'
    """


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataTable(_Table):
    """``[data]``: which data, how much of it, and where CIFAR lies."""

    name: Data
    images: Positive | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    folder: str | None = None


class ModelTable(_Table):
    """``[teacher]`` and ``[student]``: a network, and how long it is trained alone."""

    model: Literal["small-cnn", "wrn"]
    width: Positive = 16
    widths: tuple[Positive, Positive, Positive] = (16, 32, 64)
    blocks: Positive = 2
    stem_stride: Positive = 1


class TrainingTable(_Table):
    """``[training]`` and ``[teacher_training]``: the loop."""

    epochs: Positive
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decay_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    decay_by: Annotated[float, Field(gt=0, lt=1)] = 0.2
    augment: Views = "none"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: Positive = 1
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    channels_last: bool = False
    compile: bool = False
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0


class TermTable(_Table):
    """One entry of a method: a loss, its weight, the layers and options it takes."""

    loss: str
    weight: Annotated[float, Field(ge=0)] = 1.0
    layers: dict[str, str] | list[str] = Field(default_factory=list)
    options: dict[str, float | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> TermTable:
        known = (LABELS, *LOGIT_LOSSES, *LAYER_LOSSES)
        if self.loss not in known:
            close = difflib.get_close_matches(self.loss, known, n=3, cutoff=0.3) or list(known)
            raise ValueError(f"there is no loss {self.loss!r}; close are {', '.join(close)}")
        if (self.loss in LAYER_LOSSES) != bool(self.layers):
            needs = "needs layers" if self.loss in LAYER_LOSSES else "takes no layers"
            raise ValueError(f"{self.loss} {needs}")
        if self.loss == LABELS:
            allowed: list[str] = []
        else:
            parameters = inspect.signature(getattr(losses, self.loss)).parameters.values()
            allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        unknown = [name for name in self.options if name not in allowed]
        if unknown:
            has = ", ".join(allowed) or "none"
            raise ValueError(f"{self.loss} has no option {unknown[0]!r}; its options are: {has}")
        return self


class CacheTable(_Table):
    """``[cache]``: store the teacher, on the plain images or on fixed augmented copies."""

    copies: Annotated[int, Field(ge=0)] = 0
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


class Recipe(_Table):
    """A recipe: data, two networks, their training, and one or more methods to choose from.

    Example:
        >>> recipe = load("warped-digits")
        >>> recipe.training.epochs, list(recipe.methods)
        (100, ['student', 'KD'])
    """

    data: DataTable
    teacher: ModelTable
    student: ModelTable
    teacher_training: TrainingTable
    training: TrainingTable
    methods: dict[str, list[TermTable]] = Field(min_length=1)
    cache: CacheTable | None = None
    published: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _belongs_together(self) -> Recipe:
        if self.data.folder is not None and not self.data.name.startswith("cifar"):
            raise ValueError(f"data.folder is for CIFAR; {self.data.name} is made on the spot")
        for name, terms in self.methods.items():
            if not terms:
                raise ValueError(f"method {name!r} has no term: give at least one")
        if self.cache is not None:
            if self.cache.copies and self.training.augment == "none":
                raise ValueError("cache.copies are of augmented images: set training.augment")
            if not self.cache.copies and self.training.augment != "none":
                raise ValueError(
                    "a stored teacher cannot serve fresh views: set cache.copies, or training.augment = 'none'"
                )
        return self


def shipped() -> list[str]:
    """List the recipes that come with the package.

    Example:
        >>> "cifar10-at-16-1-from-16-2" in shipped()
        True
    """
    folder = files("kdlearn.recipes")
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def load(name: str | Path) -> Recipe:
    """Read a recipe: a file, or one that comes with the package.

    Raises:
        RecipeError: there is none, it is not TOML, or it says something that cannot be run; all
            places at once.

    Example:
        >>> load("warped-digits").data.name
        'warped-digits'
    """
    path = Path(name)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise RecipeError(f"{path} cannot be read: {why}.") from error
    elif str(name) in shipped():
        text = (files("kdlearn.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"there is no recipe {str(name)!r}: name a file that ends in .toml, or one of {', '.join(shipped())}."
        )
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name} is not TOML: {error}.") from error
    except ValidationError as error:
        lines = [_sentence(fault) for fault in error.errors()]
        raise RecipeError(f"{name}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _sentence(fault: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("list["))
    kind, given = fault["type"], fault.get("input")
    if kind == "extra_forbidden":
        table, wrong = fault["loc"][:-1], str(fault["loc"][-1])
        known = list(_model_at(table).model_fields)
        close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}."
        return f"{place}: there is no such key; {hint}"
    if kind == "missing":
        return f"{place}: is missing and has no default."
    if kind == "value_error":
        return f"{place or 'the recipe'}: {fault['ctx']['error']}."
    if kind == "literal_error":
        return f"{place}: {given!r} is not one of {fault['ctx']['expected']}."
    return f"{place}: {given!r} does not fit: {fault['msg'][0].lower()}{fault['msg'][1:]}."


def _model_at(path: tuple[Any, ...]) -> type[BaseModel]:
    model: type[BaseModel] = Recipe
    for part in path:
        if not isinstance(part, str) or part not in model.model_fields:
            return TermTable
        kinds = (
            model.model_fields[part].annotation,
            *get_args(model.model_fields[part].annotation),
        )
        tables = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not tables:
            return TermTable
        model = tables[0]
    return model
