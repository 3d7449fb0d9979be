"""Drill: teacher and student see the same augmented images."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def distill_batch(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    augment: Callable[[Tensor, Generator], Tensor],
    generator: Generator,
) -> Tensor:
    """Return the distillation loss of one batch under random augmentation.

    augment(images, generator) draws a random change; call it once. The loss is KL(teacher || student) at T = 1, summed
    over classes and averaged over the batch. The teacher is a constant and in eval mode already.
    """
    view = augment(images, generator)
    with torch.no_grad():
        targets = teacher(view).log_softmax(dim=1)
    logs = student(view).log_softmax(dim=1)
    return F.kl_div(logs, targets, reduction="batchmean", log_target=True)


def shifted(images: Tensor, generator: Generator) -> Tensor:
    """Roll each image by its own random number of columns, and add noise."""
    shifts = torch.randint(images.shape[-1], (len(images),), generator=generator)
    rolled = [image.roll(int(by), dims=-1) for image, by in zip(images, shifts, strict=True)]
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    return torch.stack(rolled) + 0.3 * noise


def _network(generator: Generator, pixels: int, classes: int) -> nn.Module:
    layer = nn.Linear(pixels, classes, dtype=torch.float64)
    nn.init.normal_(layer.weight, generator=generator)
    return nn.Sequential(nn.Flatten(), layer).eval()


def _gradients(case: Case, loss: Tensor) -> dict[str, Tensor | None]:
    """What the loss would change in each network."""
    found = {}
    for side in ("student", "teacher"):
        weight = case[side][1].weight
        reached = torch.autograd.grad(loss, weight, retain_graph=True, allow_unused=True)
        found[f"gradient of the {side}"] = reached[0]
    return found


def cases(generator: Generator) -> list[Case]:
    """Small linear networks on small images."""
    made = []
    for batch, classes, height, width in ((4, 3, 2, 5), (6, 5, 3, 4), (3, 4, 1, 7)):
        made.append(
            {
                "student": _network(generator, height * width, classes),
                "teacher": _network(generator, height * width, classes),
                "images": draws.normal(generator, batch, 1, height, width),
                "augment": shifted,
                "generator": Generator().manual_seed(draws.one(generator, 0, 10**6)),
            }
        )
    return made


drill = Drill(
    id="same-view",
    title="One view for both",
    task=(
        "You distill with random crops. Write the step for one batch: augment, ask the teacher, compare. What must "
        "be the same for both networks, and what must not be stored?"
    ),
    minutes=6,
    level="core",
    hints=(
        "The teacher's answer is about an image. Which one?",
        "Draw the augmentation once, and give the same tensor to both networks.",
        "view = augment(images, generator); then teacher(view) under no_grad, student(view), F.kl_div",
    ),
    explanation=(
        "The teacher's soft target belongs to pixels, not to an index in the data set. With two draws, the "
        "student is told what another crop shows. With a clean image for the teacher, it is told to be sure about "
        "pixels that it does not see. Stored targets have the same trap: they are right only for the views they "
        "were computed on. Beyer et al. (CVPR 2022) call the same view for both the consistent teacher, and find "
        "that it needs long training to pay."
        'The cost is one forward pass of the teacher a step. The interviewer listens for "one draw" and for the '
        "consequence for caching."
    ),
    reference=distill_batch,
    cases=cases,
    changes=("generator",),
    observe=lambda case, result: {"value": result} | _gradients(case, result),
)


@drill.alternative
def written_out(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    augment: Callable[[Tensor, Generator], Tensor],
    generator: Generator,
) -> Tensor:
    """The definition, with detach."""
    view = augment(images, generator)
    p = teacher(view).detach().softmax(1)
    gap = p.log() - student(view).log_softmax(1)
    return (p * gap).sum() / len(images)


@drill.alternative
def one_by_one(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    augment: Callable[[Tensor, Generator], Tensor],
    generator: Generator,
) -> Tensor:
    """Cross-entropy less entropy, image by image."""
    losses = []
    for view in augment(images, generator):
        with torch.no_grad():
            target = teacher(view[None]).softmax(1)
        entropy = -(target * target.log()).sum()
        losses.append(F.cross_entropy(student(view[None]), target) - entropy)
    return torch.stack(losses).mean()


def _kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student) with a constant teacher."""
    target = teacher_logits.detach().log_softmax(1)
    return F.kl_div(student_logits.log_softmax(1), target, reduction="batchmean", log_target=True)


Augment = Callable[[Tensor, Generator], Tensor]


@drill.mistake(
    "two-draws",
    "the augmentation is drawn twice: the teacher judges one crop and the student is trained on another. Draw "
    "once, and give both the same tensor.",
)
def two_draws(
    student: nn.Module, teacher: nn.Module, images: Tensor, augment: Augment, generator: Generator
) -> Tensor:
    """Augment for each network."""
    return _kl(student(augment(images, generator)), teacher(augment(images, generator)))


@drill.mistake(
    "clean-teacher",
    "the teacher sees the clean images and the student the augmented ones: so do stored targets with fresh "
    "augmentation. Ask the teacher about what the student sees.",
)
def clean_teacher(
    student: nn.Module, teacher: nn.Module, images: Tensor, augment: Augment, generator: Generator
) -> Tensor:
    """Ask the teacher about the original."""
    return _kl(student(augment(images, generator)), teacher(images))


@drill.mistake(
    "clean-student",
    "the student sees the clean images and only the teacher the augmented ones: the student learns noise about "
    "the images it has.",
)
def clean_student(
    student: nn.Module, teacher: nn.Module, images: Tensor, augment: Augment, generator: Generator
) -> Tensor:
    """Augment for the teacher alone."""
    return _kl(student(images), teacher(augment(images, generator)))


@drill.mistake(
    "no-augmentation",
    "nothing is augmented: both see the clean images, and the few training images are soon learned by heart.",
)
def no_augmentation(
    student: nn.Module, teacher: nn.Module, images: Tensor, augment: Augment, generator: Generator
) -> Tensor:
    """Leave the images as they are."""
    return _kl(student(images), teacher(images))


@drill.mistake(
    "sides-swapped",
    "the student's output is the target and the teacher is what would learn: the target side is the teacher's, "
    "and carries no gradient.",
)
def sides_swapped(
    student: nn.Module, teacher: nn.Module, images: Tensor, augment: Augment, generator: Generator
) -> Tensor:
    """Train the teacher toward the student."""
    view = augment(images, generator)
    return _kl(teacher(view), student(view))


@drill.mistake(
    "teacher-gradient",
    "the teacher's weights received a gradient: run it under torch.no_grad(), or detach its logits.",
)
def live_teacher(
    student: nn.Module, teacher: nn.Module, images: Tensor, augment: Augment, generator: Generator
) -> Tensor:
    """Leave the teacher in the graph."""
    view = augment(images, generator)
    target = teacher(view).softmax(1)
    return F.kl_div(student(view).log_softmax(1), target, reduction="batchmean")
