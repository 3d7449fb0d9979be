"""The training loop: one function for a plain student and for a distiller."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from tqdm.auto import tqdm

from kdlearn import measure
from kdlearn.core.checks import check_number, check_whole
from kdlearn.core.inputs import Inputs, count, named, take
from kdlearn.distill.distiller import Distiller
from kdlearn.distill.teachers import LiveTeacher
from kdlearn.store.cache import CachedTeacher, FixedCopies
from kdlearn.training.checkpoints import (
    CheckpointError,
    Checkpoints,
    random_states,
    set_random_states,
)
from kdlearn.training.engine import Engine, Run

Augment = Callable[[Tensor, Generator], Tensor] | FixedCopies
Batch = tuple[Inputs, Tensor]


class LabeledImages(Protocol):
    """Anything with images and labels, such as `kdlearn.data.Split`."""

    @property
    def images(self) -> Tensor:
        """Inputs, first dimension the samples."""

    @property
    def labels(self) -> Tensor:
        """Class numbers, shape (N,)."""


class Batches(Protocol):
    """An iterable of (inputs, labels) that knows how many there are, such as a `DataLoader`."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


Data = LabeledImages | Batch | Batches


@dataclass
class History:
    """What happened in each epoch; prints as a table.

    Attributes:
        epochs: a dict an epoch: ``epoch`` from 1, ``loss`` (mean over its steps), ``parts`` (the
            same for each named part, weight included) and, with validation data,
            ``validation_accuracy`` in [0, 1].

    Example:
        >>> print(
        ...     History(
        ...         [
        ...             {
        ...                 "epoch": 1,
        ...                 "loss": 1.25,
        ...                 "parts": {"labels": 1.25},
        ...                 "validation_accuracy": 0.5,
        ...             }
        ...         ]
        ...     )
        ... )
        epoch    loss  labels  validation
            1   1.250   1.250      50.0 %
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.epochs:
            return "no epoch yet"
        parts = list(self.epochs[0]["parts"])
        widths = [max(6, len(part)) for part in parts]
        head = "epoch    loss" + "".join(
            f"  {part:>{width}}" for part, width in zip(parts, widths, strict=True)
        )
        rows = [
            f"{row['epoch']:5d}  {row['loss']:6.3f}"
            + "".join(
                f"  {row['parts'][part]:{width}.3f}"
                for part, width in zip(parts, widths, strict=True)
            )
            for row in self.epochs
        ]
        if "validation_accuracy" in self.epochs[0]:
            head += "  validation"
            rows = [
                f"{text}  {100 * row['validation_accuracy']:8.1f} %"
                for text, row in zip(rows, self.epochs, strict=True)
            ]
        return "\n".join([head, *rows])


def fit(
    model: nn.Module,
    train: Data,
    *,
    validation: Data | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    learning_rate: float = 3e-3,
    augment: Augment | None = None,
    seed: int = 0,
    progress: bool = True,
    engine: Engine | None = None,
    checkpoints: Checkpoints | None = None,
    resume: bool | str | os.PathLike[str] = False,
) -> History:
    r"""Train a student: on labels alone, or with a teacher when the model is a `Distiller`.

    Each step minimizes the mean cross-entropy :math:`-\log p_{s,y}` of a plain model, or a
    distiller's total.

    Convention
        Tensors are shuffled each epoch and cut into batches whose sizes differ by one at most, none
        above ``batch_size``; an iterable is taken as it comes. ``augment`` is applied to the batch
        once, so that student and teacher see the same images. The scheduler steps after each batch.
        ``seed`` fixes order, augmentation and dropout: same seed, machine and thread count, same
        numbers. The random state of torch outside is left as it was. The model stays where it is
        (CPU, GPU) and batches are moved to it; afterwards it is in ``eval()``. How a step is
        computed is the `Engine`'s business. A resumed run gives the numbers of one that never
        stopped, bit for bit, if it is called with the same arguments: weights, optimizer, schedule,
        random states (Python, NumPy, torch), the place in the epoch and the history are saved. An
        iterable must give the same batches again from the same random state.

    Args:
        model: the student, or a `Distiller` that holds it.
        train: an object with ``images`` and ``labels``, a pair (images, labels), or an iterable of
            such pairs. Named tensors in place of images become keyword arguments of the models, as
            Hugging Face ones want them.
        validation: the same, to measure the student's accuracy after each epoch.
        epochs: passes over ``train``, at least 1.
        batch_size: images a step, over all processes, at least 1; not used for an iterable.
        optimizer: holds every trainable parameter of the model; default `AdamW` at
        ``learning_rate``. scheduler: the schedule of ``optimizer``; the default optimizer has
        `OneCycleLR` with peak ``learning_rate``. learning_rate: of the default optimizer, > 0.
        augment: from (images, generator) to images; or `kdlearn.store.FixedCopies`, which epoch
            after epoch gives the next of a few fixed copies of the whole data, the only kind that a
            stored teacher can serve.
        seed: any whole number.
        progress: show a bar with the parts of the loss.
        engine: processes, precision, gradient accumulation and clipping, memory format,
        compilation. checkpoints: where and how often to save; the finished run is saved too.
        resume: True goes on from the newest checkpoint, or starts when there is none; a path names
            one.

    Returns:
        The history, one entry an epoch.

    Raises:
        TypeError: an argument is of another kind than said above, or labels are no class numbers of
        torch.int64. IndexError: a label is no class of the model.
        ValueError: no data, lengths that differ, a number out of its range, an optimizer that lacks
            parameters or holds the teacher's, a scheduler without its optimizer, a folder with
            checkpoints and no ``resume``, a stored teacher with other data or another augmentation
            than it was stored for.
        FloatingPointError: a loss is NaN or infinite; the message names the term, the epoch and the
        step. CheckpointError: a checkpoint cannot be written, is damaged, or belongs to another
        run.

    Source: AdamW, Loshchilov and Hutter (2019); the one-cycle schedule, Smith and Topin (2018).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> images, labels = torch.eye(4), torch.arange(4)
        >>> student = nn.Linear(4, 4)
        >>> history = fit(student, (images, labels), epochs=20, learning_rate=0.1, progress=False)
        >>> history.epochs[-1]["loss"] < history.epochs[0]["loss"]
        True
    """
    check_whole(epochs, "epochs")
    check_whole(batch_size, "batch_size")
    check_number(learning_rate, "learning_rate")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate}: expected a finite number > 0.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed is {seed!r}: expected a whole number.")
    for option, value, kind in (
        ("model", model, nn.Module),
        ("optimizer", optimizer, Optimizer),
        ("engine", engine, Engine),
        ("checkpoints", checkpoints, Checkpoints),
    ):
        if not isinstance(value, kind) and (value is not None or option == "model"):
            raise TypeError(
                f"{option} is {value!r}: expected a {kind.__name__}, as in {option}={kind.__name__}(...)."
            )
    data = _tensors(train, "train")
    held_out = None if validation is None else _tensors(validation, "validation")
    steps = _count_steps(data, batch_size)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter: nothing to fit.")
    if optimizer is None:
        if scheduler is not None:
            raise ValueError("a scheduler was given without its optimizer: pass both.")
        optimizer = torch.optim.AdamW(trainable, lr=learning_rate)
        scheduler = OneCycleLR(optimizer, max_lr=learning_rate, total_steps=epochs * steps)
    else:
        _check_optimizer(optimizer, model)
        if scheduler is not None and scheduler.optimizer is not optimizer:
            raise ValueError(
                "the scheduler steps another optimizer than the one given: pass a matching pair."
            )
    if isinstance(augment, FixedCopies) and not isinstance(data, tuple):
        raise ValueError("fixed copies are made of tensors: pass (images, labels), not batches.")
    if isinstance(model, Distiller):
        _check_source(model, data, augment)
    start = _checkpoint_to_resume(checkpoints, resume)

    run = Run(engine or Engine(), model, optimizer)
    at = _Position(Generator().manual_seed(seed))
    plan = (
        _plan(model, data, run, epochs=epochs, batch_size=batch_size, steps=steps, seed=seed)
        if checkpoints
        else {}
    )

    def save() -> None:
        states = run.gather(random_states())
        if run.is_main and checkpoints is not None:
            state = {
                "plan": plan,
                "optimizer": optimizer.state_dict(),
                "scheduler": None if scheduler is None else scheduler.state_dict(),
                "scaler": dict(run.scaler_state()),
                "random": states,
                "at": at.state(),
            }
            checkpoints.save(at.steps, model.state_dict(), state)

    bar = tqdm(total=epochs * steps, unit="step", disable=not progress or not run.is_main)
    devices = [run.device] if run.device.type == "cuda" else []
    with bar, run.compiled(), torch.random.fork_rng(devices):
        # Each process draws dropout masks of its own.
        torch.manual_seed(seed + run.accelerator.process_index)
        if start is not None and checkpoints is not None:
            saved = checkpoints.load(start)
            _check_plan(saved["training"].get("plan", {}), plan, start)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["training"]["optimizer"])
            if scheduler is not None:
                scheduler.load_state_dict(saved["training"]["scheduler"])
            run.load_scaler_state(saved["training"]["scaler"])
            at.restore(saved["training"]["at"])
            set_random_states(saved["training"]["random"][run.accelerator.process_index])
            bar.update(at.steps)
        last_saved = time.monotonic()
        while len(at.history.epochs) < epochs:
            epoch = len(at.history.epochs) + 1
            model.train()
            shown, offset = data, 0
            if isinstance(augment, FixedCopies) and isinstance(data, tuple):
                number = (epoch - 1) % len(augment)
                shown = (augment.copy(data[0], number), data[1])
                offset = number * len(data[1])
            for images, labels, indices in _batches(shown, steps, at):
                if indices is not None:
                    indices = indices + offset
                if augment is not None and not isinstance(augment, FixedCopies):
                    images = augment(images, at.generator)  # type: ignore[arg-type]
                    _check_augmented(images, labels)
                values = run.step(images, labels, indices)
                _check_finite(values, epoch, at.step + 1)
                run.update()
                if scheduler is not None:
                    scheduler.step()
                at.took_step(values)
                bar.update()
                if checkpoints is not None and at.step < steps:
                    seconds = run.gather(time.monotonic() - last_saved)[0]
                    if checkpoints.is_due(at.steps, seconds):
                        save()
                        last_saved = time.monotonic()
            run.agree_on_buffers()
            accuracy = None if held_out is None else _accuracy(run.student, held_out)
            bar.set_postfix(at.ended_epoch(accuracy))
            if checkpoints is not None:
                seconds = run.gather(time.monotonic() - last_saved)[0]
                if epoch == epochs or checkpoints.is_due(at.steps, seconds):
                    save()
                    last_saved = time.monotonic()
    model.eval()
    return at.history


class _Position:
    """Where a run is: what a checkpoint must know besides weights and optimizer."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.history = History()
        self.steps = 0  # of the whole run
        self.step = 0  # of this epoch
        self.sums: dict[str, float] = {}
        self.order: Tensor | None = None
        self.random: dict[str, Any] | None = None

    def begin_epoch(self, order: Tensor | None) -> None:
        """Note how this epoch's batches are found again: their order, or the random state that gives it."""
        self.step, self.sums, self.order = 0, {}, order
        self.random = random_states() if order is None else None

    def took_step(self, values: Mapping[str, float]) -> None:
        self.step += 1
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def ended_epoch(self, accuracy: float | None) -> dict[str, str]:
        means = {name: total / self.step for name, total in self.sums.items()}
        shown = {name: f"{value:.3f}" for name, value in means.items()}
        row: dict[str, Any] = {
            "epoch": len(self.history.epochs) + 1,
            "loss": sum(means.values()),
            "parts": means,
        }
        if accuracy is not None:
            row["validation_accuracy"] = accuracy
            shown["validation"] = f"{accuracy:.1%}"
        self.history.epochs.append(row)
        self.step, self.sums, self.order, self.random = 0, {}, None, None
        return shown

    def state(self) -> dict[str, Any]:
        kept = {
            name: value
            for name, value in vars(self).items()
            if name not in ("generator", "history")
        }
        return {**kept, "generator": self.generator.get_state(), "history": self.history.epochs}

    def restore(self, state: Mapping[str, Any]) -> None:
        vars(self).update(
            {**state, "generator": self.generator, "history": History(state["history"])}
        )
        self.generator.set_state(state["generator"])


def _batches(
    data: Batch | Batches, steps: int, at: _Position
) -> Iterator[tuple[Inputs, Tensor, Tensor | None]]:
    """Give the batches of an epoch with their rows, from the place where the run is."""
    if isinstance(data, tuple):
        images, labels = data
        if at.order is None:
            at.begin_epoch(torch.randperm(len(labels), generator=at.generator))
        assert at.order is not None
        # Equal cuts leave no batch of one image, on which batch normalization would fail.
        for chosen in at.order.tensor_split(steps)[at.step :]:
            yield take(images, chosen), labels[chosen], chosen
        return
    now, done = random_states(), at.step
    if at.random is None:
        at.begin_epoch(None)
    else:
        set_random_states(at.random)
    for number, (images, labels) in enumerate(data):
        if number >= done:
            if number == done and done:
                set_random_states(now)
            yield images, labels, None


def _check_source(model: Distiller, data: Batch | Batches, augment: Augment | None) -> None:
    source = model.source
    if source.needs_indices and not isinstance(data, tuple):
        raise ValueError(
            "the teacher's outputs are stored by row: pass train as tensors (images, labels), not as batches."
        )
    if not isinstance(source, CachedTeacher) or not isinstance(data, tuple):
        return
    if source.copies is None and augment is not None:
        raise ValueError(
            "the stored teacher saw the plain images and augment would change them: train without augment, or store "
            "fixed copies, cache_teacher(..., copies=FixedCopies(augment, seeds))."
        )
    if source.copies is not None and augment != source.copies:
        raise ValueError(
            f"the teacher was stored for augment={source.copies}: pass the same to fit, not {augment}."
        )
    source.check_data(data[0])


def _plan(model: nn.Module, data: Batch | Batches, run: Run, **settings: int) -> dict[str, Any]:
    """Say what a run is, in plain values, so that a checkpoint of another one is recognized."""
    plan: dict[str, Any] = {**settings, "processes": run.processes}
    plan["parameters"] = {name: list(value.shape) for name, value in model.state_dict().items()}
    plan["optimizer"] = type(run.optimizer.optimizer).__name__
    if isinstance(model, Distiller):
        plan["terms"] = {term.name: term.weight for term in model.terms}
    if isinstance(data, tuple):
        digest = hashlib.sha256()
        inputs, labels = data
        for tensor in (*named(inputs).values(), labels):
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        plan["data"] = digest.hexdigest()
    return plan


def _check_plan(saved: Mapping[str, Any], plan: Mapping[str, Any], path: os.PathLike[str]) -> None:
    differs = [name for name in plan if saved.get(name) != plan[name]]
    if differs:
        said = "; ".join(
            f"{name} {saved.get(name)!r} there, {plan[name]!r} here"
            if isinstance(plan[name], int | str) and name != "data"
            else f"other {name}"
            for name in differs
        )
        raise CheckpointError(
            f"{path} belongs to another run: {said}. Call fit as the first time, or use another folder."
        )


def _checkpoint_to_resume(
    checkpoints: Checkpoints | None, resume: bool | str | os.PathLike[str]
) -> os.PathLike[str] | None:
    if checkpoints is None:
        if resume:
            raise ValueError(
                "resume was given without checkpoints: pass checkpoints=Checkpoints(folder) too."
            )
        return None
    checkpoints.prepare()
    found = checkpoints.saved()
    if resume is False and found:
        raise ValueError(
            f"{checkpoints.folder} holds checkpoints of an earlier run, the newest {found[-1].name}: pass resume=True "
            "to go on, or name another folder."
        )
    if isinstance(resume, bool):
        return found[-1] if resume and found else None
    return Path(resume)


def _accuracy(student: nn.Module, data: Batch | Batches) -> float:
    if isinstance(data, tuple):
        images, labels = data
        return measure.accuracy(measure.predict(student, images).cpu(), labels.cpu())
    pairs = [(measure.predict(student, images).cpu(), labels.cpu()) for images, labels in data]
    return measure.accuracy(*(torch.cat(side) for side in zip(*pairs, strict=True)))


def _tensors(data: Data, name: str) -> Batch | Batches:
    if not isinstance(data, tuple) and hasattr(data, "images") and hasattr(data, "labels"):
        data = (data.images, data.labels)
    if not (isinstance(data, tuple) and len(data) == 2):
        if not (isinstance(data, Sized) and hasattr(data, "__iter__")):
            raise ValueError(
                f"{name} is a {type(data).__name__}: expected (images, labels), an object with .images and .labels, "
                "or an iterable of batches that has a length."
            )
        if isinstance(data, Tensor) or (
            isinstance(data, list)
            and not all(isinstance(b, tuple | list) and len(b) == 2 for b in data)
        ):
            raise TypeError(
                f"{name} is a {type(data).__name__} that holds no pairs: expected the tuple (images, labels), or "
                "batches of two parts each."
            )
        if len(data) == 0:
            raise ValueError(f"{name} has no batch: expected at least one.")
        return data
    images, labels = data
    if not isinstance(images, Tensor | Mapping) or not isinstance(labels, Tensor):
        raise TypeError(
            f"{name} holds a {type(images).__name__} and a {type(labels).__name__}: expected tensors, "
            "convert with torch.as_tensor."
        )
    if isinstance(images, Tensor) and images.dtype == torch.uint8:
        raise TypeError(
            f"the images of {name} are {images.dtype}: expected floating point, use images.float() / 255."
        )
    _check_labels(labels, name)
    if count(images) != len(labels):
        raise ValueError(
            f"{name} has {count(images)} images and {len(labels)} labels: expected one label an image."
        )
    if len(labels) == 0:
        raise ValueError(f"{name} is empty: expected at least one image.")
    return images, labels


def _check_labels(labels: Tensor, name: str) -> None:
    # Rows of probabilities (soft labels) are floating point; everything else is a class number.
    if labels.dtype != torch.int64 and (labels.dim() < 2 or not labels.is_floating_point()):
        raise TypeError(
            f"the labels of {name} are {labels.dtype} of shape {tuple(labels.shape)}: expected class numbers of "
            "torch.int64, call .long() on them."
        )
    if labels.dim() == 2 and labels.shape[1] == 1:
        raise ValueError(
            f"the labels of {name} have shape {tuple(labels.shape)}: expected one dimension, call .squeeze(1) on them."
        )


def _check_augmented(images: Any, labels: Tensor) -> None:
    if not isinstance(images, Tensor | Mapping) or count(images) != len(labels):
        given = type(images).__name__
        if isinstance(images, Tensor | Mapping):
            given = f"{count(images)} images"
        raise ValueError(
            f"augment gave {given} for {len(labels)} labels: expected the changed batch, one image a label."
        )


def _count_steps(data: Batch | Batches, batch_size: int) -> int:
    return math.ceil(len(data[1]) / batch_size) if isinstance(data, tuple) else len(data)


def _check_finite(values: dict[str, float], epoch: int, step: int) -> None:
    broken = {name: value for name, value in values.items() if not math.isfinite(value)}
    if broken:
        said = ", ".join(f"term {name!r} is {value}" for name, value in broken.items())
        raise FloatingPointError(
            f"the loss broke at epoch {epoch}, step {step}: {said}. The step was not taken. Check the inputs for NaN, "
            "lower the learning rate or the weight of the term."
        )


def _check_optimizer(optimizer: Optimizer, model: nn.Module) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [
        name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held
    ]
    if missing:
        raise ValueError(
            f"the optimizer lacks {len(missing)} trainable parameters of the model, first {_first(missing)}: build it "
            "from model.parameters(), of the Distiller where there is one, so that projectors are trained."
        )
    if isinstance(model, Distiller) and isinstance(model.source, LiveTeacher):
        teachers = [name for name, p in model.teacher.named_parameters() if id(p) in held]
        if teachers:
            raise ValueError(
                f"the optimizer holds {len(teachers)} parameters of the teacher, first {_first(teachers)}: build it "
                "from distiller.parameters(), which leaves the teacher out."
            )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3])
