"""Drill: an attention map from activations."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Solution


def activation_map(features: Tensor, *, p: float) -> Tensor:
    """Return the map Σ_c |A_c|^p of each sample, with L2 length 1 over its positions.

    features: (B, C, H, W). Result: (B, H, W).
    """
    energy = features.abs().pow(p).sum(dim=1)
    return F.normalize(energy.flatten(1), dim=1).view_as(energy)


def cases(generator: Generator) -> list[Case]:
    """Sizes that all differ, and an odd power among the even ones."""
    return [
        {"features": draws.normal(generator, *shape), "p": p}
        for shape, p in (((3, 5, 4, 6), 2.0), ((2, 3, 7, 5), 1.0), ((4, 6, 3, 2), 3.0))
    ]


drill = Drill(
    id="activation-map",
    title="A map of activations",
    task=(
        "A convolutional layer gives (B, C, H, W). Turn that into one map for each image that says where the "
        "layer is active, so that maps of layers with other channels can be compared."
    ),
    minutes=5,
    level="warm-up",
    hints=(
        "Which dimension must disappear, and what must not depend on how large the activations are?",
        "Powers of absolute values, summed over channels; then each sample's map to length 1 over all its positions.",
        "energy = features.abs().pow(p).sum(1); F.normalize(energy.flatten(1), dim=1).view_as(energy)",
    ),
    explanation=(
        "O(BCHW). Channels vanish, so networks of different widths can be compared; the length 1 removes the "
        "scale, so the student cannot lower a loss by being quieter. Sum or mean over channels give the same map. "
        "A larger p puts more weight on the strongest channel. Flatten before normalizing: F.normalize on (B, H, "
        "W) with dim=1 would work on columns. F.normalize guards the division, so a map of zeros stays zeros. "
        "Source: Zagoruyko and Komodakis, ICLR 2017, section 3.1."
    ),
    reference=activation_map,
    cases=cases,
    gradients=("features",),
)


def _energy(features: Tensor, p: float) -> Tensor:
    """Powers summed over channels."""
    return features.abs().pow(p).sum(1)


@drill.alternative
def by_mean(features: Tensor, *, p: float) -> Tensor:
    """The mean over channels: the constant cancels."""
    energy = features.abs().pow(p).mean(1)
    return energy / energy.square().sum((1, 2), keepdim=True).sqrt()


@drill.alternative
def by_norms(features: Tensor, *, p: float) -> Tensor:
    """Vector norms of channels, raised to the power."""
    energy = torch.linalg.vector_norm(features, ord=p, dim=1).pow(p)
    return energy / torch.linalg.matrix_norm(energy, keepdim=True)


@drill.must(
    "gives the same map for features three times as large",
    "not-normalized",
    "scaling the features by 3 changes your map: it is not normalized, and a loss on it rewards small activations.",
)
def ignores_scale(solution: Solution, generator: Generator) -> bool:
    """Whether scale cancels."""
    features = draws.normal(generator, 2, 3, 4, 5)
    return bool(torch.allclose(solution(features, p=2.0), solution(3 * features, p=2.0)))


@drill.must(
    "gives each sample its map whatever else is in the batch",
    "normalized-over-batch",
    "the map of one image depends on the other images of the batch: the normalization runs over the batch.",
)
def one_by_one(solution: Solution, generator: Generator) -> bool:
    """Whether samples are independent."""
    features = draws.normal(generator, 3, 2, 4, 5)
    whole, alone = solution(features, p=2.0), solution(features[:1], p=2.0)
    return bool(torch.allclose(whole[:1], alone))


@drill.mistake(
    "not-normalized",
    "scaling the features by 3 changes your map: it is not normalized, and a loss on it rewards small activations.",
)
def not_normalized(features: Tensor, *, p: float) -> Tensor:
    """Stop after the sum."""
    return _energy(features, p)


@drill.mistake(
    "normalized-over-batch",
    "the map of one image depends on the other images of the batch: the normalization runs over the batch. "
    "Flatten each sample's positions, and normalize those.",
    seen="claimed of the official code in szagoruyko/attention-transfer issue 34, which normalizes each sample",
)
def over_batch(features: Tensor, *, p: float) -> Tensor:
    """Normalize over the first dimension."""
    return F.normalize(_energy(features, p), dim=0)


@drill.mistake(
    "normalized-by-column",
    "each column of the map has length 1, not the whole map: flatten H and W before normalizing.",
)
def by_column(features: Tensor, *, p: float) -> Tensor:
    """Normalize without flattening."""
    return F.normalize(_energy(features, p), dim=1)


@drill.mistake(
    "absolute-value-missing",
    "the absolute value is missing: with an odd p, channels of opposite sign cancel, and an active place looks empty.",
)
def signed(features: Tensor, *, p: float) -> Tensor:
    """Take powers of signed values."""
    energy = features.pow(p).sum(1)
    return F.normalize(energy.flatten(1), dim=1).view_as(energy)


@drill.mistake(
    "channels-normalized-first",
    "each channel is normalized before the sum: a channel that is nearly silent then counts as much as a strong one.",
)
def channels_first(features: Tensor, *, p: float) -> Tensor:
    """Normalize over space for each channel."""
    unit = F.normalize(features.flatten(2), dim=2).view_as(features)
    return activation_map(unit, p=p)


@drill.mistake(
    "softmax-map",
    "the map is a softmax over positions: it sums to 1, and depends on the scale of the features through the "
    "exponential.",
)
def softmax(features: Tensor, *, p: float) -> Tensor:
    """Use a softmax."""
    energy = _energy(features, p)
    return energy.flatten(1).softmax(1).view_as(energy)


@drill.mistake(
    "sum-to-one",
    "the map sums to 1, but its L2 length is not 1: divide by the root of the sum of squares.",
)
def shares(features: Tensor, *, p: float) -> Tensor:
    """Divide by the sum."""
    energy = _energy(features, p)
    return energy / energy.sum((1, 2), keepdim=True)
