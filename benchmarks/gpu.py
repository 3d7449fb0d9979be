"""What a GPU does with a step of `fit` and with a loss on a large vocabulary.

    python benchmarks/gpu.py [--output kdlearn/results/gpu_cost.csv]

Steps: teacher WRN-40-2, student WRN-16-2, batches of 128 (the recipes') and of 512 images of
3x32x32 on the card, bfloat16 autocast, SGD; the loop by hand does the same without kdlearn and
reads its loss once a step, as a progress bar does. A ratio is to the loop by hand with the same
teacher. Losses: value and gradients from hidden states in bfloat16, a teacher's head of twice the
width; memory is the peak above what stood before the call, a ratio is to both heads and `F.kl_div`;
"compiled" is the loss under `torch.compile`, or all of the call where there is no chunk.
Jobs take turns in random order; times are medians of wall-clock seconds with the card synchronized.
Every line names the card.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from common import write
from step import network, sgd, terms
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.data import Batch
from kdlearn.distill import Distiller
from kdlearn.losses import forward_kl, linear_distillation_loss
from kdlearn.training.engine import Engine, Run

BATCHES, STEPS, CLASSES = (128, 512), 20, 100
COLUMNS = ["name", "size", "milliseconds", "ratio", "peak_gib", "rounds", "card"]
Job = Callable[[], object]
Loss = Callable[[Tensor, Tensor], Tensor]


def fit_steps(model: nn.Module, images: Tensor, labels: Tensor) -> Job:
    """Some steps as `fit` takes them."""
    optimizer = sgd(model)
    run = Run(Engine(precision="bf16"), model, optimizer)
    batch = Batch(images, labels, torch.arange(len(labels)))
    model.train()

    def steps() -> None:
        for _ in range(STEPS):
            run.zero_grad()
            loss = run.forward(batch)
            run.backward(loss)
            run.check_finite(loss, run.clip(), batch, "a step")
            run.step(optimizer)

    return steps


def hand_steps(student: nn.Module, teacher: nn.Module | None, images: Tensor, y: Tensor) -> Job:
    """The same steps in plain PyTorch."""
    optimizer = sgd(student)
    student.train()

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                logits = student(images)
                loss = F.cross_entropy(logits, y)
                if teacher is not None:
                    with torch.no_grad():
                        target = (teacher(images) / 4).float().softmax(1)
                    soft = F.kl_div((logits / 4).log_softmax(1), target, reduction="batchmean")
                    loss = 0.1 * loss + 0.9 * 16 * soft
            loss.backward()
            optimizer.step()
            loss.item()

    return steps


def step_jobs(batch: int) -> dict[str, Job]:
    """Labels alone, and with a live teacher; by hand and by `fit`."""
    images = torch.randn(batch, 3, 32, 32, device="cuda")
    labels = torch.randint(CLASSES, (batch,), device="cuda")
    teacher = network(6).cuda().eval()
    kd = terms(attention=False)
    students = [network(2).cuda() for _ in range(5)]
    both = Distiller(students[4], teacher, terms(attention=True))
    return {
        "labels, by hand": hand_steps(students[0], None, images, labels),
        "labels, fit": fit_steps(students[1], images, labels),
        "KD, by hand": hand_steps(students[2], teacher, images, labels),
        "KD, fit": fit_steps(Distiller(students[3], teacher, kd), images, labels),
        "KD+AT, fit": fit_steps(both, images, labels),
    }


def head_jobs(tokens: int, vocabulary: int, width: int) -> dict[str, Job]:
    """Forward KL from hidden states: whole by hand, whole, in chunks, fused; and compiled."""
    make = {"device": "cuda", "dtype": torch.bfloat16}
    hidden = torch.randn(tokens, width, **make).requires_grad_()
    head = (torch.randn(vocabulary, width, **make) / width**0.5).requires_grad_()
    other = torch.randn(tokens, 2 * width, **make)
    frozen = torch.randn(vocabulary, 2 * width, **make) / (2 * width) ** 0.5

    def by_hand() -> Tensor:
        log_p = (hidden @ head.T).float().log_softmax(1)
        log_q = (other @ frozen.T).float().log_softmax(1)
        return F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")

    def backward(loss: Callable[[], Tensor]) -> Job:
        def job() -> None:
            hidden.grad = head.grad = None
            loss().backward()

        return job

    def fused(loss: Loss, chunk: int | None = None) -> Job:
        return backward(
            lambda: linear_distillation_loss(hidden, head, other, frozen, loss=loss, chunk=chunk)
        )

    compiled = torch.compile(forward_kl, dynamic=False)
    return {
        "heads, then F.kl_div": backward(by_hand),
        "heads, then F.kl_div, compiled": backward(torch.compile(by_hand, dynamic=False)),
        "heads, then forward_kl": backward(lambda: forward_kl(hidden @ head.T, other @ frozen.T)),
        "heads, then forward_kl, chunk=512": backward(
            lambda: forward_kl(hidden @ head.T, other @ frozen.T, chunk=512)
        ),
        "linear_distillation_loss": fused(forward_kl),
        "linear_distillation_loss, chunk=1024": fused(forward_kl, 1024),
        "linear_distillation_loss, compiled": fused(compiled),
        "linear_distillation_loss, compiled, chunk=1024": fused(compiled, 1024),
    }


def measure(jobs: dict[str, Job], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds and peak GiB of each job."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    peaks: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name in random.sample(list(jobs), len(jobs)):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before, start = torch.cuda.memory_allocated(), time.perf_counter()
            jobs[name]()
            torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[name].append(1000 * (time.perf_counter() - start))
                peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**30
    return {name: statistics.median(own) for name, own in times.items()}, peaks


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", help="write the table to this CSV file too")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no GPU is here: this benchmark needs one that torch.cuda sees")
    card = torch.cuda.get_device_name()
    torch.manual_seed(0)
    lines: list[list[object]] = []

    def note(size: str, jobs: dict[str, Job], reference: Callable[[str], str], per: int) -> None:
        times, peaks = measure(jobs, arguments.rounds)
        for name, own in times.items():
            ratio = own / times[reference(name)]
            print(f"{name:48}{size:26}{own / per:10.2f} ms{ratio:8.3f}{peaks[name]:8.2f} GiB")
            numbers = [f"{own / per:.3f}", f"{ratio:.3f}", f"{peaks[name]:.3f}"]
            lines.append([name, size, *numbers, arguments.rounds, card])

    def by_hand(name: str) -> str:
        return name.split(",")[0].removesuffix("+AT") + ", by hand"

    for batch in BATCHES:
        note(f"{batch} x 3 x 32 x 32", step_jobs(batch), by_hand, STEPS)
    for tokens, vocabulary, width in ((4096, 32_000, 1024), (8192, 128_256, 2048)):
        jobs = head_jobs(tokens, vocabulary, width)
        note(f"{tokens} x {vocabulary}, width {width}", jobs, lambda _: "heads, then F.kl_div", 1)
        del jobs
        torch.cuda.empty_cache()
    if arguments.output:
        write(arguments.output, COLUMNS, lines)


if __name__ == "__main__":
    main()
