"""What a training step costs with a teacher, as a multiple of a step on labels alone.

    OMP_NUM_THREADS=1 python benchmarks/step.py [--output kdlearn/results/step_cost.csv]

Teacher WRN-40-2, student WRN-16-2, a batch of 128 images of 3x32x32, 100 classes; SGD with
momentum, no augmentation. A step of kdlearn is the code that `kdlearn.training.fit` runs: zero the
gradients, losses, backward, update; the loop by hand does the same without kdlearn, and
torchdistill by its `DistillationBox`. It is left out where it is not installed: requirements.txt
beside this file has the environment with it. Everything runs in one process on one thread, in a new
random order each round; times are CPU times of the process. A ratio is taken within a round; the
table has its median over the rounds, the file also quartiles.
"""

import argparse
import copy
import importlib.util
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from common import measure, quartiles, write
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.data import Batch
from kdlearn.distill import Distiller, Term, label_term, layer_term, logit_term
from kdlearn.losses import attention_transfer_loss, soft_target_loss
from kdlearn.models import SlimWRN
from kdlearn.store import AttentionMap, cache_teacher
from kdlearn.training.engine import Engine, Run

BATCH, CLASSES = 128, 100
GROUPS = ["group1", "group2", "group3"]
TEMPERATURE, HARD, SOFT, ATTENTION = 4.0, 0.1, 0.9, 1000.0
REFERENCE = "student only"
COLUMNS = ["name", "ratio", "low", "high", "milliseconds", "rounds"]
Step = Callable[[], float]


def network(blocks: int) -> SlimWRN:
    """A WRN of width 2: 2 blocks a group make the 16-2, 6 the 40-2."""
    return SlimWRN((32, 64, 128), blocks=blocks, classes=CLASSES, channels=3)


def sgd(model: nn.Module) -> torch.optim.SGD:
    """The optimizer of every job."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def soft_targets(student: Tensor, teacher: Tensor) -> Tensor:
    """The soft term of every job."""
    return soft_target_loss(student, teacher, temperature=TEMPERATURE)


def loss_by_hand(logits: Tensor, taught: Tensor, labels: Tensor) -> Tensor:
    """Labels and soft targets as people write them in plain PyTorch."""
    targets = (taught / TEMPERATURE).softmax(1)
    soft = F.kl_div((logits / TEMPERATURE).log_softmax(1), targets, reduction="batchmean")
    return HARD * F.cross_entropy(logits, labels) + SOFT * TEMPERATURE**2 * soft


def terms(*, attention: bool, stored: bool = False) -> list[Term]:
    """Labels and soft targets, and attention transfer between three groups where asked."""
    parts = [label_term(HARD), logit_term("soft_targets", soft_targets, SOFT)]
    if attention:
        maps = AttentionMap() if stored else None
        parts.append(layer_term("attention", attention_transfer_loss, GROUPS, ATTENTION, keep=maps))
    return parts


def fit_job(model: nn.Module, images: Tensor, labels: Tensor, engine: Engine | None = None) -> Step:
    """A step as `fit` takes it."""
    optimizer = sgd(model)
    run = Run(engine or Engine(), model, optimizer)
    batch = Batch(images, labels, torch.arange(len(labels)))
    model.train()

    def step() -> float:
        run.zero_grad()
        loss = run.forward(batch)
        run.backward(loss)
        parts = run.check_finite(loss, run.clip(), batch, "a step")
        run.step(optimizer)
        return sum(parts.values())

    return step


def hand_job(student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Live distillation in plain PyTorch."""
    optimizer = sgd(student)
    student.train()
    teacher.eval()

    def step() -> float:
        with torch.no_grad():
            taught = teacher(images)
        optimizer.zero_grad()
        total = loss_by_hand(student(images), taught, labels)
        total.backward()
        optimizer.step()
        return total.item()

    return step


def torchdistill_job(
    student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, *, attention: bool
) -> Step:
    """Live distillation by torchdistill: the two calls that its scripts make for a batch."""
    from torchdistill.core.distillation import DistillationBox

    logits = {f"{side}_module_path": "." for side in ("student", "teacher")}
    logits |= {f"{side}_module_io": "output" for side in ("student", "teacher")}
    kd = {"key": "KDLoss", "kwargs": logits | {"temperature": TEMPERATURE, "alpha": HARD}}
    sub_terms: dict[str, Any] = {"kd": {"criterion": kd, "weight": 1.0}}
    hooks: dict[str, Any] = {}
    if attention:
        pairs = {
            name: {side: {"io": "output", "path": name} for side in ("student", "teacher")}
            for name in GROUPS
        }
        at = {"key": "ATLoss", "kwargs": {"at_pairs": pairs, "mode": "code"}}
        sub_terms["at"] = {"criterion": at, "weight": ATTENTION}
        hooks = {"forward_hook": {"output": GROUPS}}
    forward = {"forward_proc": "forward_batch_only"}
    config = {
        "num_epochs": 1,
        "teacher": hooks | forward | {"requires_grad": False},
        "student": hooks | forward,
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": sub_terms}},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.01, "momentum": 0.9}},
    }
    # Its hooks stay on the teacher for good, so it has one of its own.
    own = copy.deepcopy(teacher).eval()
    box = DistillationBox(own, student, {}, config, torch.device("cpu"), None, False, 1)
    box.pre_epoch_process(epoch=0)

    def step() -> float:
        loss = box.forward_process(images, labels, supp_dict=None)
        box.post_forward_process(loss=loss)
        return loss.item()

    return step


def all_jobs(folder: str, batch: int = BATCH) -> dict[str, Step]:
    """Every job by name."""
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(CLASSES, (batch,))
    teacher, kept = network(6), terms(attention=True, stored=True)
    stored = cache_teacher(teacher, images, folder, kept, progress=False)
    both = (("KD", False), ("KD+AT", True))

    jobs: dict[str, Step] = {
        REFERENCE: fit_job(network(2), images, labels),
        "KD, live, loop by hand": hand_job(network(2), teacher, images, labels),
    }
    if importlib.util.find_spec("torchdistill"):
        for name, attention in both:
            jobs[f"{name}, live, torchdistill"] = torchdistill_job(
                network(2), teacher, images, labels, attention=attention
            )
    else:
        print("torchdistill is not installed and is skipped: see benchmarks/requirements.txt.")
    for name, attention in both:
        for kind, source in (("live", teacher), ("stored", stored)):
            own = terms(attention=attention, stored=kind == "stored")
            jobs[f"{name}, {kind}"] = fit_job(Distiller(network(2), source, own), images, labels)
    for name, attention in both:
        own = terms(attention=attention, stored=True)
        model = Distiller(network(2).to(memory_format=torch.channels_last), stored, own)
        jobs[f"{name}, stored, bf16, channels last"] = fit_job(
            model, images.contiguous(memory_format=torch.channels_last), labels, Engine("bf16")
        )
    return jobs


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", help="write the table to this CSV file too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        jobs = all_jobs(folder)
        times = measure(jobs, arguments.rounds)

    lines: list[list[object]] = []
    for name, own in times.items():
        low, ratio, high = quartiles(own, times[REFERENCE])
        numbers = [f"{number:.3f}" for number in (ratio, low, high, statistics.median(own))]
        print(f"{name:36}{ratio:7.3f}  ({low:.3f} to {high:.3f}){statistics.median(own):9.1f} ms")
        lines.append([name, *numbers, arguments.rounds])
    if arguments.output:
        write(arguments.output, COLUMNS, lines)


if __name__ == "__main__":
    main()
