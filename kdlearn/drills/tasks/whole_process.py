"""Drill: the whole process, from an untrained teacher to the student's predictions."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from kdlearn.drills.families import MIXTURE, chosen, divergence_knobs, mixture
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Network, Wrong, switches


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
    """Train the teacher, then the student with it; return the student's probabilities.

    They are for the images, after the last step.
    Both networks come untrained and give logits (B, C); each keeps the initial weights it has.
    First train the teacher on labels by cross-entropy. Then train the student on (1 - weight) ·
    cross-entropy with the labels + weight · T² · KL(teacher || student) at temperature T, both
    averaged over the batch, with a teacher that no longer changes. Each is trained by
    torch.optim.SGD without momentum, for `steps` steps on all images at once.
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


def _network(generator: Generator, inputs: int, width: int, classes: int) -> Network:
    """A small network without noise."""
    network = Network(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, classes)).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.7, generator=generator)
    return network


def _case(generator: Generator, rows: int, classes: int, ours: int, theirs: int) -> Case:
    return {
        "teacher": _network(generator, 4, theirs, classes),
        "student": _network(generator, 4, ours, classes),
        "images": draws.normal(generator, rows, 4),
        "labels": draws.whole(generator, 0, classes - 1, rows),
        "steps": draws.one(generator, 2, 3),
        "learning_rate": draws.real(generator, 0.2, 0.4),
        "temperature": draws.real(generator, 2, 4),
        "weight": draws.real(generator, 0.4, 0.8),
    }


def example() -> Case:
    """Four images, three classes, one step."""
    case = _case(Generator().manual_seed(1), 4, 3, 3, 4)
    return case | {"steps": 1, "learning_rate": 0.5, "temperature": 2.0, "weight": 0.75}


def cases(generator: Generator) -> list[Case]:
    """Students of the teacher's shape, to which its weights can be copied, and a smaller one."""
    return [_case(generator, *sizes) for sizes in ((12, 3, 6, 6), (15, 4, 7, 7), (10, 3, 3, 8))]


def edges() -> list[Edge]:
    """One of the two terms alone, two steps."""
    case = example()
    return [
        Edge("weight = 0, the labels alone", case | {"weight": 0.0}, without="the soft term"),
        Edge("weight = 1, the soft term alone", case | {"weight": 1.0}, without="the labels' term"),
        Edge("T = 1", case | {"temperature": 1.0}, without="the temperature and its factor"),
        Edge("two steps", case | {"steps": 2}),
    ]


def family(
    wrong: Wrong,
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: float,
    **given: float,
) -> Tensor:
    """The process with its switches."""
    if "sides-swapped" in wrong:
        teacher, student = student, teacher
    momentum = 0.9 if "momentum" in wrong else 0.0
    judge = SGD(teacher.parameters(), lr=learning_rate, momentum=momentum)

    def step(optimizer: SGD, loss: Tensor) -> None:
        if "never-cleared" not in wrong:
            optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
        optimizer.step()

    more = {"short": -1, "more": 1}
    early = teacher(images).detach()
    count = steps + next((n for name, n in more.items() if f"teacher-one-step-{name}" in wrong), 0)
    for _ in range(0 if "teacher-untrained" in wrong else count):
        step(judge, F.cross_entropy(teacher(images), labels))
    if "started-from-the-teacher" in wrong:
        own, other = student.state_dict(), teacher.state_dict()
        fitting = {name: value for name, value in other.items() if own[name].shape == value.shape}
        student.load_state_dict(own | fitting)
    learner = SGD(student.parameters(), lr=learning_rate, momentum=momentum)
    count = steps + next((n for name, n in more.items() if f"student-one-step-{name}" in wrong), 0)
    logits = student(images)
    for _ in range(0 if "student-untrained" in wrong else count):
        taught, logits = teacher(images).detach(), student(images)
        if "targets-before-training" in wrong:
            taught = early
        truth = labels
        if "own-output-as-labels" in wrong:
            taught, truth = logits.detach(), logits.argmax(1)
        step(learner, mixture(wrong, logits, taught, truth, **given))
        if "teacher-goes-on" in wrong:
            step(judge, F.cross_entropy(teacher(images), labels))
    if "last-before-step" not in wrong:
        logits = student(images)
    if "teacher-returned" in wrong:
        logits = teacher(images)
    logits = logits.detach()
    if "logits-returned" in wrong:
        return logits
    return (logits / (given["temperature"] if "softened-at-the-end" in wrong else 1)).softmax(1)


drill = Drill(
    id="whole-process",
    title="The whole process",
    task=(
        "Two untrained networks and a labeled set. Program distillation from the beginning to the "
        "end: what is trained first, on what, where the student starts, what it learns from, and "
        "how it is used."
    ),
    minutes=15,
    level="core",
    hints=(
        "Three stages. In which of them does each network change, and what is the target in each?",
        "After the first stage the teacher no longer changes. How often must it be asked about "
        "the same images?",
        "Each stage has an optimizer of its own. Where does T stand, and is it still there when "
        "the student is used?",
    ),
    explanation=(
        "The teacher's training usually costs most, and its soft targets, on fixed images, are "
        "computed once: O(NC) numbers. The student starts where it starts: at random, as a rule. "
        "Copying weights needs equal shapes and is another method (it can be combined). The labels "
        "stay; what replaces them in a circulating answer, the student's own output, holds nothing "
        "to learn. T belongs to the soft term in training and to "
        "nothing else: the shipped student answers at T = 1. The interviewer listens for the "
        'order, and for "the teacher must know the task": a teacher that was never trained teaches '
        "noise, and the student still "
        "improves a little, from the labels."
    ),
    reference=distill,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=chosen(
        divergence_knobs("the soft term"),
        "sign",
        "logarithm",
        "dimension",
        "squared-gap",
        "logits-matched",
        "weights-missing",
        "symmetric",
        "cross-entropy",
        "log-target",
        "mean-over-classes-only",
        "softmax-twice",
        "divided-afterwards",
        "divided-by-t-squared",
    )
    | chosen(
        MIXTURE,
        "halves",
        "labels-weight-alone",
        "labels-multiplied",
        "labels-summed",
        "labels-missing",
        "soft-term-missing",
        "own-argmax-as-labels",
        "teacher-graded",
    )
    | switches(
        """
        # teacher
        - teacher-untrained: the teacher is never trained on the task: its soft targets are noise.
          The student still improves a little, from the labels, which is why this goes unnoticed.
        - teacher-goes-on: the teacher goes on training while the student learns: the targets move
          in every step, and cannot be computed once. Freeze it after the first stage.
        - teacher-one-step-short: the teacher is trained for one step too few: it takes `steps`
          steps.
        - teacher-one-step-more: the teacher is trained for one step too many: it takes `steps`
          steps.
        - targets-before-training: the soft targets are computed before the teacher was trained:
          they are noise.
        # student
        - started-from-the-teacher: the student starts from a copy of the teacher's weights: that
          needs the same shapes, and distillation needs neither. The student keeps its own initial
          weights.
        - own-output-as-labels: the targets are replaced by the student's own output: its loss then
          tells it to stay as it is, only surer. The targets are the labels and the teacher's
          softened output.
        - student-one-step-short: the student is trained for one step too few: it takes `steps`
          steps.
        - student-one-step-more: the student is trained for one step too many: it takes `steps`
          steps.
        - student-untrained: the student's weights do not move: is its own optimizer made, and
          stepped?
        # sides
        - sides-swapped: teacher and student are swapped: the student is trained on labels first,
          and the large network learns from it.
        # gradients
        - never-cleared: the gradients are never cleared: each step adds those of all before. Call
          zero_grad() in every step.
        - momentum: there is momentum in the optimizers: the task says SGD without.
        # end
        - softened-at-the-end: the student answers at temperature T: T belongs to the soft term in
          training. In use it is 1, or every answer is less sure than the student is.
        - logits-returned: logits are returned: the task asks for probabilities.
        - teacher-returned: the teacher's probabilities are returned: the task asks for the
          student's.
        - last-before-step: the probabilities are those before the last step: run the student again
          when it is trained.
        """
    ),
    sizes=lambda case: {"B": len(case["images"]), "C": case["teacher"][-1].out_features},
    changes=("teacher", "student"),
    free=frozenset(
        {
            "gradients of the teacher",
            "gradients of the student",
            "requires_grad of the teacher",
            "mode of the teacher",
            "mode of the student",
        }
    ),
    observe=lambda case, result: {"predictions": result},
)
