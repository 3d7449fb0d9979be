"""The training loop: one function for a plain student and for a distiller."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from tqdm.auto import tqdm

from kdlearn import evaluate
from kdlearn.distiller import Distiller

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Augment = Callable[[Tensor, Generator], Tensor]
Batch = tuple[Tensor, Tensor]


class LabelledImages(Protocol):
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


Data = LabelledImages | Batch | Batches


@dataclass
class History:
    """What happened in each epoch; prints as a table.

    Attributes:
        epochs: a dict an epoch: ``epoch`` from 1, ``loss`` (mean over its steps), ``parts`` (the same for each named
            part, weight included) and, with validation data, ``validation_accuracy`` in [0, 1].

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

    def plot(self) -> Figure:
        """Draw the loss, its parts and the validation accuracy over the epochs."""
        from kdlearn import plots  # training on a server need not load matplotlib

        return plots.history(self)


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
) -> History:
    r"""Train a student: on labels alone, or with a teacher when the model is a `Distiller`.

    Each step minimises the mean cross-entropy :math:`-\log p_{s,y}` of a plain model, or a distiller's total.

    Convention
        Tensors are shuffled each epoch and cut into batches whose sizes differ by one at most, none above
        ``batch_size``; an iterable is taken as it comes. ``augment`` is applied to the batch once, so that student and
        teacher see the same images. The scheduler steps after each batch.
        ``seed`` fixes order, augmentation and dropout: same seed, machine and thread count, same numbers. The random
        state outside is left as it was. The model stays where it is (CPU, GPU) and batches are moved to it; afterwards
        it is in ``eval()``.

    Args:
        model: the student, or a `Distiller` that holds it.
        train: an object with ``images`` and ``labels``, a pair (images, labels), or an iterable of such pairs.
        validation: the same, to measure the student's accuracy after each epoch.
        epochs: passes over ``train``, at least 1.
        batch_size: images a step, at least 1; not used for an iterable.
        optimizer: holds every trainable parameter of the model; default `AdamW` at ``learning_rate``.
        scheduler: the schedule of ``optimizer``; the default optimiser has `OneCycleLR` with peak ``learning_rate``.
        learning_rate: of the default optimiser, > 0.
        augment: from (images, generator) to images.
        seed: any whole number.
        progress: show a bar with the parts of the loss.

    Returns:
        The history, one entry an epoch.

    Raises:
        ValueError: no data, lengths that differ, a number out of its range, an optimiser that lacks parameters or holds
            the teacher's, a scheduler without its optimiser.
        FloatingPointError: a loss is NaN or infinite; the message names the term, the epoch and the step.

    Source: AdamW, Loshchilov and Hutter (2019); the one-cycle schedule, Smith and Topin (2018).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> images, labels = torch.eye(4), torch.arange(4)
        >>> student = nn.Linear(4, 4)
        >>> history = fit(student, (images, labels), epochs=20, learning_rate=0.1, progress=False)
        >>> history.epochs[-1]["loss"] < history.epochs[0]["loss"]
        True
    """
    _check_number("epochs", epochs)
    _check_number("batch_size", batch_size)
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}: expected a number > 0.")
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

    student = model.student if isinstance(model, Distiller) else model
    device = trainable[0].device
    generator = torch.Generator().manual_seed(seed)
    history = History()
    bar = tqdm(total=epochs * steps, unit="step", disable=not progress)
    devices = [device] if device.type == "cuda" else []
    with bar, torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for epoch in range(1, epochs + 1):
            model.train()
            sums: dict[str, float] = defaultdict(float)
            for step, (images, labels) in enumerate(_batches(data, steps, generator), start=1):
                if augment is not None:
                    images = augment(images, generator)
                total, parts = _losses(model, images.to(device), labels.to(device))
                values = {name: part.item() for name, part in parts.items()}
                _check_finite(values, epoch, step)
                optimizer.zero_grad(set_to_none=True)
                total.backward()
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                for name, value in values.items():
                    sums[name] += value
                bar.update()
            means = {name: total / step for name, total in sums.items()}
            shown = {name: f"{value:.3f}" for name, value in means.items()}
            row: dict[str, Any] = {"epoch": epoch, "loss": sum(means.values()), "parts": means}
            if held_out is not None:
                row["validation_accuracy"] = _accuracy(student, held_out)
                shown["validation"] = f"{row['validation_accuracy']:.1%}"
            history.epochs.append(row)
            bar.set_postfix(shown)
    model.eval()
    return history


def _losses(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    if isinstance(model, Distiller):
        total, parts, _ = model(images, labels)
        return total, parts
    loss = F.cross_entropy(model(images), labels)
    return loss, {"labels": loss}


def _accuracy(student: nn.Module, data: Batch | Batches) -> float:
    if isinstance(data, tuple):
        images, labels = data
        return evaluate.accuracy(evaluate.predict(student, images).cpu(), labels.cpu())
    pairs = [(evaluate.predict(student, images).cpu(), labels.cpu()) for images, labels in data]
    return evaluate.accuracy(*(torch.cat(side) for side in zip(*pairs, strict=True)))


def _tensors(data: Data, name: str) -> Batch | Batches:
    if not isinstance(data, tuple) and hasattr(data, "images") and hasattr(data, "labels"):
        data = (data.images, data.labels)
    if not (isinstance(data, tuple) and len(data) == 2):
        if not (isinstance(data, Sized) and hasattr(data, "__iter__")):
            raise ValueError(
                f"{name} is a {type(data).__name__}: expected (images, labels), an object with .images and .labels, "
                "or an iterable of batches that has a length."
            )
        if len(data) == 0:
            raise ValueError(f"{name} has no batch: expected at least one.")
        return data
    images, labels = data
    if len(images) != len(labels):
        raise ValueError(
            f"{name} has {len(images)} images and {len(labels)} labels: expected one label an image."
        )
    if len(images) == 0:
        raise ValueError(f"{name} is empty: expected at least one image.")
    return images, labels


def _count_steps(data: Batch | Batches, batch_size: int) -> int:
    return math.ceil(len(data[0]) / batch_size) if isinstance(data, tuple) else len(data)


def _batches(data: Batch | Batches, steps: int, generator: Generator) -> Iterator[Batch]:
    if not isinstance(data, tuple):
        yield from data
        return
    images, labels = data
    # Equal cuts leave no batch of one image, on which batch normalisation would fail.
    for chosen in torch.randperm(len(images), generator=generator).tensor_split(steps):
        yield images[chosen], labels[chosen]


def _check_number(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}: expected a whole number >= 1.")


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
    if isinstance(model, Distiller):
        teachers = [name for name, p in model.teacher.named_parameters() if id(p) in held]
        if teachers:
            raise ValueError(
                f"the optimizer holds {len(teachers)} parameters of the teacher, first {_first(teachers)}: build it "
                "from distiller.parameters(), which leaves the teacher out."
            )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3])
