"""The training loop: one function for a plain student and for a distiller."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from tqdm.auto import tqdm

from kdlearn.core.checks import check_number, check_sizes, check_whole
from kdlearn.core.errors import noting
from kdlearn.core.inputs import buffers_kept, evaluating
from kdlearn.core.randomness import separate_randomness
from kdlearn.data.samples import InMemory, Samples
from kdlearn.data.views import Augment, FixedCopies, PlainViews, Views, as_views, shown
from kdlearn.measure.metrics import accuracy, evaluate
from kdlearn.training.checkpoints import Checkpoints
from kdlearn.training.engine import Engine, Run
from kdlearn.training.history import History
from kdlearn.training.on_policy import OnPolicy
from kdlearn.training.optimizer import adamw
from kdlearn.training.rehearsal import rehearse
from kdlearn.training.resume import Keeper, Position, checkpoint_to_resume


def fit(
    model: nn.Module,
    train: Any,
    *,
    validation: Any = None,
    metric: Callable[[Tensor, Any], float] = accuracy,
    epochs: int = 10,
    batch_size: int = 64,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    learning_rate: float = 3e-3,
    augment: Augment | Views | None = None,
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
        Rows are shuffled each epoch and cut into batches whose sizes differ by one at most, none
        above ``batch_size``; a `DataLoader` keeps its own sampler and batches. ``augment`` is
        applied to the batch once, so that student and teacher see the same images. The scheduler
        steps after each batch.
        Two samples are tried before the first step, so that what cannot work is told at once.
        ``seed`` fixes order, augmentation and dropout: same seed, machine and thread count, same
        numbers. The random state of torch outside is left as it was. The model stays where it is
        (CPU, GPU) and batches are moved to it. Each epoch begins with ``model.train()``, so a layer
        that shall stay in ``eval()`` (a frozen batch normalization) says so in a ``train`` of its
        own; afterwards all is in ``eval()``. How a step is computed is the `Engine`'s business.
        A resumed run gives the numbers of one that never stopped, bit for bit. It is refused with
        another model, teacher, loss, optimizer setting, schedule, augmentation, metric, or with
        other data in training, in another order, or in validation: functions and objects are told
        apart as `kdlearn.core.identity.described` says, and the student also by what it answers to
        a few samples. What a loss, an augmentation or a sampler counts in attributes of its own is
        not saved, buffers of modules are: keep a temperature that falls during the run in one.

    Args:
        model: the student, or a `Distiller` that holds it.
        train: anything that `kdlearn.data.Samples` takes: (inputs, labels), an object with
            ``images`` and ``labels``, a data set, a `DataLoader`, an iterable with a length.
        validation: the same, to measure the student after each epoch.
        metric: from (logits, labels) of all of ``validation`` to a number.
        epochs: passes over ``train``, at least 1.
        batch_size: samples per step, over all processes, at least 1; not used for a loader.
        optimizer: holds every trainable parameter of the model; default
            `kdlearn.training.adamw` at ``learning_rate``.
        scheduler: the schedule of ``optimizer``; the default optimizer has `OneCycleLR` with peak
            ``learning_rate``.
        learning_rate: of the default optimizer, > 0.
        augment: from (images, generator) to images; or `kdlearn.data.FixedCopies`, the only views
            that a stored teacher can serve.
        seed: a whole number from -2**63 to 2**63 - 1.
        progress: show a bar with the parts of the loss.
        engine: precision, pieces and clipping.
        checkpoints: where and how often to save; the finished run is saved too.
        resume: True goes on from the newest checkpoint, or starts when there is none; a path names
            one.

    Returns:
        The history, one entry per epoch.

    Raises:
        TypeError: an argument is of another kind than said above.
        IndexError: a label is no class of the model.
        ValueError: no data, lengths that differ, a number out of its range, a term that trains
            nothing, an optimizer that lacks parameters or holds the teacher's, a scheduler without
            its optimizer or shorter than the training, a call inside ``torch.autocast``, a folder
            with checkpoints and no ``resume``, a stored teacher with other data or another
            augmentation than it was stored for; processes that were given other data, settings or
            checkpoints than each other.
        FloatingPointError: a loss, its gradient, or a weight that is to be saved is NaN or
            infinite; the message names the term or the weight, the epoch and the step.
        CheckpointError: a checkpoint cannot be written, is damaged, or belongs to another run.
        An error in a loss, a model or the data has notes that name term, epoch and step.

    Source: AdamW, Loshchilov and Hutter (2019); the one-cycle schedule, Smith and Topin (2018).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> images, labels = torch.eye(4), torch.arange(4)
        >>> student = nn.Linear(4, 4)
        >>> history = fit(student, (images, labels), epochs=20, learning_rate=0.1, progress=False)
        >>> history.epochs[-1]["loss"] < history.epochs[0]["loss"]
        True
    """
    epochs, batch_size = check_sizes(epochs=epochs, batch_size=batch_size)
    seed = check_whole(seed, "seed", least=-(2**63))
    if seed >= 2**63:
        raise ValueError(f"seed is {seed}: expected a whole number < 2**63, as generators take.")
    _check(model, learning_rate, engine, checkpoints)
    samples, views = Samples.of(train, "train"), as_views(augment)
    held_out = None if validation is None else Samples.of(validation, "validation")
    start = checkpoint_to_resume(checkpoints, resume, samples)
    steps = samples.steps(batch_size)
    if optimizer is None and scheduler is None:
        optimizer = adamw(model.parameters(), learning_rate)
        scheduler = OneCycleLR(optimizer, max_lr=learning_rate, total_steps=epochs * steps)
    optimizer = _checked(optimizer, scheduler, model)
    if start is None:
        _check_length(scheduler, epochs * steps)
    run, at = Run(engine or Engine(), model, optimizer), Position(seed, steps)
    _check_together(run, samples, views, batch_size)

    settings = {"epochs": epochs, "batch_size": batch_size, "steps": steps, "seed": seed}
    run.check_same(
        f"the digest of {samples.name}",
        samples.digest,
        "Pass all samples to each, in one order (seed a random split): fit gives each its share.",
    )
    run.check_same(
        "the digest of the teacher's weights",
        lambda: run.distiller.source.identity(samples).get("weights"),
        "Load one teacher in each: fit makes the student's weights equal, never the teacher's.",
    )
    run.check_same(
        "what fit was given",
        lambda: {**settings, "checkpoints": checkpoints is not None},
        "Pass the same to each process: dropout differs between them anyway, and one alone writes.",
    )
    run.check_same(
        "the checkpoint to resume from",
        lambda: start and start.name,
        "Name one folder that all processes read.",
    )
    keeper = Keeper(checkpoints, run, at, model, optimizer, scheduler)
    bar = tqdm(total=epochs * steps, unit="step", disable=not progress or not run.is_main)
    with bar, keeper, torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
        keeper.look(views, metric)
        with noting("in a trial on two samples, before the first step"):
            rehearse(run, samples, views, held_out, metric)
        torch.manual_seed(seed + run.rank)  # each process draws dropout masks of its own
        keeper.begin(start, samples, held_out, settings)
        bar.update(at.steps)
        with noting(at):
            for epoch in at.epochs_left(epochs):
                model.train()
                for batch in at.batches(samples, views, batch_size, run.share):
                    run.zero_grad()
                    loss = run.forward(batch)
                    run.backward(loss)
                    parts = run.check_finite(loss, run.clip(), batch, at)
                    run.step(optimizer)
                    if scheduler is not None:
                        scheduler.step()
                    at.took_step(parts)
                    bar.update()
                    keeper.after_step()
                if epoch == epochs:
                    run.check_weights(at)
                run.agree_on_buffers()
                bar.set_postfix(at.ended_epoch(_measured(run, held_out, metric)))
                keeper.after_epoch(last=epoch == epochs)
    model.eval()
    return at.history


def _measured(
    run: Run, held_out: Samples | None, metric: Callable[[Tensor, Any], float]
) -> dict[str, float]:
    if held_out is None:
        return {}
    name = f"validation_{getattr(metric, '__name__', 'metric')}"
    with separate_randomness(0):  # so that measuring does not change the training
        return {name: evaluate(run.distiller.student, held_out, metric)}


def _check(model: Any, learning_rate: Any, engine: Any, checkpoints: Any) -> None:
    check_number(learning_rate, "learning_rate")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate}: expected a finite number > 0.")
    for option, value, kind in (
        ("model", model, nn.Module),
        ("engine", engine, Engine),
        ("checkpoints", checkpoints, Checkpoints),
    ):
        if not isinstance(value, kind) and (value is not None or option == "model"):
            raise TypeError(
                f"{option} is {value!r}: expected a {kind.__name__}, as in "
                f"{option}={kind.__name__}(...)."
            )
    lazy = [name for name, value in model.named_parameters() if is_lazy(value)]
    lazy += [name for name, value in model.named_buffers() if is_lazy(value)]
    if lazy:
        raise ValueError(
            f"the model's {lazy[0]!r} has no shape yet, being of a lazy layer: run the model on "
            "one batch before, so that its first weights follow from your seed."
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no trainable parameter: nothing to fit.")


def _checked(optimizer: Any, scheduler: LRScheduler | None, model: nn.Module) -> Optimizer:
    """Return the optimizer, if it trains all of the model, nothing of the teacher, on schedule."""
    if optimizer is None:
        raise ValueError("a scheduler was given without its optimizer: pass both.")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is {optimizer!r}: expected an Optimizer, such as AdamW(...).")
    if scheduler is not None and scheduler.optimizer is not optimizer:
        raise ValueError(
            "the scheduler steps another optimizer than the one given: pass a matching pair."
        )
    if isinstance(optimizer, LBFGS) or isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError(
            "LBFGS wants a closure and ReduceLROnPlateau a metric at each step, and fit hands on "
            "neither: pass another optimizer or schedule."
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    missing = [name for name, p in named if id(p) not in held]
    if missing:
        raise ValueError(
            f"the optimizer lacks {len(missing)} trainable parameters of the model, first "
            f"{', '.join(missing[:3])}: build it from model.parameters(), of the Distiller where "
            "there is one, so that projectors are trained."
        )
    fused = {id(p) for g in optimizer.param_groups if g.get("fused") for p in g["params"]}
    gaps = [name for name, p in named if id(p) in fused and _has_gaps(p)]
    if gaps:
        raise ValueError(
            f"the optimizer is fused and {gaps[0]!r} is a view with gaps in memory, of which a "
            "fused step would take other numbers: make the weight contiguous, or pass fused=False."
        )
    others = held - {id(p) for p in model.parameters()}
    if others:
        raise ValueError(
            f"the optimizer holds {len(others)} parameters that are not the model's, such as the "
            "teacher's or a projector's inside a lambda: build it from distiller.parameters(), and "
            "pass losses with parameters as modules."
        )
    return optimizer


def _check_length(scheduler: LRScheduler | None, steps: int) -> None:
    """Refuse a schedule that ends before the training does."""
    total = getattr(scheduler, "total_steps", None)
    if scheduler is not None and isinstance(total, int) and scheduler.last_epoch + steps > total:
        raise ValueError(
            f"the {type(scheduler).__name__} has total_steps={total}, of which it took "
            f"{scheduler.last_epoch}, and this training takes {steps}: make it for as many."
        )


def _has_gaps(weight: Tensor) -> bool:
    """Whether other numbers lie between those of a weight: what is made like it has none."""
    return torch.empty_like(weight, device="meta").stride() != weight.stride()


def _check_together(run: Run, samples: Samples, views: Views, batch_size: int) -> None:
    """Refuse a teacher, views and processes that do not fit the samples."""
    if isinstance(views, OnPolicy):
        trained = set(run.distiller.student.parameters())
        if trained.isdisjoint(views.student.parameters()):
            raise ValueError(
                "OnPolicy has another student than the one that is trained, so what it writes "
                "would not follow the training: give it the same module."
            )
    run.distiller.source.check_run(samples, views)
    if not samples.has_rows:
        if run.processes == 1:
            return
        raise ValueError(
            f"{samples.name} is a stream and {run.processes} processes would each read all of it: "
            "pass a data set or a DataLoader of one that has torch's own __iter__."
        )
    draws = not isinstance(views, PlainViews | FixedCopies)
    if run.processes > 1 and draws and not isinstance(samples, InMemory):
        raise ValueError(
            f"augment draws for whole batches, and each process loads only its share of "
            f"{samples.name}: pass tensors, or let the data set augment."
        )
    smallest = min(map(len, samples.order(batch_size, Generator())))
    if smallest < run.processes:
        raise ValueError(
            f"a batch of {samples.name} has {smallest} samples for {run.processes} processes: "
            "expected at least one each. Use larger batches, or drop_last=True in a loader."
        )
    share = smallest // run.processes
    if share // min(run.engine.accumulate, share) == 1:
        _try_one(run, samples, views)


def _try_one(run: Run, samples: Samples, views: Views) -> None:
    """Refuse batches or pieces of one sample where batch normalization has to train on them."""
    model = run.distiller
    try:
        with separate_randomness(0), evaluating(model), buffers_kept(model), run.autocast():
            one = shown(views, samples.few(1)).to(run.device)
            model.train().study(one)
    except Exception as error:
        # What else may fail is told by the trial on two samples, which comes next.
        if "more than 1 value per channel" in str(error):
            raise ValueError(
                f"in some step {samples.name} gives the student one sample at a time, on which "
                "batch normalization cannot train: use larger batches, drop_last=True in a "
                "loader, or fewer pieces (accumulate)."
            ) from error
