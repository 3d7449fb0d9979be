"""How a training step is computed: device, processes, precision, memory. What is learned is not its business."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, gather_object, reduce
from torch import Tensor, nn
from torch.optim import Optimizer

from kdlearn.core.checks import check_number, check_whole
from kdlearn.core.inputs import Inputs, call, place, take
from kdlearn.distill.distiller import Distiller

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Engine:
    r"""Options of `kdlearn.training.fit` that change how fast a step is, not what it minimizes.

    Convention
        In one process the model stays on its device. Under ``accelerate launch`` each process takes
        its share of every batch on its own device: with batch B and P processes, process r computes
        the mean over :math:`B_r` samples, weighted :math:`P B_r / B`, so that the averaged gradient
        is that of the whole batch, also where the shares differ by one sample. No sample is dropped
        or seen twice. ``accumulate`` cuts a share further in the same way: the same gradient in
        less memory, not a larger batch. Two things do see the cut: statistics of batch
        normalization, and losses that compare the samples of a batch with one another (SP, RKD,
        PKT, CC, DIST's intra part, contrastive). They see their own piece.

    Args:
        precision: "fp32", or "bf16" and "fp16": mixed precision by autocast, weights in float32;
            fp16 needs a GPU and scales its gradients.
        accumulate: pieces that each process computes one after the other, at least 1.
        clip_norm: largest L2 norm of the gradient of all trained parameters together; None for no
        limit. channels_last: keep images and convolutions in the order (N, H, W, C) in memory.
        compile: compile the student with ``torch.compile``; the first steps take longer.

    Raises:
        TypeError: clip_norm is no number.
        ValueError: an option is out of its range, or fp16 is asked for without a GPU.

    Source: Accelerate, Gugger et al. (2022); mixed precision, Micikevicius et al. (2018).

    Example:
        >>> Engine(precision="bf16", clip_norm=1.0).accumulate
        1
    """

    precision: Precision = "fp32"
    accumulate: int = 1
    clip_norm: float | None = None
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"precision is {self.precision!r}: expected 'fp32', 'bf16' or 'fp16'.")
        check_whole(self.accumulate, "accumulate")
        if self.clip_norm is not None:
            check_number(self.clip_norm, "clip_norm")
            if not 0 < self.clip_norm < math.inf:
                raise ValueError(
                    f"clip_norm is {self.clip_norm!r}: expected a number > 0, or None."
                )


class Run:
    """An engine at work on one model; made by `fit`, which calls `step` for each batch.

    Attributes:
        accelerator: Accelerate's own object, for what is not wrapped here.
    """

    def __init__(self, engine: Engine, model: nn.Module, optimizer: Optimizer) -> None:
        self.engine = engine
        self.model = model
        self.student = model.student if isinstance(model, Distiller) else model
        device = next(p for p in model.parameters() if p.requires_grad).device
        if engine.precision == "fp16" and device.type == "cpu" and not torch.cuda.is_available():
            raise ValueError("precision is 'fp16' and there is no GPU: use 'bf16' on a CPU.")
        # Accelerate keeps precision and device for the life of the process; each fit brings its
        # own.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        self.accelerator = Accelerator(
            mixed_precision="no" if engine.precision == "fp32" else engine.precision,
            cpu=device.type == "cpu" and not _is_launched(),
            device_placement=_is_launched(),
        )
        self.device = self.accelerator.device if _is_launched() else device
        if engine.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._wrapped = self.model
        if self.processes > 1:
            self._wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        else:
            self.optimizer = self.accelerator.prepare_optimizer(optimizer)

    @property
    def processes(self) -> int:
        """How many processes train this model."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and shows."""
        return bool(self.accelerator.is_main_process)

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Compile the student for the time of a ``with`` block, where the engine says so."""
        if not self.engine.compile:
            yield
            return
        self.student.compile()
        try:
            yield
        finally:
            self.student._compiled_call_impl = None

    def step(self, inputs: Inputs, labels: Tensor, indices: Tensor | None) -> dict[str, float]:
        """Compute the gradient of a batch and give the parts of its loss; `update` takes the step."""
        pieces = self.processes * self.engine.accumulate
        if len(labels) < pieces:
            raise ValueError(
                f"a batch has {len(labels)} samples for {self.processes} processes x {self.engine.accumulate} pieces: "
                "expected at least one sample a piece. Use larger batches or a smaller accumulate."
            )
        self.optimizer.zero_grad(set_to_none=True)
        first = self.accelerator.process_index * self.engine.accumulate
        cuts = torch.arange(len(labels)).tensor_split(pieces)[
            first : first + self.engine.accumulate
        ]
        sums: dict[str, Tensor] = {}
        for number, rows in enumerate(cuts, start=1):
            share = len(rows) / len(labels)
            chosen = slice(int(rows[0]), int(rows[-1]) + 1)
            with self._sync(number == len(cuts)):
                with self.accelerator.autocast(), _labels_explained(labels):
                    total, parts = self._losses(
                        self._placed(take(inputs, chosen)),
                        labels[chosen].to(self.device),
                        None if indices is None else indices[chosen],
                    )
                # One piece is the whole batch: leave its loss as it is, to the last bit.
                self.accelerator.backward(
                    total if pieces == 1 else total * (share * self.processes)
                )
            for name, part in parts.items():
                value = part.detach() if pieces == 1 else part.detach() * share
                sums[name] = sums[name] + value if name in sums else value
        if self.processes > 1:
            sums = reduce(sums, reduction="sum")
        return {name: value.item() for name, value in sums.items()}

    def update(self) -> None:
        """Clip the gradient where asked, and let the optimizer take its step."""
        if self.engine.clip_norm is not None:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            self.accelerator.clip_grad_norm_(trained, self.engine.clip_norm)
        self.optimizer.step()

    def agree_on_buffers(self) -> None:
        """Give every process the main one's buffers: running statistics differ with the samples seen."""
        if self.processes > 1:
            for buffer in self.model.buffers():
                buffer.copy_(broadcast(buffer))

    def gather(self, value: Any) -> list[Any]:
        """Collect one object from each process, in their order."""
        return list(gather_object([value])) if self.processes > 1 else [value]

    def scaler_state(self) -> Mapping[str, Any]:
        """The state of the gradient scaler of fp16, empty for the other precisions."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else scaler.state_dict()

    def load_scaler_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `scaler_state` gave."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state)

    def _losses(
        self, inputs: Inputs, labels: Tensor, indices: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if isinstance(self.model, Distiller):
            total, parts, _ = self._wrapped(inputs, labels, indices)
            return total, parts
        loss = nn.functional.cross_entropy(call(self._wrapped, inputs), labels)
        return loss, {"labels": loss}

    def _placed(self, inputs: Inputs) -> Inputs:
        inputs = place(inputs, self.device)
        if self.engine.channels_last and isinstance(inputs, Tensor) and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def _sync(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self.accelerator.no_sync(self._wrapped)


@contextmanager
def _labels_explained(labels: Tensor) -> Iterator[None]:
    """Say what is wrong with labels, where torch speaks of targets."""
    try:
        yield
    except RuntimeError as error:
        if "target with class probabilities" not in str(error):
            raise
        raise TypeError(
            f"labels have shape {tuple(labels.shape)}, one for each class, and are {labels.dtype}: expected class "
            "numbers. Of one-hot rows, take labels.argmax(1); rows of probabilities are floating point."
        ) from error
    except IndexError as error:
        if "Target" not in str(error):
            raise
        raise IndexError(
            f"labels go from {int(labels.min())} to {int(labels.max())} and the model has no such "
            "class: number the classes from 0, or make the model with more classes."
        ) from error


def _is_launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
