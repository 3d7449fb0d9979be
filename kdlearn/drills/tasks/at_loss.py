"""Drill: the attention-transfer loss."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Solution


def attention_transfer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean, over batch and positions, of the squared difference of attention maps.

    student: features (B, Cs, H, W). teacher: (B, Ct, H, W), a constant. Map: squares summed over channels, then L2
    length 1 over the positions of each sample.
    """
    maps = [
        F.normalize(features.square().sum(dim=1).flatten(1), dim=1)
        for features in (student, teacher.detach())
    ]
    return (maps[0] - maps[1]).square().mean()


def cases(generator: Generator) -> list[Case]:
    """Sizes that all differ; the student's activations are smaller than the teacher's."""
    return [
        {
            "student": draws.normal(generator, batch, ours, height, width, scale=0.5),
            "teacher": draws.normal(generator, batch, theirs, height, width, scale=2),
        }
        for batch, ours, theirs, height, width in (
            (4, 3, 6, 5, 7),
            (2, 5, 8, 4, 3),
            (3, 2, 4, 6, 2),
            (6, 4, 3, 3, 5),
        )
    ]


drill = Drill(
    id="at-loss",
    title="The attention-transfer loss",
    task=(
        "Write the loss of activation-based attention transfer for one pair of layers. The student has fewer "
        "channels than the teacher; height and width are equal."
    ),
    minutes=8,
    level="core",
    hints=(
        "What is compared: features, or something without channels?",
        "Both maps have length 1 for each sample. Then it is a squared distance; say over what you average.",
        "q = F.normalize(f.square().sum(1).flatten(1), dim=1) for both; (q_s - q_t).square().mean(), the teacher "
        "detached",
    ),
    explanation=(
        "O(B (Cs + Ct) H W). The squared distance of two vectors of length 1 is 2 - 2 cos, so this is (2 - 2 cos) "
        "/ (HW): between 0 and 2 / (HW), whatever the activations' size. The mean over positions makes it small, "
        "which is why the official code multiplies by 1000; the paper's formula has an unsquared norm for each "
        "sample and beta / 2. A beta without its reduction says nothing. The interviewer listens for: normalized "
        "per sample, the teacher constant, a loss in every step and no copying. Source: Zagoruyko and Komodakis, "
        "ICLR 2017, equation 2 and their code."
    ),
    reference=attention_transfer_loss,
    cases=cases,
    sizes=lambda case: {
        "B": len(case["student"]),
        "Cs": case["student"].shape[1],
        "P": case["student"][0, 0].numel(),
    },
    gradients=("student",),
    detached=("teacher",),
)


def _map(features: Tensor) -> Tensor:
    """A normalized map, flat."""
    return F.normalize(features.square().sum(1).flatten(1), dim=1)


@drill.alternative
def by_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """The cosine of energies."""
    energies = [side.pow(2).mean(1).flatten(1) for side in (student, teacher.detach())]
    cosine = F.cosine_similarity(energies[0], energies[1], dim=1)
    return (2 - 2 * cosine).mean() / energies[0].shape[1]


@drill.alternative
def by_einsum(student: Tensor, teacher: Tensor) -> Tensor:
    """Einsum, norms by hand, F.mse_loss."""
    with torch.no_grad():
        target = torch.einsum("bchw,bchw->bhw", teacher, teacher)
        target = target / target.square().sum((1, 2), keepdim=True).sqrt()
    mine = torch.einsum("bchw,bchw->bhw", student, student)
    return F.mse_loss(mine / mine.square().sum((1, 2), keepdim=True).sqrt(), target)


@drill.must(
    "gives the same loss for student features three times as large",
    "not-normalized",
    "scaling the student's features by 3 changes your loss: the maps are not normalized, so small activations are "
    "rewarded.",
)
def ignores_scale(solution: Solution, generator: Generator) -> bool:
    """Whether the student's scale cancels."""
    student, teacher = draws.normal(generator, 3, 2, 4, 5), draws.normal(generator, 3, 4, 4, 5)
    return bool(torch.allclose(solution(student, teacher), solution(3 * student, teacher)))


@drill.must(
    "is the mean of what each sample gives alone",
    "normalized-over-batch",
    "the loss of one image depends on the other images of the batch: the maps are normalized over the batch.",
)
def sample_by_sample(solution: Solution, generator: Generator) -> bool:
    """Whether samples are independent."""
    student, teacher = draws.normal(generator, 3, 2, 4, 5), draws.normal(generator, 3, 4, 4, 5)
    pairs = zip(student.split(1), teacher.split(1), strict=True)
    alone = torch.stack([torch.as_tensor(solution(s, t)) for s, t in pairs]).mean()
    return bool(torch.allclose(torch.as_tensor(solution(student, teacher)), alone))


@drill.mistake(
    "not-normalized",
    "scaling the student's features by 3 changes your loss: the maps are not normalized, so small activations are "
    "rewarded. Bring each sample's map to length 1.",
)
def not_normalized(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare energies."""
    gap = student.square().sum(1) - teacher.detach().square().sum(1)
    return gap.square().mean()


@drill.mistake(
    "normalized-over-batch",
    "the loss of one image depends on the other images of the batch: the maps are normalized over the batch. "
    "Flatten each sample's positions, and normalize those.",
)
def over_batch(student: Tensor, teacher: Tensor) -> Tensor:
    """Normalize over the first dimension."""
    maps = [
        F.normalize(side.square().sum(1).flatten(1), dim=0) for side in (student, teacher.detach())
    ]
    return (maps[0] - maps[1]).square().mean()


@drill.mistake(
    "paper-norm",
    "this is the paper's form, a norm that is not squared, for each sample: beta belongs to one of the two forms "
    "and cannot be carried over. The task asks for the mean of squares.",
    seen="szagoruyko/attention-transfer issues 32 and 34",
)
def paper(student: Tensor, teacher: Tensor) -> Tensor:
    """Take the norm over positions, not squared."""
    return (_map(student) - _map(teacher.detach())).norm(dim=1).mean()


@drill.mistake(
    "sum-over-positions",
    "the squares are summed over positions: your loss is P = {P} times too large, and would weigh large maps more "
    "than the mean does.",
)
def summed(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over positions, average over the batch."""
    return (_map(student) - _map(teacher.detach())).square().sum(1).mean()


@drill.mistake(
    "times-channels",
    "your loss is multiplied by the student's channels, as if a sum over channels had to be made up for: after "
    "normalizing, sum and mean are the same.",
    seen="szagoruyko/attention-transfer issue 34",
)
def times_channels(student: Tensor, teacher: Tensor) -> Tensor:
    """Make up for what cancels."""
    return student.shape[1] * attention_transfer_loss(student, teacher)


@drill.mistake(
    "attention-copied",
    "your loss is 0 whatever the student looks at: the teacher's map stands in the student's place, or a "
    "normalization over channels has made every map flat. Attention transfer compares the student's own map with the "
    "teacher's.",
    seen="a circulating article, which applies the teacher's attention to the student once",
)
def copied(student: Tensor, teacher: Tensor) -> Tensor:
    """Let the student have the teacher's map."""
    return (_map(teacher.detach()) - _map(teacher.detach())).square().mean() + 0 * student.sum()


@drill.mistake(
    "features-averaged",
    "channels are averaged with their signs: activations of opposite sign cancel, and what is compared is no "
    "energy. Square first.",
)
def averaged(student: Tensor, teacher: Tensor) -> Tensor:
    """Average features over channels."""
    maps = [F.normalize(side.mean(1).flatten(1), dim=1) for side in (student, teacher.detach())]
    return (maps[0] - maps[1]).square().mean()


@drill.mistake(
    "teacher-gradient",
    "the teacher received a gradient: it is a constant here. Use teacher.detach().",
)
def live_teacher(student: Tensor, teacher: Tensor) -> Tensor:
    """Leave the teacher in the graph."""
    return (_map(student) - _map(teacher)).square().mean()


@drill.mistake(
    "not-squared",
    "the absolute values are summed, not their squares: that is the map for p = 1, and the task asks for p = 2.",
)
def absolute(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum absolute values."""
    maps = [
        F.normalize(side.abs().sum(1).flatten(1), dim=1) for side in (student, teacher.detach())
    ]
    return (maps[0] - maps[1]).square().mean()
