"""Drill: one whole step of distillation."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from kdlearn.drills.families import MIXTURE, chosen, divergence_knobs, mixture
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Call, Case, Drill, Edge, Network, Wrong, switches


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

    Both networks give logits (B, C). The student is in training mode, the teacher in evaluation
    mode, whatever mode they come in. Loss: (1 - weight) · cross-entropy with the labels + weight ·
    T² · KL(teacher || student) at temperature T, both averaged over the batch. The optimizer holds
    the student's parameters; nothing of the teacher changes but its mode.
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


def _network(generator: Generator, inputs: int, width: int, classes: int) -> Network:
    """A network whose mode matters."""
    network = Network(
        nn.Linear(inputs, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, classes),
    ).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    return network


def _case(generator: Generator, batch: int, classes: int, mode: bool) -> Case:
    """Networks in either mode; the student holds gradients of an earlier batch."""
    student = _network(generator, 4, 6, classes).train(mode)
    teacher = _network(generator, 4, 9, classes).train(mode)
    images = draws.normal(generator, batch, 4)
    F.cross_entropy(student(images), torch.zeros(batch, dtype=torch.int64)).backward()
    return {
        "student": student,
        "teacher": teacher,
        "images": images,
        "labels": draws.whole(generator, 0, classes - 1, batch),
        "optimizer": SGD(student.parameters(), lr=0.1),
        "temperature": draws.real(generator, 2, 5),
        "weight": draws.real(generator, 0.3, 0.8),
    }


def example() -> Case:
    """Three images of three classes, T = 2."""
    case = _case(Generator().manual_seed(0), 3, 3, True)
    return case | {"temperature": 2.0, "weight": 0.75}


def cases(generator: Generator) -> list[Case]:
    """Networks in either mode."""
    plans = ((6, 3, True), (8, 5, False), (5, 4, True))
    return [_case(generator, batch, classes, mode) for batch, classes, mode in plans]


def edges() -> list[Edge]:
    """Networks that arrive in either mode, an optimizer with momentum."""
    case = example()
    training, resting = (_modes(example(), mode) for mode in (True, False))
    momentum = example()
    momentum["optimizer"] = SGD(momentum["student"].parameters(), lr=0.1, momentum=0.9)
    return [
        Edge("both networks in training mode", training),
        Edge("both networks in evaluation mode", resting),
        Edge("an optimizer with momentum", momentum),
        Edge("weight = 0, the labels alone", case | {"weight": 0.0}, without="the soft term"),
        Edge("weight = 1, the soft term alone", case | {"weight": 1.0}, without="the labels' term"),
    ]


def _modes(case: Case, training: bool) -> Case:
    case["student"].train(training)
    case["teacher"].train(training)
    return case


def watch(case: Case, calls: list[Call]) -> list[str]:
    """In which mode the networks ran."""
    seen = []
    if any(call.of == "teacher" and call.training for call in calls):
        seen.append("teacher-in-train-mode")
    if calls and all(not call.training for call in calls if call.of == "student"):
        seen.append("student-in-eval-mode")
    return seen


def family(
    wrong: Wrong,
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    *,
    temperature: float,
    weight: float,
) -> float:
    """The step with its switches."""
    if "student-mode-left" not in wrong:
        student.train("student-in-eval-mode" not in wrong)
    if "teacher-mode-left" not in wrong:
        teacher.train("teacher-in-train-mode" in wrong)
    with torch.set_grad_enabled("sides-swapped" in wrong):
        taught = teacher(images)
    sides = (student(images), taught)
    if "sides-swapped" in wrong:
        sides = (sides[1], sides[0].detach())
    loss = mixture(wrong, *sides, labels, temperature=temperature, weight=weight)
    if "step-before-backward" in wrong:
        optimizer.step()
    if "old-gradients" not in wrong:
        optimizer.zero_grad()
    if loss.requires_grad:
        loss.backward()
    if not {"step-before-backward", "no-step"} & wrong:
        optimizer.step()
    if "two-steps" in wrong:
        optimizer.step()
    if "loss-after-step" in wrong:
        with torch.no_grad():
            loss = mixture(
                wrong, student(images), taught, labels, temperature=temperature, weight=weight
            )
    return loss.item()


drill = Drill(
    id="train-step",
    title="One training step",
    task=(
        "Write one step of the training loop: the teacher answers, the student learns from labels "
        "and soft targets. Assume nothing about the modes in which you get the networks."
    ),
    minutes=10,
    level="core",
    hints=(
        "What in a network behaves differently in training mode, and for which of the two do you "
        "want that? Assume nothing about how they arrive.",
        "Three calls belong to the optimizer and to backward. What is in .grad when your function "
        "begins?",
        "The teacher needs no graph, and no_grad() is not eval(). Where does T stand in the loss, "
        "and where not?",
    ),
    explanation=(
        "A live teacher adds its forward pass to each step, and no memory for a backward one: that "
        "is what no_grad saves. eval() is another matter: it stops dropout and makes batch "
        "normalization use its running statistics; no_grad does neither. A teacher left in "
        "training mode gives other targets for the same image in each batch, and its running "
        "statistics drift toward the student's data, in silence. The labels' term has no T and no "
        "T². The interviewer listens for the difference of eval and no_grad, and for what is in "
        "the optimizer."
    ),
    reference=train_step,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=chosen(
        divergence_knobs("the soft term"),
        "sign",
        "logarithm",
        "over-everything",
        "weights-missing",
        "logits-matched",
        "squared-gap",
        "divided-afterwards",
        "divided-by-t-squared",
        "mean-over-classes-only",
        "softmax-twice",
        "wrong-dimension-student",
        "wrong-dimension-teacher",
        "t-not-squared",
        "symmetric",
        "log-target",
    )
    | chosen(
        MIXTURE,
        "halves",
        "labels-weight-alone",
        "labels-multiplied",
        "labels-summed",
        "labels-missing",
        "soft-term-missing",
    )
    | switches(
        """
        # teacher's mode
        - teacher-in-train-mode: the teacher runs in training mode: its batch statistics, and
          dropout if it has any, make its answers depend on the batch, and its running statistics
          drift. no_grad() does not change that; call teacher.eval().
        - teacher-mode-left: the teacher runs in the mode in which it comes: where that is training
          mode, its batch statistics make its answers depend on the batch, and its running
          statistics drift. no_grad() does not change that; call teacher.eval().
        # student's mode
        - student-mode-left: the student trains in the mode in which it comes: where that is
          evaluation mode, batch normalization uses running statistics that never follow. Call
          student.train().
        - student-in-eval-mode: the student trains in evaluation mode: batch normalization uses
          running statistics that never follow. Call student.train().
        # step
        - old-gradients: the gradients of an earlier batch are still there and are added to yours:
          call optimizer.zero_grad() before backward.
        - step-before-backward: the optimizer steps before backward: it uses the gradients of an
          earlier batch, and yours wait for the next call.
        - no-step: the student's weights do not move: optimizer.step() or backward() is missing, or
          the gradients are cleared between backward() and step().
        - two-steps: the optimizer steps twice on one batch.
        # sides
        - sides-swapped: teacher and student are swapped: the loss trains on the teacher's logits,
          and the student's are the targets.
          Seen in code: keras-team/keras-io commit 1da2fde
        # returned
        - loss-after-step: what you return is the loss after the step: the step's own loss is asked
          for.
        """
    ),
    watch=watch,
    sizes=lambda case: {"B": len(case["images"]), "C": case["teacher"][-1].out_features},
    changes=("student", "optimizer"),
    free=frozenset({"gradients of the student"}),
    observe=lambda case, result: {"loss": result},
)
