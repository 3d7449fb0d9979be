"""Bug: a student that never changes."""

import copy
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from kdlearn.drills.bugs.bug import Bug


def broken(student: nn.Module, teacher: nn.Module, images: Tensor, steps: int = 20) -> None:
    """Distill at T = 3."""
    models = {"small": student, "large": teacher}
    learner, judge = models["large"], models["small"]
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.5)
    for _ in range(steps):
        with torch.no_grad():
            targets = (judge(images) / 3).softmax(dim=1)
        logs = (learner(images) / 3).log_softmax(dim=1)
        loss = 9 * F.kl_div(logs, targets, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def fixed(student: nn.Module, teacher: nn.Module, images: Tensor, steps: int = 20) -> None:
    """Distill at T = 3."""
    models = {"small": student, "large": teacher}
    learner, judge = models["small"], models["large"]
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.5)
    for _ in range(steps):
        with torch.no_grad():
            targets = (judge(images) / 3).softmax(dim=1)
        logs = (learner(images) / 3).log_softmax(dim=1)
        loss = 9 * F.kl_div(logs, targets, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measure(function: Callable[..., None]) -> float:
    """How far the student's weights moved."""
    generator = Generator().manual_seed(0)
    student, teacher = nn.Linear(6, 4), nn.Linear(6, 4)
    for parameter in (*student.parameters(), *teacher.parameters()):
        nn.init.normal_(parameter, generator=generator)
    before = copy.deepcopy(student.weight.data)
    function(student, teacher, torch.randn(32, 6, generator=generator))
    return (student.weight.data - before).norm().item()


bug = Bug(
    id="nothing-learned",
    title="The loss falls, the student stays",
    symptom=(
        "The loss falls nicely. The saved student is, to the last bit, the one that training began "
        "with."
    ),
    label="how far the student's weights moved",
    measure=measure,
    wrong=lambda moved: moved == 0,
    broken=broken,
    fixed=fixed,
    faulty='learner, judge = models["large"], models["small"]',
    explanation=(
        "Teacher and student are swapped: the large network learns to imitate the small one, and "
        "nothing complains, as the loss does fall. Assert after the first step that the student "
        "moved and the teacher did not."
    ),
    seen="in code: keras-team/keras-io commit 1da2fde",
)
