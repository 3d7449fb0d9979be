"""What each loss costs, as a share of one training step of a student; and NST and FSP by products.

    OMP_NUM_THREADS=1 python benchmarks/losses.py

The student is a WRN-16-2 on a batch of 128 images of 3x32x32. A loss is timed forward and backward, on
tensors of the shapes that this network has. Everything runs on one thread, in a new random order each
round; times are CPU times of the process, and the table has their medians, so other work on the
machine shifts all rows alike.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn import losses
from kdlearn.models import SlimWRN

BATCH, CLASSES = 128, 100
GROUPS = [(32, 32), (64, 16), (128, 8)]  # channels, side
Job = Callable[[], Tensor]


def student_step() -> Job:
    """Forward, cross-entropy, backward and SGD of the student."""
    model = SlimWRN((32, 64, 128), blocks=2, classes=CLASSES, channels=3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,))

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimiser.step()
        return loss

    return step


def loss_job(loss: Callable[[Tensor, Tensor], Tensor], *shapes: tuple[int, ...]) -> Job:
    """Forward and backward of a loss, summed over one pair of tensors for each shape."""
    pairs = [(torch.randn(shape, requires_grad=True), torch.randn(shape)) for shape in shapes]

    def job() -> Tensor:
        for student, _ in pairs:
            student.grad = None
        total = torch.stack([loss(student, teacher) for student, teacher in pairs]).sum()
        total.backward()
        return total

    return job


def flow(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """FSP between a layer and a layer of the same shape."""
    return lambda student, teacher: loss((student, student.flip(1)), (teacher, teacher.flip(1)))


def broadcast_nst(student: Tensor, teacher: Tensor) -> Tensor:
    """The definition of NST, with a tensor of every pair of channels at every position."""

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return (left[:, None] * right[:, :, None]).sum(-1).square().mean()

    student, teacher = (F.normalize(side.flatten(2), dim=2) for side in (student, teacher))
    return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)


def broadcast_fsp(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """The definition of FSP, with a tensor of every pair of channels at every position."""

    def matrix(first: Tensor, last: Tensor) -> Tensor:
        return (first.flatten(2)[:, :, None] * last.flatten(2)[:, None]).mean(-1)

    return F.mse_loss(matrix(*student), matrix(*teacher))


def medians(jobs: dict[str, Job], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each job, all of them once a round in random order."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name in random.sample(list(jobs), len(jobs)):
            start = time.process_time()
            jobs[name]()
            if turn:  # the first round warms up
                times[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def jobs_of_all_losses() -> dict[str, Job]:
    """Every loss on the shapes of the student's layers, one job each."""
    groups = [(BATCH, channels, side, side) for channels, side in GROUPS]
    labels = torch.randint(CLASSES, (BATCH,))
    wide = (BATCH, 64, 32, 32)
    logits, embeddings = (BATCH, CLASSES), (BATCH, 128)
    dkd: Callable[[Tensor, Tensor], Tensor] = lambda s, t: losses.dkd_loss(s, t, labels)  # noqa: E731
    return {
        "soft targets": loss_job(losses.soft_target_loss, logits),
        "DKD": loss_job(dkd, logits),
        "DIST": loss_job(losses.dist_loss, logits),
        "attention transfer, 3 groups": loss_job(losses.attention_transfer_loss, *groups),
        "hint, group 2": loss_job(losses.hint_loss, groups[1]),
        "HCL, 3 groups": loss_job(losses.hcl_loss, *groups),
        "activation boundaries, 3 groups": loss_job(losses.activation_boundary_loss, *groups),
        "similarity preserving, group 3": loss_job(losses.similarity_preserving_loss, groups[2]),
        "RKD distance": loss_job(losses.rkd_distance_loss, embeddings),
        "RKD angle": loss_job(losses.rkd_angle_loss, embeddings),
        "PKT": loss_job(losses.pkt_loss, embeddings),
        "correlation congruence": loss_job(losses.correlation_congruence_loss, embeddings),
        "contrastive": loss_job(losses.contrastive_loss, embeddings),
        "NST, 64 channels, 32x32": loss_job(losses.nst_loss, wide),
        "FSP, 64 channels, 32x32": loss_job(flow(losses.fsp_loss), wide),
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)

    table = medians({"student step": student_step()} | jobs_of_all_losses(), rounds)
    step = table["student step"]
    print(f"{'loss, forward and backward':36}{'ms':>8}{'of a step':>12}")
    for name, value in table.items():
        print(f"{name:36}{value:8.2f}{100 * value / step:11.2f}%")

    small = (16, 64, 32, 32)
    forms = {
        "NST, products": loss_job(losses.nst_loss, small),
        "NST, broadcast": loss_job(broadcast_nst, small),
        "FSP, products": loss_job(flow(losses.fsp_loss), small),
        "FSP, broadcast": loss_job(flow(broadcast_fsp), small),
    }
    table = medians(forms, rounds)
    print(f"\n{'batch of 16, 64 channels, 32x32':36}{'ms':>8}{'broadcast / products':>24}")
    for name in ("NST", "FSP"):
        products, broadcast = table[f"{name}, products"], table[f"{name}, broadcast"]
        print(f"{name:36}{products:8.2f}{broadcast / products:23.1f}x")


if __name__ == "__main__":
    main()
