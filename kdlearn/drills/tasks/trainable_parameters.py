"""Drill: what the optimizer must hold."""

import torch
from torch import Generator, nn

from kdlearn.drills.grader.drill import Case, Drill


def parameters_to_train(
    student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList
) -> list[nn.Parameter]:
    """Return the parameters that an optimizer must hold for distillation through projectors.

    Those of the student and of the projectors that require a gradient, in any order, each once, also where two layers
    share it. Nothing of the teacher. Change nothing. Result: a list.
    """
    both = nn.ModuleList([student, projectors])
    return [parameter for parameter in both.parameters() if parameter.requires_grad]


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self, width: int) -> None:
        """Share the weight."""
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(width, width).requires_grad_(False)


def cases(generator: Generator) -> list[Case]:
    """Students with shared and frozen parameters, one or two projectors."""
    made = []
    for _ in range(3):
        width, wide = (int(torch.randint(2, 5, (), generator=generator)) for _ in range(2))
        count = int(torch.randint(1, 3, (), generator=generator))
        made.append(
            {
                "student": Tied(width),
                "teacher": nn.Sequential(nn.Linear(width, wide), nn.Linear(wide, wide)),
                "projectors": nn.ModuleList([nn.Linear(width, wide) for _ in range(count)]),
            }
        )
    return made


def observe(case: Case, result: list[nn.Parameter]) -> dict[str, object]:
    """The names of what was returned, sorted, and the kind of the collection."""
    known: dict[int, str] = {}
    for side in ("teacher", "projectors", "student"):
        for name, parameter in case[side].named_parameters(remove_duplicate=False):
            known.setdefault(id(parameter), f"{side}.{name}")
    names = sorted(known.get(id(parameter), "something else") for parameter in result)
    return {"parameters": names, "kind": type(result).__name__}


drill = Drill(
    id="trainable-parameters",
    title="What trains?",
    task=(
        "A student is matched to a teacher through projectors. Which parameters do you hand to the optimizer? "
        "Write the function that collects them."
    ),
    minutes=4,
    level="warm-up",
    hints=(
        "Three modules. Which of them change during training, and which of their parameters are frozen?",
        "parameters() of one module names a shared weight once; joining two lists may not.",
        "[p for p in nn.ModuleList([student, projectors]).parameters() if p.requires_grad]",
    ),
    explanation=(
        "Linear in the number of parameters. A projector that is left out stays a random map: the loss has a "
        "gradient, the student learns to please it, and nothing fails. A teacher that is let in learns to be easy "
        "to follow. Frozen parameters get no gradient, but weight decay in some optimizers would still need them "
        "left out for clarity. A generator would be used up by the first reader. The interviewer listens for the "
        "projectors; it is the error that published code has."
    ),
    reference=parameters_to_train,
    cases=cases,
    observe=observe,
)


@drill.alternative
def by_identity(
    student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList
) -> list[nn.Parameter]:
    """A dict by id keeps each one once."""
    found = {id(p): p for part in (projectors, student) for p in part.parameters()}
    return [p for p in found.values() if p.requires_grad]


@drill.alternative
def by_names(
    student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList
) -> list[nn.Parameter]:
    """A loop that asks before it adds."""
    chosen: list[nn.Parameter] = []
    for module in (student, *projectors):
        for _, parameter in module.named_parameters():
            new = all(parameter is not other for other in chosen)
            if parameter.requires_grad and new:
                chosen.append(parameter)
    return chosen


@drill.mistake(
    "projectors-forgotten",
    "the projectors are missing: they stay the random maps they are at the start, and the student is matched "
    "through them. Nothing fails, which is why it is published so often.",
    seen="a circulating class KnowledgeDistiller, which gives the optimizer the student's parameters alone",
)
def no_projectors(
    student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList
) -> list[nn.Parameter]:
    """Take the student alone."""
    return [p for p in student.parameters() if p.requires_grad]


@drill.mistake(
    "teacher-included",
    "the teacher's parameters are among them: it would learn to be easy to follow. The optimizer must not hold "
    "them, and the teacher is run under no_grad.",
)
def with_teacher(
    student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList
) -> list[nn.Parameter]:
    """Take everything."""
    everything = nn.ModuleList([student, teacher, projectors])
    return [p for p in everything.parameters() if p.requires_grad]


@drill.mistake(
    "teacher-instead",
    "these are the teacher's parameters and not the student's: the big model would be trained.",
    seen="keras-team/keras-io commit 1da2fde, which mixes the two up",
)
def teacher_instead(
    student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList
) -> list[nn.Parameter]:
    """Mix up the two."""
    return parameters_to_train(teacher, student, projectors)


@drill.mistake(
    "frozen-included",
    "frozen parameters are among them: the task asks for those that require a gradient.",
)
def with_frozen(
    student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList
) -> list[nn.Parameter]:
    """Do not ask for requires_grad."""
    return list(nn.ModuleList([student, projectors]).parameters())


@drill.mistake(
    "shared-twice",
    "a shared parameter is there twice: optimizers refuse it or step twice. Collect by identity, not by name.",
)
def twice(student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList) -> list[nn.Parameter]:
    """Collect layer by layer."""
    found = []
    for part in (student, projectors):
        for layer in part.modules():
            found += [p for p in layer.parameters(recurse=False) if p.requires_grad]
    return found


@drill.mistake(
    "generator",
    "the result is a generator: it is used up after one look, so a second optimizer or a count finds nothing. "
    "Return a list.",
)
def lazily(student: nn.Module, teacher: nn.Module, projectors: nn.ModuleList) -> object:
    """Return a generator."""
    return (p for p in parameters_to_train(student, teacher, projectors))
