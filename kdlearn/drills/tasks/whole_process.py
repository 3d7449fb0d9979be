"""Drill: the whole process, from an untrained teacher to the student's predictions."""

import copy

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def distill(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Train the teacher, then the student with it; return the student's probabilities for the images as it is used.

    Both networks come untrained and give logits (B, C); each keeps the initial weights it has. First train the
    teacher on labels by cross-entropy. Then train the student on (1 - weight) · cross-entropy with the labels +
    weight · T² · KL(teacher || student) at temperature T, both averaged over the batch, with a teacher that no
    longer changes. Each is trained by torch.optim.SGD without momentum, for `steps` steps on all images at once.
    """
    optimizer = torch.optim.SGD(teacher.parameters(), lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(teacher(images), labels).backward()
        optimizer.step()
    with torch.no_grad():
        targets = (teacher(images) / temperature).softmax(dim=1)
    optimizer = torch.optim.SGD(student.parameters(), lr=learning_rate)
    for _ in range(steps):
        logits = student(images)
        logs = (logits / temperature).log_softmax(dim=1)
        soft = temperature**2 * F.kl_div(logs, targets, reduction="batchmean")
        loss = (1 - weight) * F.cross_entropy(logits, labels) + weight * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return student(images).softmax(dim=1)


def _network(generator: Generator, inputs: int, width: int, classes: int) -> nn.Module:
    """A small network without noise."""
    network = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, classes)).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.7, generator=generator)
    return network


def cases(generator: Generator) -> list[Case]:
    """Students of the teacher's shape, so that copying its weights would work, and a smaller one."""
    made = []
    for rows, classes, ours, theirs in ((12, 3, 6, 6), (15, 4, 7, 7), (10, 3, 3, 8)):
        made.append(
            {
                "teacher": _network(generator, 4, theirs, classes),
                "student": _network(generator, 4, ours, classes),
                "images": draws.normal(generator, rows, 4),
                "labels": draws.whole(generator, 0, classes - 1, rows),
                "steps": draws.one(generator, 6, 9),
                "learning_rate": draws.real(generator, 0.2, 0.4),
                "temperature": draws.real(generator, 2, 4),
                "weight": draws.real(generator, 0.4, 0.8),
            }
        )
    return made


def observe(case: Case, result: Tensor) -> dict[str, object]:
    """The predictions, and both networks at the end."""
    return {
        "predictions": result,
        "student": case["student"].state_dict(),
        "teacher": case["teacher"].state_dict(),
    }


drill = Drill(
    id="whole-process",
    title="The whole process",
    task=(
        "Two untrained networks and a labeled set. Program distillation from the beginning to the end: what is "
        "trained first, on what, where the student starts, what it learns from, and how it is used."
    ),
    minutes=15,
    level="core",
    hints=(
        "Three stages. In which of them does each network change, and what is the target in each?",
        "The teacher learns from labels alone. Its soft targets are fixed then, and may be computed once.",
        "Two loops with an optimizer of their own; targets = (teacher(images) / T).softmax(1) between them; "
        "softmax at T = 1 at the end",
    ),
    explanation=(
        "The teacher's training usually costs most, and its soft targets, on fixed images, are computed once: "
        "O(NC) numbers. The student starts where it starts: at random, as a rule. Copying weights needs equal "
        "shapes and is another method (it can be combined). The labels stay; what replaces them in a circulating "
        "answer, the student's own output, holds nothing to learn. T belongs to the soft term in training and to "
        'nothing else: the shipped student answers at T = 1. The interviewer listens for the order, and for "the '
        'teacher must know the task": a teacher that was never trained teaches noise, and the student still '
        "improves a little, from the labels."
    ),
    reference=distill,
    cases=cases,
    changes=("teacher", "student"),
    observe=observe,
)


def _run(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
    *,
    train_teacher: bool = True,
    at_the_end: float = 1.0,
    kind: str = "soft",
    together: bool = False,
) -> Tensor:
    """The process with one thing done otherwise."""
    judge = SGD(teacher.parameters(), lr=learning_rate)
    for _ in range(steps if train_teacher else 0):
        judge.zero_grad()
        F.cross_entropy(teacher(images), labels).backward()
        judge.step()
    learner = SGD(student.parameters(), lr=learning_rate)
    for _ in range(steps):
        logits, taught = student(images), teacher(images).detach()
        hard = F.cross_entropy(logits, labels)
        log_q = (logits / temperature).log_softmax(1)
        p = (taught / temperature).softmax(1)
        if kind == "own":
            p = log_q.detach().exp()
            hard = F.cross_entropy(logits, logits.detach().argmax(1))
        soft = temperature**2 * (p * (p.log() - log_q)).sum(1).mean()
        if kind == "argmax":
            soft = F.cross_entropy(logits, taught.argmax(1))
        learner.zero_grad()
        ((1 - weight) * hard + weight * soft).backward()
        learner.step()
        if together:
            judge.zero_grad()
            F.cross_entropy(teacher(images), labels).backward()
            judge.step()
    return (student(images).detach() / at_the_end).softmax(1)


@drill.alternative
def teacher_asked_each_time(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Compute the soft targets in every step."""
    return _run(teacher, student, images, labels, steps, learning_rate, temperature, weight)


@drill.alternative
def without_an_optimizer(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Gradient descent by hand, with one mixed target for both terms of the teacher."""

    def descend(network: nn.Module, loss: Tensor) -> None:
        parameters = list(network.parameters())
        with torch.no_grad():
            slopes = torch.autograd.grad(loss, parameters)
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.sub_(learning_rate * slope)

    for _ in range(steps):
        logs = teacher(images).log_softmax(1)
        descend(teacher, -logs.gather(1, labels[:, None]).mean())
    targets = F.softmax(teacher(images).detach() / temperature, dim=1)
    for _ in range(steps):
        logits = student(images)
        hard = F.cross_entropy(logits, labels)
        soft = temperature**2 * F.cross_entropy(logits / temperature, targets)
        descend(student, (1 - weight) * hard + weight * soft)
    return F.softmax(student(images), dim=1).detach()


@drill.mistake(
    "teacher-untrained",
    "the teacher is never trained on the task: its soft targets are noise. The student still improves a little, "
    "from the labels, which is why this goes unnoticed.",
    seen="a computer-vision distillation page of Hugging Face (commit 01080da), where the head is new",
)
def untrained(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Skip the first stage."""
    return _run(
        teacher,
        student,
        images,
        labels,
        steps,
        learning_rate,
        temperature,
        weight,
        train_teacher=False,
    )


@drill.mistake(
    "started-from-the-teacher",
    "the student starts from a copy of the teacher's weights: that needs the same shapes, and distillation needs "
    "neither. The student keeps its own initial weights.",
    seen="a circulating answer that says the student must be initialized from the teacher",
)
def copied(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Train the teacher, then copy its weights where they fit."""
    distill(
        teacher,
        copy.deepcopy(teacher),
        images,
        labels,
        steps=steps,
        learning_rate=learning_rate,
        temperature=temperature,
        weight=weight,
    )
    own, other = student.state_dict(), teacher.state_dict()
    fitting = {name: value for name, value in other.items() if own[name].shape == value.shape}
    student.load_state_dict(own | fitting)
    return _run(
        teacher,
        student,
        images,
        labels,
        steps,
        learning_rate,
        temperature,
        weight,
        train_teacher=False,
    )


@drill.mistake(
    "own-output-as-labels",
    "the labels are replaced by the student's own output: its loss then tells it to stay as it is, only surer. "
    "The targets are the labels and the teacher's softened output.",
    seen="a circulating answer",
)
def own_output(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Teach the student what it says."""
    return _run(
        teacher, student, images, labels, steps, learning_rate, temperature, weight, kind="own"
    )


@drill.mistake(
    "sides-swapped",
    "teacher and student are swapped: the student is trained on labels first, and the large network learns from it.",
)
def swapped(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Exchange the networks."""
    return _run(student, teacher, images, labels, steps, learning_rate, temperature, weight)


@drill.mistake(
    "softened-at-the-end",
    "the student answers at temperature T: T belongs to the soft term in training. In use it is 1, or every "
    "answer is less sure than the student is.",
)
def softened(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Leave T on."""
    return _run(
        teacher,
        student,
        images,
        labels,
        steps,
        learning_rate,
        temperature,
        weight,
        at_the_end=temperature,
    )


@drill.mistake(
    "argmax-only",
    "the student learns the teacher's most probable class alone: that is hard distillation. What the teacher says "
    "of the other classes is lost.",
)
def argmax_only(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Use the teacher's argmax."""
    return _run(
        teacher, student, images, labels, steps, learning_rate, temperature, weight, kind="argmax"
    )


@drill.mistake(
    "teacher-goes-on",
    "the teacher goes on training while the student learns: the targets move in every step, and cannot be "
    "computed once. Freeze it after the first stage.",
)
def moving_teacher(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    temperature: float,
    weight: float,
) -> Tensor:
    """Train both in the second stage."""
    return _run(
        teacher, student, images, labels, steps, learning_rate, temperature, weight, together=True
    )
