"""What should a small encoder-decoder learn from a large one: words, sentences or alignments?

Dates in words become digits, and each has two right answers, as a sentence has many translations.
All students see the same thousand dates for the same number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from kdlearn.core.numerics import kl_terms
from kdlearn.data.dates import SYMBOLS, TARGET, Dates, written_dates
from kdlearn.experiments.common import Row, check, seeded
from kdlearn.losses import forward_kl
from kdlearn.models import Seq2Seq
from kdlearn.training import adamw


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        hidden: size of the teacher's state.
        student_hidden: the same of the student.
        dates: that a student sees.
        teacher_steps: never the same date twice, but by chance.
        student_steps: of every student, but one that has twice as many.
        learning_rate: peak of a one-cycle schedule.
        batch_size: dates a step.
        exam: dates to measure on.
    """

    hidden: int = 64
    student_hidden: int = 24
    dates: int = 1000
    teacher_steps: int = 400
    student_steps: int = 300
    learning_rate: float = 1e-2
    batch_size: int = 64
    exam: int = 1000


@dataclass(frozen=True)
class Method:
    """What a student learns from.

    Attributes:
        text: the answers of the data, or the teacher's own.
        words: the teacher's probabilities of each symbol in place of the text's.
        alignment: the teacher's attention as well, or that to another date of the batch.
        longer: how many times the steps.
    """

    text: str = "data"
    words: bool = False
    alignment: str = "none"
    longer: int = 1


METHODS = {
    "labels": Method(),
    "word level": Method(words=True),
    "sequence level": Method(text="teacher"),
    "labels, alignment": Method(alignment="own"),
    "labels, alignment of another": Method(alignment="another"),
    "sequence level, alignment": Method(text="teacher", alignment="own"),
    "labels, 2x": Method(longer=2),
}
RECIPE = Recipe()
COLUMNS = ("accuracy", "sampled", "second", "aligned", "kl_alignment")
EXAMS = {"validation": 70_000, "test": 71_000}


def alignment_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || student) of attention weights (B, M, L): mean over output symbols.

    Example:
        >>> weights = torch.tensor([[[0.5, 0.5]]])
        >>> round(alignment_kl(torch.tensor([[[0.25, 0.75]]]), weights).item(), 4)
        0.1438
    """
    student, teacher = (side.clamp_min(1e-9).log() for side in (student, teacher.detach()))
    return kl_terms(teacher, student).sum(dim=-1).mean()


def train(
    model: nn.Module, loss: Callable[[Tensor], Tensor], rows: Iterable[Tensor], rate: float
) -> None:
    """Minimize a loss of rows, in place: a step for each; AdamW, one cycle, gradients cut at 1."""
    batches = list(rows)
    optimizer = adamw(model.parameters(), rate)
    schedule = OneCycleLR(optimizer, rate, total_steps=len(batches))
    for chosen in batches:
        optimizer.zero_grad()
        loss(chosen).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def train_teacher(recipe: Recipe, seed: int) -> Seq2Seq:
    """Train a teacher on dates of its own."""
    teacher = seeded(lambda: Seq2Seq(len(SYMBOLS), hidden=recipe.hidden), seed)
    pool = written_dates(recipe.batch_size * recipe.teacher_steps, seed=seed)

    def loss(rows: Tensor) -> Tensor:
        logits, _ = teacher(pool.source[rows], pool.target[rows])
        return F.cross_entropy(logits.mT, pool.target[rows])

    rows = torch.arange(len(pool)).split(recipe.batch_size)
    train(teacher, loss, rows, recipe.learning_rate)
    return teacher.eval()


def train_student(
    method: Method, teacher: Seq2Seq, dates: Dates, recipe: Recipe, seed: int
) -> Seq2Seq:
    """Train a student as a method says."""
    size = recipe.student_hidden
    student = seeded(lambda: Seq2Seq(len(SYMBOLS), embedding=16, hidden=size), seed)
    with torch.no_grad():
        text = dates.target
        if method.text == "teacher":
            text = teacher(dates.source, length=TARGET)[0].argmax(-1)
        told, weights = teacher(dates.source, text)
    if method.alignment == "another":
        weights = weights.roll(1, dims=0)

    def loss(rows: Tensor) -> Tensor:
        logits, own = student(dates.source[rows], text[rows])
        if method.words:
            total = forward_kl(logits, told[rows])
        else:
            total = F.cross_entropy(logits.mT, text[rows])
        return total if method.alignment == "none" else total + alignment_kl(own, weights[rows])

    generator = Generator().manual_seed(seed)
    steps = method.longer * recipe.student_steps
    drawn = torch.randint(len(dates), (steps, recipe.batch_size), generator=generator)
    train(student, loss, drawn, recipe.learning_rate)
    return student.eval()


@torch.no_grad()
def measures(model: Seq2Seq, teacher: Seq2Seq, exam: Dates) -> dict[str, float]:
    """Return what is measured, per cent but for the last.

    ``accuracy``: greedy answers that are one of the two right ones. ``sampled``: the probability
    of the two together, which is how often a drawn answer is right; ``second`` that of the second
    one alone. ``aligned``: attention on the part of the date that an output symbol comes from.
    ``kl_alignment``: from the teacher's attention to the model's, in nats.
    """
    greedy = model(exam.source, length=TARGET)[0].argmax(-1)
    right = (greedy == exam.answers).all(dim=-1).any(dim=0)
    chances = []
    for answer in exam.answers:
        log_probs = model(exam.source, answer)[0].log_softmax(-1)
        chances.append(log_probs.gather(2, answer[..., None]).sum(dim=(1, 2)).exp())
    weights = model(exam.source, exam.target)[1]
    true = exam.alignment[exam.second.long(), torch.arange(len(exam))]
    on_it = (weights * true).sum(-1)[true.any(-1)]
    return {
        "accuracy": 100 * right.double().mean().item(),
        "sampled": 100 * sum(chance.mean().item() for chance in chances),
        "second": 100 * chances[1].mean().item(),
        "aligned": 100 * on_it.mean().item(),
        "kl_alignment": alignment_kl(weights, teacher(exam.source, exam.target)[1]).item(),
    }


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    The columns are those of :func:`measures`.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    exam = written_dates(recipe.exam, seed=EXAMS[on] + seed)
    teacher = train_teacher(recipe, seed)
    yield {"seed": seed, "method": "teacher", **measures(teacher, teacher, exam)}
    dates = written_dates(recipe.dates, seed=50_000 + seed)
    for name in methods:
        student = train_student(METHODS[name], teacher, dates, recipe, seed)
        yield {"seed": seed, "method": name, **measures(student, teacher, exam)}
