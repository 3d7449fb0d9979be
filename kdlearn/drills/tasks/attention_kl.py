"""Drill: bring a transformer's attention maps to the teacher's."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.families import TOKENS, token_mean
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def attention_kl(student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """Return KL(teacher || student) of attention rows, averaged over all real queries of the batch.

    student_maps, teacher_maps: (B, heads, L, L) after the softmax, rows sum to 1; the numbers of
    heads differ, so average the heads of each side first. The teacher is a constant. mask: bool,
    (B, L), True at real tokens; padded queries do not count, and padded keys have probability 0 on
    both sides, where 0 · log 0 = 0. Guard the logarithms by 1e-12.
    """
    student = student_maps.mean(dim=1)
    teacher = teacher_maps.detach().mean(dim=1)
    log_ratio = teacher.clamp(min=1e-12).log() - student.clamp(min=1e-12).log()
    rows = (teacher * log_ratio).sum(dim=-1)
    return rows[mask].mean()


def example() -> Case:
    """Two sentences of three and of two tokens; two heads of the student, one of the teacher."""
    student = [
        [[0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]],
        [[0.5, 0.5, 0], [0.2, 0.8, 0], [0.6, 0.4, 0]],
    ]
    other = [
        [[0.3, 0.5, 0.2], [0.4, 0.4, 0.2], [0.3, 0.1, 0.6]],
        [[0.9, 0.1, 0], [0.4, 0.6, 0], [0.5, 0.5, 0]],
    ]
    teacher = [
        [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.5, 0.25, 0.25]],
        [[0.7, 0.3, 0], [0.5, 0.5, 0], [0.1, 0.9, 0]],
    ]
    ours = torch.tensor([student, other], dtype=torch.float64).transpose(0, 1)
    return {
        "student_maps": ours.contiguous(),
        "teacher_maps": torch.tensor(teacher, dtype=torch.float64)[:, None],
        "mask": torch.tensor([[True, True, True], [True, True, False]]),
    }


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


def edges() -> list[Edge]:
    """No padding, one sequence, a student that gives a key nothing."""
    case = example()
    student, teacher, mask = case["student_maps"], case["teacher_maps"], case["mask"]
    blind = student.clone()
    blind[0, :, 0] = torch.tensor([1e-5, 1 - 2e-5, 1e-5])
    return [
        Edge(
            "a batch without padding",
            {"student_maps": student[:1], "teacher_maps": teacher[:1], "mask": mask[:1]},
        ),
        Edge(
            "a student that gives a seen key almost nothing",
            case | {"student_maps": blind},
            "The guard of the logarithm decides there: 1e-12.",
        ),
        Edge("equal maps", case | {"student_maps": teacher.clone()}),
        Edge(
            "float32 maps",
            case | {"student_maps": student.float(), "teacher_maps": teacher.float()},
        ),
    ]


def family(wrong: Wrong, student_maps: Tensor, teacher_maps: Tensor, mask: Tensor) -> Tensor:
    """The loss with its switches."""
    heads = {
        "first-head": lambda maps: maps[:, 0],
        "heads-summed": lambda maps: maps.sum(1),
        "strongest-head": lambda maps: maps.amax(1),
    }
    joined = next((heads[name] for name in heads if name in wrong), lambda maps: maps.mean(1))
    s, t = joined(student_maps), joined(teacher_maps.detach())
    if {"softmax-twice", "softmax-on-student"} & wrong:
        s = s.softmax(-1)
    if {"softmax-twice", "softmax-on-teacher"} & wrong:
        t = t.softmax(-1)
    if "reversed" in wrong:
        s, t = t, s
    log_s, log_t = s.clamp(min=1e-12).log(), t.clamp(min=1e-12).log()
    if "guard-too-large" in wrong:
        log_s, log_t = (s + 1e-8).log(), (t + 1e-8).log()
    if "log-of-zero" in wrong:
        log_s, log_t = s.log(), t.log()
    if "gradient-nan" in wrong:
        log_s = torch.where(s > 0, s.log(), torch.full_like(s, 1e-12).log())
    if "probabilities-as-input" in wrong:
        log_s = s
    terms = t * (log_t - log_s)
    if "cross-entropy" in wrong:
        terms = -t * log_s
    if "symmetric" in wrong:
        terms = (t - s) * (log_t - log_s)
    if "squared-gap" in wrong:
        terms = (t - s).square()
    rows = terms.sum(-2 if "wrong-dimension" in wrong else -1)
    if "mean-over-keys" in wrong:
        rows = rows / mask.shape[1]
    if "mask-inverted" in wrong:
        mask = ~mask
    if "padding-counted" in wrong:
        mask = torch.ones_like(mask)
    return token_mean(wrong, rows[mask], mask)


drill = Drill(
    id="attention-kl",
    title="Match attention maps",
    task=(
        "Teacher and student are transformers with different numbers of heads. You have their "
        "attention maps, after the softmax, for a padded batch. Write the loss that makes each "
        "query of the student look where the teacher's looks."
    ),
    minutes=10,
    level="core",
    hints=(
        "What is a row of such a map? Which distance fits two of them, and in which direction?",
        "Padded keys have probability 0 on both sides. What is 0 times log 0 in floating point, "
        "and does masking afterwards help?",
        "Over which dimension do you sum, over which do you average, and by how many queries do "
        "you divide?",
    ),
    explanation=(
        "O(B h L²) time, the size of the maps. The maps are distributions already: no softmax "
        "here. Zeros at padded keys need care, since 0 · log 0 is NaN in floating point and NaN · "
        "0 stays NaN, so masking afterwards does not help. Averaging heads throws away what single "
        "heads do; with equal numbers of heads one would compare head with head, MiniLM "
        "adds relations of values, which need no equal widths, and its second version compares "
        "relations alone, which need no equal heads. The interviewer listens "
        "for: dimension of the sum, padded queries, zeros, and that flash kernels never form these "
        "maps."
    ),
    reference=attention_kl,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # softmax
        - softmax-twice: softmax is applied to maps that are softmaxed already: all rows become
          nearly uniform, padded keys get weight, and the loss is far too small.
        - softmax-on-student: softmax is applied to the student's maps, which are softmaxed already.
        - softmax-on-teacher: softmax is applied to the teacher's maps, which are softmaxed already.
        # direction
        - reversed: this is KL(student || teacher): the teacher's probabilities weigh the sum, so
          that the student must look wherever the teacher looks.
        - cross-entropy: this is the cross-entropy: the teacher's entropy is still in the value, so
          that it is not 0 for equal maps.
        - symmetric: both directions are added: only KL(teacher || student) is asked for.
        - squared-gap: this is the squared difference of the maps: rows are distributions, and a KL
          is asked for.
        - probabilities-as-input: F.kl_div wants the logarithms of the student's probabilities as
          its first argument, and got probabilities.
        # heads
        - first-head: only the first head of each side is used: average them.
        - heads-summed: the heads are summed, not averaged: rows no longer sum to 1.
        - strongest-head: the largest entry over the heads is taken, not the mean.
        # mask
        - padding-counted: padded queries count: their rows mean nothing, and the loss depends on
          how long the longest sentence of the batch is. Use the mask before the mean.
        - mask-inverted: the mask is inverted: it is True at real tokens.
        """
    )
    | TOKENS
    | switches(
        """
        # keys
        - mean-over-keys: the sum over keys became a mean: the loss is L times too small, and it
          shrinks with the padding. A KL divergence is a sum.
        - wrong-dimension: the sum runs over queries, not over keys: a row of the last dimension is
          the distribution.
        # guard
        - log-of-zero: 0 · log 0 is NaN in floating point: padded keys have probability 0 on both
          sides. Clamp before the logarithm, or use torch.special.xlogy.
        - guard-too-large: the guard of the logarithms is 1e-8 or more: the task says 1e-12, and a
          student that gives a key nothing is let off.
        - gradient-nan: the value is right and the gradient is NaN: the logarithm of 0 is repaired
          afterwards, and backward() still multiplies by its slope.
        """
    ),
    sizes=lambda case: {
        "B": len(case["mask"]),
        "L": case["mask"].shape[1],
        "N": int(case["mask"].sum()),
    },
    gradients=("student_maps",),
    detached=("teacher_maps",),
)
