"""Where a run is, which run it is, and how it is saved and found again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kdlearn.core.identity import described, described_parts, digest_of
from kdlearn.core.inputs import buffers_kept, evaluating, map_tensors
from kdlearn.core.randomness import random_states, separate_randomness, set_random_states
from kdlearn.data.batch import Batch
from kdlearn.data.samples import InMemory, Samples
from kdlearn.data.views import Views, shown
from kdlearn.distill.teachers import LiveTeacher, same_teacher
from kdlearn.training.checkpoints import CheckpointError, Checkpoints
from kdlearn.training.engine import Run
from kdlearn.training.history import History

_OF_THE_OPTIMIZER = "attributes of the optimizer"


class Position:
    """Where a run is: what a checkpoint must know besides weights and optimizer.

    Prints as the place of the next step.

    Attributes:
        seed: of order, views and dropout.
        steps_per_epoch: how many steps an epoch has.
        generator: gives order and views.
        history: of the epochs that ended.
        steps: taken in the whole run.
        step: taken in this epoch.

    Example:
        >>> at = Position(seed=0, steps_per_epoch=2)
        >>> at.took_step({"labels": 1.0})
        >>> str(at)
        'epoch 1, step 2'
    """

    def __init__(self, seed: int, steps_per_epoch: int) -> None:
        self.seed, self.steps_per_epoch = seed, steps_per_epoch
        self.generator = Generator().manual_seed(seed)
        self.history = History()
        self.steps = 0
        self.step = 0
        self._sums: dict[str, float] = {}
        self._began: Tensor | None = None

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 1."""
        return len(self.history.epochs) + 1

    @property
    def epoch_is_over(self) -> bool:
        """Whether all steps of this epoch were taken."""
        return self.step == self.steps_per_epoch

    def __str__(self) -> str:
        last = "after the last step" if self.epoch_is_over else f"step {self.step + 1}"
        return f"epoch {self.epoch}, {last}"

    def epochs_left(self, epochs: int) -> Iterator[int]:
        """Count the epochs that are still to come."""
        while self.epoch <= epochs:
            yield self.epoch

    def batches(
        self, samples: Samples, views: Views, batch_size: int, share: tuple[int, int]
    ) -> Iterator[Batch]:
        """Load the batches of this epoch that are left, as the views show them."""
        order = self._order(samples, batch_size)[self.step :]
        shown = views.of_epoch(samples, self.epoch)
        for batch in shown.load(order, share, (self.seed, self.epoch)):
            yield views.of_batch(batch, self.generator)

    def _order(self, samples: Samples, batch_size: int) -> Sequence[Tensor]:
        if self._began is None:
            self._began = self.generator.get_state()
            return samples.order(batch_size, self.generator, self.epoch)
        again = Generator()
        again.set_state(self._began)
        return samples.order(batch_size, again, self.epoch)

    def took_step(self, parts: Mapping[str, float]) -> None:
        """Note a step and the parts of its loss."""
        self.step += 1
        self.steps += 1
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def ended_epoch(self, measured: Mapping[str, float]) -> dict[str, str]:
        """Note the end of an epoch; return what a bar shows of it."""
        means = {name: total / self.step for name, total in self._sums.items()}
        row = {"epoch": self.epoch, "loss": sum(means.values()), "parts": means, **measured}
        self.history.epochs.append(row)
        self.step, self._sums, self._began = 0, {}, None
        shown = {name: f"{value:.3f}" for name, value in means.items()}
        for name, value in measured.items():
            percent = name == "validation_accuracy"
            shown["validation"] = f"{value:.1%}" if percent else f"{value:.4f}"
        return shown

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors, for a checkpoint."""
        return {
            "generator": self.generator.get_state(),
            "began": self._began,
            "steps": self.steps,
            "step": self.step,
            "sums": self._sums,
            "history": self.history.epochs,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned."""
        self.generator.set_state(state["generator"])
        self._began, self._sums = state["began"], dict(state["sums"])
        self.steps, self.step = state["steps"], state["step"]
        self.history = History(state["history"])


class Keeper:
    """Saves a run now and then, and at a signal; does nothing where no folder was named.

    Convention
        Between two steps it looks whether a checkpoint is due. Ctrl-C and SIGTERM let the step
        end, save, and then stop the program as they would have.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        run: Run,
        at: Position,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
    ) -> None:
        self.checkpoints, self.run, self.at = checkpoints, run, at
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self._plan: dict[str, Any] = {}
        self._objects: dict[str, Any] = {}
        self._before_the_trial: dict[str, dict[str, str]] = {}
        self._few: Batch | None = None
        self._saved_at = time.monotonic()
        self._signal = 0
        self._open = ExitStack()

    def __enter__(self) -> Keeper:
        if self.checkpoints is None:
            return self
        if self.run.is_main:  # the others write nothing, and would sweep what it writes
            self._open.enter_context(self.checkpoints.held())
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) == signal.SIG_IGN:  # Ctrl-C, of a job in the background
                    continue
                before = signal.signal(number, self._noted)
                self._open.callback(signal.signal, number, before)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def _noted(self, number: int, frame: Any) -> None:
        self._signal = number

    def look(self, views: Views, metric: Any) -> None:
        """Note how losses, views and metric are before the trial; what it changes is no setting."""
        if self.checkpoints is None:
            return
        distiller = self.run.distiller
        adapt = getattr(distiller.source, "adapt", None)
        named = {"model": distiller.student, "augmentation": views, "metric": metric}
        self._objects = {**named, "teacher_input": adapt} | {
            f"{part} of term {term.name!r}": getattr(term, part)
            for term in distiller.terms
            for part in ("loss", "arguments", "mask")
        }
        self._before_the_trial = self._settings()

    def begin(
        self,
        start: os.PathLike[str] | None,
        samples: Samples,
        held_out: Samples | None,
        settings: Mapping[str, Any],
    ) -> None:
        """Note which run this is; put everything back as a checkpoint has it, where one is given.

        Raises:
            CheckpointError: it is damaged or belongs to another run.
            TypeError: something of the run cannot be saved; told before the first step.
        """
        if self.checkpoints is None:
            return
        self._few = samples.few(4)
        if not len(self._answers()):
            with _leaving_no_draws():
                self._few = shown(self._objects["augmentation"], self._few)
        with _leaving_no_draws():
            measured = None if held_out is None else _digest_in_any_order(held_out)
        self._plan = {**settings, **self._described(samples), "validation": measured}
        self.checkpoints.check(self.model.state_dict(), self._training([]))
        if start is None:
            return
        saved = self.checkpoints.load(start)
        training = saved["training"]
        _check_plan(training["plan"], self._plan, start)
        self.model.load_state_dict(saved["model"])
        _load_unsaved_buffers(self.model, training["buffers"], self.run.device)
        if not _alike(training["answers"], self._answers()):
            raise CheckpointError(
                f"{start} belongs to another run: its student has these weights and answers other "
                "numbers. Make the model with the settings of the first time, or use another "
                "folder."
            )
        _load_optimizer(self.optimizer, training["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(training["scheduler"])
        self.run.load_state(training["run"])
        self.at.restore(training["at"])
        set_random_states(training["random"][self.run.rank])

    def _described(self, samples: Samples) -> dict[str, Any]:
        """Return in plain values which run this is; optimizer and schedule as they were made."""
        distiller = self.run.distiller
        names = {id(p): name for name, p in distiller.named_parameters()}
        groups = [
            described({**group, "params": [names[id(p)] for p in group["params"]]})
            for group in self.optimizer.param_groups
        ]
        terms = {
            term.name: [
                described(term.weight),
                dict(term.layers),
                [str(want) for want in term.wants or ()],
            ]
            for term in distiller.terms
        }
        now = self._settings()
        # A list that a loss writes its values to, or a number that it counts, is no setting of it.
        fixed = {n: _unchanged(self._before_the_trial[n], parts) for n, parts in now.items()}
        fixed[_OF_THE_OPTIMIZER] = self._own_of_the_optimizer()
        with _leaving_no_draws():
            teacher = distiller.source.identity(samples)
            if teacher.get("answers") == []:  # to bytes, say, which only augment makes numbers of
                few = shown(self._objects["augmentation"], samples.few(4))
                teacher = distiller.source.identity(Samples.of(few))
        return {
            "engine": repr(self.run.engine),
            "processes": self.run.processes,
            "parameters": {name: _kind(v) for name, v in self.model.state_dict().items()},
            "trained": [name for name, p in distiller.named_parameters() if p.requires_grad],
            "terms": terms,
            "optimizer": [type(self.optimizer).__name__, groups],
            "schedule": _schedule(self.scheduler),
            "data": samples.digest(),
            "teacher": teacher,
            "settings": fixed,
        }

    def _settings(self) -> dict[str, dict[str, str]]:
        """Describe the parts of the objects of which anything may be a setting."""
        return {name: described_parts(value) for name, value in self._objects.items()}

    def _own_of_the_optimizer(self) -> dict[str, str]:
        """Describe what an optimizer of your own holds outside of what torch keeps in each."""
        kept = {*vars(SGD([torch.zeros(1)], 1.0)), "step", "_opt_called"}  # the two are schedules'
        held = {name: part for name, part in vars(self.optimizer).items() if name not in kept}
        return described_parts(SimpleNamespace(**held))

    def _answers(self) -> Tensor:
        """Return what the student says of a few samples; nothing of it is left."""
        assert self._few is not None
        student = self.run.distiller.student
        with _leaving_no_draws(), buffers_kept(student), evaluating(student):
            return LiveTeacher(student).answers(self._few)

    def after_step(self) -> None:
        """Save where it is time; after an epoch's last step, `after_epoch` does."""
        if self.checkpoints is not None and not self.at.epoch_is_over:
            self._save_if_due(self.checkpoints)

    def after_epoch(self, last: bool) -> None:
        """Save where it is time, and at the end of the run."""
        if self.checkpoints is not None:
            self._save_if_due(self.checkpoints, end=last)

    def _training(self, states: list[Any]) -> dict[str, Any]:
        return {
            "plan": self._plan,
            "buffers": _unsaved_buffers(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "run": self.run.state(),
            "random": states,
            "at": self.at.state(),
        }

    def _save_if_due(self, checkpoints: Checkpoints, end: bool = False) -> None:
        told = self.run.gather((time.monotonic() - self._saved_at, self._signal))
        seconds, noted = told[0][0], max(number for _, number in told)
        if end or noted or checkpoints.is_due(self.at.steps, seconds):
            self.run.check_weights(self.at)
            states = self.run.gather(random_states())
            if self.run.is_main:
                settings = self._plan["settings"]  # what the steps count is none of them
                own = _unchanged(settings[_OF_THE_OPTIMIZER], self._own_of_the_optimizer())
                settings[_OF_THE_OPTIMIZER] = own
                training = {**self._training(states), "answers": self._answers()}
                checkpoints.save(self.at.steps, self.model.state_dict(), training)
            self._saved_at = time.monotonic()
        if noted:
            self._open.close()
            signal.raise_signal(noted)


@contextmanager
def _leaving_no_draws() -> Iterator[None]:
    """Let the draws of a ``with`` block, of GPUs too, follow from a seed and change no others."""
    before = random_states()
    with separate_randomness(0):
        torch.cuda.manual_seed_all(0)
        yield
    set_random_states(before)


def _unchanged(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    return {place: text for place, text in now.items() if before.get(place) == text}


def _unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that a ``state_dict()`` leaves out."""
    saved = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}


@torch.no_grad()
def _load_unsaved_buffers(
    model: nn.Module, saved: Mapping[str, Tensor], home: torch.device
) -> None:
    """Put back what `_unsaved_buffers` returned, also one that comes or grows in training."""
    modules, here = dict(model.named_modules()), dict(model.named_buffers())
    for name, value in saved.items():
        known, (place, _, own) = here.get(name), name.rpartition(".")
        alike = known is not None and _kind(known) == _kind(value)
        if known is not None and alike and torch.equal(known.cpu(), value):
            continue
        if known is not None and alike and 0 not in known.stride():
            known.copy_(value)  # it may be another module's too
        elif place in modules:
            value = value.to(home if known is None else known.device)
            modules[place].register_buffer(own, value, persistent=False)


def _load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load an optimizer's state in its own types, laid out as the weights it belongs to."""
    optimizer.load_state_dict(saved)
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for number, weight in enumerate(weights):
        held = optimizer.state.get(weight, {})
        for name, part in saved["state"].get(number, {}).items():
            if name in held:
                held[name] = map_tensors(partial(_as_saved, weight), part, held[name])


def _as_saved(weight: Tensor, saved: Tensor, loaded: Tensor) -> Tensor:
    # torch loads all in the type of the weight, and a fused step looks at no strides.
    like = weight if weight.shape == saved.shape else saved
    return torch.empty_like(like, dtype=saved.dtype, device=loaded.device).copy_(saved)


def _kind(value: Any) -> str:
    """Return what a part of a ``state_dict()`` is like: a tensor, or a module's own state."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def _digest_in_any_order(held_out: Samples) -> str:
    """Return what tells samples from others; a loader of what is measured may shuffle."""
    if isinstance(held_out, InMemory):
        return held_out.digest()
    few = held_out.whole().few(8)
    number = len(held_out) if held_out.has_rows else held_out.steps(1)
    return f"{digest_of(few.inputs, few.labels)} of {number}"


def _schedule(scheduler: LRScheduler | None) -> str:
    """Describe a schedule; its ``state_dict()`` leaves its functions out."""
    if scheduler is None:
        return "none"
    held = {name: part for name, part in vars(scheduler).items() if name != "optimizer"}
    inner = [_schedule(part) for part in held.pop("_schedulers", [])]
    return f"{type(scheduler).__name__} {described(held)} {' '.join(inner)}".rstrip()


def _alike(saved: Tensor, now: Tensor) -> bool:
    """Return whether answers are equal, up to what another machine may do to them."""
    size = float(saved.nan_to_num(0, 0, 0).abs().sum()) / max(1, len(saved))
    return saved.shape == now.shape and torch.allclose(
        saved, now, rtol=1e-2, atol=1e-2 * size, equal_nan=True
    )


def _check_plan(saved: Mapping[str, Any], plan: Mapping[str, Any], path: os.PathLike[str]) -> None:
    known, now = saved["settings"], plan["settings"]
    differs = [
        name
        for name in plan
        if name != "settings"
        and not (
            same_teacher(saved[name], plan[name])
            if name == "teacher"
            else saved.get(name) == plan[name]
        )
    ]
    differs += [
        name
        for name, parts in now.items()
        if any(known.get(name, {}).get(place, text) != text for place, text in parts.items())
    ]
    if differs:
        shown = ("epochs", "batch_size", "seed", "steps", "processes", "engine", "schedule")
        said = "; ".join(
            f"{name} {saved.get(name)!r} there, {plan[name]!r} here"
            if name in shown
            else f"other {name}"
            for name in differs
        )
        raise CheckpointError(
            f"{path} belongs to another run: {said}. Call fit as the first time, or use another "
            "folder."
        )


def checkpoint_to_resume(
    checkpoints: Checkpoints | None, resume: bool | str | os.PathLike[str], samples: Samples
) -> Path | None:
    """Return the checkpoint that ``resume`` means, None to begin.

    Raises:
        ValueError: the arguments do not fit together, or a stream is to be resumed.
    """
    if checkpoints is None:
        if resume:
            raise ValueError(
                "resume was given without checkpoints: pass checkpoints=Checkpoints(folder) too."
            )
        return None
    if not samples.has_rows:
        raise ValueError(
            f"{samples.name} is a stream, which cannot be entered again where it stopped: pass "
            "tensors, a data set or a DataLoader of one that has torch's own __iter__, or leave "
            "checkpoints out."
        )
    found = checkpoints.saved()
    if resume is False and found:
        raise ValueError(
            f"{checkpoints.folder} holds checkpoints of an earlier run, the newest "
            f"{found[-1].name}: pass resume=True to go on, or name another folder."
        )
    if isinstance(resume, bool):
        return found[-1] if resume and found else None
    return Path(resume)
