"""Bug: a loss with a floor."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.drills.bugs.bug import Bug


def broken(student: nn.Module, images: Tensor, labels: Tensor, steps: int = 200) -> float:
    """Train on labels, and return the loss at the end."""
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    loss = torch.zeros(())
    for _ in range(steps):
        probabilities = student(images).softmax(dim=1)
        loss = F.cross_entropy(probabilities, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def fixed(student: nn.Module, images: Tensor, labels: Tensor, steps: int = 200) -> float:
    """Train on labels, and return the loss at the end."""
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    loss = torch.zeros(())
    for _ in range(steps):
        logits = student(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def measure(function: Callable[..., float]) -> float:
    """The loss at the end on ten images that are easy to tell apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = nn.Linear(10, 10)
    return function(student, torch.eye(10), torch.arange(10))


bug = Bug(
    id="stuck-loss",
    title="A loss that gets stuck",
    symptom=(
        "Ten images, ten classes, one linear layer, which can learn them by heart. All ten are "
        "right after training, but the loss does not fall below 1.46."
    ),
    label="loss after 200 steps",
    measure=measure,
    wrong=lambda loss: loss > 1.4,
    broken=broken,
    fixed=fixed,
    faulty="probabilities = student(images).softmax(dim=1)",
    explanation=(
        "cross_entropy applies softmax itself. Given probabilities, its largest input is 1 and its "
        "smallest 0, so the best it can see is e / (e + 9): the loss has the floor log(1 + 9/e) = "
        "1.46. A floor that depends on the number of classes is the sign of a second softmax. (The "
        "next line is innocent: it is given the wrong thing.)"
    ),
    seen="proposed: haitongli/knowledge-distillation-pytorch issue 10",
)
