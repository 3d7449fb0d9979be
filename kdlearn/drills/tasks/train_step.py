"""Drill: one whole step of distillation."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.compare import copied, same
from kdlearn.drills.grader.drill import Case, Drill, Solution


def train_step(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Take one step of distillation and return the loss.

    Both networks give logits (B, C). The student is in training mode, the teacher in evaluation mode, whatever mode
    they come in. Loss: (1 - weight) · cross-entropy with the labels + weight · T² · KL(teacher || student) at
    temperature T, both averaged over the batch. The optimizer holds the student's parameters; nothing of the
    teacher changes but its mode.
    """
    student.train()
    teacher.eval()
    with torch.no_grad():
        targets = (teacher(images) / temperature).softmax(dim=1)
    logits = student(images)
    logs = (logits / temperature).log_softmax(dim=1)
    soft = temperature**2 * F.kl_div(logs, targets, reduction="batchmean")
    loss = (1 - weight) * F.cross_entropy(logits, labels) + weight * soft
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _network(
    generator: Generator, inputs: int, width: int, classes: int, dropout: float
) -> nn.Module:
    """A network whose mode matters twice."""
    network = nn.Sequential(
        nn.Linear(inputs, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, classes),
    ).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    return network


def cases(generator: Generator) -> list[Case]:
    """Networks in either mode; the student holds gradients of an earlier batch."""
    made = []
    for batch, classes, mode in ((6, 3, True), (8, 5, False), (5, 4, True)):
        student = _network(generator, 4, 6, classes, 0.0).train(mode)
        teacher = _network(generator, 4, 9, classes, 0.5).train(mode)
        images = draws.normal(generator, batch, 4)
        F.cross_entropy(student(images), torch.zeros(batch, dtype=torch.int64)).backward()
        made.append(
            {
                "student": student,
                "teacher": teacher,
                "images": images,
                "labels": draws.whole(generator, 0, classes - 1, batch),
                "optimizer": SGD(student.parameters(), lr=0.1),
                "temperature": draws.real(generator, 2, 5),
                "weight": draws.real(generator, 0.3, 0.8),
            }
        )
    return made


def observe(case: Case, result: float) -> dict[str, object]:
    """The loss, and what became of both networks."""
    return {
        "loss": result,
        "student": case["student"].state_dict(),
        "teacher": case["teacher"].state_dict(),
        "modes": (case["student"].training, case["teacher"].training),
    }


drill = Drill(
    id="train-step",
    title="One training step",
    task=(
        "Write one step of the training loop: the teacher answers, the student learns from labels and soft "
        "targets. Assume nothing about the modes in which you get the networks."
    ),
    minutes=10,
    level="core",
    hints=(
        "What in a network behaves differently in training mode, and for which of the two do you want that?",
        "train() and eval() first, the teacher under no_grad, then zero_grad, backward, step, in that order.",
        "loss = (1 - weight) * F.cross_entropy(logits, labels) + weight * T² * F.kl_div(..., reduction='batchmean')",
    ),
    explanation=(
        "A live teacher adds its forward pass to each step, and no memory for a backward one: that is what "
        "no_grad saves. eval() is another matter: it stops dropout and makes batch normalization use its running "
        "statistics; no_grad does neither. A teacher left in training mode gives other targets for the same image "
        "in each batch, and its running statistics drift toward the student's data, in silence. The labels' term "
        "has no T and no T². The interviewer listens for the difference of eval and no_grad, and for what is in "
        "the optimizer."
    ),
    reference=train_step,
    cases=cases,
    changes=("student", "teacher", "optimizer"),
    observe=observe,
)


def _step(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    temperature: float,
    weight: float,
    *,
    student_mode: bool = True,
    teacher_mode: bool = False,
    clear: bool = True,
    square: bool = True,
    soft_gradient: bool = True,
    argmax: bool = False,
) -> float:
    """A step with one thing done otherwise."""
    student.train(student_mode)
    teacher.train(teacher_mode)
    taught = teacher(images).detach()
    logits = student(images)
    if clear:
        optimizer.zero_grad()
    p, log_q = (taught / temperature).softmax(1), (logits / temperature).log_softmax(1)
    soft = (p * (p.log() - log_q)).sum(1).mean() * (temperature**2 if square else 1)
    if not soft_gradient:
        soft = soft.detach()
    hard = F.cross_entropy(logits, taught.argmax(1) if argmax else labels)
    loss = (1 - weight) * hard + weight * soft
    loss.backward()
    optimizer.step()
    return loss.item()


def _ends_alike(solution: Solution, one: Case, other: Case) -> bool:
    """Whether a step from two starting points gives the same student."""
    ends = []
    for case in (one, other):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            drill.call(solution, case)
        ends.append([parameter.detach() for parameter in case["student"].parameters()])
    return same(*ends)


@drill.must(
    "uses the teacher in evaluation mode",
    "teacher-in-train-mode",
    "a teacher that arrives in training mode gives another step: dropout makes its answers random. no_grad() does not "
    "change that; call teacher.eval().",
)
def quiet_teacher(solution: Solution, generator: Generator) -> bool:
    """Compare a teacher that arrives in training mode with one that does not."""
    case = cases(generator)[0]
    one, other = copied(case), copied(case)
    one["teacher"].train(), other["teacher"].eval()
    return _ends_alike(solution, one, other)


@drill.must(
    "does not add to the gradients of an earlier batch",
    "old-gradients",
    "the gradients of an earlier batch are still there and are added to yours: call optimizer.zero_grad() before "
    "backward.",
)
def clears_gradients(solution: Solution, generator: Generator) -> bool:
    """Compare a student that has old gradients with one that has none."""
    case = cases(generator)[0]
    one, other = copied(case), copied(case)
    other["student"].zero_grad()
    return _ends_alike(solution, one, other)


@drill.alternative
def in_other_words(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """The definition of KL, and the gradient cleared first."""
    return _step(student, teacher, images, labels, optimizer, temperature, weight)


@drill.alternative
def with_grad(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """torch.autograd.grad, and cross-entropy less entropy."""
    student.train(True)
    with torch.inference_mode():
        answers = teacher.train(False)(images)
    target = (answers.clone() / temperature).softmax(1)
    logits = student(images)
    entropy = -(target * target.log()).sum(1).mean()
    soft = F.cross_entropy(logits / temperature, target.clone()) - entropy
    loss = (1 - weight) * F.cross_entropy(logits, labels) + weight * temperature**2 * soft
    parameters = list(student.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return float(loss.detach())


@drill.mistake(
    "teacher-in-train-mode",
    "the teacher runs in training mode: dropout makes its answers random, and its running statistics drift with "
    "each batch. no_grad() does not change that; call teacher.eval().",
)
def noisy_teacher(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Leave the teacher in training mode."""
    return _step(
        student, teacher, images, labels, optimizer, temperature, weight, teacher_mode=True
    )


@drill.mistake(
    "sides-swapped",
    "teacher and student are swapped: the loss trains on the teacher's logits, and the student's are the targets.",
    seen="keras-team/keras-io commit 1da2fde",
)
def swapped(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Exchange the networks; the optimizer holds what it holds."""
    student.train()
    teacher.eval()
    log_q = (teacher(images) / temperature).log_softmax(1)
    p = (student(images).detach() / temperature).softmax(1)
    soft = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    loss = (1 - weight) * F.cross_entropy(teacher(images), labels) + weight * soft
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@drill.mistake(
    "old-gradients",
    "the gradients of an earlier batch are still there and are added to yours: call optimizer.zero_grad() before "
    "backward.",
)
def not_cleared(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Forget zero_grad."""
    return _step(student, teacher, images, labels, optimizer, temperature, weight, clear=False)


@drill.mistake(
    "t-squared-missing",
    "T² is missing: the soft term's gradient shrinks as 1/T², so the labels win at any T that softens.",
)
def no_square(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Forget T²."""
    return _step(student, teacher, images, labels, optimizer, temperature, weight, square=False)


@drill.mistake(
    "soft-term-detached",
    "the loss is right and the soft term sends no gradient: the student learns from the labels alone. The teacher "
    "is detached, never the student.",
)
def detached(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Cut the soft term off."""
    return _step(
        student, teacher, images, labels, optimizer, temperature, weight, soft_gradient=False
    )


@drill.mistake(
    "student-in-eval-mode",
    "the student trains in evaluation mode: batch normalization uses running statistics that never follow. Call "
    "student.train().",
)
def idle_student(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Leave the student in evaluation mode."""
    return _step(
        student, teacher, images, labels, optimizer, temperature, weight, student_mode=False
    )


@drill.mistake(
    "step-before-backward",
    "the optimizer steps before backward: it uses the gradients of an earlier batch, and yours wait for the next call.",
)
def early_step(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Step first."""
    student.train()
    teacher.eval()
    taught, logits = teacher(images).detach(), student(images)
    p, log_q = (taught / temperature).softmax(1), (logits / temperature).log_softmax(1)
    soft = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    loss = (1 - weight) * F.cross_entropy(logits, labels) + weight * soft
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


@drill.mistake(
    "argmax-as-labels",
    "the hard term uses the teacher's most probable class in place of the labels: where the teacher is wrong, "
    "both terms now teach its error.",
)
def taught_labels(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Take the teacher's argmax."""
    return _step(student, teacher, images, labels, optimizer, temperature, weight, argmax=True)


@drill.mistake(
    "mean-reduction",
    "the soft term is C times too small: reduction='mean', the default of F.kl_div, divides by the classes too. Use "
    "'batchmean'.",
)
def mean_reduction(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """Average over classes too."""
    student.train()
    teacher.eval()
    taught, logits = teacher(images).detach(), student(images)
    p, log_q = (taught / temperature).softmax(1), (logits / temperature).log_softmax(1)
    soft = temperature**2 * (p * (p.log() - log_q)).mean()
    loss = (1 - weight) * F.cross_entropy(logits, labels) + weight * soft
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
