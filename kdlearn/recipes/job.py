"""A recipe at work in a folder: its teacher, what is stored of it, a student, and what came out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kdlearn.core.errors import in_full
from kdlearn.core.files import whole
from kdlearn.data.samples import Samples
from kdlearn.data.views import PlainViews
from kdlearn.distill import Distiller
from kdlearn.measure import accuracy, agreement, count_parameters, kl_to_teacher, predict
from kdlearn.recipes.build import (
    Built,
    build,
    copies,
    distiller,
    make_augment,
    make_optimizer,
    terms,
)
from kdlearn.recipes.schema import Recipe, RecipeError, TrainingTable
from kdlearn.store import CachedTeacher, cache_teacher
from kdlearn.training import Checkpoints, Engine, History, fit
from kdlearn.training.engine import Run
from kdlearn.training.rehearsal import rehearse


class Job:
    """One method of a recipe, one seed, one folder; what the commands of ``kdlearn`` run.

    Convention
        The folder is one recipe's: ``teacher.safetensors``, for each method ``store-METHOD`` where
        the teacher is stored, and for each student ``METHOD-SEED`` with ``student.safetensors``,
        ``history.json``, ``test.json`` and checkpoints. Weights hold a note of what made them;
        weights of another recipe are refused.
        Networks are on the GPU if there is one. Before anything is trained, each training tries a
        step on two images: what cannot run is told before it costs anything.

    Args:
        recipe: from `kdlearn.recipes.load`.
        method: one of its methods.
        folder: where its runs live.
        seed: of the student and of the order of images.
        progress: show bars.

    Raises:
        RecipeError: the recipe has no such method, or a loss refuses its options.

    Example:
        >>> import tempfile
        >>> from kdlearn.recipes import load
        >>> recipe = load("warped-digits")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     job = Job(recipe, "KD", folder)
        >>> job.run.name, len(job.built.data.train)
        ('KD-0', 500)
    """

    def __init__(
        self,
        recipe: Recipe,
        method: str,
        folder: str | os.PathLike[str],
        *,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.recipe, self.method, self.seed, self.progress = recipe, method, seed, progress
        self.folder = Path(folder)
        self.run = self.folder / f"{method}-{seed}"
        terms(recipe, method)

    @cached_property
    def built(self) -> Built:
        """Data and networks, made when they are first needed."""
        built = build(self.recipe, seed=self.seed)
        for model in (built.teacher, built.student):
            model.to(_device())
        return built

    def train(self, *, resume: bool = False) -> History:
        """Train the teacher where that was not done, then the student.

        Args:
            resume: go on where an earlier run of this student stopped. A teacher always goes on.

        Raises:
            RecipeError: the recipe cannot be built, a first step fails, or the folder is another
                recipe's or holds this student already.
            CacheError: the store cannot be used.
            CheckpointError: checkpoints cannot be used.
            FloatingPointError: a loss is NaN or infinite.
        """
        self._load_teacher()  # first, so that another recipe's folder is told as that
        checkpoints = self.run / "checkpoints"
        if not resume and Checkpoints(checkpoints).saved():
            raise RecipeError(
                f"{checkpoints} holds a run already: go on with --resume, or name another --seed "
                "or --folder."
            )
        self._rehearse()
        stored = self.recipe.cache is not None and self._reads_a_teacher()
        source = self.store() if stored else self._teacher()
        student = self.built.student
        history = _fit(
            self.recipe.training,
            self._distiller(source),
            self.built.data.train,
            checkpoints,
            seed=self.seed,
            resume=resume,
            progress=self.progress,
            augment=copies(self.recipe) or make_augment(self.recipe.training),
            validation=self.built.data.validation,
        )
        _save(student, self.run / "student.safetensors", self._student_note())
        if _is_main():
            (self.run / "history.json").write_text(json.dumps(history.epochs))
        return history

    def store(self) -> CachedTeacher:
        """Compute what the method needs of the teacher, or open it where that was done.

        Raises:
            RecipeError: the recipe has no ``[cache]``, or as in `train`.
            CacheError: the folder holds something else, or was made by another teacher.
        """
        if self.recipe.cache is None:
            raise RecipeError("the recipe has no [cache] table: add one, e.g. copies = 8.")
        if not self._reads_a_teacher():
            raise RecipeError(f"method {self.method!r} reads nothing of the teacher to be stored.")
        self._rehearse()
        return cache_teacher(
            self._teacher(),
            self.built.data.train.images,
            self.folder / f"store-{self.method}",
            terms(self.recipe, self.method),
            copies=copies(self.recipe),
            dtype=getattr(torch, self.recipe.cache.dtype),
            progress=self.progress,
        )

    def load(self) -> None:
        """Read teacher and student as `train` left them.

        Raises:
            RecipeError: they are not there, or another recipe's.
        """
        if self.recipe.teacher_training is not None:
            _load(self.built.teacher, self.folder / "teacher.safetensors", self._teacher_note())
        _load(self.built.student, self.run / "student.safetensors", self._student_note())

    def measure(self) -> dict[str, float | int]:
        """Measure the student on the test split; shares in [0, 1], the KL in nats."""
        test, student, teacher = self.built.data.test, self.built.student, self.built.teacher
        images = test.images.to(_device())
        of_student, of_teacher = (predict(model, images).cpu() for model in (student, teacher))
        measured = {
            "accuracy": accuracy(of_student, test.labels),
            "teacher_accuracy": accuracy(of_teacher, test.labels),
            "agreement": agreement(of_student, of_teacher),
            "kl_to_teacher": kl_to_teacher(of_student, of_teacher),
            "parameters": count_parameters(student),
            "teacher_parameters": count_parameters(teacher),
        }
        if _is_main():
            (self.run / "test.json").write_text(json.dumps(measured, indent=2))
        return measured

    def _load_teacher(self) -> bool:
        """Return whether the teacher is trained: it came so, or it was read."""
        path = self.folder / "teacher.safetensors"
        if self.recipe.teacher_training is None:
            return True
        if not path.exists():
            return False
        _load(self.built.teacher, path, self._teacher_note())
        return True

    def _teacher(self) -> nn.Module:
        """Train the teacher and keep it, or read it where that was done."""
        teacher, table = self.built.teacher, self.recipe.teacher_training
        if table is None or self._load_teacher():
            return teacher
        _fit(
            table,
            teacher,
            self.built.pool,
            self.folder / "teacher-checkpoints",
            seed=self.recipe.data.seed,
            resume=True,
            progress=self.progress,
            augment=make_augment(table),
            validation=None,
        )
        _save(teacher, self.folder / "teacher.safetensors", self._teacher_note())
        return teacher

    def _reads_a_teacher(self) -> bool:
        return any(term.wants for term in terms(self.recipe, self.method))

    def _distiller(self, source: nn.Module | CachedTeacher) -> Distiller:
        made = distiller(self.recipe, self.method, self.built.student, source, seed=self.seed)
        return made.to(_device())

    def _rehearse(self) -> None:
        """Try a step of each training on two images; nothing is changed by it."""
        data, teacher = self.built.data, self.built.teacher
        method = f"method {self.method!r}"
        for network in (teacher, self.built.student):
            odd = [name for name, v in network.state_dict().items() if not isinstance(v, Tensor)]
            if odd:
                raise RecipeError(
                    f"{type(network).__name__} has {odd[0]!r} in its state_dict(), which is no "
                    "tensor and cannot be kept with the weights: make it a buffer."
                )
        tried = [(method, self.recipe.training, self._distiller(teacher), data.train)]
        if self.recipe.teacher_training is not None:
            alone = (self.recipe.teacher_training, Distiller(teacher), self.built.pool)
            tried.append(("teacher_training", *alone))
        held_out = Samples.of(data.validation, "validation")
        for place, table, model, split in tried:
            train = Samples.of(split, "train")
            try:
                run = Run(_engine(table), model, make_optimizer(table, model, len(train))[0])
                rehearse(run, train, PlainViews(), held_out, accuracy)
            except Exception as error:  # networks of your own may fail in any way
                raise RecipeError(
                    f"{place}: a first step on two images fails: {in_full(error)}"
                ) from error

    def _teacher_note(self) -> dict[str, Any]:
        tables = self.recipe.model_dump(include={"data", "teacher", "teacher_training"})
        del tables["data"]["images"]  # the teacher sees all of them
        return tables

    def _student_note(self) -> dict[str, Any]:
        tables = self.recipe.model_dump(exclude={"about", "published"})
        return {**tables, "methods": tables["methods"][self.method], "seed": self.seed}


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def _is_main() -> bool:
    """Return whether this process writes, of several that train together."""
    return os.environ.get("RANK", "0") == "0"


def _engine(table: TrainingTable) -> Engine:
    return Engine(precision=table.precision)


def _fit(
    table: TrainingTable, model: nn.Module, data: Any, folder: Path, **settings: Any
) -> History:
    optimizer, scheduler = make_optimizer(table, model, len(data.labels))
    return fit(
        model,
        data,
        epochs=table.epochs,
        batch_size=table.batch_size,
        optimizer=optimizer,
        scheduler=scheduler,
        engine=_engine(table),
        checkpoints=Checkpoints(folder),
        **settings,
    )


def _save(model: nn.Module, path: Path, note: Mapping[str, Any]) -> None:
    if not _is_main():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Copies: safetensors refuses tensors that share memory, as those of a layer used twice do.
    weights = {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
    }
    with whole(path) as partial:
        save_file(weights, partial, metadata={"made by": json.dumps(note)})


def _load(model: nn.Module, path: Path, note: Mapping[str, Any]) -> None:
    """Read weights that this recipe made; the note beside them says so."""
    if not path.is_file():
        raise RecipeError(f"{path} is not there: train first, with `kdlearn train`.")
    try:
        with safe_open(path, "pt") as file:
            made_by = json.loads((file.metadata() or {}).get("made by", "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read ({error}): name another --folder.") from error
    if made_by is None:
        raise RecipeError(
            f"{path} does not say which recipe made it: move it away, or name another --folder."
        )
    known, wanted = dict(_flat(made_by)), dict(_flat(json.loads(json.dumps(note))))
    differ = [
        f"{key} was {known.get(key)!r} and is {wanted.get(key)!r}"
        for key in {**known, **wanted}
        if known.get(key) != wanted.get(key)
    ]
    if differ:
        raise RecipeError(
            f"{path} was made by another recipe ({'; '.join(differ)}): name another --folder."
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RecipeError(
            f"{path} does not fit its network ({error}): name another --folder."
        ) from None


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree under their places, such as ``data.seed``."""
    children = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(children, dict):
        yield place, value
        return
    for key, child in children.items():
        yield from _flat(child, f"{place}.{key}" if place else str(key))
