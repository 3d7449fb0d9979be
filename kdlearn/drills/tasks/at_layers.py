"""Drill: attention transfer over several layers of different sizes."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Solution


def at_loss_over_layers(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Return the attention-transfer loss, summed over pairs of layers.

    student, teacher: features (B, C, H, W) of each layer, in order; channels and sizes may differ, and the teacher is a
    constant. Raise a ValueError if there are not as many of one as of the other. In each dimension pool the larger
    features to the smaller size by F.adaptive_avg_pool2d, before anything else. Then: squares summed over channels,
    L2-normalized over space for each sample; mean over batch and positions of the squared difference.
    """
    if len(student) != len(teacher):
        raise ValueError(f"{len(student)} student layers and {len(teacher)} teacher layers")
    total = torch.zeros((), dtype=student[0].dtype)
    for s, t in zip(student, teacher, strict=True):
        size = (min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3]))
        pooled = [F.adaptive_avg_pool2d(side, size) for side in (s, t.detach())]
        maps = [F.normalize(side.square().sum(dim=1).flatten(1), dim=1) for side in pooled]
        total = total + (maps[0] - maps[1]).square().mean()
    return total


def cases(generator: Generator) -> list[Case]:
    """Two or three layers; in each case one side is larger somewhere."""
    plans = [
        (3, ((2, 8, 6, 4, 4, 3), (5, 4, 4, 3, 4, 4))),
        (2, ((3, 5, 7, 6, 5, 7), (4, 3, 3, 2, 6, 6), (2, 2, 4, 3, 2, 4))),
        (4, ((2, 6, 6, 2, 3, 3), (3, 4, 5, 5, 8, 5))),
    ]
    return [
        {
            "student": [draws.normal(generator, batch, c, h, w) for c, h, w, _, _, _ in layers],
            "teacher": [draws.normal(generator, batch, c, h, w) for _, _, _, c, h, w in layers],
        }
        for batch, layers in plans
    ]


drill = Drill(
    id="at-layers",
    title="Attention transfer over layers",
    task=(
        "A ResNet teaches a smaller one. Three groups of layers are matched, and the last group's maps have different "
        "sizes. Write the whole attention-transfer loss."
    ),
    minutes=12,
    level="core",
    hints=(
        "Channels disappear when you make a map. What do you do about the sizes, and on what: features or maps?",
        "Pool the larger features to the smaller size in each dimension; normalize after that, so that each map "
        "has length 1.",
        "size = [min(h_s, h_t), min(w_s, w_t)]; F.adaptive_avg_pool2d(features, size).square().sum(1).flatten(1)",
    ),
    explanation=(
        "One pass over the features: O(B C H W) for each layer and side. The order matters: pooling normalized "
        "maps gives maps whose length is not 1, and pooling energies is not the energy of pooled features. The "
        "sum over layers means that adding a layer adds to the loss; if you average instead, say so, as beta then "
        "means something else. Unequal sizes usually crash, but a side of one pixel broadcasts in silence. zip "
        "without strict=True drops the longer list's last layer. The interviewer listens for where you pool, and "
        "for what the sizes do to the scale: the mean over positions makes small maps weigh more."
    ),
    reference=at_loss_over_layers,
    cases=cases,
    gradients=("student",),
    detached=("teacher",),
)


def _pooled(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Features at another size."""
    return F.adaptive_avg_pool2d(features, size)


def _map(features: Tensor) -> Tensor:
    """A normalized map."""
    return F.normalize(features.square().sum(1).flatten(1), dim=1)


def _sizes(one: Tensor, other: Tensor) -> tuple[int, int]:
    """The smaller side in each dimension."""
    return min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])


@drill.alternative
def with_cosines(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """The squared distance of two vectors of length 1 is 2 - 2 cos."""
    if len(student) != len(teacher):
        raise ValueError("unequal numbers of layers")
    losses = []
    for s, t in zip(student, teacher, strict=True):
        size = _sizes(s, t)
        mine, theirs = (_pooled(side, size).pow(2).sum(1).flatten(1) for side in (s, t.detach()))
        losses.append((2 - 2 * F.cosine_similarity(mine, theirs)).mean() / (size[0] * size[1]))
    return torch.stack(losses).sum()


@drill.alternative
def one_dimension_at_a_time(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Pool each side only where it is larger."""
    if len(teacher) != len(student):
        raise ValueError("unequal numbers of layers")
    total = 0.0 * student[0].sum()
    for number in range(len(student)):
        maps = []
        for mine, others in ((student, teacher), (teacher, student)):
            features, other = mine[number], others[number]
            rows = min(features.shape[2], other.shape[2])
            columns = min(features.shape[3], other.shape[3])
            features = F.adaptive_avg_pool2d(features, (rows, features.shape[3]))
            features = F.adaptive_avg_pool2d(features, (rows, columns))
            energy = torch.einsum("bchw,bchw->bhw", features, features)
            maps.append(energy / energy.square().sum((1, 2), keepdim=True).sqrt())
        total = total + (maps[0] - maps[1].detach()).pow(2).mean()
    return total


@drill.must(
    "refuses lists of different lengths",
    "layers-dropped",
    "with three layers on one side and two on the other your function gives a number: zip stops at the shorter "
    "list, and a layer is left out in silence. Raise a ValueError.",
)
def refuses(solution: Solution, generator: Generator) -> bool:
    """Whether a missing layer is noticed."""
    features = [draws.normal(generator, 2, 3, 4, 4) for _ in range(3)]
    try:
        solution(features, features[:2])
    except ValueError:
        return True
    return False


@drill.mistake(
    "layers-dropped",
    "with three layers on one side and two on the other your function gives a number: zip stops at the shorter "
    "list, and a layer is left out in silence. Raise a ValueError.",
)
def zip_stops(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Use zip without strict."""
    shortest = min(len(student), len(teacher))
    return at_loss_over_layers(student[:shortest], teacher[:shortest])


@drill.mistake(
    "sizes-not-aligned",
    "maps of different sizes are subtracted: that fails, or broadcasts if one side has a single position. Pool "
    "the larger features to the smaller size first.",
    seen="a widely copied attention-transfer exercise, which has no alignment",
)
def not_aligned(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Subtract maps as they are."""
    if len(student) != len(teacher):
        raise ValueError("unequal numbers of layers")
    pairs = zip(student, teacher, strict=True)
    return torch.stack([(_map(s) - _map(t.detach())).square().mean() for s, t in pairs]).sum()


@drill.mistake(
    "only-teacher-pooled",
    "the teacher is always brought to the student's size: where the teacher is the smaller one, that repeats its "
    "pixels instead of pooling the student's.",
)
def teacher_pooled(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Resize the teacher in any case."""
    if len(student) != len(teacher):
        raise ValueError("unequal numbers of layers")
    losses = []
    for s, t in zip(student, teacher, strict=True):
        resized = _pooled(t.detach(), (s.shape[2], s.shape[3]))
        losses.append((_map(s) - _map(resized)).square().mean())
    return torch.stack(losses).sum()


@drill.mistake(
    "mean-over-layers",
    "the layers are averaged, not summed: each one's share of beta shrinks when you add another.",
)
def averaged(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Average over layers."""
    return at_loss_over_layers(student, teacher) / len(student)


@drill.mistake(
    "pooled-after-normalizing",
    "the maps are pooled after they were normalized: their length is no longer 1, and a map that is spread out "
    "loses more than a sharp one. Pool the features first.",
)
def pooled_late(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Normalize, then pool."""
    if len(student) != len(teacher):
        raise ValueError("unequal numbers of layers")
    losses = []
    for s, t in zip(student, teacher, strict=True):
        size = _sizes(s, t)
        maps = []
        for side in (s, t.detach()):
            energy = side.square().sum(1)
            energy = energy / energy.flatten(1).norm(dim=1)[:, None, None]
            maps.append(_pooled(energy, size))
        losses.append((maps[0] - maps[1]).square().mean())
    return torch.stack(losses).sum()


@drill.mistake(
    "energies-pooled",
    "the energies are pooled, not the features: where neighboring activations have opposite signs, the mean of "
    "squares is not the square of the mean. Both exist; this task asks for pooled features.",
)
def energies_pooled(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Square, then pool, then normalize."""
    if len(student) != len(teacher):
        raise ValueError("unequal numbers of layers")
    losses = []
    for s, t in zip(student, teacher, strict=True):
        size = _sizes(s, t)
        maps = [_pooled(side.square().sum(1), size).flatten(1) for side in (s, t.detach())]
        gap = F.normalize(maps[0], dim=1) - F.normalize(maps[1], dim=1)
        losses.append(gap.square().mean())
    return torch.stack(losses).sum()


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: its features are constants here. Use detach() on each of them.",
)
def live_teacher(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Leave the teacher in the graph."""
    if len(student) != len(teacher):
        raise ValueError("unequal numbers of layers")
    losses = []
    for s, t in zip(student, teacher, strict=True):
        size = _sizes(s, t)
        losses.append((_map(_pooled(s, size)) - _map(_pooled(t, size))).square().mean())
    return torch.stack(losses).sum()
