"""Drill: write the test that a distillation loss must pass."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill

Loss = Callable[[Tensor, Tensor, float], Tensor]


def is_kd_loss(
    candidate: Callable[..., Tensor], reference: Callable[..., Tensor], generator: Generator
) -> bool:
    """Say whether a loss is right: as the reference in value and student's gradient, and no gradient to the teacher.

    candidate, reference: called with (student_logits, teacher_logits, temperature). Try several shapes and temperatures
    with logits drawn from the generator in float64; relative tolerance 1e-6.
    """
    for batch, classes, temperature in ((4, 3, 1.0), (2, 7, 4.0), (33, 5, 2.5)):
        shape = (batch, classes)
        teacher = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        student = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        answers = []
        for loss in (candidate, reference):
            value = loss(student, teacher, temperature)
            grads = torch.autograd.grad(value, (student, teacher), allow_unused=True)
            answers.append((value.detach(), *grads))
        (value, gradient, leak), (right, right_gradient, _) = answers
        if leak is not None or gradient is None:
            return False
        if not torch.allclose(value, right, rtol=1e-6):
            return False
        if not torch.allclose(gradient, right_gradient, rtol=1e-6):
            return False
    return True


def right(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """The loss as it should be."""
    q, p = (s / temperature).log_softmax(1), (t.detach() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)


def right_by_hand(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """The same, written out."""
    q, p = (s / temperature).softmax(1), (t.detach() / temperature).softmax(1)
    return temperature**2 * (p * (p / q).log()).sum(1).mean()


def mean_reduction(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """C times too small."""
    return right(s, t, temperature) / s.shape[1]


def reversed_sides(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """The other direction."""
    q, p = (s / temperature).log_softmax(1), (t.detach() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(p, q, reduction="batchmean", log_target=True)


def no_square(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """Without T²: right at T = 1."""
    return right(s, t, temperature) / temperature**2


def no_temperature(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """Right at T = 1 alone."""
    return right(s, t, 1.0)


def live_teacher(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """A gradient to the teacher."""
    q, p = (s / temperature).log_softmax(1), (t / temperature).softmax(1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean")


def wrong_gradient(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """The right value, and a gradient that is twice too large."""
    loss = right(s, t, temperature)
    return 2 * loss - loss.detach()


def first_rows(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """Right for batches of up to 32."""
    return right(s[:32], t[:32], temperature)


def slightly_off(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """One per cent too large."""
    return 1.01 * right(s, t, temperature)


WRONG = (
    mean_reduction,
    reversed_sides,
    no_square,
    no_temperature,
    live_teacher,
    wrong_gradient,
    first_rows,
    slightly_off,
)


def cases(generator: Generator) -> list[Case]:
    """Each loss, right and wrong, in random order."""
    losses = [right, right_by_hand, *WRONG]
    order = torch.randperm(len(losses), generator=generator).tolist()
    return [
        {
            "candidate": losses[number],
            "reference": right,
            "generator": Generator().manual_seed(draws.one(generator, 0, 10**6)),
        }
        for number in order
    ]


drill = Drill(
    id="loss-grader",
    title="Grade a loss",
    task=(
        "A colleague sends a distillation loss. Write the function that accepts it or not, given a reference that you "
        "trust. Training a student with it and looking at the accuracy is not a test: why not?"
    ),
    minutes=12,
    level="hard",
    hints=(
        "Which wrong losses still train a student? Name three, then find inputs that tell each from the right one.",
        "Compare values and gradients in float64, for several shapes and temperatures, and ask what reaches the "
        "teacher.",
        "torch.autograd.grad(value, (student, teacher), allow_unused=True) gives None for an input that is not "
        "reached.",
    ),
    explanation=(
        "Milliseconds, while a training run takes minutes and decides nothing: a loss that is C times too small, "
        "or that runs the divergence the other way, still trains, and one seed moves accuracy more than such a "
        "fault does. A test needs inputs on which the faults differ: T other than 1, more than one shape, a batch "
        "larger than any constant in the code, student and teacher that are not equal, and gradients as well as "
        "values. The interviewer listens for the list of faults that each input is there for."
    ),
    reference=is_kd_loss,
    cases=cases,
    changes=("generator",),
)


def _agrees(
    candidate: Loss,
    reference: Loss,
    generator: Generator,
    *,
    plans: tuple[tuple[int, int, float], ...] = ((4, 3, 1.0), (2, 7, 4.0), (33, 5, 2.5)),
    values: bool = True,
    gradients: bool = True,
    leaks: bool = True,
    tolerance: float = 1e-6,
    equal_sides: bool = False,
) -> bool:
    """A grader with parts left out."""
    for batch, classes, temperature in plans:
        s, t = (draws.normal(generator, batch, classes).requires_grad_() for _ in range(2))
        if equal_sides:
            t = s.detach().clone().requires_grad_()
        one, other = candidate(s, t, temperature), reference(s, t, temperature)
        mine = torch.autograd.grad(one, (s, t), allow_unused=True)
        theirs = torch.autograd.grad(other, (s, t), allow_unused=True)
        if values and not torch.allclose(one, other, rtol=tolerance, atol=1e-9):
            return False
        if gradients and not torch.allclose(mine[0], theirs[0], rtol=tolerance, atol=1e-9):
            return False
        if leaks and mine[1] is not None:
            return False
    return True


@drill.alternative
def with_backward(candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """Gradients by backward, as they are in training."""
    for batch, classes, temperature in ((40, 2, 3.0), (1, 10, 1.0), (5, 6, 8.0)):
        logits = draws.normal(generator, 2, batch, classes)
        seen = []
        for loss in (candidate, reference):
            s, t = (side.clone().requires_grad_() for side in logits)
            value = loss(s, t, temperature)
            value.backward()
            seen.append((value.item(), s.grad, t.grad))
        if seen[0][2] is not None or abs(seen[0][0] - seen[1][0]) > 1e-6 * abs(seen[1][0]):
            return False
        if (seen[0][1] - seen[1][1]).abs().max() > 1e-6 * seen[1][1].abs().max():
            return False
    return True


@drill.alternative
def parts(candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """All parts of a test, in another order."""
    plans = ((64, 4, 6.0), (3, 9, 1.0), (2, 2, 2.0))
    return _agrees(candidate, reference, generator, plans=plans)


@drill.mistake(
    "accuracy-threshold",
    "your grader trains and accepts what trains well: every loss here does, wrong ones included. Compare numbers "
    "with the reference.",
    seen="Exorust/TorchLeet, whose distillation exercise is graded by accuracy",
)
def by_accuracy(candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """Train logits for a few steps and count agreement with the teacher."""
    teacher = draws.normal(generator, 30, 4, scale=4)
    student = draws.normal(generator, 30, 4, scale=0.1).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        candidate(student, teacher, 2.0).backward()
        optimizer.step()
    return bool((student.argmax(1) == teacher.argmax(1)).double().mean() > 0.8)


@drill.mistake(
    "one-temperature",
    "only T = 1 is tried: there a missing T² and a missing temperature do not show. Try several.",
)
def one_temperature(candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """Test at T = 1."""
    return _agrees(candidate, reference, generator, plans=((4, 3, 1.0), (40, 5, 1.0)))


@drill.mistake(
    "values-only",
    "values are compared and gradients are not: a loss with the right value and another gradient is accepted, and the "
    "gradient is what trains.",
)
def values_only(candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """Leave gradients out."""
    return _agrees(candidate, reference, generator, gradients=False)


@drill.mistake(
    "loose-tolerance",
    "the tolerance is so wide that a loss which is off by a hundredth is accepted: in float64, 1e-6 is generous.",
)
def loose(candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """Accept a tenth."""
    return _agrees(candidate, reference, generator, tolerance=0.1)


@drill.mistake(
    "equal-sides",
    "student and teacher are equal in your test: the loss and its gradient are 0 there, however they are scaled "
    "or turned round. Draw them apart.",
)
def equal_sides(candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """Test at the minimum."""
    return _agrees(candidate, reference, generator, equal_sides=True, leaks=True)


@drill.mistake(
    "teacher-not-asked",
    "nobody asks whether the teacher is reached: a loss that trains the teacher too is accepted. Its gradient "
    "must be None.",
)
def no_leak_test(candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """Leave the teacher out."""
    return _agrees(candidate, reference, generator, leaks=False)


@drill.mistake(
    "one-small-batch",
    "only one small shape is tried: a fault that begins at another batch size goes unseen. Vary the batch and the "
    "classes.",
)
def small_batch(candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """Test on four rows."""
    return _agrees(candidate, reference, generator, plans=((4, 3, 2.0), (4, 3, 5.0)))
