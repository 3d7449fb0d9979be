"""Drill: compute the teacher's answers once."""

import torch
from torch import Generator, Tensor, nn

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.compare import copied, same
from kdlearn.drills.grader.drill import Case, Drill, Solution


def store_teacher(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Return the teacher's logits for all images, shape (N, C), in the order of the images.

    Run batch_size images at a time, without gradients and in evaluation mode; each module of the teacher has the mode
    afterwards that it had before. Store logits, so that any temperature can be used later.
    """
    modes = {module: module.training for module in teacher.modules()}
    teacher.eval()
    with torch.no_grad():
        stored = torch.cat([teacher(batch) for batch in images.split(batch_size)])
    for module, mode in modes.items():
        module.training = mode
    return stored


def _network(generator: Generator, inputs: int, classes: int) -> nn.Module:
    """A network with dropout and batch statistics."""
    network = nn.Sequential(
        nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, classes)
    ).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    statistics = network[1]
    assert isinstance(statistics, nn.BatchNorm1d) and statistics.running_mean is not None
    statistics.running_mean.copy_(draws.normal(generator, 6))
    return network


def cases(generator: Generator) -> list[Case]:
    """Numbers of images that no batch divides; teachers in either mode, one of them frozen in part."""
    made = []
    for rows, classes, batch, mode in ((11, 3, 4, True), (13, 4, 5, False), (9, 5, 2, True)):
        teacher = _network(generator, 5, classes).train(mode)
        teacher[1].train(False)  # type: ignore[index]
        made.append(
            {
                "teacher": teacher,
                "images": draws.normal(generator, rows, 5),
                "batch_size": batch,
            }
        )
    return made


def observe(case: Case, result: Tensor) -> dict[str, object]:
    """The answers, and whether the teacher is as it was."""
    return {
        "logits": result,
        "graph": result.requires_grad,
        "modes of the teacher": [module.training for module in case["teacher"].modules()],
        "state of the teacher": case["teacher"].state_dict(),
    }


drill = Drill(
    id="teacher-cache",
    title="The teacher, computed once",
    task=(
        "The images are not augmented, and the teacher is expensive. Compute its answers once, so that every "
        "epoch can use them. What do you store, and what must not change?"
    ),
    minutes=6,
    level="warm-up",
    hints=(
        "What would make the stored answer of an image depend on its neighbors, or on chance?",
        "Evaluation mode, no_grad, every image once and in order, the last short batch included.",
        "torch.cat([teacher(batch) for batch in images.split(batch_size)]) between eval() and putting the modes back",
    ),
    explanation=(
        "One forward pass over the data instead of one for each epoch: the teacher's cost is divided by the "
        "number of epochs. Logits take N · C numbers. Store logits, not probabilities: softmax loses nothing but "
        "a constant, but probabilities at T = 1 round to 0 what a higher T would have brought up. In training "
        "mode batch normalization would mix the images of a batch. Put back each module's mode: a part that was "
        "frozen in evaluation mode must stay so. The interviewer listens for order, the last batch, and the "
        "limit: with random augmentation the stored answers belong to other pixels."
    ),
    reference=store_teacher,
    cases=cases,
    changes=("teacher",),
    observe=observe,
)


@drill.must(
    "gives the same answers for a teacher that arrives in training mode",
    "train-mode",
    "the teacher's answers depend on the mode in which it arrives: with dropout on, they are random. Call eval().",
)
def mode_does_not_matter(solution: Solution, generator: Generator) -> bool:
    """Compare both modes."""
    case = cases(generator)[0]
    found = []
    for mode in (True, False):
        given = copied(case)
        given["teacher"].train(mode)
        found.append(drill.call(solution, given))
    return same(*found)


@drill.alternative
def filled(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """A tensor that is filled."""
    before = [module.training for module in teacher.modules()]
    for module in teacher.modules():
        module.training = False
    pieces = []
    start = 0
    while start < len(images):
        pieces.append(teacher(images[start : start + batch_size]).detach())
        start += batch_size
    for module, mode in zip(teacher.modules(), before, strict=True):
        module.training = mode
    result = torch.empty(len(images), pieces[0].shape[1], dtype=pieces[0].dtype)
    torch.cat(pieces, out=result)
    return result


@drill.alternative
def one_by_one(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Batches of one: in evaluation mode they do not matter."""
    was = {name: module.training for name, module in teacher.named_modules()}
    with torch.no_grad():
        result = torch.stack([teacher.eval()(image[None])[0] for image in images])
    for name, module in teacher.named_modules():
        module.training = was[name]
    return result


@drill.mistake(
    "train-mode",
    "the teacher runs in training mode: its answers depend on the other images of the batch and on dropout, and "
    "its running statistics drift. Call eval().",
)
def noisy(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Leave the teacher in training mode."""
    modes = {module: module.training for module in teacher.modules()}
    teacher.train()
    with torch.no_grad():
        result = torch.cat([teacher(batch) for batch in images.split(batch_size)])
    for module, mode in modes.items():
        module.training = mode
    return result


@drill.mistake(
    "last-batch-lost",
    "the last images are missing: the final batch is shorter than the others, and was dropped.",
)
def dropped(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Keep full batches only."""
    whole = len(images) // batch_size * batch_size
    return store_teacher(teacher, images[:whole], batch_size=batch_size)


@drill.mistake(
    "shuffled",
    "the answers are in another order than the images: a shuffled loader was stored. Row i must be the answer to "
    "image i.",
)
def shuffled(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Store in random order."""
    order = torch.randperm(len(images))
    return store_teacher(teacher, images[order], batch_size=batch_size)


@drill.mistake(
    "graph-kept",
    "the stored logits carry a graph: the activations of every batch stay in memory, and a later backward would "
    "go through the teacher. Use no_grad().",
)
def with_graph(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Forget no_grad."""
    modes = {module: module.training for module in teacher.modules()}
    teacher.eval()
    result = torch.cat([teacher(batch) for batch in images.split(batch_size)])
    for module, mode in modes.items():
        module.training = mode
    return result


@drill.mistake(
    "mode-not-put-back",
    "the teacher is left in another mode than it had: put back each module's own, as parts of it may have been "
    "frozen in evaluation mode.",
)
def left_in_eval(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Leave it in evaluation mode."""
    teacher.eval()
    with torch.no_grad():
        return torch.cat([teacher(batch) for batch in images.split(batch_size)])


@drill.mistake(
    "all-to-train-mode",
    "every module is put in the teacher's own mode afterwards: a part that was frozen in evaluation mode is "
    "frozen no more. Remember each module's mode.",
)
def one_mode(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Put back one mode for all."""
    mode = teacher.training
    result = left_in_eval(teacher, images, batch_size=batch_size)
    teacher.train(mode)
    return result


@drill.mistake(
    "probabilities-stored",
    "probabilities are stored, not logits: what rounded to 0 at T = 1 cannot be softened later.",
)
def probabilities(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Apply softmax."""
    return store_teacher(teacher, images, batch_size=batch_size).softmax(1)


@drill.mistake(
    "fresh-augmentation",
    "the images are changed at random before they are stored: training then shows other pixels than the teacher "
    "judged. Store what the student will see.",
    seen="described in Beyer et al., CVPR 2022",
)
def augmented(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Store answers to noisy images."""
    noisy_images = images + 0.1 * torch.randn_like(images)
    return store_teacher(teacher, noisy_images, batch_size=batch_size)
