"""What is a soft target where the answer is not one class: labels, pixels, boxes, a number?

Scenes of 24 x 24 pixels hold one to four digits, one in each quarter. One network has four heads:
which digits are there (several labels), which digit each pixel belongs to (segmentation), class and
box of the digit in each quarter (detection, with each edge as a distribution over places), and the
sum of the digits (regression; the sums to learn from are noisy). Students see 300 scenes, or 3,000
without labels. Steps and widths were set on the validation scenes of seed 5, which is not reported;
rates, temperature and the weights of the heads were not tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.data.digits import base_digits
from kdlearn.experiments.common import Row, check, descend, rows_of, seeded
from kdlearn.losses import multi_label_distillation_loss, soft_target_loss

CELL, NOISE = 12, 0.1
EDGES = CELL + 1  # where an edge of a box may lie
SPREAD = 8.0  # about the standard deviation of a sum
ZERO = torch.zeros(())


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one for a live run.

    Attributes:
        pool: scenes that the teacher learns from.
        scenes: how many of them have labels for a student.
        held_out: scenes to measure on.
        teacher: width of the teacher.
        student: width of a student.
        teacher_steps: of the teacher.
        steps: of a student.
        batch_size: scenes a step.
        rate: peak of the one-cycle schedule.
        noise: standard deviation of the noise on the sums to learn from.
        temperature: of the soft targets.
    """

    pool: int = 3000
    scenes: int = 300
    held_out: int = 1000
    teacher: int = 16
    student: int = 8
    teacher_steps: int = 600
    steps: int = 400
    batch_size: int = 50
    rate: float = 5e-3
    noise: float = 4.0
    temperature: float = 2.0


@dataclass(frozen=True)
class Method:
    """What a student is told.

    Attributes:
        told: "labels", "KD" (the teacher's outputs alone), or "other KD" with another loss a head.
        all_scenes: whether it sees all scenes of the pool.
    """

    told: str
    all_scenes: bool = False


METHODS = {
    "labels": Method("labels"),
    "KD": Method("KD"),
    "other KD": Method("other KD"),
    "KD, unlabeled scenes": Method("KD", all_scenes=True),
    "labels of all scenes": Method("labels", all_scenes=True),
}
RECIPE = Recipe()
COLUMNS = ("labels_f1", "mean_iou", "boxes_f1", "sum_error")


@dataclass(frozen=True)
class Scenes:
    """Images and everything that can be asked of them.

    Attributes:
        images: shape (N, 1, 24, 24).
        present: 1 where a digit is in the scene, shape (N, 10).
        mask: 0 for background, else digit + 1, shape (N, 12, 12).
        cells: the same for each quarter, shape (N, 4).
        edges: left, top, right and bottom of its digit in pixels of the quarter, (N, 4, 4).
        total: sum of the digits, shape (N,).
        told: the same with noise, to learn from.
    """

    images: Tensor
    present: Tensor
    mask: Tensor
    cells: Tensor
    edges: Tensor
    total: Tensor
    told: Tensor

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.images)

    def rows(self, rows: Tensor | slice) -> Scenes:
        """Return some of the scenes."""
        return Scenes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def draw(part: str, size: int, seed: int, noise: float) -> Scenes:
    """Draw scenes from the digits of one part.

    A digit has a side of 6 to 12 pixels and lies anywhere in its quarter. A quarter is empty in two
    cases of five, and the first never is where all others are.
    """
    generator = torch.Generator().manual_seed(seed)
    digits, count = base_digits(part), 4 * size
    rows = torch.randint(len(digits.labels), (count,), generator=generator)
    side = torch.randint(CELL // 2, CELL + 1, (count,), generator=generator)
    corner = (torch.rand(2, count, generator=generator) * (CELL + 1 - side)).long()
    filled = (torch.rand(size, 4, generator=generator) < 0.6).float()
    filled[:, 0] = filled[:, 0].maximum(1 - filled[:, 1:].amax(1))

    # Where a digit's square [-1, 1] lies on the quarter's.
    scale = CELL / side
    shift = (CELL - side - 2 * corner) / side
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = shift.T
    grid = F.affine_grid(theta, [count, 1, CELL, CELL], align_corners=False)
    drawn = F.grid_sample(digits.images[rows], grid, align_corners=False)
    drawn = drawn * filled.view(-1, 1, 1, 1)
    whole = F.fold(drawn.view(size, 4, CELL * CELL).transpose(1, 2), 2 * CELL, CELL, stride=CELL)

    cells = (digits.labels[rows] + 1).view(size, 4) * filled.long()
    marked = (whole > 0.4).float() * cells.float().view(size, 1, 2, 2).repeat_interleave(
        CELL, 2
    ).repeat_interleave(CELL, 3)
    present = F.one_hot(cells, 11)[:, :, 1:].amax(1).float()
    total = ((cells - 1).clamp_min(0)).sum(1).float()
    edges = torch.stack([*corner, *(corner + side)], dim=1).view(size, 4, 4)
    return Scenes(
        whole + NOISE * torch.randn(whole.shape, generator=generator),
        present,
        F.max_pool2d(marked, 2)[:, 0].long(),
        cells,
        edges,
        total,
        total + noise * torch.randn(size, generator=generator),
    )


class FourHeads(nn.Module):
    """One convolutional network that answers four questions.

    Args:
        width: channels of the first layer.

    Shape:
        (B, 1, 24, 24) to a dictionary: ``labels`` (B, 10), ``pixels`` (B, 11, 12, 12), ``cells``
        (B, 4, 11), ``edges`` (B, 4, 4, 13) and ``total`` (B,).
    """

    def __init__(self, width: int) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

        self.early = nn.Sequential(
            block(1, width), nn.MaxPool2d(2), block(width, 2 * width), block(2 * width, 2 * width)
        )
        self.late = nn.Sequential(nn.MaxPool2d(2), block(2 * width, 4 * width))
        self.pixels = nn.Conv2d(6 * width, 11, 1)
        self.cells = nn.Conv2d(4 * width, 11 + 4 * EDGES, 3, stride=3)
        self.scene = nn.Linear(16 * width, 11)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return what each head says."""
        early = self.early(images)
        late = self.late(early)
        scene = self.scene(F.adaptive_max_pool2d(late, 2).flatten(1))
        both = torch.cat([early, F.interpolate(late, scale_factor=2)], dim=1)
        cells = self.cells(late).flatten(2).transpose(1, 2)
        return {
            "labels": scene[:, :10],
            "pixels": self.pixels(both),
            "cells": cells[..., :11],
            "edges": cells[..., 11:].unflatten(2, (4, EDGES)),
            "total": SPREAD * (1 + scene[:, 10]),
        }


def places(edges: Tensor) -> Tensor:
    """Return where edges are expected, (..., 13) to (...), in pixels."""
    return edges.softmax(-1) @ torch.arange(EDGES, dtype=edges.dtype)


def label_losses(ours: dict[str, Tensor], truth: Scenes) -> dict[str, Tensor]:
    """Return the loss of each head against the labels."""
    filled = truth.cells > 0
    return {
        "labels": F.binary_cross_entropy_with_logits(ours["labels"], truth.present) * 10,
        "pixels": F.cross_entropy(ours["pixels"], truth.mask),
        "cells": F.cross_entropy(ours["cells"].flatten(0, 1), truth.cells.flatten()),
        "edges": F.cross_entropy(
            ours["edges"][filled].flatten(0, 1), truth.edges[filled].flatten()
        ),
        "total": F.mse_loss(ours["total"], truth.told) / SPREAD**2,
    }


def teacher_losses(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], temperature: float
) -> dict[str, Tensor]:
    """Return the loss of each head against the teacher, the right kind for each.

    A sigmoid for each label, a softmax for each pixel and quarter, a distribution for each edge
    where the teacher sees a digit (localization distillation), the plain value for the sum. Of
    scenes in which it sees none, nothing is said of edges.
    """
    soft = partial(soft_target_loss, temperature=temperature)
    sees = theirs["cells"].argmax(-1) > 0
    return {
        "labels": multi_label_distillation_loss(
            ours["labels"], theirs["labels"], temperature=temperature
        ),
        "pixels": soft(ours["pixels"].movedim(1, -1), theirs["pixels"].movedim(1, -1)),
        "cells": soft(ours["cells"], theirs["cells"]),
        "edges": soft(ours["edges"][sees], theirs["edges"][sees]) if sees.any() else ZERO,
        "total": F.mse_loss(ours["total"], theirs["total"]) / SPREAD**2,
    }


def other_losses(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], truth: Scenes, temperature: float
) -> dict[str, Tensor]:
    """Return another loss of each head against the teacher.

    A softmax over the labels, as if only one could be true; a softmax over the places for each
    class (channel-wise distillation, Shu et al. 2021); the expected places of the edges, squared;
    and the error of the sum against its label where it is larger than the teacher's (the bound of
    Chen et al. 2017).
    """
    soft = partial(soft_target_loss, temperature=temperature)
    sees = theirs["cells"].argmax(-1) > 0
    gap = places(ours["edges"][sees]) - places(theirs["edges"][sees])
    error, bound = ((side["total"] - truth.told).square() for side in (ours, theirs))
    return {
        "labels": soft(ours["labels"], theirs["labels"]),
        "pixels": soft(ours["pixels"].flatten(2), theirs["pixels"].flatten(2)),
        "cells": soft(ours["cells"], theirs["cells"]),
        "edges": gap.square().mean() if sees.any() else ZERO,
        "total": torch.where(error > bound, error, 0.0).mean() / SPREAD**2,
    }


def train(
    model: nn.Module,
    scenes: Scenes,
    loss: Callable[[dict[str, Tensor], Tensor], Tensor],
    *,
    steps: int,
    recipe: Recipe,
    seed: int,
) -> None:
    """Train in place; ``loss`` is of the outputs and the rows of a batch."""
    model.train()
    batches = rows_of(scenes, recipe.batch_size, seed)
    losses = (loss(model(scenes.images[rows]), rows) for rows in batches)
    descend(model.parameters(), losses, rate=recipe.rate, steps=steps)
    model.eval()


def said_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return all outputs."""
    with torch.inference_mode():
        parts = [model(some) for some in images.split(250)]
    return {name: torch.cat([part[name] for part in parts]).clone() for name in parts[0]}


def measure(said: dict[str, Tensor], truth: Scenes) -> Row:
    """Return the four numbers, in per cent, and in digits for the sum."""
    present, found = truth.present > 0, said["labels"] > 0
    f1 = 2 * (present & found).sum() / (present.sum() + found.sum())

    pixels = said["pixels"].argmax(1)
    ious = [
        ((pixels == c) & (truth.mask == c)).sum() / ((pixels == c) | (truth.mask == c)).sum()
        for c in range(11)
    ]

    cells, boxes = said["cells"].argmax(-1), places(said["edges"])
    low = torch.maximum(boxes[..., :2], truth.edges[..., :2])
    high = torch.minimum(boxes[..., 2:], truth.edges[..., 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp_min(0).prod(-1) for b in (boxes, truth.edges)]
    close = shared / (areas[0] + areas[1] - shared) >= 0.7
    right = (cells > 0) & (cells == truth.cells) & close
    return {
        "labels_f1": 100 * f1.item(),
        "mean_iou": 100 * torch.stack(ious).mean().item(),
        "boxes_f1": 100 * (2 * right.sum() / ((cells > 0).sum() + (truth.cells > 0).sum())).item(),
        "sum_error": (said["total"] - truth.total).abs().mean().item(),
    }


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each student, see `Experiment`.

    ``labels_f1`` counts digits that are named rightly, ``mean_iou`` averages over background and
    ten digits, ``boxes_f1`` counts boxes of the right class that overlap the true one by 0.7 or
    more, and ``sum_error`` is the mean absolute error of the sum, against the true one.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    pool = draw("train", recipe.pool, 3 * seed, recipe.noise)
    held_out = draw(on, recipe.held_out, 3 * seed + (1 if on == "validation" else 2), 0.0)
    teacher = seeded(partial(FourHeads, recipe.teacher), seed)
    train(
        teacher,
        pool,
        lambda ours, rows: sum_of(label_losses(ours, pool.rows(rows))),
        steps=recipe.teacher_steps,
        recipe=recipe,
        seed=seed,
    )
    yield {
        "seed": seed,
        "method": "teacher",
        **measure(said_of(teacher, held_out.images), held_out),
    }
    answers = said_of(teacher, pool.images)
    for name in methods:
        method = METHODS[name]
        scenes = pool if method.all_scenes else pool.rows(slice(recipe.scenes))

        def loss(ours: dict[str, Tensor], rows: Tensor, told: str = method.told) -> Tensor:
            theirs = {head: values[rows] for head, values in answers.items()}
            if told == "KD":
                return sum_of(teacher_losses(ours, theirs, recipe.temperature))
            truth = pool.rows(rows)
            if told == "labels":
                return sum_of(label_losses(ours, truth))
            return sum_of(other_losses(ours, theirs, truth, recipe.temperature))

        student = seeded(partial(FourHeads, recipe.student), seed)
        train(student, scenes, loss, steps=recipe.steps, recipe=recipe, seed=seed)
        said = said_of(student, held_out.images)
        yield {"seed": seed, "method": name, **measure(said, held_out)}


def sum_of(losses: dict[str, Tensor]) -> Tensor:
    """Add the heads."""
    return torch.stack(list(losses.values())).sum()
