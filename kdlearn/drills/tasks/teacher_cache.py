"""Drill: compute the teacher's answers once."""

import torch
from torch import Generator, Tensor, nn

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Call, Case, Drill, Edge, Fault, Network, Wrong, switches


def store_teacher(teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Return the teacher's logits for all images, shape (N, C), in the order of the images.

    Run batch_size images at a time, without gradients and in evaluation mode. Run the teacher
    itself, not a copy; each of its modules has the mode afterwards that it had before. Store
    logits, so that any temperature can be used later.
    """
    modes = {module: module.training for module in teacher.modules()}
    teacher.eval()
    with torch.no_grad():
        stored = torch.cat([teacher(batch) for batch in images.split(batch_size)])
    for module, mode in modes.items():
        module.training = mode
    return stored


def _network(generator: Generator, inputs: int, classes: int) -> Network:
    """A network with dropout and batch statistics."""
    network = Network(
        nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, classes)
    ).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    statistics = network[1]
    assert isinstance(statistics, nn.BatchNorm1d) and statistics.running_mean is not None
    statistics.running_mean.copy_(draws.normal(generator, 6))
    return network


def _case(generator: Generator, rows: int, classes: int, batch: int, mode: bool) -> Case:
    teacher = _network(generator, 5, classes).train(mode)
    teacher[1].train(False)
    return {
        "teacher": teacher,
        "images": draws.normal(generator, rows, 5),
        "batch_size": batch,
    }


def example() -> Case:
    """Five images, three at a time."""
    return _case(Generator().manual_seed(0), 5, 2, 3, True)


def cases(generator: Generator) -> list[Case]:
    """Numbers of images that no batch divides; teachers in either mode, one frozen in part."""
    plans = ((11, 3, 4, True), (13, 4, 5, False), (10, 5, 4, True))
    return [_case(generator, *plan) for plan in plans]


def edges() -> list[Edge]:
    """Batches of one, one batch for all, whole batches, modes that differ within the teacher."""
    case, training, resting = example(), example(), example()
    training["teacher"].train()
    resting["teacher"].eval()
    return [
        Edge("a batch size of 1", case | {"batch_size": 1}),
        Edge("a batch size that is larger than the set", case | {"batch_size": 10}),
        Edge(
            "a batch size that divides the set",
            case | {"images": case["images"][:4], "batch_size": 2},
        ),
        Edge("one image", case | {"images": case["images"][:1]}),
        Edge("a teacher that arrives in training mode", training),
        Edge("a teacher that arrives in evaluation mode", resting),
    ]


def watch(case: Case, calls: list[Call]) -> list[str]:
    """How the teacher ran."""
    seen = []
    if any(call.training for call in calls):
        seen.append("train-mode")
    if any(call.grad for call in calls):
        seen.append("graph-recorded")
    if any(call.rows > case["batch_size"] for call in calls):
        seen.append("all-at-once")
    if sum(call.rows for call in calls) > len(case["images"]):
        seen.append("run-twice")
    return seen


def family(wrong: Wrong, teacher: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """The store with its switches."""
    modes = [(module, module.training) for module in teacher.modules()]
    if "mode-left" not in wrong:
        teacher.train("train-mode" in wrong)
    if "shuffled" in wrong:
        images = images[torch.randperm(len(images))]
    if "reversed" in wrong:
        images = images.flip(0)
    if "fresh-augmentation" in wrong:
        images = images + 0.1 * torch.randn_like(images)
    if "last-batch-lost" in wrong:
        images = images[: len(images) // batch_size * batch_size]
    with torch.no_grad():
        parts = (
            [teacher(batch) for batch in images.split(batch_size)] if len(images) else [images[:0]]
        )
    for module, mode in modes:
        module.training = mode
    if "first-batch-only" in wrong:
        parts = parts[:1]
    if "last-batch-only" in wrong:
        parts = parts[-1:]
    stored = torch.stack(parts) if "not-joined" in wrong else torch.cat(parts)
    kinds = {
        "probabilities-stored": lambda: stored.softmax(-1),
        "log-probabilities-stored": lambda: stored.log_softmax(-1),
        "classes-stored": lambda: stored.argmax(-1),
        "half-precision": lambda: stored.half().to(stored.dtype),
    }
    return next((kinds[name]() for name in kinds if name in wrong), stored)


drill = Drill(
    id="teacher-cache",
    title="The teacher, computed once",
    task=(
        "The images are not augmented, and the teacher is expensive. Compute its answers once, so "
        "that every epoch can use them. What do you store, and what must not change?"
    ),
    minutes=6,
    level="warm-up",
    hints=(
        "What would make the stored answer of an image depend on its neighbors, or on chance?",
        "What does the last batch look like when batch_size does not divide N? And what keeps "
        "each batch's activations alive?",
        "A teacher may be frozen in part: one number says too little about its mode. What must "
        "you remember before eval(), and for which modules?",
    ),
    explanation=(
        "One forward pass over the data instead of one for each epoch: the teacher's cost is "
        "divided by the number of epochs. Logits take N · C numbers. Store logits, not "
        "probabilities: softmax loses nothing but a constant, but probabilities at T = 1 round to "
        "0 what a higher T would have brought up. In training mode batch normalization would mix "
        "the images of a batch. Put back each module's mode: a part that was frozen in evaluation "
        "mode must stay so. The interviewer listens for order, the last batch, and the limit: with "
        "random augmentation the stored answers belong to other pixels."
    ),
    reference=store_teacher,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # mode
        - train-mode: the teacher runs in training mode: its answers depend on the other images of
          the batch and on dropout, and its running statistics drift. Call eval().
        - mode-left: the teacher runs in the mode in which it comes: where that is training mode,
          its answers depend on the other images of the batch and on dropout, and its running
          statistics drift. Call eval().
        # order
        - shuffled: the answers are in another order than the images: a shuffled loader was stored.
          Row i must be the answer to image i.
        - reversed: the answers are in the reverse order of the images.
        # rows
        - last-batch-lost: the last images are missing: the final batch is shorter than the others,
          and was dropped.
        - first-batch-only: only the first batch is stored.
        - last-batch-only: only the last batch is stored: each one overwrites the one before.
        - not-joined: the answers are stacked by batch: join them along the first dimension.
        # stored
        - probabilities-stored: probabilities are stored, not logits: what rounded to 0 at T = 1
          cannot be softened later.
        - log-probabilities-stored: log-probabilities are stored, not logits: softened they give the
          same, but the task asks for logits.
        - classes-stored: only the most probable class is stored: no temperature can soften that.
        - half-precision: the logits were rounded to half precision: the task does not allow it.
        # images
        - fresh-augmentation: the images are changed at random before they are stored: training then
          shows other pixels than the teacher judged. Store what the student will see.
          Seen claimed: described in Beyer et al., CVPR 2022
        """
    ),
    effects=(
        Fault(
            "graph-recorded",
            "the teacher runs with a graph: every batch keeps its activations until the graph is "
            "let go. Run it under torch.no_grad().",
        ),
        Fault(
            "all-at-once",
            "more than batch_size images run at a time: a data set does not fit into memory at "
            "once.",
        ),
        Fault(
            "run-twice",
            "some images run more than once: the teacher's cost is what is to be saved.",
        ),
    ),
    watch=watch,
    sizes=lambda case: {"N": len(case["images"]), "batch": case["batch_size"]},
    free=frozenset({"global random state"}),
    observe=lambda case, result: {"logits": result},
)
