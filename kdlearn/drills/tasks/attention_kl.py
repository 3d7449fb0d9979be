"""Drill: bring a transformer's attention maps to the teacher's."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def attention_kl(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Return KL(teacher || student) of attention rows, averaged over all real queries of the batch.

    student_maps, teacher_maps: (B, heads, L, L) after the softmax, rows sum to 1; the numbers of heads differ, so
    average the heads of each side first. The teacher is a constant. mask: bool, (B, L), True at real tokens; padded
    queries do not count, and padded keys have probability 0 on both sides, where 0 · log 0 = 0. Guard the
    logarithms by 1e-12.
    """
    student = student_maps.mean(dim=1)
    teacher = teacher_maps.detach().mean(dim=1)
    log_ratio = teacher.clamp(min=1e-12).log() - student.clamp(min=1e-12).log()
    rows = (teacher * log_ratio).sum(dim=-1)
    return rows[mask].mean()


def _maps(generator: Generator, heads: int, mask: Tensor) -> Tensor:
    """Attention that gives padded keys exactly nothing."""
    batch, length = mask.shape
    scores = draws.normal(generator, batch, heads, length, length, scale=2)
    return scores.masked_fill(~mask[:, None, None, :], float("-inf")).softmax(dim=-1)


def cases(generator: Generator) -> list[Case]:
    """Padded batches with unequal numbers of heads."""
    made = []
    for batch, ours, theirs, length in ((3, 2, 4, 6), (2, 3, 5, 8), (4, 1, 2, 5)):
        lengths = draws.whole(generator, 2, length - 1, batch)
        lengths[0] = length
        mask = torch.arange(length) < lengths[:, None]
        made.append(
            {
                "student_maps": _maps(generator, ours, mask),
                "teacher_maps": _maps(generator, theirs, mask),
                "mask": mask,
            }
        )
    return made


drill = Drill(
    id="attention-kl",
    title="Match attention maps",
    task=(
        "Teacher and student are transformers with different numbers of heads. You have their attention maps, "
        "after the softmax, for a padded batch. Write the loss that makes each query of the student look where "
        "the teacher's looks."
    ),
    minutes=10,
    level="core",
    hints=(
        "What is a row of such a map? Which distance fits two of them, and in which direction?",
        "Average heads first; sum over keys; then leave out the padded queries before the mean.",
        "rows = (t * (t.clamp(min=1e-12).log() - s.clamp(min=1e-12).log())).sum(-1); rows[mask].mean()",
    ),
    explanation=(
        "O(B h L²) time, the size of the maps. The maps are distributions already: no softmax here. Zeros at "
        "padded keys need care, since 0 · log 0 is NaN in floating point and NaN · 0 stays NaN, so masking "
        "afterwards does not help. Averaging heads throws away what single heads do; with equal numbers of heads "
        "one would compare head with head, and MiniLM compares relations of values instead, which need no equal "
        "widths. The interviewer listens for: dimension of the sum, padded queries, zeros, and that flash kernels "
        "never form these maps."
    ),
    reference=attention_kl,
    cases=cases,
    sizes=lambda case: {
        "B": len(case["mask"]),
        "L": case["mask"].shape[1],
        "tokens": int(case["mask"].sum()),
    },
    gradients=("student_maps",),
    detached=("teacher_maps",),
)


@drill.alternative
def row_by_row(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Loop over the real queries."""
    student, teacher = student_maps.mean(1), teacher_maps.detach().mean(1)
    total = torch.zeros((), dtype=student.dtype)
    for b, i in mask.nonzero().tolist():
        p, q = teacher[b, i], student[b, i]
        seen = p > 0
        total = total + (p[seen] * (p[seen].log() - q[seen].clamp(min=1e-12).log())).sum()
    return total / mask.sum()


@drill.alternative
def cross_minus_entropy(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy less entropy, with weights in place of indexing."""
    student = torch.einsum("bhij->bij", student_maps) / student_maps.shape[1]
    teacher = torch.einsum("bhij->bij", teacher_maps.detach()) / teacher_maps.shape[1]
    cross = -(teacher * student.clamp(min=1e-12).log()).sum(-1)
    entropy = -torch.special.xlogy(teacher, teacher).sum(-1)
    weights = mask.to(student.dtype)
    return ((cross - entropy) * weights).sum() / weights.sum()


def _loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The right loss of maps without heads."""
    return attention_kl(student[:, None], teacher[:, None], mask)


@drill.mistake(
    "softmax-twice",
    "softmax is applied to maps that are softmaxed already: all rows become nearly uniform, padded keys get "
    "weight, and the loss is far too small.",
)
def twice(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Apply softmax to attention."""
    return _loss(student_maps.mean(1).softmax(-1), teacher_maps.mean(1).softmax(-1), mask)


@drill.mistake(
    "reversed",
    "this is KL(student || teacher): the teacher's probabilities weigh the sum, so that the student must look "
    "wherever the teacher looks.",
)
def swapped(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Weigh by the student."""
    s, t = student_maps.mean(1), teacher_maps.detach().mean(1)
    rows = (s * (s.clamp(min=1e-12).log() - t.clamp(min=1e-12).log())).sum(-1)
    return rows[mask].mean()


@drill.mistake(
    "padding-counted",
    "padded queries count: their rows mean nothing, and the loss depends on how long the longest sentence of the "
    "batch is. Use the mask before the mean.",
)
def padded(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Average over all queries."""
    return attention_kl(student_maps, teacher_maps, torch.ones_like(mask))


@drill.mistake(
    "padding-in-the-mean",
    "padded queries are zeroed but still counted in the denominator: divide by the number of real tokens, not by "
    "B · L.",
)
def wrong_denominator(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Mask, then take the mean over everything."""
    return attention_kl(student_maps, teacher_maps, mask) * mask.double().mean()


@drill.mistake(
    "mean-over-keys",
    "the sum over keys became a mean: the loss is L times too small, and it shrinks with the padding. A KL "
    "divergence is a sum.",
)
def mean_over_keys(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Divide by the keys too."""
    return attention_kl(student_maps, teacher_maps, mask) / mask.shape[1]


@drill.mistake(
    "log-of-zero",
    "0 · log 0 is NaN in floating point: padded keys have probability 0 on both sides. Clamp before the "
    "logarithm, or use torch.special.xlogy.",
)
def unguarded(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Take the logarithm of zeros."""
    s, t = student_maps.mean(1), teacher_maps.detach().mean(1)
    return (t * (t.log() - s.log())).sum(-1)[mask].mean()


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant here. Use teacher_maps.detach().",
)
def live_teacher(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Leave the teacher in the graph."""
    s, t = student_maps.mean(1), teacher_maps.mean(1)
    rows = (t * (t.clamp(min=1e-12).log() - s.clamp(min=1e-12).log())).sum(-1)
    return rows[mask].mean()
