"""What the benchmarks share: times of jobs that take turns, their ratios, the machine."""

import csv
import datetime
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

MADE = ["torch", "machine", "date"]


def measure(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of each job, all of them once per round in random order."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name in random.sample(list(jobs), len(jobs)):
            start = time.process_time()
            jobs[name]()
            if turn:  # the first round warms up
                times[name].append(1000 * (time.process_time() - start))
    return times


def quartiles(times: list[float], reference: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of times divided by a reference, round by round."""
    ratios = [time / whole for time, whole in zip(times, reference, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, middle, high


def machine() -> str:
    """Processor and system, as far as they are known."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {platform.machine()}, {platform.system()}, 1 thread"


def write(path: str, columns: list[str], lines: Iterable[list[object]]) -> None:
    """Write a table to a CSV file, each line with PyTorch's version, machine and date."""
    made = [torch.__version__, machine(), datetime.date.today().isoformat()]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *MADE])
        writer.writerows([*line, *made] for line in lines)
