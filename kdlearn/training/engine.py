"""How a step is computed: device, processes, precision, pieces; not what is learned."""

from __future__ import annotations

import math
import os
import reprlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from kdlearn.core.checks import check_choice, check_number, check_whole
from kdlearn.core.inputs import Buffers, buffers_kept, join, map_tensors, tensors_in
from kdlearn.core.randomness import random_states, separate_randomness, set_random_states
from kdlearn.data.batch import Batch
from kdlearn.data.samples import Share
from kdlearn.distill.distiller import DistillationLoss, Distiller, as_distiller
from kdlearn.distill.outputs import Outputs

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Engine:
    r"""Options of `kdlearn.training.fit` that change how a step is computed, not what it minimizes.

    Convention
        A loss always sees the whole batch. With ``accumulate``, or under ``torchrun`` (or any
        launcher that sets RANK and WORLD_SIZE), only the *networks* work in pieces: the outputs of
        all pieces are put together, the loss is computed on them once, and its gradient goes back
        through the pieces one after the other. So the gradient is that of the whole batch for
        every loss: means over tokens that count, class weights, relations between samples. With
        ``accumulate`` the student runs each piece twice, from the same random state and buffers,
        and the logits and tapped layers of the batch are held. Statistics of batch normalization
        are those of the piece. What a loss reads elsewhere, such as an auxiliary loss that a module
        keeps of its last pass, has no gradient there: compute it from a tapped layer.
        In one process the model stays on its device; of several, each takes the GPU of its local
        rank, or the CPU. Each is given all of the data, in one order, and takes its share itself.

    Args:
        precision: "fp32", or "bf16" and "fp16": mixed precision by autocast, weights in float32;
            fp16 needs a GPU and scales its gradients.
        accumulate: pieces that each process computes one after the other, at least 1; of a batch
            with fewer samples, as many as these.
        clip_norm: largest L2 norm of the gradient of all trained parameters together; None for no
            limit.

    Raises:
        TypeError: clip_norm is no number.
        ValueError: an option is out of its range.

    Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
        2021, for the gradient through pieces; mixed precision, Micikevicius et al. (2018).

    Example:
        >>> Engine(precision="bf16", clip_norm=1.0).accumulate
        1
    """

    precision: Precision = "fp32"
    accumulate: int = 1
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        check_choice(self.precision, "precision", ("fp32", "bf16", "fp16"))
        check_whole(self.accumulate, "accumulate")
        if self.clip_norm is not None:
            check_number(self.clip_norm, "clip_norm")
            if not 0 < self.clip_norm < math.inf:
                raise ValueError(
                    f"clip_norm is {self.clip_norm!r}: expected a number > 0, or None."
                )


class Run:
    """An engine at work on one model; made by `fit`.

    Attributes:
        distiller: what is trained, a plain model as a distiller of labels.
        device: where it is.
        rank: the number of this process, from 0.
        processes: how many train together.
    """

    def __init__(self, engine: Engine, model: nn.Module, optimizer: Optimizer) -> None:
        self.engine = engine
        self.distiller: Distiller = as_distiller(model)
        self.rank, self.processes = _join_processes()
        self.device = next(p for p in model.parameters() if p.requires_grad).device
        if self.processes > 1:
            self.device = _own_device()
            model.to(self.device)
            self._agree((*model.parameters(), *model.buffers()))
        if engine.precision == "fp16" and self.device.type != "cuda":
            raise ValueError("precision is 'fp16' and the model is on no GPU: use 'bf16' there.")
        if torch.is_autocast_enabled(self.device.type):
            raise ValueError(
                "fit is called inside torch.autocast, which keeps weights as they were cast first: "
                "leave that, and pass engine=Engine(precision='bf16')."
            )
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=engine.precision == "fp16")
        # All: what is frozen now may be trained later on, once an optimizer's hook thaws it.
        self._parameters = list(self.distiller.parameters())
        self._pieces: list[_Piece] = []
        self._optimizer = optimizer

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and shows."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """Which part of each batch this process computes."""
        return (self.rank, self.processes)

    def zero_grad(self) -> None:
        """Forget the gradients of the step before."""
        # The optimizer's own notes itself for a profiler, a twentieth of a small step.
        for p in self._parameters:
            p.grad = None

    def forward(self, batch: Batch) -> DistillationLoss:
        """Run teacher and student on a batch and compute every term on all of it."""
        with self.autocast():
            if self.processes == 1 and self.engine.accumulate == 1:
                return self.distiller.compute(batch.to(self.device))
            return self._forward_in_pieces(batch)

    def backward(self, loss: DistillationLoss) -> None:
        """Compute the gradient of every trained parameter."""
        self._scaler.scale(loss.total).backward()
        pieces, self._pieces = self._pieces, []
        if not self.is_main:
            # What a loss on the whole batch says to weights directly (of a head that it is given)
            # is the same in every process, and counts once.
            for p in self.distiller.student.parameters():
                p.grad = None
        with buffers_kept(self.distiller.student) if len(pieces) > 1 else nullcontext():
            for piece in pieces:
                with self.autocast():
                    again = piece.outputs or self._again(piece)
                torch.autograd.backward(*piece.gradient_of(again))
        if self.processes > 1:
            self._add_gradients()

    def clip(self) -> list[Tensor]:
        """Cut the gradient to the engine's norm where it has one; return each tensor's before."""
        self._scaler.unscale_(self._optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norms = list(torch._foreach_norm(gradients))
        if self.engine.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self.engine.clip_norm)
        return norms

    def step(self, optimizer: Optimizer) -> None:
        """Let the optimizer take its step; in fp16 not where the gradient overflowed."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def check_finite(
        self, loss: DistillationLoss, norms: list[Tensor], batch: Batch, at: object
    ) -> dict[str, float]:
        """Return the parts of the loss as numbers, if they and the gradient are finite.

        Raises:
            FloatingPointError: they are not; the message names the term and what ``at`` prints as.
        """
        found = [*loss.parts.values(), *norms]
        if self.device.type == "cpu":
            numbers = [one.item() for one in found]
        else:  # as one tensor, since each reading of a GPU waits for it
            numbers = torch.stack(found).tolist()
        parts = dict(zip(loss.parts, numbers, strict=False))
        if math.isfinite(sum(numbers)):
            return parts
        sizes = numbers[len(loss.parts) :]
        broken = {name: value for name, value in parts.items() if not math.isfinite(value)}
        said = ", ".join(f"term {name!r} is {value}" for name, value in broken.items())
        if not broken and not math.isfinite(sum(sizes)) and not self._scaler.is_enabled():
            said = f"{self._culprit(batch)} has a finite loss and a gradient that is {sum(sizes)}"
        if said:
            raise FloatingPointError(
                f"the loss broke at {at}: {said}. The step was not taken. Check the inputs for "
                "NaN and the labels for -100 throughout; lower the learning rate or the weight of "
                "the term."
            )
        return parts

    def check_weights(self, at: object) -> None:
        """Refuse weights that a step broke after its loss and gradient were finite.

        Raises:
            FloatingPointError: one is NaN or infinite; the message names it.
        """
        for name, p in self.distiller.named_parameters():
            if p.requires_grad and not bool(p.isfinite().all()):
                raise FloatingPointError(
                    f"{name!r} is NaN or infinite at {at}, though loss and gradient were finite: "
                    "the optimizer's step broke it, and nothing of it was saved. Lower the "
                    "learning rate."
                )

    def _culprit(self, batch: Batch) -> str:
        """Name the first term whose own gradient is not finite."""
        with self.autocast():
            parts = self.distiller.compute(batch.to(self.device)).parts
        for name, part in parts.items():
            self.zero_grad()
            # Not autograd.grad, which a checkpoint that re-enters forbids.
            part.backward(retain_graph=True)
            if not all(p.grad is None or p.grad.isfinite().all() for p in self._parameters):
                return f"term {name!r}"
        return "the sum of the terms"

    def agree_on_buffers(self) -> None:
        """Copy the main process's statistics to all: they differ with the samples seen."""
        if self.processes > 1:
            self._agree(self.distiller.buffers())

    def gather(self, value: Any) -> list[Any]:
        """Collect one object from each process, in their order."""
        if self.processes == 1:
            return [value]
        found: list[Any] = [None] * self.processes
        dist.all_gather_object(found, value)
        return found

    def check_same(self, what: str, value: Callable[[], object], advice: str) -> None:
        """Refuse what is not the same in all processes, in all of them; one alone asks for nothing.

        Args:
            what: the name of the value.
            value: gives it; of plain values, as it goes to the other processes.
            advice: what to do, a sentence.

        Raises:
            ValueError: it differs between processes.
        """
        if self.processes == 1:
            return
        own = value()
        values = self.gather(own)
        others = [rank for rank, other in enumerate(values) if other != values[0]]
        # What is drawn anew each time, such as images of a data set, is never the same.
        if others and all(self.gather(value() == own)):
            raise ValueError(
                f"{what} is {reprlib.repr(values[0])} in process 0 and "
                f"{reprlib.repr(values[others[0]])} in process {others[0]}: expected the same in "
                f"all {self.processes} processes. {advice}"
            )

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must know of the run: the scale of fp16."""
        return self._scaler.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return what a forward pass runs in."""
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.engine.precision)
        return torch.autocast(self.device.type, kind) if kind else nullcontext()

    def _forward_in_pieces(self, batch: Batch) -> DistillationLoss:
        sizes = _sizes(batch.whole or len(batch), self.processes)
        own = batch if batch.whole else batch.take(_slice(sizes, self.rank))
        # A last batch may be smaller than the number of pieces: then each sample is one.
        cuts = _sizes(len(own), min(self.engine.accumulate, len(own)))
        own = replace(own, whole=None).to(self.device)
        taught, studied, self._pieces = [], [], []
        for number in range(len(cuts)):
            part = own.take(_slice(cuts, number))
            taught.append(self.distiller.teach(part))
            piece = _Piece(part)
            if len(cuts) > 1:
                piece.random, piece.buffers = random_states(), Buffers(self.distiller.student)
            with torch.set_grad_enabled(len(cuts) == 1):
                said = self.distiller.study(part)
            piece.check(said)
            piece.outputs = said if len(cuts) == 1 else None
            studied.append(map_tensors(lambda tensor: tensor.detach(), _tree(said)))
            self._pieces.append(piece)
        joined = join(studied)
        leaves = map_tensors(_leaf, joined)
        for number, piece in enumerate(self._pieces):
            piece.leaves, piece.rows = tensors_in(leaves), _slice(cuts, number)
        trees = (leaves, join([_tree(outputs) for outputs in taught]))
        self._check_shapes(own, trees)
        whole_batch = own.change(lambda tensor: self._gathered(tensor, sizes))
        sides = []
        for tree in trees:
            logits, taps, kept = map_tensors(lambda tensor: self._gathered(tensor, sizes), tree)
            sides.append(Outputs(logits, taps, kept, whole_batch))
        with self._same_draws():
            return self.distiller.loss(*sides)

    def _again(self, piece: _Piece) -> Outputs:
        """Run the student on a piece as it ran before, now with its graph."""
        now = random_states()
        set_random_states(piece.random)
        if piece.buffers is not None:
            piece.buffers.put_back()
        outputs = self.distiller.study(piece.batch)
        set_random_states(now)
        return outputs

    def _check_shapes(self, batch: Batch, said: Any) -> None:
        """Refuse shares of a batch that do not fit together; gloo would end the program."""
        if self.processes == 1:
            return
        parts = tensors_in([batch.inputs, batch.labels, batch.mask, said])
        shapes = [(str(part.dtype), *part.shape[1:]) for part in parts]
        told = torch.tensor([zlib.crc32(repr(shapes).encode())], device=self.device)
        others = [torch.empty_like(told) for _ in range(self.processes)]
        dist.all_gather(others, told)
        if any(not torch.equal(other, told) for other in others):
            first, second = next(
                (one, other)
                for one, *rest in zip(*self.gather(shapes), strict=False)
                for other in rest
                if one != other
            )
            raise ValueError(
                f"a sample of this batch is {first} in one process and {second} in another, so "
                "that no loss on all of it can be computed: pad all samples to one length, not "
                "each share of a batch to its longest."
            )

    def _gathered(self, tensor: Tensor, sizes: list[int]) -> Tensor:
        """Put the shares of all processes together, with a graph through the own one alone."""
        if self.processes == 1:
            return tensor
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor.detach()
        shares = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather([_bytes(share) for share in shares], _bytes(padded))
        parts = [share[:size] for share, size in zip(shares, sizes, strict=True)]
        parts[self.rank] = tensor
        return torch.cat(parts)

    @contextmanager
    def _same_draws(self) -> Iterator[None]:
        """Let a loss that draws (a random mask) draw the same in every process."""
        if self.processes == 1:
            yield
            return
        seed = self.gather(int(torch.randint(2**31, ())))[0]
        on_gpu = self.device.type == "cuda"
        with separate_randomness(seed), torch.random.fork_rng([self.device] if on_gpu else []):
            if on_gpu:
                torch.cuda.manual_seed(seed)
            yield

    def _add_gradients(self) -> None:
        """Add the students' gradients over processes; those of projectors are equal everywhere."""
        projectors = {id(p) for p in self.distiller.projectors.parameters()}
        projectors -= {id(p) for p in self.distiller.student.parameters()}
        shared = [p for p in self._parameters if p.requires_grad and id(p) not in projectors]
        used = torch.tensor([float(p.grad is not None) for p in shared], device=self.device)
        own = [_real(torch.zeros_like(p) if p.grad is None else p.grad) for p in shared]
        is_double = any(gradient.dtype == torch.float64 for gradient in own)
        kind = torch.float64 if is_double else torch.float32
        whole = torch.cat([used, *(gradient.flatten().to(kind) for gradient in own)])
        dist.all_reduce(whole)
        of_any, sums = whole[: len(shared)].tolist(), whole[len(shared) :]
        totals = sums.split([gradient.numel() for gradient in own])
        for p, is_used, gradient, total in zip(shared, of_any, own, totals, strict=True):
            if is_used:
                # As the weight lies in memory, since a fused optimizer looks at no strides.
                p.grad = torch.empty_like(p)
                _real(p.grad).copy_(total.view_as(gradient))

    def _agree(self, tensors: Any) -> None:
        with torch.no_grad():
            for tensor in tensors:
                # Of numbers that stand at several places (an expanded mask), each once.
                once = tuple(slice(1 if step == 0 else None) for step in tensor.stride())
                held = tensor.detach()[once]
                plain = torch.empty_like(held, memory_format=torch.contiguous_format).copy_(held)
                dist.broadcast(_bytes(plain), src=0)
                held.copy_(plain)


class _Piece:
    """A part of a batch whose gradient is still to come."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.random: dict[str, Any] = {}
        self.buffers: Buffers | None = None
        self.outputs: Outputs | None = None
        self.leaves: list[Tensor] = []
        self.rows = slice(0)

    def check(self, outputs: Outputs) -> None:
        for tensor in tensors_in(_tree(outputs)):
            if tensor.dim() == 0 or len(tensor) != len(self.batch):
                raise ValueError(
                    f"the student returned or recorded a tensor of shape {tuple(tensor.shape)} for "
                    f"{len(self.batch)} samples: with accumulate or several processes the first "
                    "dimension must be the sample."
                )

    def gradient_of(self, outputs: Outputs) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tensors to go back from, with the gradients that the loss sent to them."""
        pairs = [
            (tensor, leaf.grad[self.rows])
            for tensor, leaf in zip(tensors_in(_tree(outputs)), self.leaves, strict=True)
            if leaf.grad is not None and tensor.requires_grad
        ]
        return [tensor for tensor, _ in pairs], [gradient for _, gradient in pairs]


def _tree(outputs: Outputs) -> tuple[Any, Any, Any]:
    return (outputs.logits, dict(outputs.taps), dict(outputs.kept))


def _leaf(tensor: Tensor) -> Tensor:
    learns = tensor.is_floating_point() or tensor.is_complex()
    return tensor.requires_grad_() if learns else tensor


def _real(tensor: Tensor) -> Tensor:
    """Show a complex tensor as pairs of numbers, which processes can add up."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _bytes(tensor: Tensor) -> Tensor:
    """Show a contiguous tensor in a kind that every backend sends; gloo knows no int16, say."""
    return tensor.view(-1).view(torch.uint8)


def _sizes(samples: int, parts: int) -> list[int]:
    """Cut samples into parts that differ by one at most, as ``tensor_split`` does."""
    return [samples // parts + (number < samples % parts) for number in range(parts)]


def _slice(sizes: list[int], number: int) -> slice:
    start = sum(sizes[:number])
    return slice(start, start + sizes[number])


def _join_processes() -> tuple[int, int]:
    """Return number and count of the processes, joined where a launcher started several."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1 and not dist.is_initialized():
        missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
        if missing:
            raise ValueError(
                f"WORLD_SIZE is {launched} and {', '.join(missing)} is not set: start the program "
                "with torchrun, or unset WORLD_SIZE."
            )
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def _own_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= found:
        raise ValueError(
            f"LOCAL_RANK is {number} and there are {found} GPUs: start one process for each."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
