"""What a model costs: parameters, bytes on disk, operations, time, memory."""

from __future__ import annotations

import io
import math
import re
import time
import weakref
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kdlearn.core.checks import check_whole
from kdlearn.core.inputs import Inputs, count, device_of, evaluating, run, take

WARM_UP = 10
FEWEST_RUNS = 20
_PRODUCT = re.compile(r"(mm|mv|dot)(_|$)|_trilinear$")


@dataclass(frozen=True)
class BatchCost:
    """Time and memory of one forward pass.

    Attributes:
        p50: milliseconds that half of the runs stay below.
        p95: milliseconds that 95 of 100 runs stay below.
        memory: bytes at the peak, or None where torch sees no tensor being made.
    """

    p50: float
    p95: float
    memory: int | None


@dataclass(frozen=True)
class Profile:
    """The costs of a model; printed, it is a small table.

    None means "not known", never zero: nothing that torch can see was there to count.

    Attributes:
        parameters: number of weights, shared ones once.
        disk: bytes of the file.
        flops: floating-point operations of one sample.
        batches: time and memory for each size of batch.
        runs: timed runs for each size.
    """

    parameters: int | None
    disk: int | None
    flops: int | None
    batches: dict[int, BatchCost]
    runs: int

    def __str__(self) -> str:
        """Return the table."""
        lines = [
            f"parameters  {_text(self.parameters)}",
            f"disk        {_text(self.disk, 1000)} kB",
            f"FLOPs       {_text(self.flops)} a sample",
            f"runs        {self.runs} of each batch",
            f"{'batch':>5} {'p50 ms':>9} {'p95 ms':>9} {'peak kB':>9}",
        ]
        for size, cost in self.batches.items():
            memory = _text(cost.memory, 1000)
            lines.append(f"{size:>5} {cost.p50:>9.3f} {cost.p95:>9.3f} {memory:>9}")
        return "\n".join(lines)


def profile(
    model: Callable[..., Any],
    example: Inputs,
    *,
    batch_sizes: Sequence[int] = (1, 64),
    runs: int = 100,
    file: str | Path | None = None,
) -> Profile:
    r"""Measure what a model costs to keep and to run.

    Convention
        Disk: the state as safetensors, weights that layers share once; where the state is not
        tensors alone (packed int8 weights), as ``torch.save`` writes it; with ``file``, the size of
        that file. FLOPs: multiplications and additions are counted one by one, so a linear layer
        without its bias has 2 x inputs x outputs. Matrix products, convolutions and attention are
        counted, by ``torch.utils.flop_counter``; biases, normalizations and activations are not.
        None for operators that are not torch's own, such as int8 ones, and for products that the
        counter would pass over, such as that of ``nn.Bilinear``. Time: of one call in evaluation
        mode without gradients, after 10 calls that are not timed. On a GPU the clock waits for it.
        The number of threads stays as you set it.
        Memory: the most bytes that tensors made in one call take up at one time, weights and inputs
        left out. What an operator uses inside and frees again is not seen on the CPU; on a GPU it
        is ``torch.cuda.max_memory_allocated`` less what was allocated before.
        A model that torch does not run (a session of ONNX Runtime) has time alone, and disk by
        ``file``.

    Args:
        model: a module, or anything that is called like one.
        example: one sample or more, see `kdlearn.core.inputs.Inputs`, on its device. Rows are
            repeated to fill a batch.
        batch_sizes: samples in a call.
        runs: timed calls for each size, at least 20.
        file: what is shipped, if that is not the model's state.

    Raises:
        TypeError: the model cannot be called.
        ValueError: no sample, a size below 1, too few runs, or a device that is not CPU or CUDA.
        FileNotFoundError: there is no such file.

    Example:
        >>> costs = profile(nn.Linear(10, 3, bias=False), torch.zeros(1, 10), runs=20)
        >>> costs.parameters, costs.flops, costs.batches[64].memory
        (30, 60, 768)
    """
    _check(model, example, batch_sizes, runs)
    disk = None if file is None else Path(file).stat().st_size
    device = device_of(example)
    module = model if isinstance(model, nn.Module) else nn.Module()
    with evaluating(module), torch.no_grad():
        flops = _flops(model, take(example, slice(0, 1)))
        batches = {}
        for size in batch_sizes:
            inputs = take(example, torch.arange(size, device=device) % count(example))
            seconds = _seconds(model, inputs, runs, device)
            p50, p95 = (float(value) for value in np.percentile(seconds, [50, 95]) * 1000)
            batches[size] = BatchCost(p50, p95, _memory(model, inputs, device))
    state = module.state_dict()
    packed = any(not isinstance(value, Tensor) for value in state.values())
    return Profile(
        parameters=None if packed else count_parameters(module) or None,
        disk=_size(state, packed) if disk is None else disk,
        flops=flops,
        batches=batches,
        runs=runs,
    )


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights of a model, trainable or not; shared ones count once.

    Example:
        >>> count_parameters(nn.Linear(10, 3))
        33
    """
    return sum(parameter.numel() for parameter in model.parameters())


def _seconds(
    model: Callable[..., Any], inputs: Inputs, runs: int, device: torch.device
) -> list[float]:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = []
    with torch.inference_mode():
        for _ in range(WARM_UP + runs):
            wait()
            start = time.perf_counter()
            run(model, inputs)
            wait()
            seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def _flops(model: Callable[..., Any], inputs: Inputs) -> int | None:
    """Count the operators that the counter knows, in the slow forms that are made of them."""
    aten = torch.ops.aten
    with_vectors = dict.fromkeys((aten.mv, aten.addmv, aten.dot, aten.vdot), _vector_flops)
    counter = FlopCounterMode(display=False, custom_mapping=with_vectors)
    operators = _Operators(counter.flop_registry)
    with _plain_kernels(), operators, counter:
        run(model, inputs)
    return None if operators.unknown else counter.get_total_flops() or None


def _vector_flops(*shapes: Sequence[int], **_: object) -> int:
    """Count a product of a matrix or a vector and, as the last argument, a vector."""
    return 2 * math.prod(shapes[-2])


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Switch off kernels that do a whole layer at once, which the counter does not know."""
    # mkldnn's own context manager warns of Intel GPUs where there is none.
    attention, onednn = torch.backends.mha, torch.backends.mkldnn
    before = attention.get_fastpath_enabled(), onednn.enabled
    attention.set_fastpath_enabled(False)
    onednn.enabled = False  # type: ignore[assignment]
    try:
        with torch.backends.cudnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        attention.set_fastpath_enabled(before[0])
        onednn.enabled = before[1]


def _memory(model: Callable[..., Any], inputs: Inputs, device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run(model, inputs)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated(device) - before or None
    with _Memory() as memory:
        run(model, inputs)
    return memory.peak or None


class _Operators(TorchDispatchMode):
    """Note whether a call has operators that the counter would pass over as if they were free."""

    def __init__(self, counted: Container[Any]) -> None:
        super().__init__()
        self.counted = counted
        self.unknown = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace not in ("aten", "prim", "profiler"):
            self.unknown = True
        elif _PRODUCT.search(str(func.overloadpacket)):
            self.unknown |= func.overloadpacket not in self.counted
        return func(*args, **(kwargs or {}))


class _Memory(TorchDispatchMode):
    """Add up the storages that operators return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_address(value) for value in tree_leaves((args, kwargs)) if _is_strided(value)}
        output = func(*args, **(kwargs or {}))
        for tensor in filter(_is_strided, tree_leaves(output)):
            storage = tensor.untyped_storage()
            # A view, or a change in place, makes nothing.
            if storage not in self.known and _address(tensor) not in given:
                self.known.add(storage)
                self._change(storage.nbytes())
                weakref.finalize(storage, self._change, -storage.nbytes())
        return output

    def _change(self, size: int) -> None:
        self.live += size
        self.peak = max(self.peak, self.live)


def _is_strided(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _size(state: dict[str, Any], packed: bool) -> int | None:
    if not state:
        return None
    if packed:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return len(buffer.getvalue())
    # Under one of its names each: safetensors refuses tensors that share memory.
    unique = {(value.data_ptr(), value.shape): name for name, value in reversed(state.items())}
    # Nor does it take images' weights whose channels lie last.
    kept = {name: state[name].contiguous().clone() for name in unique.values()}
    return len(safetensors.torch.save(kept))


def _check(
    model: Callable[..., Any], example: Inputs, batch_sizes: Sequence[int], runs: int
) -> None:
    if not callable(model):
        raise TypeError(
            f"a {type(model).__name__} cannot be called: give a module, or for a session of "
            "another library a function of one batch that runs it."
        )
    if count(example) == 0:
        raise ValueError("the example holds no samples: give at least one, such as images[:1].")
    if not batch_sizes:
        raise ValueError("batch_sizes are empty: give the samples of a call, such as (1, 64).")
    for size in batch_sizes:
        check_whole(size, "a batch size")
    check_whole(runs, "runs", FEWEST_RUNS)  # of fewer, p95 is little but the slowest one
    device = device_of(example)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"the example is on {device}: only the CPU and CUDA can be timed here. Move model and "
            f"example to one."
        )


def _text(value: int | None, unit: int = 1) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if unit == 1 else f"{value / unit:,.1f}"
