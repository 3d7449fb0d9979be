"""Drill: the distillation loss of a language model, token by token, without the padding."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Solution


def token_kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Return T² · KL(teacher || student), averaged over the tokens that count.

    student_logits, teacher_logits: shape (B, L, V). The teacher is a constant. Softened by T on both sides.
    mask: torch.bool, shape (B, L), True where a token counts. All tokens of the batch that count weigh the same.
    What stands at the other positions must not matter: their logits may be infinite or NaN, and their gradient is 0.
    """
    log_student = F.log_softmax(student_logits[mask] / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher_logits.detach()[mask] / temperature, dim=-1)
    kl = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * kl


def answer_mask(generator: Generator, batch: int, length: int) -> Tensor:
    """Answers of different lengths, each after a prompt and before padding; the first has no padding."""
    start = draws.whole(generator, 0, length // 3, batch, 1)
    end = start + 1 + draws.whole(generator, 0, length // 2, batch, 1)
    end[0] = length
    position = torch.arange(length)
    return (position >= start) & (position < end)


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


def broken_padding(generator: Generator) -> list[Case]:
    """Padding whose logits are no numbers on one side, as an attention mask over everything leaves them."""
    case = cases(generator)[0]
    padding = ~case["mask"][..., None]
    return [
        case | {"student_logits": case["student_logits"].masked_fill(padding, torch.nan)},
        case | {"teacher_logits": case["teacher_logits"].masked_fill(padding, -torch.inf)},
    ]


drill = Drill(
    id="token-kd",
    title="Distillation of a language model, token by token",
    task=(
        "Student and teacher are language models that read the same tokens: logits of shape $(B, L, V)$. Write the "
        "soft-target loss at temperature $T$ over the tokens of the answers; `mask` says which these are. Sequences "
        "have different lengths, and nobody promises what the models say about padding."
    ),
    minutes=8,
    level="core",
    hints=(
        "The mean goes over tokens, not over sequences: by what does 'batchmean' divide when the input has three "
        "dimensions?",
        "NaN · 0 is NaN, so multiplying by the mask comes too late. Select first: logits[mask] has shape (N, V).",
        "s, t = student_logits[mask], teacher_logits.detach()[mask]; then the loss of a classifier with N samples: "
        "T² · F.kl_div(log_softmax(s / T), log_softmax(t / T), reduction='batchmean', log_target=True)",
    ),
    explanation=(
        "`logits[mask]` makes one row of each token that counts, and the rest is the loss of a classifier with N "
        "samples: O(NV) time and memory instead of O(BLV), which matters as V is 50,000 or more. Selecting first is "
        "also what is safe: a NaN under a zero is still a NaN, and `torch.where` after the loss repairs the value but "
        "not the gradient. 'batchmean' divides by the first dimension whatever follows, so on $(B, L, V)$ the loss "
        "grows with the length. A mean per sequence and then over sequences is another loss: tokens of short answers "
        "weigh more. Each is used; say which one you mean, since over several devices N must be summed before "
        "dividing. The interviewer listens for: the denominator, padding, and whether the logits need a shift (no: "
        "both models predict the same next token)."
    ),
    reference=token_kd_loss,
    cases=cases,
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


@drill.must(
    "gives a finite loss whatever stands at padding",
    "nan-times-zero",
    "the loss is not finite as soon as a padded position holds NaN or only -inf: 0 · NaN is NaN, so multiplying by "
    "the mask comes too late. Select with logits[mask] before the softmax.",
)
def finite_loss(solution: Solution, generator: Generator) -> bool:
    """Look at the loss of batches with broken padding."""
    losses = [drill.call(solution, case) for case in broken_padding(generator)]
    return all(bool(torch.as_tensor(loss).isfinite()) for loss in losses)


@drill.must(
    "gives a finite gradient whatever stands at padding",
    "nan-gradient",
    "the loss is right, but its gradient is NaN where padding holds NaN: dropping the losses of padding afterwards "
    "repairs the value, and backward() still multiplies their NaN by 0. Select the logits before the softmax.",
)
def finite_gradient(solution: Solution, generator: Generator) -> bool:
    """Look at the gradient of batches with broken padding, if the loss is finite and has one."""
    for case in broken_padding(generator):
        student = case["student_logits"].requires_grad_()
        loss = torch.as_tensor(drill.call(solution, case))
        if loss.isfinite() and loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, student)
            if not gradient.isfinite().all():
                return False
    return True


@drill.alternative
def replaced(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Keep the shape: padding gets harmless logits before anything is computed of them."""
    padding = ~mask.unsqueeze(-1)
    z_s = student_logits.masked_fill(padding, 0.0) / temperature
    z_t = teacher_logits.detach().masked_fill(padding, 0.0) / temperature
    log_q = z_s - torch.logsumexp(z_s, dim=-1, keepdim=True)
    log_p = z_t - torch.logsumexp(z_t, dim=-1, keepdim=True)
    kl = torch.einsum("blv,blv->bl", log_p.exp(), log_p - log_q)
    return temperature**2 * (kl * mask).sum() / mask.sum()


@drill.alternative
def token_by_token(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """One token after the other: cross-entropy minus the teacher's entropy."""
    losses = []
    for row, position in mask.nonzero().tolist():
        p = (teacher_logits[row, position].detach() / temperature).softmax(0)
        cross = F.cross_entropy(student_logits[row, position] / temperature, p)
        losses.append(cross + torch.xlogy(p, p).sum())
    return temperature**2 * torch.stack(losses).mean()


def _token_kl(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, temperature: float
) -> Tensor:
    """KL of each token that counts."""
    log_q = F.log_softmax(student_logits[mask] / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits.detach()[mask] / temperature, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _all_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL of each position, padding too."""
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


@drill.mistake(
    "divided-by-batch",
    "your sum is divided by the B = {B} sequences, not by the N = {N} tokens that count, as 'batchmean' does on three "
    "dimensions: the loss grows with the length of the answers. Divide by mask.sum().",
    seen="neuralmagic/sparseml pull request 592",
)
def divided_by_batch(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Sum over tokens, mean over sequences."""
    kl = _token_kl(student_logits, teacher_logits, mask, temperature)
    return temperature**2 * kl.sum() / len(mask)


@drill.mistake(
    "padding-counted",
    "the mask is not used: prompt and padding are trained on as well. Select the tokens with logits[mask].",
    seen="jxiw/MambaInLlama issue 11",
)
def padding_counted(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Mean over all positions."""
    return temperature**2 * _all_kl(student_logits, teacher_logits, temperature).mean()


@drill.mistake(
    "mean-per-sequence",
    "you take the mean of each sequence, then the mean of those: a token of a short answer weighs more than one of a "
    "long answer. Sum over all tokens that count, then divide by their number.",
)
def mean_per_sequence(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Average twice."""
    kl = _token_kl(student_logits, teacher_logits, mask, temperature)
    rows = mask.nonzero()[:, 0]
    return temperature**2 * torch.stack([kl[rows == row].mean() for row in range(len(mask))]).mean()


@drill.mistake(
    "divided-by-all",
    "the sum goes over the N = {N} tokens that count, but you divide by all B · L positions: the more padding a batch "
    "has, the smaller its loss. Divide by mask.sum() instead of calling .mean().",
)
def divided_by_all(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Mean of the masked tensor."""
    kl = _token_kl(student_logits, teacher_logits, mask, temperature)
    return temperature**2 * kl.sum() / mask.numel()


@drill.mistake(
    "t-squared-missing",
    "T² is missing: the gradient shrinks as 1/T², so the weight of this term would mean something else at each T.",
    seen="keras-team/keras-io before pull request 870",
)
def no_square(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Forget T²."""
    return _token_kl(student_logits, teacher_logits, mask, temperature).mean()


@drill.mistake(
    "nan-times-zero",
    "the loss is not finite as soon as a padded position holds NaN or only -inf: 0 · NaN is NaN, so multiplying by "
    "the mask comes too late. Select with logits[mask] before the softmax.",
)
def multiplied(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Multiply by the mask at the end."""
    kl = _all_kl(student_logits, teacher_logits, temperature)
    return temperature**2 * (kl * mask).sum() / mask.sum()


@drill.mistake(
    "nan-gradient",
    "the loss is right, but its gradient is NaN where padding holds NaN: dropping the losses of padding afterwards "
    "repairs the value, and backward() still multiplies their NaN by 0. Select the logits before the softmax.",
)
def filled_afterwards(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Drop padding after the loss is computed."""
    kl = _all_kl(student_logits, teacher_logits, temperature)
    return temperature**2 * kl[mask].mean()


@drill.mistake(
    "mask-inverted",
    "you average over the positions where the mask is False: here True means that a token counts. Padding masks of "
    "nn.MultiheadAttention are the other way round.",
)
def inverted(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Take the mask for one of padding."""
    return token_kd_loss(student_logits, teacher_logits, ~mask, temperature=temperature)


@drill.mistake(
    "reversed",
    "this is KL(student || teacher): F.kl_div(log q, p) is KL(p || q), so the student's logarithms come first.",
)
def swapped(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Swap the sides."""
    log_q = F.log_softmax(student_logits[mask] / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits.detach()[mask] / temperature, dim=-1)
    kl = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return temperature**2 * kl


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant here. Use teacher_logits.detach(), or run it under no_grad().",
)
def live_teacher(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float
) -> Tensor:
    """Leave the teacher in the graph."""
    log_q = F.log_softmax(student_logits[mask] / temperature, dim=-1)
    p = F.softmax(teacher_logits[mask] / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
