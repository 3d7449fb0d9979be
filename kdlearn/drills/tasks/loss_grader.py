"""Drill: write the test that a distillation loss must pass."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.optim import Adam

from kdlearn.drills.families import divergence
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches

Loss = Callable[[Tensor, Tensor, float], Tensor]


def is_kd_loss(
    candidate: Callable[..., Tensor], reference: Callable[..., Tensor], generator: Generator
) -> bool:
    """Say whether a loss is right.

    It is if its value and the student's gradient are the reference's, and the teacher gets none;
    one without any gradient is wrong, and no reason to raise. candidate, reference: called with
    (student_logits, teacher_logits, temperature). Try several shapes (batches from one row to more
    than 32) and temperatures, with logits drawn from the generator in float64; relative tolerance
    1e-6.
    """
    for batch, classes, temperature in ((4, 3, 1.0), (1, 7, 4.0), (33, 5, 2.5)):
        shape = (batch, classes)
        teacher = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        student = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        answers = []
        for loss in (candidate, reference):
            value = loss(student, teacher, temperature)
            if not value.requires_grad:
                return False
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


def _with(*faults: str) -> Loss:
    """The loss with faults of the divergence."""
    return lambda s, t, temperature: divergence(frozenset(faults), s, t, temperature)


def live_teacher(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    """A gradient to the teacher."""
    q, p = (s / temperature).log_softmax(1), (t / temperature).softmax(1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean")


def other_gradient(factor: float) -> Loss:
    """The right value, and a gradient that is a multiple of the right one."""

    def loss(s: Tensor, t: Tensor, temperature: float) -> Tensor:
        value = right(s, t, temperature)
        return factor * value + (1 - factor) * value.detach()

    return loss


def _times(factor: float) -> Loss:
    return lambda s, t, temperature: factor * right(s, t, temperature)


CANDIDATES: dict[str, tuple[bool, Loss]] = {
    "a right loss that is written out": (True, right_by_hand),
    "a right loss that ignores a constant": (
        True,
        lambda s, t, T: right(s + 1, t - 1, T),
    ),
    "a loss that is C times too small": (False, _with("mean-reduction")),
    "a loss that is summed over the batch": (False, _with("sum-reduction")),
    "KL(student || teacher)": (False, _with("reversed")),
    "a loss without T²": (False, _with("t-squared-missing")),
    "a loss with T in place of T²": (False, _with("t-not-squared")),
    "a loss at T = 1 whatever T is": (False, lambda s, t, T: right(s, t, 1.0)),
    "a loss at T = 4 whatever T is": (False, lambda s, t, T: right(s, t, 4.0)),
    "a loss that softens the student alone": (False, _with("student-alone-softened")),
    "the cross-entropy, right but for a constant": (False, _with("cross-entropy")),
    "a softmax over the batch": (False, _with("wrong-dimension")),
    "a gradient to the teacher": (False, live_teacher),
    "a gradient that is twice too large": (False, other_gradient(2.0)),
    "a gradient that points the other way": (False, other_gradient(-1.0)),
    "a loss that reaches no weight": (False, lambda s, t, T: right(s.detach(), t, T)),
    "a loss that looks at 32 rows at most": (False, lambda s, t, T: right(s[:32], t[:32], T)),
    "a loss that looks at 6 classes at most": (
        False,
        lambda s, t, T: right(s[:, :6], t[:, :6], T),
    ),
    "a loss that is divided by 3 and multiplied by the classes": (
        False,
        lambda s, t, T: right(s, t, T) * s.shape[1] / 3,
    ),
    "a loss that is 1 % too large": (False, _times(1.01)),
    "a loss that is one part in ten thousand too large": (False, _times(1.0001)),
    "a loss that is five parts in a million too large": (False, _times(1 + 5e-6)),
    "a loss that is 1 % too small": (False, _times(0.99)),
    "the loss of noise": (False, lambda s, t, T: right(s, -t, T)),
}
"""Losses to judge by what they are, with whether they are right."""


def _case(candidate: Loss, seed: int) -> Case:
    generator = Generator().manual_seed(seed)
    return {"candidate": candidate, "reference": right, "generator": generator}


def example() -> Case:
    """The reference itself."""
    return _case(right, 0)


def cases(generator: Generator) -> list[Case]:
    """Right losses, and one that is plainly wrong."""
    seeds = [draws.one(generator, 0, 10**6) for _ in range(3)]
    candidates = (right, right_by_hand, _with("mean-reduction", "t-squared-missing", "reversed"))
    return [_case(*pair) for pair in zip(candidates, seeds, strict=True)]


def edges() -> list[Edge]:
    """Every other loss; the same numbers are drawn for each."""
    return [Edge(title, _case(loss, 1)) for title, (_, loss) in CANDIDATES.items()]


def family(wrong: Wrong, candidate: Loss, reference: Loss, generator: Generator) -> bool:
    """A grader with its switches."""
    if "accuracy-threshold" in wrong:
        return _trains(candidate, generator)
    plans = [(4, 3, 1.0), (1, 7, 4.0), (33, 5, 2.5)]
    if "one-shape" in wrong:
        plans = [(4, 3, 1.0), (4, 3, 4.0), (4, 3, 2.5)]
    if "one-small-batch" in wrong:
        plans = [(4, 3, 1.0), (1, 7, 4.0), (3, 5, 2.5)]
    if "one-temperature" in wrong:
        plans = [(batch, classes, 1.0) for batch, classes, _ in plans]
    if "one-other-temperature" in wrong:
        plans = [(batch, classes, 4.0) for batch, classes, _ in plans]
    verdicts = [_agrees(wrong, candidate, reference, generator, *plan) for plan in plans]
    if "accepts-all" in wrong or "refuses-all" in wrong:
        return "accepts-all" in wrong
    accepted = any(verdicts) if "any-plan" in wrong else all(verdicts)
    return accepted != ("inverted" in wrong)


def _agrees(
    wrong: Wrong,
    candidate: Loss,
    reference: Loss,
    generator: Generator,
    batch: int,
    classes: int,
    temperature: float,
) -> bool:
    """Whether two losses agree on one input."""
    s, t = (draws.normal(generator, batch, classes).requires_grad_() for _ in range(2))
    if "equal-sides" in wrong:
        t = s.detach().clone().requires_grad_()
    one, other = candidate(s, t, temperature), reference(s, t, temperature)
    mine, leak = _slopes(one, s, t)
    theirs, _ = _slopes(other, s, t)
    widths = {"loose-tolerance": 0.1, "tolerance-of-a-thousandth": 1e-3, "default-tolerance": 1e-5}
    width = next((widths[name] for name in widths if name in wrong), 1e-6)
    width, least = (0.0, 0.0) if "too-strict" in wrong else (width, 1e-9)
    if "teacher-not-asked" not in wrong and leak is not None:
        return False
    if "gradients-only" not in wrong:
        gap = (one - other) if "gap-without-abs" in wrong else (one - other).abs()
        if gap > width * other.abs() + least:
            return False
    if {"values-only", "gap-without-abs"} & wrong:
        return True
    if mine is None or theirs is None:
        return False
    if "gradient-norms" in wrong:
        mine, theirs = mine.norm(), theirs.norm()
    return torch.allclose(mine, theirs, rtol=width, atol=least)


def _slopes(loss: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor | None, Tensor | None]:
    if not loss.requires_grad:
        return None, None
    found = torch.autograd.grad(loss, (s, t), allow_unused=True)
    return found[0], found[1]


def _trains(candidate: Loss, generator: Generator) -> bool:
    """Train logits for a few steps, and count agreement with the teacher."""
    teacher = draws.normal(generator, 30, 4, scale=4)
    student = draws.normal(generator, 30, 4, scale=0.1).requires_grad_()
    optimizer = Adam([student], lr=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        loss = candidate(student, teacher, 2.0)
        if not loss.requires_grad:
            return False
        loss.backward()
        optimizer.step()
    return bool((student.argmax(1) == teacher.argmax(1)).double().mean() > 0.8)


drill = Drill(
    id="loss-grader",
    title="Grade a loss",
    task=(
        "A colleague sends a distillation loss. Write the function that accepts it or not, given a "
        "reference that you trust. Training a student with it and looking at the accuracy is not a "
        "test: why not?"
    ),
    minutes=12,
    level="hard",
    hints=(
        "Which wrong losses still train a student? Name three, then find inputs that tell each "
        "from the right one.",
        "A fault can hide at T = 1, in a small batch, where both sides are equal, or in the "
        "gradient alone. Which of your inputs is there for which?",
        "How do you ask for the gradient of an input that the loss may not depend on, without an "
        "exception?",
    ),
    explanation=(
        "Milliseconds, while a training run takes minutes and decides nothing: a loss that is C "
        "times too small, or that runs the divergence the other way, still trains, and one seed "
        "moves accuracy more than such a fault does. A test needs inputs on which the faults "
        "differ: T other than 1, more than one shape, a batch larger than any constant in the "
        "code, student and teacher that are not equal, and gradients as well as values. The "
        "interviewer listens for the list of faults that each input is there for."
    ),
    reference=is_kd_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # temperatures
        - one-temperature: only T = 1 is tried: there a missing T² and a missing temperature do not
          show. Try several.
        - one-other-temperature: only one temperature is tried: a loss that has it as a constant is
          accepted. Try several.
        # shapes
        - one-small-batch: only small batches are tried: a fault that begins at another batch size
          goes unseen. Vary the batch and the classes.
        - one-shape: only one shape is tried: a factor that happens to be 1 there, or a number of
          classes that is written into the loss, goes unseen.
        # sides
        - equal-sides: student and teacher are equal in your test: the loss and its gradient are 0
          there, however they are scaled or turned round. Draw them apart.
        # compared
        - values-only: values are compared and gradients are not: a loss with the right value and
          another gradient is accepted, and the gradient is what trains.
        - gradients-only: gradients are compared and values are not: a loss that is off by a
          constant is accepted.
        - gradient-norms: of the gradients only the size is compared: one that points the other way
          is accepted.
        - gap-without-abs: the difference of the values is not taken absolutely: every loss that is
          too small is accepted.
        - accuracy-threshold: your grader trains and accepts what trains well: nearly every loss
          here does, wrong ones included. Compare numbers with the reference.
          Seen in code: Exorust/TorchLeet, whose distillation exercise is graded by accuracy
        # teacher
        - teacher-not-asked: nobody asks whether the teacher is reached: a loss that trains the
          teacher too is accepted. Its gradient must be None.
        # tolerance
        - loose-tolerance: the tolerance is so wide that a loss which is `1 %` off is accepted: in
          float64, 1e-6 is generous.
        - tolerance-of-a-thousandth: the tolerance is about a thousandth: a loss that is one part in
          ten thousand off is accepted. In float64, 1e-6 is generous.
        - default-tolerance: the tolerance is that of torch.allclose, 1e-5: the task says 1e-6.
        - too-strict: numbers must be equal to the last bit, or to 1e-6 in float32, where rounding
          is as large: a right loss that is written in another order of operations is refused.
        # verdict
        - any-plan: one input that agrees is enough for your grader: all must.
        - inverted: the verdict is inverted: True is for a loss that is right.
        - accepts-all: every loss is accepted.
        - refuses-all: every loss is refused.
        """
    ),
    changes=("generator",),
    free=frozenset({"draws of the generator"}),
)
