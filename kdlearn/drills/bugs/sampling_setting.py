"""Bug: two paths that should give one loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from kdlearn.drills.bugs.bug import Bug


@dataclass
class Settings:
    """What a trainer is called with; many libraries call both numbers a temperature."""

    temperature: float = 0.9  # of the text that the student samples
    chunk: int = 4


def broken(student_logits: Tensor, teacher_logits: Tensor, settings: Settings) -> Tensor:
    """The memory-saving path: reverse KL at T = 1, chunk by chunk, averaged over tokens."""
    total = torch.zeros((), dtype=student_logits.dtype)
    students = student_logits.split(settings.chunk)
    teachers = teacher_logits.detach().split(settings.chunk)
    for student, teacher in zip(students, teachers, strict=True):
        log_q = (student / settings.temperature).log_softmax(dim=-1)
        log_p = teacher.log_softmax(dim=-1)
        total = total + (log_q.exp() * (log_q - log_p)).sum()
    return total / len(student_logits)


def fixed(student_logits: Tensor, teacher_logits: Tensor, settings: Settings) -> Tensor:
    """The memory-saving path: reverse KL at T = 1, chunk by chunk, averaged over tokens."""
    total = torch.zeros((), dtype=student_logits.dtype)
    students = student_logits.split(settings.chunk)
    teachers = teacher_logits.detach().split(settings.chunk)
    for student, teacher in zip(students, teachers, strict=True):
        log_q = student.log_softmax(dim=-1)
        log_p = teacher.log_softmax(dim=-1)
        total = total + (log_q.exp() * (log_q - log_p)).sum()
    return total / len(student_logits)


def measure(function: Callable[..., Tensor]) -> float:
    """The loss of a student that is its teacher."""
    logits = 3 * torch.randn(10, 12, generator=Generator().manual_seed(0))
    return function(logits, logits, Settings()).item()


bug = Bug(
    id="sampling-setting",
    title="A perfect student with a loss",
    symptom=(
        "A trainer has a memory-saving path. With it, a student that is a copy of its teacher has "
        "a loss above 0, and the path without it gives 0."
    ),
    label="loss of a student that is its teacher",
    measure=measure,
    wrong=lambda loss: loss > 1e-3,
    broken=broken,
    fixed=fixed,
    faulty="log_q = (student / settings.temperature).log_softmax(dim=-1)",
    explanation=(
        "That temperature is the one for sampling text; the loss is defined at T = 1. A student "
        "equal to its teacher must have the loss 0: the cheapest test of a distillation loss, and "
        "it finds every difference between the two sides."
    ),
    seen=(
        "in code: huggingface/trl pull request 5731, where a fused path took the sampling "
        "temperature"
    ),
)
