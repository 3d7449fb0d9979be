"""What one call of a student costs in each form in which it may be shipped.

    OMP_NUM_THREADS=1 python benchmarks/deploy.py [--output kdlearn/results/deploy_cost.csv]

The models are those of the chapter book/training/ship-it, with fresh weights, which cost what
trained ones cost: a SmallCNN(16) as teacher, a SmallCNN(4), and three linear layers of width 512;
on digits of 1 x 16 x 16. Each is timed in PyTorch, in ONNX Runtime, and there in
dynamic and (the convolutions) static int8. Everything runs in one process on one
thread, in a new random order each round; times are CPU times of the process, of CALLS calls
together. The table has medians and quartiles over the rounds, in milliseconds per call.
"""

import argparse
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import onnxruntime
import torch
from common import measure, write
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from kdlearn.models import SmallCNN

BATCHES, CALLS = (1, 64), 20
COLUMNS = ["model", "batch", "milliseconds", "low", "high", "rounds"]
Call = Callable[[Tensor], object]


def linear_student() -> nn.Sequential:
    """More weights than the teacher, and three layers."""
    hidden = nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, 10))


def exported(model: nn.Module, file: Path) -> Path:
    """Write a model as ONNX, ready for quantization, and return its file."""
    shapes = ({0: torch.export.Dim("batch")},)
    images = (torch.randn(2, 1, 16, 16),)
    torch.onnx.export(
        model,
        images,
        file,
        input_names=["images"],
        dynamic_shapes=shapes,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    prepared = file.with_suffix(".prepared.onnx")
    quant_pre_process(file, prepared)
    return prepared


def session(file: Path) -> Call:
    """One thread of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    made = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: made.run(None, {"images": images.numpy()})


class Images(CalibrationDataReader):
    """Random images, to find ranges."""

    def __init__(self) -> None:
        self.batches: Iterator[Tensor] = iter(torch.rand(5, 100, 1, 16, 16))

    def get_next(self) -> dict[str, object] | None:
        """Return the next batch."""
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch.numpy()}


def forms(folder: Path) -> dict[str, Call]:
    """Every form of every model."""
    models = {"teacher": SmallCNN(16), "conv": SmallCNN(4), "linear": linear_student()}
    calls: dict[str, Call] = {}
    for name, model in models.items():
        calls[name] = model.eval()
        if name == "teacher":
            continue
        file = folder / f"{name}.onnx"
        prepared = exported(model, file)
        quantize_dynamic(prepared, folder / f"{name}.int8.onnx")
        calls[f"{name}, ONNX"] = session(file)
        calls[f"{name}, ONNX int8"] = session(folder / f"{name}.int8.onnx")
    quantize_static(folder / "conv.prepared.onnx", folder / "conv.static.onnx", Images())
    calls["conv, ONNX static"] = session(folder / "conv.static.onnx")
    return calls


def job(call: Call, size: int) -> Callable[[], None]:
    """Many calls, so that one is not lost in the clock."""
    images = torch.randn(size, 1, 16, 16)

    def run() -> None:
        with torch.no_grad():
            for _ in range(CALLS):
                call(images)

    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--output", help="write the table to this CSV file too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # torch warns itself of a new name
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    lines: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        calls = forms(Path(folder))
        jobs = {(name, size): job(call, size) for name, call in calls.items() for size in BATCHES}
        keys = {f"{name}; {size}": (name, size) for name, size in jobs}
        table = measure({key: jobs[keys[key]] for key in keys}, arguments.rounds)
    print(f"{'model':22}{'batch':>6}{'ms per call':>14}")
    for key, (name, size) in keys.items():
        times = [time / CALLS for time in table[key]]
        low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
        print(f"{name:22}{size:6}{middle:14.4f}")
        numbers = [f"{number:.4f}" for number in (middle, low, high)]
        lines.append([name, size, *numbers, arguments.rounds])
    if arguments.output:
        write(arguments.output, COLUMNS, lines)


if __name__ == "__main__":
    main()
