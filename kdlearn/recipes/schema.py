"""What a recipe may say, and the sentence that each mistake gets."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from kdlearn.recipes.names import DATA, NETWORKS, check_options, function, hint, loss, make

Positive = Annotated[int, Field(ge=1)]
Option = bool | int | float | str


class RecipeError(ValueError):
    """A recipe that cannot be run; each line of the message names a place and what to write there.

    Example:
        >>> str(RecipeError("training.epochs: 0 is below 1"))
        'training.epochs: 0 is below 1'
    """


class _Table(BaseModel):
    # Strict: true is no number of epochs, and "3" neither.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _can_be_noted(option: Any) -> Any:
    """Refuse what cannot be written beside the weights and read again as the same."""
    try:
        json.dumps(option, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(
            f"{option} does not fit: expected finite numbers, texts (a date in quotes), true "
            "or false, or lists or tables of these"
        ) from None
    return option


class _Call(BaseModel):
    """A table that names a function; its further keys are that function's options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_can_be_noted)]]

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class DataTable(_Call):
    """``[data]``: which data, how many images the student sees, options of what makes the data.

    Your own data are ``name = "my_module:my_function"``, which returns a `kdlearn.data.Splits`.
    """

    name: str
    images: Positive | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def function(self) -> Callable[..., Any]:
        """What makes the data."""
        return function(self.name, DATA)

    @model_validator(mode="after")
    def _fits(self) -> DataTable:
        check_options(self.function, self.options, taken=("seed",))
        return self


class ModelTable(_Call):
    """``[teacher]`` and ``[student]``: a network, and options of the function that makes it.

    Your own network is ``model = "my_module:my_function"``; the function is given ``classes`` and
    ``channels`` where it has parameters of these names.
    """

    model: str

    @property
    def function(self) -> Callable[..., Any]:
        """What makes the network."""
        return function(self.model, NETWORKS)

    @model_validator(mode="after")
    def _fits(self) -> ModelTable:
        check_options(self.function, self.options, taken=("classes", "channels"))
        return self

    def make(self, *, classes: int, channels: int) -> Any:
        """Make the network; its first weights follow from torch's current seed.

        Example:
            >>> ModelTable(model="small-cnn", width=4).make(classes=10, channels=1).channels
            1
        """
        return make(self.function, self.options, classes=classes, channels=channels)


class TrainingTable(_Table):
    """``[training]`` and ``[teacher_training]``: the loop.

    ``optimizer = "adamw"`` has a one-cycle schedule; ``"sgd"`` has momentum 0.9, and its rate is
    multiplied by ``decay_by`` at the shares ``decay_at`` of all steps.
    """

    epochs: Positive
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decay_at: list[Annotated[float, Field(gt=0, lt=1)]] = []
    decay_by: Annotated[float, Field(gt=0, lt=1)] = 0.2
    augment: Literal["none", "affine", "shift", "crop-flip"] = "none"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    @model_validator(mode="after")
    def _belongs_together(self) -> TrainingTable:
        unread = self.model_fields_set & {"weight_decay", "decay_at", "decay_by"}
        if self.optimizer == "adamw" and unread:
            raise ValueError(f"{min(unread)} is read with optimizer = 'sgd' alone")
        return self


class TermTable(_Table):
    """One entry of a method: a loss, its weight, the layers and options it takes."""

    loss: str
    weight: Annotated[float, Field(ge=0)] = 1.0
    layers: dict[str, str] | list[str] = []
    options: dict[str, Option] = {}

    @model_validator(mode="after")
    def _fits(self) -> TermTable:
        found = loss(self.loss)
        needed = found.reads == "layers"
        if bool(self.layers) != needed:
            raise ValueError(f"{self.loss} {'needs' if needed else 'takes no'} layers")
        try:
            check_options(found.function, self.options, found.tensors)
        except ValueError as error:
            raise ValueError(f"options of {self.loss}: {error}") from None
        return self


class CacheTable(_Table):
    """``[cache]``: store the teacher, on the plain images or on fixed augmented copies."""

    copies: Annotated[int, Field(ge=0)] = 0
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


class Recipe(_Table):
    """A recipe: data, two networks, their training, and one or more methods to choose from.

    A file may hold several: each table ``[pairs.NAME]`` has the tables in which one differs, and
    ``FILE:NAME`` names it. Without ``[teacher_training]`` the teacher is taken as your function
    returns it, trained.

    Example:
        >>> recipe = load("warped-digits")
        >>> recipe.training.epochs, list(recipe.methods)
        (100, ['student', 'KD'])
    """

    about: str = ""
    data: DataTable
    teacher: ModelTable
    student: ModelTable
    teacher_training: TrainingTable | None = None
    training: TrainingTable
    methods: dict[str, list[TermTable]] = Field(min_length=1)
    cache: CacheTable | None = None
    published: dict[str, str] = {}

    @model_validator(mode="after")
    def _belongs_together(self) -> Recipe:
        for name, terms in self.methods.items():
            if not terms:
                raise ValueError(f"method {name!r} has no term: give at least one")
            if name in ("", ".", "..") or set(name) & set("/\\:"):
                raise ValueError(f"method {name!r} cannot be the name of a folder: use letters")
        if self.teacher_training is None and self.teacher.model in NETWORKS:
            raise ValueError(
                "teacher_training is missing: only a teacher of your own, 'my_module:my_function', "
                "can come trained"
            )
        if self.published and "source" not in self.published:
            raise ValueError("published.source is missing: say where the numbers come from")
        if self.cache is not None:
            if self.cache.copies and self.training.augment == "none":
                raise ValueError("cache.copies are of augmented images: set training.augment")
            if not self.cache.copies and self.training.augment != "none":
                raise ValueError(
                    "a stored teacher cannot serve fresh views: set cache.copies, or "
                    "training.augment = 'none'"
                )
        return self


_TABLES: Mapping[str, type[BaseModel]] = {
    "training": TrainingTable,
    "teacher_training": TrainingTable,
    "methods": TermTable,
    "cache": CacheTable,
}


def shipped() -> list[str]:
    """List the recipes that come with the package, under the names by which `load` reads them.

    Example:
        >>> "cifar10-attention-transfer:16-1-from-16-2" in shipped()
        True
    """
    names: list[str] = []
    for file in sorted(files("kdlearn.recipes").iterdir(), key=lambda file: file.name):
        name, dot, kind = file.name.rpartition(".")
        if kind == "toml":
            pairs = tomllib.loads(file.read_text(encoding="utf-8")).get("pairs")
            names += [f"{name}:{pair}" for pair in pairs] if pairs else [name]
    return names


def load(name: str | Path) -> Recipe:
    """Read a recipe: a file, or one of the package; ``FILE:PAIR`` where a file holds several.

    Raises:
        RecipeError: there is none, it is not TOML, or it says something that cannot be run; all
            places at once.

    Example:
        >>> load("warped-digits").data.name
        'warped-digits'
    """
    file, _, pair = str(name).rpartition(":")
    if not file or pair.endswith(".toml"):
        file, pair = str(name), ""
    try:
        content = tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file} is not TOML: {error}.") from error
    pairs = content.pop("pairs", {})
    if not isinstance(pairs, dict) or not all(isinstance(part, dict) for part in pairs.values()):
        raise RecipeError(f"{file}: pairs: expected tables [pairs.NAME], one for each recipe.")
    if pairs or pair:
        if pair not in pairs:
            known = ", ".join(f"{file}:{known}" for known in pairs) or file
            raise RecipeError(f"there is no recipe {str(name)!r} in the file; there are {known}.")
        content |= pairs[pair]
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        lines = [_sentence(fault) for fault in error.errors()]
        raise RecipeError(f"{name}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _text(file: str) -> str:
    if file.endswith(".toml"):
        try:
            return Path(file).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise RecipeError(f"{file} cannot be read: {why}.") from error
    source = files("kdlearn.recipes") / f"{file}.toml"
    if not source.is_file():
        raise RecipeError(
            f"there is no recipe {file!r}: name a file that ends in .toml, or one of "
            f"{', '.join(shipped())}."
        )
    return source.read_text(encoding="utf-8")


def _sentence(fault: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("list["))
    kind, given = fault["type"], fault.get("input")
    if kind == "extra_forbidden":
        table = _TABLES[fault["loc"][0]] if len(fault["loc"]) > 1 else Recipe
        return f"{place}: there is no such key; {hint(str(fault['loc'][-1]), table.model_fields)}"
    if kind == "missing":
        return f"{place}: is missing and has no default."
    if kind == "value_error":
        return f"{place or 'the recipe'}: {fault['ctx']['error']}."
    if kind == "literal_error":
        return f"{place}: {given!r} is not one of {fault['ctx']['expected']}."
    return f"{place}: {given!r} does not fit: {fault['msg'][0].lower()}{fault['msg'][1:]}."
