"""Drill: attention transfer over several layers of different sizes."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import GAPS, MAPS, chosen, gap_of, map_of
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def at_loss_over_layers(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Return the attention-transfer loss, summed over pairs of layers.

    student, teacher: features (B, C, H, W) of each layer, in order; channels and sizes may differ,
    and the teacher is a constant. Raise a ValueError if there are not as many of one as of the
    other. In each dimension pool the larger features to the smaller size by F.adaptive_avg_pool2d,
    before anything else. Then: squares summed over channels, L2-normalized over space for each
    sample; mean over batch and positions of the squared difference.
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


def example() -> Case:
    """One pair of layers: the student's 4 x 4 with one channel, the teacher's 2 x 2 with two."""
    student = torch.tensor([[1.0, 0, 2, 0], [0, -1, 0, 1], [3, 0, 1, 0], [0, 2, 0, -2]])
    teacher = torch.tensor([[[1.0, 0.0], [2.0, 1.0]], [[0.0, 1.0], [-1.0, 3.0]]])
    return {"student": [student[None, None].double()], "teacher": [teacher[None].double()]}


def cases(generator: Generator) -> list[Case]:
    """Two or three layers; in each case one side is larger somewhere, and not by a whole factor."""
    plans = [
        (3, ((2, 8, 6, 4, 4, 3), (5, 4, 4, 3, 4, 4))),
        (2, ((3, 5, 7, 6, 5, 7), (4, 3, 3, 2, 6, 7), (2, 2, 4, 3, 2, 4))),
        (4, ((2, 7, 6, 2, 3, 4), (3, 4, 5, 5, 8, 3))),
    ]
    return [
        {
            "student": [draws.normal(generator, batch, c, h, w) for c, h, w, _, _, _ in layers],
            "teacher": [draws.normal(generator, batch, c, h, w) for _, _, _, c, h, w in layers],
        }
        for batch, layers in plans
    ]


def edges() -> list[Edge]:
    """Lists of different lengths, equal sizes, one position, sizes that divide no other."""
    generator = Generator().manual_seed(0)
    plans = {
        "equal sizes": ((2, 4, 4), (3, 4, 4)),
        "a teacher of one position": ((2, 4, 4), (3, 1, 1)),
        "sizes of 7 and 3": ((2, 7, 7), (3, 3, 3)),
        "a side that is higher and one that is wider": ((2, 6, 3), (3, 4, 7)),
    }
    made = [
        Edge(
            title,
            {
                "student": [draws.normal(generator, 2, *ours)],
                "teacher": [draws.normal(generator, 2, *theirs)],
            },
        )
        for title, (ours, theirs) in plans.items()
    ]
    three = [draws.normal(generator, 2, 3, 4, 4) for _ in range(3)]
    both = example()
    made += [
        Edge("a batch of one image", {"student": [three[0][:1]], "teacher": [three[1][:1]]}),
        Edge(
            "activations of 1e-4",
            both | {"student": [1e-4 * layer for layer in both["student"]]},
            "A guard that is added is too large there.",
        ),
    ]
    hint = "zip stops at the shorter list: use strict=True, which raises one, or compare lengths."
    return [
        *made,
        Edge(
            "three student layers and two of the teacher",
            {"student": three, "teacher": three[:2]},
            hint,
        ),
        Edge(
            "two student layers and three of the teacher",
            {"student": three[:2], "teacher": three},
            hint,
        ),
    ]


def _resized(wrong: Wrong, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides at one size."""
    sizes = [(side.shape[2], side.shape[3]) for side in (one, other)]
    size = (min(sizes[0][0], sizes[1][0]), min(sizes[0][1], sizes[1][1]))
    if "only-teacher-pooled" in wrong:
        size = sizes[0]
    if "only-student-pooled" in wrong:
        size = sizes[1]
    if "one-side-chosen-by-height" in wrong:
        size = min(sizes, key=lambda found: found[0])
    if "max-pooled" in wrong:
        return F.adaptive_max_pool2d(one, size), F.adaptive_max_pool2d(other, size)
    if {"interpolated", "nearest"} & wrong:
        mode = "bilinear" if "interpolated" in wrong else "nearest"
        flag = False if mode == "bilinear" else None
        made = [
            F.interpolate(side, size=size, mode=mode, align_corners=flag) for side in (one, other)
        ]
        return made[0], made[1]
    if "cropped" in wrong:
        return one[..., : size[0], : size[1]], other[..., : size[0], : size[1]]
    return F.adaptive_avg_pool2d(one, size), F.adaptive_avg_pool2d(other, size)


def family(wrong: Wrong, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """The loss with its switches."""
    if len(student) != len(teacher) and "layers-dropped" not in wrong:
        raise ValueError("unequal numbers of layers")
    losses = []
    for s, t in zip(student, teacher, strict=False):
        t = t.detach()
        late = {"pooled-after-normalizing", "energies-pooled"} & wrong
        if "sizes-not-aligned" not in wrong and not late:
            s, t = _resized(wrong, s, t)
        if "energies-pooled" in wrong:
            # A root of the pooled energy has just that energy.
            s, t = (side.square().sum(1, keepdim=True) for side in (s, t))
            s, t = (side.sqrt() for side in _resized(wrong, s, t))
        ours, theirs = map_of(wrong, s), map_of(wrong, t)
        if "pooled-after-normalizing" in wrong:
            ours, theirs = (side[:, 0] for side in _resized(wrong, ours[:, None], theirs[:, None]))
        if ours.shape != theirs.shape:
            ours, theirs = (side.flatten(1) for side in (ours, theirs))
        losses.append(gap_of(wrong, ours, theirs))
    if "mean-over-layers" in wrong:
        return torch.stack(losses).mean()
    if "first-layer-only" in wrong:
        return losses[0]
    return losses[-1] if "last-layer-only" in wrong else torch.stack(losses).sum()


drill = Drill(
    id="at-layers",
    title="Attention transfer over layers",
    task=(
        "A ResNet teaches a smaller one. Three groups of layers are matched, and the last group's "
        "maps have different sizes. Write the whole attention-transfer loss."
    ),
    minutes=12,
    level="core",
    hints=(
        "Channels disappear when you make a map. What do you do about the sizes, and on what: "
        "features or maps?",
        "A map must have length 1 when it is compared. So which comes first, pooling or "
        "normalizing? And which side is pooled where one is higher and the other wider?",
        "What does zip do with lists of different lengths? And what does a sum over layers mean "
        "for beta when you add a layer?",
    ),
    explanation=(
        "One pass over the features: O(B C H W) for each layer and side. The order matters: "
        "pooling normalized maps gives maps whose length is not 1, and pooling energies is not the "
        "energy of pooled features. The sum over layers means that adding a layer adds to the "
        "loss; if you average instead, say so, as beta then means something else. Unequal sizes "
        "usually crash, but a side of one pixel broadcasts in silence. zip without strict=True "
        "drops the longer list's last layer. The interviewer listens for where you pool, and for "
        "what the sizes do to the scale: the mean over positions makes small maps weigh more."
    ),
    reference=at_loss_over_layers,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=chosen(MAPS, "guard-in-norm")
    | chosen(GAPS, "halved")
    | switches(
        """
        # layers
        - mean-over-layers: the layers are averaged, not summed: each one's share of beta shrinks
          when you add another.
        - first-layer-only: only the first pair of layers counts: sum over all.
        - last-layer-only: only the last pair of layers counts: sum over all.
        # lengths
        - layers-dropped: with three layers on one side and two on the other your function gives a
          number: zip stops at the shorter list, and a layer is left out in silence. Raise a
          ValueError.
        # sizes
        - sizes-not-aligned: maps of different sizes are subtracted: that fails, or broadcasts if
          one side has a single position. Pool the larger features to the smaller size first.
        - only-teacher-pooled: the teacher is always brought to the student's size: where the
          teacher is the smaller one, that repeats its pixels instead of pooling the student's.
        - only-student-pooled: the student is always brought to the teacher's size: where the
          student is the smaller one, that repeats its pixels instead of pooling the teacher's.
        - one-side-chosen-by-height: the side with more rows is brought to the other's size in both
          dimensions: where one is higher and the other wider, its columns are repeated. Take the
          smaller size in each dimension.
        - pooled-after-normalizing: the maps are pooled after they were normalized: their length is
          no longer 1, and a map that is spread out loses more than a sharp one. Pool the features
          first.
        - energies-pooled: the energies are pooled, not the features: where neighboring activations
          have opposite signs, the mean of squares is not the square of the mean. Both exist; this
          task asks for pooled features.
        - max-pooled: the features are pooled by their maximum: the task asks for
          F.adaptive_avg_pool2d.
        - interpolated: the features are resized by bilinear interpolation, which leaves pixels out
          where a size shrinks by more than 2: the task asks for F.adaptive_avg_pool2d.
        - nearest: the features are resized by taking every so many pixels: the task asks for the
          mean of each field, F.adaptive_avg_pool2d.
        - cropped: the larger features are cropped, not pooled: what is at the right and below is
          lost.
        """
    ),
    sizes=lambda case: {"layers": len(case["student"]), "B": len(case["student"][0])},
    gradients=("student",),
    detached=("teacher",),
)
