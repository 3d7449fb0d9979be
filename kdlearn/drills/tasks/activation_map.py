"""Drill: an attention map from activations."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import MAPS, chosen, map_of
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def activation_map(features: Tensor, *, p: float) -> Tensor:
    """Return the map Σ_c |A_c|^p of each sample, with L2 length 1 over its positions.

    features: (B, C, H, W). Result: (B, H, W). A map without activation stays 0.
    """
    energy = features.abs().pow(p).sum(dim=1)
    return F.normalize(energy.flatten(1), dim=1).view_as(energy)


def example() -> Case:
    """Two images, two channels, two by three positions, none of them without activation."""
    one = [[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]], [[-1.0, 2.0, 0.0], [3.0, 0.5, 1.0]]]
    other = [[[1.0, 3.0, 0.0], [1.0, 0.0, 0.0]], [[0.0, -1.0, 1.0], [2.0, 0.5, 1.0]]]
    return {"features": torch.tensor([one, other], dtype=torch.float64), "p": 2.0}


def cases(generator: Generator) -> list[Case]:
    """Sizes that all differ, and odd powers among the even ones."""
    return [
        {"features": draws.normal(generator, *shape), "p": p}
        for shape, p in (((3, 5, 4, 6), 2.0), ((2, 3, 7, 5), 1.0), ((4, 6, 3, 2), 3.0))
    ]


def edges() -> list[Edge]:
    """Small activations, one channel, one image."""
    features = example()["features"]
    return [
        Edge("a batch of one image", example() | {"features": features[:1]}),
        Edge(
            "one channel",
            example() | {"features": features[:, :1]},
            without="the sum over channels",
        ),
        Edge(
            "an image without activation",
            example() | {"features": features * torch.tensor([0.0, 1.0])[:, None, None, None]},
            "0 / 0 is NaN: F.normalize guards the division.",
            kink=True,
        ),
        Edge("one position", example() | {"features": features[..., :1, 2:]}),
        Edge("p = 3", example() | {"p": 3.0}, "With an odd power, signs do not vanish."),
        Edge(
            "activations of 1e-4",
            example() | {"features": 1e-4 * features},
            "A guard that is added is too large there.",
        ),
        Edge("float32 features", example() | {"features": features.float()}),
    ]


def family(wrong: Wrong, features: Tensor, *, p: float) -> Tensor:
    """The map with its switches."""
    return map_of(wrong, features, 1.0 if "always-absolute" in wrong else p)


drill = Drill(
    id="activation-map",
    title="A map of activations",
    task=(
        "A convolutional layer gives (B, C, H, W). Turn that into one map for each image that says "
        "where the layer is active, so that maps of layers with other channels can be compared."
    ),
    minutes=5,
    level="warm-up",
    hints=(
        "Which dimension must disappear, and what must not depend on how large the activations "
        "are?",
        "What would two channels of opposite sign do to each other if you summed them as they are?",
        "A map has two dimensions, and its length is taken over both at once. What do you do to "
        "the shape before, and after?",
    ),
    explanation=(
        "O(BCHW). Channels vanish, so networks of different widths can be compared; the length 1 "
        "removes the scale, so the student cannot lower a loss by being quieter. Sum or mean over "
        "channels give the same map. A larger p puts more weight on the strongest channel. Flatten "
        "before normalizing: F.normalize on (B, H, W) with dim=1 would work on columns. "
        "F.normalize guards the division, so a map of zeros stays zeros. Source: [Zagoruyko and "
        "Komodakis](cite:zagoruyko2017paying), ICLR 2017, section 3.1."
    ),
    reference=activation_map,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=chosen(MAPS, "not-squared", "fourth-power", "mean-not-normalized", "softmax-of-mean")
    | switches(
        """
        # power
        - absolute-value-missing: the absolute value is missing: with an odd p, channels of opposite
          sign cancel, and an active place looks empty.
        - power-ignored: the power is always 2, whatever p says.
        - power-as-norm: the map is divided by its p-norm, so that its L2 length is 1 for p = 2
          alone: p belongs to the activations, the length is always the L2 norm.
        - always-absolute: the power is always 1, whatever p says.
        """
    ),
    sizes=lambda case: {"C": case["features"].shape[1], "p": case["p"]},
    gradients=("features",),
)
