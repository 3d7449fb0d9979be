"""Bug: a loss that grows with the length of the sentences."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.bugs.bug import Bug


def broken(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """The soft term for token classification; logits have shape (batch, tokens, classes)."""
    scaled = student_logits / temperature
    targets = (teacher_logits.detach() / temperature).softmax(dim=-1)
    log_q = scaled.log_softmax(dim=-1)
    divergence = F.kl_div(log_q, targets, reduction="batchmean")
    return temperature**2 * divergence


def fixed(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """The soft term for token classification; logits have shape (batch, tokens, classes)."""
    scaled = student_logits / temperature
    targets = (teacher_logits.detach() / temperature).softmax(dim=-1)
    log_q = scaled.log_softmax(dim=-1)
    divergence = F.kl_div(log_q, targets, reduction="none").sum(dim=-1).mean()
    return temperature**2 * divergence


def measure(function: Callable[..., Tensor]) -> float:
    """The loss of sentences four times as long, with the same tokens, over that of short ones."""
    generator = Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 8, 5, generator=generator)
    long = [side.repeat(1, 4, 1) for side in (student, 3 * teacher)]
    return (function(*long, 2.0) / function(student, 3 * teacher, 2.0)).item()


bug = Bug(
    id="long-sentences",
    title="Long sentences shout",
    symptom=(
        "A tagger is distilled. Batches of long sentences have a larger loss and push the weights "
        "further, although the student is no worse on them. Repeating each sentence four times "
        "should change nothing."
    ),
    label="loss of sentences four times as long / loss",
    measure=measure,
    wrong=lambda ratio: ratio > 2,
    broken=broken,
    fixed=fixed,
    faulty='divergence = F.kl_div(log_q, targets, reduction="batchmean")',
    explanation=(
        "'batchmean' divides by the first dimension alone, whatever follows. With (batch, tokens, "
        "classes) the tokens are summed. Sum over classes, then average over tokens, or flatten "
        "batch and tokens into one dimension first."
    ),
    seen="in code: neuralmagic/sparseml pull request 592",
)
