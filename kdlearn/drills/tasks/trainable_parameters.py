"""Drill: what the optimizer must hold."""

from collections.abc import Iterable

import torch
from torch import Generator, nn

from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def parameters_to_train(
    student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList
) -> list[nn.Parameter]:
    """Return the parameters that an optimizer must hold for distillation through projectors.

    Those of the student and of the projectors that require a gradient, in any order, each once,
    also where two layers share it. Nothing of the teacher. Change nothing. Result: a list.
    """
    both = nn.ModuleList([student, projectors])
    return [parameter for parameter in both.parameters() if parameter.requires_grad]


class Tied(nn.Module):
    """Two layers with one weight, and a frozen one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(width, width).requires_grad_(False)


def _case(width: int, wide: int, count: int) -> Case:
    return {
        "student": Tied(width),
        "teacher": nn.Sequential(nn.Linear(width, wide), nn.Linear(wide, wide)),
        "projectors": nn.ModuleList([nn.Linear(width, wide) for _ in range(count)]),
    }


def example() -> Case:
    """A student with a shared weight and a frozen layer, two projectors."""
    return _case(2, 3, 2)


def cases(generator: Generator) -> list[Case]:
    """Students with shared and frozen parameters, one to three projectors."""
    made = []
    for count in (1, 2, 3):
        width, wide = (int(torch.randint(2, 5, (), generator=generator)) for _ in range(2))
        made.append(_case(width, wide, count))
    return made


def observe(case: Case, result: object) -> dict[str, object]:
    """The names of what was returned, sorted, and the kind of the collection."""
    known: dict[int, str] = {}
    for side in ("teacher", "projectors", "student"):
        for name, parameter in case[side].named_parameters(remove_duplicate=False):
            known.setdefault(id(parameter), f"{side}.{name}")
    parts = list(result.values()) if isinstance(result, dict) else [result]
    if isinstance(result, Iterable) and not isinstance(result, dict | torch.Tensor):
        parts = list(result)
    names = sorted(known.get(id(part), f"a {type(part).__name__}") for part in parts)
    kind = "generator" if hasattr(result, "__next__") else type(result).__name__
    return {"parameters": names, "kind": kind}


def edges() -> list[Edge]:
    """A frozen part of a projector, and a weight that student and projector share."""
    frozen, shared, alone = example(), example(), example()
    frozen["projectors"][0].bias.requires_grad_(False)
    shared["projectors"][0].weight = shared["student"].first.weight
    alone["projectors"] = nn.ModuleList()
    return [
        Edge("a projector whose bias is frozen", frozen),
        Edge("a weight that student and projector share", shared, "Collect by identity."),
        Edge("no projector at all", alone),
    ]


def family(
    wrong: Wrong, student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList
) -> object:
    """The list with its switches."""
    if "teacher-instead" in wrong:
        student, teacher = teacher, student
    parts: list[nn.Module] = [] if "student-forgotten" in wrong else [student]
    if "teacher-included" in wrong:
        parts.append(teacher)
    if "projectors-forgotten" not in wrong:
        parts += list(projectors)[: 1 if "first-projector-only" in wrong else None]
    found = [
        p for part in parts for layer in part.modules() for p in layer.parameters(recurse=False)
    ]
    counts = {id(p): sum(p is other for other in found) for p in found}
    if "shared-left-out" in wrong:
        found = [p for p in found if counts[id(p)] == 1]
    elif "shared-twice" not in wrong:
        found = list({id(p): p for p in found}.values())
    ours = {id(p) for p in student.parameters()}
    if "frozen-alone" in wrong:
        found = [p for p in found if not p.requires_grad]
    elif "frozen-projector-included" in wrong:
        found = [p for p in found if p.requires_grad or id(p) not in ours]
    elif "frozen-included" not in wrong:
        found = [p for p in found if p.requires_grad]
    if "biases-forgotten" in wrong:
        found = [p for p in found if p.dim() > 1]
    kinds = {
        "generator": lambda: (p for p in found),
        "tuple": lambda: tuple(found),
        "set": lambda: set(found),
        "dict": lambda: {str(number): p for number, p in enumerate(found)},
        "groups": lambda: [{"params": found}],
    }
    return next((kinds[name]() for name in kinds if name in wrong), found)


drill = Drill(
    id="trainable-parameters",
    title="What trains?",
    task=(
        "A student is matched to a teacher through projectors. Which parameters do you hand to the "
        "optimizer? Write the function that collects them."
    ),
    minutes=4,
    level="warm-up",
    hints=(
        "Three modules. Which of them change during training, and which of their parameters are "
        "frozen?",
        "parameters() of one module names a shared weight once; joining two lists may not. What "
        "could hold both modules, so that one call is enough?",
        "What would become of a matched layer if its projector never learned? And who else could "
        "use up what you return?",
    ),
    explanation=(
        "Linear in the number of parameters. A projector that is left out stays a random map: the "
        "loss has a gradient, the student learns to please it, and nothing fails. A teacher that "
        "is let in learns to be easy to follow. Frozen parameters have no gradient, so "
        "that PyTorch's optimizers skip them, weight decay included; leave them out all the same, "
        "so that the list says what trains. A generator would be "
        "used up by the first reader. The interviewer listens for the projectors; it is the error "
        "that published code has."
    ),
    reference=parameters_to_train,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # projectors
        - projectors-forgotten: the projectors are missing: they stay the random maps they are at
          the start, and the student is matched through them. Nothing fails, which is why it is
          published so often.
        - first-projector-only: only the first projector's parameters are there: take those of all.
        # student
        - student-forgotten: the student's parameters are missing: only the projectors would learn.
        - biases-forgotten: the biases are missing: every parameter that requires a gradient is
          trained, also those of one dimension.
        # teacher
        - teacher-included: the teacher's parameters are among them: it would learn to be easy to
          follow. The optimizer must not hold them, and the teacher is run under no_grad.
        - teacher-instead: these are the teacher's parameters and not the student's: the big model
          would be trained.
          Seen in code: keras-team/keras-io commit 1da2fde, which mixes the two up
        # frozen
        - frozen-included: frozen parameters are among them: the task asks for those that require a
          gradient.
        - frozen-projector-included: frozen parameters of the projectors are among them: the task
          asks for those that require a gradient.
        - frozen-alone: these are the frozen parameters: the condition is the wrong way round.
        # shared
        - shared-twice: a shared parameter is there twice: optimizers refuse it or step twice.
          Collect by identity, not by name or layer.
        - shared-left-out: of two layers that share a parameter it is missing altogether: each
          parameter is there once.
        # kind
        - generator: the result is a generator or an iterator: it is used up after one look, so a
          second optimizer or a count finds nothing. Return a list.
        - tuple: the result is a tuple: the task asks for a list.
        - set: the result is a set: its order differs from run to run, and so would an optimizer's
          state. Return a list.
        - dict: the result is a dict: the task asks for a list of the parameters alone.
        - groups: the result is a list of groups or lists: the task asks for one flat list of
          parameters.
        """
    ),
    any_kind=True,
    observe=observe,
)
