"""Bug: NaN in the first step."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from kdlearn.drills.bugs.bug import Bug


def broken(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """A distillation trainer's divergence, after a review asked for logarithms on both sides."""
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    divergence = nn.KLDivLoss(reduction="batchmean")
    return temperature**2 * divergence(log_q, log_p)


def fixed(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """A distillation trainer's divergence, after a review asked for logarithms on both sides."""
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    divergence = nn.KLDivLoss(reduction="batchmean", log_target=True)
    return temperature**2 * divergence(log_q, log_p)


def measure(function: Callable[..., Tensor]) -> float:
    """The loss of two random models."""
    generator = Generator().manual_seed(0)
    return function(*torch.randn(2, 16, 10, generator=generator)).item()


bug = Bug(
    id="nan-from-the-start",
    title="NaN, although nothing is large",
    symptom=(
        "The loss is NaN in the first step. Logits are between -4 and 4, nothing overflows, no "
        "learning rate was involved."
    ),
    label="loss",
    measure=measure,
    wrong=math.isnan,
    broken=broken,
    fixed=fixed,
    faulty='divergence = nn.KLDivLoss(reduction="batchmean")',
    explanation=(
        "The target is in logarithms and the loss was not told: it takes the logarithm of negative "
        "numbers. Say log_target=True, or give probabilities; a change of one side needs a change "
        "of the other."
    ),
    seen="proposed: nlp-with-transformers/notebooks issue 94, of code that was right",
)
