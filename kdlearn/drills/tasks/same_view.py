"""Drill: teacher and student see the same augmented images."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from kdlearn.drills.families import chosen, divergence, divergence_knobs
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Network, Wrong, switches


def distill_batch(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    augment: Callable[[Tensor, Generator], Tensor],
    generator: Generator,
) -> Tensor:
    """Return the distillation loss of one batch under random augmentation.

    augment(images, generator) draws a random change; call it once. The loss is KL(teacher ||
    student) at T = 1, summed over classes and averaged over the batch. The teacher is a constant
    and in eval mode already.
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
    noise = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    return torch.stack(rolled) + 0.3 * noise.to(images.dtype)


def _network(generator: Generator, pixels: int, classes: int) -> Network:
    layer = nn.Linear(pixels, classes, dtype=torch.float64)
    nn.init.normal_(layer.weight, generator=generator)
    nn.init.normal_(layer.bias, generator=generator)
    return Network(nn.Flatten(), layer).eval()


def observe(case: Case, result: Tensor) -> dict[str, object]:
    """The loss, and what it would change in each network."""
    found: dict[str, object] = {"value": result}
    for side in ("student", "teacher"):
        reached = None
        if result.requires_grad:
            (reached,) = torch.autograd.grad(
                result, case[side][1].weight, retain_graph=True, allow_unused=True
            )
        found[f"gradient of the {side}"] = reached
    return found


def _case(generator: Generator, batch: int, classes: int, height: int, width: int) -> Case:
    return {
        "student": _network(generator, height * width, classes),
        "teacher": _network(generator, height * width, classes),
        "images": draws.normal(generator, batch, 1, height, width),
        "augment": shifted,
        "generator": Generator().manual_seed(draws.one(generator, 0, 10**6)),
    }


def example() -> Case:
    """Two images of one by three pixels, three classes."""
    return _case(Generator().manual_seed(0), 2, 3, 1, 3)


def cases(generator: Generator) -> list[Case]:
    """Small linear networks on small images."""
    return [_case(generator, *sizes) for sizes in ((4, 3, 2, 5), (6, 5, 3, 4), (3, 4, 1, 7))]


def edges() -> list[Edge]:
    """One image; a teacher that is the student's copy."""
    case = example()
    return [
        Edge("a batch of one image", case | {"images": case["images"][:1]}),
        Edge(
            "float32 images and networks",
            {
                name: value.float() if isinstance(value, Tensor | nn.Module) else value
                for name, value in example().items()
            },
        ),
    ]


def family(
    wrong: Wrong,
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    augment: Callable[[Tensor, Generator], Tensor],
    generator: Generator,
) -> Tensor:
    """The step with its switches."""
    ours = theirs = images
    if "no-augmentation" not in wrong:
        if "first-draw-lost" in wrong:
            augment(images, generator)
        ours = theirs = augment(images, generator)
    if "augmented-twice" in wrong:
        ours = theirs = augment(ours, generator)
    if "two-draws" in wrong:
        theirs = augment(images, generator)
    if "two-draws-teacher-first" in wrong:
        ours = augment(images, generator)
    if "clean-teacher" in wrong:
        theirs = images
    if "clean-student" in wrong:
        ours = images
    s = student(ours)
    t = student(theirs) if "student-only" in wrong else teacher(theirs)
    if "sides-swapped" in wrong:
        s, t = t, s
    if "student-without-gradient" in wrong:
        s = s.detach()
    loss = divergence(wrong, s, t)
    if "teacher-gradient" in wrong:
        # The same value, and the gradient of a teacher that was left in the graph.
        live = F.kl_div(s.detach().log_softmax(1), t.softmax(1), reduction="batchmean")
        loss = loss + live - live.detach()
    return loss


drill = Drill(
    id="same-view",
    title="One view for both",
    task=(
        "You distill with random crops. Write the step for one batch: augment, ask the teacher, "
        "compare. What must be the same for both networks, and what must not be stored?"
    ),
    minutes=6,
    level="core",
    hints=(
        "The teacher's answer is about an image. Which one?",
        "How often may augment be called in one step, and who must get what it returns?",
        "Which of the two networks needs a graph, and which of the two outputs is a probability "
        "and which a logarithm in F.kl_div?",
    ),
    explanation=(
        "The teacher's soft target belongs to pixels, not to an index in the data set. With two "
        "draws, the student is told what another crop shows. With a clean image for the teacher, "
        "it is told to be sure about pixels that it does not see. Stored targets have the same "
        "trap: they are right only for the views they were computed on. [Beyer et al. (CVPR "
        "2022)](cite:beyer2022knowledge) call the same view for both the consistent teacher, and "
        "find that it needs long training to pay. "
        'The cost is one forward pass of the teacher a step. The interviewer listens for "one '
        'draw" and for the '
        "consequence for caching."
    ),
    reference=distill_batch,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=chosen(
        divergence_knobs(temperature=False),
        "sign",
        "log-of-softmax",
        "over-everything",
        "wrong-dimension-student",
        "wrong-dimension-teacher",
    )
    | switches(
        """
        # view
        - two-draws: the augmentation is drawn twice: the teacher judges one crop and the student is
          trained on another. Draw once, and give both the same tensor.
        - two-draws-teacher-first: the augmentation is drawn twice, first for the teacher: it judges
          one crop and the student is trained on another. Draw once, and give both the same tensor.
        - clean-teacher: the teacher sees the clean images and the student the augmented ones: so do
          stored targets with fresh augmentation. Ask the teacher about what the student sees.
        - clean-student: the student sees the clean images and only the teacher the augmented ones:
          the student learns noise about the images it has.
        - no-augmentation: nothing is augmented: both see the clean images, and the few training
          images are soon learned by heart.
        - augmented-twice: the view is augmented once more: call augment once.
        - first-draw-lost: augment is called twice and the first result is thrown away: call it
          once.
        # sides
        - sides-swapped: the student's output is the target and the teacher is what would learn: the
          target side is the teacher's, and carries no gradient.
        - student-only: the student is its own teacher: its loss is 0 and nothing is learned.
        # teacher
        - teacher-gradient: the teacher's weights received a gradient: run it under torch.no_grad(),
          or detach its logits.
        # student
        - student-without-gradient: the loss sends no gradient to the student: no_grad() or detach()
          is around it too.
        """
    ),
    sizes=lambda case: {"B": len(case["images"]), "C": case["student"][1].out_features},
    changes=("generator",),
    observe=observe,
)
