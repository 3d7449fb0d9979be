"""A recipe at work in a folder: its teacher, what is stored of it, a student, and what came out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from kdlearn.core.errors import in_full
from kdlearn.core.files import whole
from kdlearn.core.inputs import buffers_kept, evaluating
from kdlearn.core.randomness import separate_randomness
from kdlearn.data import Split
from kdlearn.data.batch import Batch
from kdlearn.data.samples import Samples
from kdlearn.data.views import Views, as_views, shown
from kdlearn.distill import Distiller
from kdlearn.distill.teachers import LiveTeacher, same_teacher
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


class Job:
    """One method of a recipe, one seed, one folder; what the commands of ``kdlearn`` run.

    Convention
        The folder is one recipe's: ``teacher.safetensors``, for each method ``store-METHOD`` where
        the teacher is stored, and for each student ``METHOD-SEED`` with ``student.safetensors``,
        ``history.json``, ``test.json`` and checkpoints. Weights hold a note of what made them:
        recipe, data, teacher, and what the network answers to a few images. Weights of another
        recipe are refused, and so are those of other data or of a network whose code was changed.
        Networks are on the GPU if there is one. Before anything is trained, each training begins
        as far as its first step, and two images are measured: what cannot run is told before it
        costs anything.

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
            RecipeError: the recipe cannot be built, a training cannot begin, or the folder is
                another recipe's or holds this student already.
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
            checkpoints=Checkpoints(checkpoints),
            seed=self.seed,
            resume=resume,
            progress=self.progress,
            augment=copies(self.recipe) or make_augment(self.recipe.training),
            validation=self.built.data.validation,
        )
        _save(
            student, self.run / "student.safetensors", self._student_note(), self.built.data.train
        )
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
            _load(
                self.built.teacher,
                self.folder / "teacher.safetensors",
                self._teacher_note(),
                self.built.pool,
            )
        # Only now: its note says which teacher it had.
        _load(
            self.built.student,
            self.run / "student.safetensors",
            self._student_note(),
            self.built.data.train,
        )

    def measure(self) -> dict[str, float | int]:
        """Measure the student on the test split; shares in [0, 1], the KL in nats.

        A teacher that came trained for other classes is not compared with it.
        """
        test = self.built.data.test
        measured = self._compared(self._answers(test.images), test.labels)
        measured["parameters"] = count_parameters(self.built.student)
        measured["teacher_parameters"] = count_parameters(self.built.teacher)
        if _is_main():
            (self.run / "test.json").write_text(json.dumps(measured, indent=2))
        return measured

    def _answers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield what the student says of images, then what the teacher does."""
        for model in (self.built.student, self.built.teacher):
            yield predict(model, images.to(_device())).cpu()

    def _compared(self, answers: Iterable[Tensor], labels: Tensor) -> dict[str, float | int]:
        of_student, of_teacher = answers
        measured: dict[str, float | int] = {"accuracy": accuracy(of_student, labels)}
        same_classes = of_student.shape == of_teacher.shape
        if same_classes or self.recipe.teacher_training is not None:
            measured["teacher_accuracy"] = accuracy(of_teacher, labels)
        if same_classes:
            measured["agreement"] = agreement(of_student, of_teacher)
            measured["kl_to_teacher"] = kl_to_teacher(of_student, of_teacher)
        return measured

    def _load_teacher(self) -> bool:
        """Return whether the teacher is trained: it came so, or it was read."""
        path = self.folder / "teacher.safetensors"
        if self.recipe.teacher_training is None:
            return True
        if not path.exists():
            return False
        _load(self.built.teacher, path, self._teacher_note(), self.built.pool)
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
            checkpoints=Checkpoints(self.folder / "teacher-checkpoints"),
            seed=self.recipe.data.seed,
            resume=True,
            progress=self.progress,
            augment=make_augment(table),
            validation=None,
        )
        _save(teacher, self.folder / "teacher.safetensors", self._teacher_note(), self.built.pool)
        return teacher

    def _reads_a_teacher(self) -> bool:
        return any(term.wants for term in terms(self.recipe, self.method))

    def _distiller(self, source: nn.Module | CachedTeacher) -> Distiller:
        made = distiller(self.recipe, self.method, self.built.student, source, seed=self.seed)
        return made.to(_device())

    def _rehearse(self) -> None:
        """Begin each training and measure two images; nothing is changed by it."""
        data, teacher, student = self.built.data, self.built.teacher, self.built.student
        for network in (teacher, student):
            odd = [name for name, v in network.state_dict().items() if not isinstance(v, Tensor)]
            if odd:
                raise RecipeError(
                    f"{type(network).__name__} has {odd[0]!r} in its state_dict(), which is no "
                    "tensor and cannot be kept with the weights: make it a buffer."
                )
        # Live, also where the teacher will be stored: there is no store yet.
        method, taught = f"method {self.method!r}", self._distiller(teacher)
        tried = [(method, self.recipe.training, taught, data.train)]
        if self.recipe.teacher_training is not None:
            alone = Distiller(teacher)
            tried.append(("teacher_training", self.recipe.teacher_training, alone, self.built.pool))
        for place, table, model, split in tried:
            try:
                with evaluating(model):
                    _fit(
                        table,
                        model,
                        split,
                        seed=self.seed,
                        progress=False,
                        augment=_NoFirstStep(as_views(make_augment(table))),
                        validation=data.validation,
                    )
            except _Ready:
                pass
            except Exception as error:  # networks of your own may fail in any way
                raise RecipeError(f"{place}: cannot begin: {in_full(error)}") from error
        for name, held_out in (("validation", data.validation), ("test", data.test)):
            try:
                with separate_randomness(0), buffers_kept(teacher), buffers_kept(student):
                    # Answers to one image stand for all: what is tried are the labels.
                    answers = [
                        few[:1].expand(len(held_out), -1)
                        for few in self._answers(held_out.images[:2])
                    ]
                    self._compared(answers, held_out.labels)
            except Exception as error:
                raise RecipeError(f"data: {name} cannot be measured: {in_full(error)}") from error

    def _teacher_note(self) -> dict[str, Any]:
        tables = self.recipe.model_dump(include={"data", "teacher", "teacher_training"})
        del tables["data"]["images"]  # the teacher sees all of them
        return self._note(tables, self.built.pool, teacher={})

    def _student_note(self) -> dict[str, Any]:
        """Return what made the student; its teacher must be there already."""
        tables = self.recipe.model_dump(exclude={"about", "published"})
        tables |= {"methods": tables["methods"][self.method], "seed": self.seed}
        taught = self._reads_a_teacher()
        teacher = _identity(self.built.teacher, self.built.data.train) if taught else {}
        return self._note(tables, self.built.data.train, teacher)

    def _note(
        self, tables: Mapping[str, Any], train: Split, teacher: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "recipe": tables,
            "training data": Samples.of(train).digest(),
            "test data": Samples.of(self.built.data.test).digest(),
            "teacher": teacher,
        }


class _Ready(Exception):
    """All that `fit` looks at before its first step is well."""


@dataclass(frozen=True)
class _NoFirstStep:
    """Views that let `fit` try them, and stop it where it would begin."""

    views: Views

    def of_epoch(self, samples: Samples, epoch: int) -> Samples:
        raise _Ready

    def of_batch(self, batch: Batch, generator: Generator) -> Batch:
        return shown(self.views, batch)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def _is_main() -> bool:
    """Return whether this process writes, of several that train together."""
    return os.environ.get("RANK", "0") == "0"


def _fit(table: TrainingTable, model: nn.Module, data: Any, **settings: Any) -> History:
    optimizer, scheduler = make_optimizer(table, model, len(data.labels))
    return fit(
        model,
        data,
        epochs=table.epochs,
        batch_size=table.batch_size,
        optimizer=optimizer,
        scheduler=scheduler,
        engine=Engine(precision=table.precision),
        **settings,
    )


def _identity(model: nn.Module, split: Split) -> dict[str, Any]:
    """Return what tells a network from another one, also where only its code differs."""
    with separate_randomness(0), evaluating(model), buffers_kept(model):
        return LiveTeacher(model).identity(Samples.of(split))


def _save(model: nn.Module, path: Path, note: Mapping[str, Any], split: Split) -> None:
    """Write weights with a note of what made them, and of what they answer to some images."""
    if not _is_main():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Copies: safetensors refuses tensors that share memory, as those of a layer used twice do.
    weights = {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
    }
    made_by = json.dumps({**note, "network": _identity(model, split)})
    with whole(path) as partial:
        save_file(weights, partial, metadata={"made by": made_by})


def _load(model: nn.Module, path: Path, note: Mapping[str, Any], split: Split) -> None:
    """Read weights that this recipe made of these data; the note beside them says so."""
    if not path.is_file():
        raise RecipeError(f"{path} is not there: train first, with `kdlearn train`.")
    try:
        with safe_open(path, "pt") as file:
            made_by = json.loads((file.metadata() or {}).get("made by", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read ({error}): name another --folder.") from error
    if not {*note, "network"} <= made_by.keys():
        raise RecipeError(
            f"{path} does not say which recipe made it of which data, as this version does: move "
            "it away, or name another --folder."
        )
    known = dict(_flat(made_by["recipe"]))
    wanted = dict(_flat(json.loads(json.dumps(note["recipe"]))))
    differ = [
        f"{key} was {known.get(key)!r} and is {wanted.get(key)!r}"
        for key in {**known, **wanted}
        if known.get(key) != wanted.get(key)
    ]
    if differ:
        raise RecipeError(
            f"{path} was made by another recipe ({'; '.join(differ)}): name another --folder."
        )
    differ = [
        f"other {name}" for name in ("training data", "test data") if made_by[name] != note[name]
    ]
    # Answers to other images would say nothing.
    if not differ and not same_teacher(made_by["teacher"], note["teacher"]):
        differ.append("another teacher")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RecipeError(
            f"{path} does not fit its network ({error}): name another --folder."
        ) from None
    if not differ and not same_teacher(made_by["network"], _identity(model, split)):
        differ.append("the network answers other numbers")
    if differ:
        raise RecipeError(
            f"{path} was made by this recipe, but what it names has changed ({'; '.join(differ)}): "
            "undo that, or name another --folder."
        )


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree under their places, such as ``data.seed``."""
    children = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(children, dict):
        yield place, value
        return
    for key, child in children.items():
        yield from _flat(child, f"{place}.{key}" if place else str(key))
