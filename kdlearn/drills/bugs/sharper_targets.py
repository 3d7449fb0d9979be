"""Bug: soft targets that are harder than hard ones."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from kdlearn.drills.bugs.bug import Bug


def broken(teacher: nn.Module, images: Tensor, temperature: float) -> Tensor:
    """Soft targets for a whole data set, batch by batch."""
    teacher.eval()
    stored = []
    with torch.no_grad():
        for batch in images.split(64):
            logits = teacher(batch)
            softened = logits * temperature
            softened = softened - softened.amax(dim=1, keepdim=True)
            powers = softened.exp()
            stored.append(powers / powers.sum(dim=1, keepdim=True))
    return torch.cat(stored)


def fixed(teacher: nn.Module, images: Tensor, temperature: float) -> Tensor:
    """Soft targets for a whole data set, batch by batch."""
    teacher.eval()
    stored = []
    with torch.no_grad():
        for batch in images.split(64):
            logits = teacher(batch)
            softened = logits / temperature
            softened = softened - softened.amax(dim=1, keepdim=True)
            powers = softened.exp()
            stored.append(powers / powers.sum(dim=1, keepdim=True))
    return torch.cat(stored)


def measure(function: Callable[..., Tensor]) -> float:
    """The mean largest probability at T = 4 of a teacher that is about 60 % sure at T = 1."""
    generator = Generator().manual_seed(0)
    images = torch.randn(100, 10, generator=generator)
    return function(nn.Identity(), 2 * images, 4.0).amax(dim=1).mean().item()


bug = Bug(
    id="sharper-targets",
    title="Soft targets, hard as stone",
    symptom=(
        "The stored soft targets at T = 4 look one-hot, and the student learns no more from them "
        "than from labels. At T = 1 the teacher is far less sure."
    ),
    label="largest probability at T = 4, on average",
    measure=measure,
    wrong=lambda largest: largest > 0.8,
    broken=broken,
    fixed=fixed,
    faulty="softened = logits * temperature",
    explanation=(
        "A temperature divides. Multiplying stretches the differences between logits, so the "
        "distribution gets sharper with T. The test is one line: at T = 100 all probabilities must "
        "be nearly equal."
    ),
    seen="",
)
