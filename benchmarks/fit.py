"""What a whole training with `kdlearn.training.fit` costs, as a multiple of the same loop by hand.

    OMP_NUM_THREADS=1 python benchmarks/fit.py

Small networks, where a step computes little and all that stands around it counts: an MLP of 64
hidden units (teacher 256) and a SmallCNN of width 8 (teacher 16), batches of 64 images of 16 x 16,
AdamW with the one-cycle schedule, labels alone or with soft targets of a live teacher. Both sides
train for as many steps from the same weights; the loop by hand reads its loss at each step, as
people do, and checks nothing. It is measured as people write it, with `AdamW(parameters)`, and with
`fused=True`, which `fit` chooses by itself. Everything runs in one process on one thread, in a new
random order each round; times are CPU times of the process, and a ratio is taken within a round.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from common import measure, quartiles
from step import loss_by_hand, terms
from torch import nn
from torch.nn import functional as F

from kdlearn.distill import Distiller
from kdlearn.models import SmallCNN
from kdlearn.training import fit

BATCH, RATE = 64, 3e-3
IMAGES, LABELS = torch.randn(4096, 1, 16, 16), torch.randint(10, (4096,))
Make = Callable[[], nn.Module]


def mlp(hidden: int) -> nn.Module:
    """A network of one hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(256, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def with_fit(make: Make, teacher: nn.Module | None, epochs: int) -> None:
    """Train with `fit`."""
    torch.manual_seed(0)
    model = make()
    if teacher is not None:
        model = Distiller(model, teacher, terms(attention=False))
    data = (IMAGES, LABELS)
    fit(model, data, epochs=epochs, batch_size=BATCH, learning_rate=RATE, progress=False)


def by_hand(make: Make, teacher: nn.Module | None, epochs: int, *, fused: bool) -> float:
    """Train with what `fit` does by default, written out in plain PyTorch."""
    torch.manual_seed(0)
    student = make().train()
    steps = epochs * len(IMAGES) // BATCH
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, fused=fused)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    total = 0.0
    for _ in range(epochs):
        for rows in torch.randperm(len(IMAGES)).split(BATCH):
            images, labels = IMAGES[rows], LABELS[rows]
            optimizer.zero_grad()
            if teacher is None:
                loss = F.cross_entropy(student(images), labels)
            else:
                with torch.no_grad():
                    taught = teacher(images)
                loss = loss_by_hand(student(images), taught, labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
    return total


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, make, large in (
        ("MLP", partial(mlp, 64), mlp(256)),
        ("SmallCNN", partial(SmallCNN, 8), SmallCNN(16)),
    ):
        for target, teacher in (("labels", None), ("soft targets", large.eval())):
            each = (make, teacher, arguments.epochs)
            by = {
                "AdamW(parameters)": partial(by_hand, *each, fused=False),
                "fused=True": partial(by_hand, *each, fused=True),
            }
            times = measure({"fit": partial(with_fit, *each), **by}, arguments.rounds)
            for loop in by:
                low, ratio, high = quartiles(times["fit"], times[loop])
                print(f"{name:10}{target:14}{loop:19}{ratio:6.3f}  ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
