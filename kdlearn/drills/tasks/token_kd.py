"""Drill: the distillation loss of a language model, token by token, without the padding."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import TOKENS, chosen, divergence_knobs, side_of, terms_of, token_mean
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def token_kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Return T² · KL(teacher || student), averaged over the tokens that count.

    student_logits, teacher_logits: shape (B, L, V). The teacher is a constant. Softened by T on
    both sides.
    mask: torch.bool, shape (B, L), True where a token counts. All tokens of the batch that count
    weigh the same. What stands at the other positions must not matter: their logits may be infinite
    or NaN, and their gradient is 0.
    """
    log_student = F.log_softmax(student_logits[mask] / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher_logits.detach()[mask] / temperature, dim=-1)
    kl = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * kl


def answer_mask(generator: Generator, batch: int, length: int) -> Tensor:
    """Answers of different lengths, after a prompt and before padding; the first has none."""
    start = draws.whole(generator, 0, length // 3, batch, 1)
    end = start + 1 + draws.whole(generator, 0, length // 2, batch, 1)
    end[0] = length
    position = torch.arange(length)
    return (position >= start) & (position < end)


def example() -> Case:
    """Two sequences of three positions, two tokens; three positions count."""
    student = torch.tensor(
        [[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], [[0.0, 3.0], [2.0, 0.0], [0.0, 1.0]]]
    )
    teacher = torch.tensor(
        [[[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]], [[1.0, 1.0], [4.0, 0.0], [0.0, 0.0]]]
    )
    mask = torch.tensor([[False, True, True], [True, False, False]])
    return {
        "student_logits": student.double(),
        "teacher_logits": teacher.double(),
        "mask": mask,
        "temperature": 2.0,
    }


def cases(generator: Generator) -> list[Case]:
    """Batches of sequences whose answers differ in length."""
    return [
        {
            "student_logits": draws.normal(generator, batch, length, vocabulary, scale=2),
            "teacher_logits": draws.normal(generator, batch, length, vocabulary, scale=3),
            "mask": answer_mask(generator, batch, length),
            "temperature": draws.real(generator, 1.5, 5),
        }
        for batch, length, vocabulary in (
            (4, 7, 9),
            (2, 5, 12),
            (3, 11, 4),
            (6, 4, 5),
            (5, 13, 7),
            (7, 6, 3),
        )
    ]


def edges() -> list[Edge]:
    """Padding whose logits are no numbers, as attention masks leave it; one token; no padding."""
    case = example()
    student, teacher, mask = case["student_logits"], case["teacher_logits"], case["mask"]
    padding = ~mask[..., None]
    one = torch.zeros_like(mask)
    one[0, 1] = True
    hint = "Select with logits[mask] before anything is computed."
    return [
        Edge(
            "a student whose padding is NaN",
            case | {"student_logits": student.masked_fill(padding, torch.nan)},
            hint,
        ),
        Edge(
            "a teacher whose padding is -inf",
            case | {"teacher_logits": teacher.masked_fill(padding, -torch.inf)},
            hint,
        ),
        Edge(
            "a student whose padding is infinite",
            case | {"student_logits": student.masked_fill(padding, torch.inf)},
            hint,
        ),
        Edge("one token that counts", case | {"mask": one}),
        Edge("a batch without padding", case | {"mask": torch.ones_like(mask)}),
        Edge(
            "one sequence",
            case | {"student_logits": student[:1], "teacher_logits": teacher[:1], "mask": mask[:1]},
        ),
        Edge("T = 1", case | {"temperature": 1.0}, without="the temperature and its factor"),
        Edge(
            "float32 logits",
            case | {"student_logits": student.float(), "teacher_logits": teacher.float()},
        ),
    ]


def _terms(wrong: Wrong, s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """What each class adds."""
    dim = {"over-positions": 1, "over-batch": 0}
    found = next((dim[name] for name in dim if name in wrong), None)
    (s, log_q), (t, log_p) = (
        side_of(name, wrong, side, temperature) for name, side in (("student", s), ("teacher", t))
    )
    if found is not None and s.dim() == 3:
        log_q, log_p = s.log_softmax(found), t.log_softmax(found)
    return terms_of(wrong, (s, log_q), (t, log_p))


def family(
    wrong: Wrong, student: Tensor, teacher: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """The loss with its switches."""
    teacher = teacher.detach()
    if "padding-counted" in wrong:
        mask = torch.ones_like(mask)
    if "mask-inverted" in wrong:
        mask = ~mask
    if "first-row-mask" in wrong:
        mask = mask[:1].expand_as(mask)
    if "shifted" in wrong:
        student, teacher, mask = student[:, :-1], teacher[:, :-1], mask[:, 1:]
    if "shifted-mask" in wrong:
        mask = mask.roll(1, 1)
    if {"over-positions", "over-batch", "nan-times-zero", "nan-gradient"} & wrong:
        every = _terms(wrong, student, teacher, temperature).sum(-1)
        rows = every[mask]
        if "nan-times-zero" in wrong:
            rows = rows + 0 * every.sum()
    else:
        rows = _terms(wrong, student[mask], teacher[mask], temperature).sum(-1)
    every_number = {
        "mean-reduction": len(rows) * student.shape[-1],
        "divided-by-everything": mask.numel() * student.shape[-1],
    }
    over = next((every_number[name] for name in every_number if name in wrong), None)
    loss = rows.sum() / over if over else token_mean(wrong, rows, mask)
    power = {"t-squared-missing": 0, "t-not-squared": 1, "divided-by-t-squared": -2}
    return loss * temperature ** next((power[name] for name in power if name in wrong), 2)


drill = Drill(
    id="token-kd",
    title="Distillation of a language model, token by token",
    task=(
        "Student and teacher are language models that read the same tokens: logits of shape $(B, "
        "L, V)$. Write the soft-target loss at temperature $T$ over the tokens of the answers; "
        "`mask` says which these are. Sequences have different lengths, and nobody promises what "
        "the models say about padding."
    ),
    minutes=8,
    level="core",
    hints=(
        "The mean goes over tokens, not over sequences: by what does 'batchmean' divide when the "
        "input has three dimensions?",
        "NaN times 0 is NaN, so multiplying by the mask comes too late. What can a mask do "
        "besides multiplying?",
        "Once only the tokens that count are left, which loss of a classifier is it, and with how "
        "many samples?",
    ),
    explanation=(
        "`logits[mask]` makes one row of each token that counts, and the rest is the loss of a "
        "classifier with N samples: O(NV) time and memory instead of O(BLV), which matters as V is "
        "50,000 or more. Selecting first is also what is safe: a NaN under a zero is still a NaN, "
        "and `torch.where` after the loss repairs the value but not the gradient. 'batchmean' "
        "divides by the first dimension whatever follows, so on $(B, L, V)$ the loss grows with "
        "the length. A mean per sequence and then over sequences is another loss: tokens of short "
        "answers weigh more. Each is used; say which one you mean, since over several devices N "
        "must be summed before dividing. The interviewer listens for: the denominator, padding, "
        "and whether the logits need a shift (no: both models predict the same next token)."
    ),
    reference=token_kd_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=chosen(
        divergence_knobs(sizes="V = {V}"),
        "reduction",
        "dimension",
        "sign",
        "guard-in-logarithm",
        "log-of-softmax",
        "softmax-twice",
    )
    | TOKENS
    | switches(
        """
        # vocabulary
        - mean-reduction: your loss is V = {V} times too small: the mean runs over the vocabulary
          too. Sum over it, average over tokens.
        - divided-by-everything: the sum is divided by B · L · V, as .mean() of a masked tensor
          does: divide by the N = {N} tokens that count.
        # mask
        - padding-counted: the mask is not used: prompt and padding are trained on as well. Select
          the tokens with logits[mask].
          Seen in code: jxiw/MambaInLlama issue 11
        - mask-inverted: you average over the positions where the mask is False: here True means
          that a token counts. Padding masks of nn.MultiheadAttention are the other way round.
        - shifted: the positions are shifted by one against the mask: student and teacher both
          predict the same next token, so nothing is to be shifted.
        - shifted-mask: the mask is shifted by one: it belongs to the positions as they stand.
        - first-row-mask: the mask of the first sequence is used for all.
        # padding
        - nan-times-zero: the loss is not finite as soon as a padded position holds NaN or only
          -inf: 0 · NaN is NaN, so multiplying by the mask comes too late. Select with logits[mask]
          before the softmax.
        - nan-gradient: the loss is right, but its gradient is NaN where padding holds NaN: dropping
          the losses of padding afterwards repairs the value, and backward() still multiplies their
          NaN by 0. Select the logits before the softmax.
        # dimension
        - over-positions: the softmax runs over the positions: the vocabulary is the last dimension.
        - over-batch: the softmax runs over the batch: the vocabulary is the last dimension.
        """
    ),
    sizes=lambda case: {
        "B": case["mask"].shape[0],
        "L": case["mask"].shape[1],
        "V": case["student_logits"].shape[2],
        "N": int(case["mask"].sum()),
        "T": case["temperature"],
    },
    gradients=("student_logits",),
    detached=("teacher_logits",),
)
