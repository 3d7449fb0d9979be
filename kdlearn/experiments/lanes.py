"""Several small networks trained side by side, for the price of two or three.

The sum of the losses gives each network its own gradient and no other, and AdamW treats each weight
alone, so these are separate trainings; they share the images of a step, how these are changed, and
what the teacher says of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.models import SmallCNN


class Lanes(nn.Module):
    """`SmallCNN`s of one width as one network of grouped convolutions, for images of 16 x 16.

    Args:
        models: at least one; their weights are copied, and they stay as they are.

    Shape:
        (B, G, 16, 16), the images of network g in channel g, to logits (G, B, classes).

    Example:
        >>> one, two = SmallCNN(4).eval(), SmallCNN(4).eval()
        >>> images = torch.rand(3, 1, 16, 16)
        >>> both = Lanes([one, two]).eval()(images.expand(3, 2, 16, 16))
        >>> torch.allclose(both[1], two(images), atol=1e-6)
        True
    """

    def __init__(self, models: Sequence[SmallCNN]) -> None:
        super().__init__()
        groups = [[getattr(model, f"group{i}") for model in models] for i in (1, 2, 3)]
        self.convolutions = nn.ModuleList(_convolution([g[0] for g in group]) for group in groups)
        self.norms = nn.ModuleList(_norm([g[1] for g in group]) for group in groups)
        heads = [model.classifier for model in models]
        self.weight = nn.Parameter(torch.stack([head.weight.detach().T for head in heads]))
        self.bias = nn.Parameter(torch.stack([head.bias.detach()[None] for head in heads]))
        # Pooling takes a fraction of the time where the channels lie beside each other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of all networks."""
        features = images.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = F.max_pool2d(F.relu(norm(convolution(features)), inplace=True), 2)
        flat = features.reshape(len(images), len(self.weight), -1).transpose(0, 1)
        return torch.baddbmm(self.bias, flat, self.weight)

    def lane(self, place: int) -> SmallCNN:
        """Return one of the networks by itself, with the weights that it has now."""
        count, inputs, classes = self.weight.shape
        model = SmallCNN(inputs // 16, classes)
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            group = getattr(model, f"group{i + 1}")
            weight = convolution.state_dict()["weight"]
            group[0].weight.data = weight.chunk(count)[place].contiguous()
            for name, values in group[1].state_dict().items():
                if values.dim():
                    values.copy_(norm.state_dict()[name].chunk(count)[place])
        model.classifier.weight.data = self.weight.detach()[place].T.contiguous()
        model.classifier.bias.data = self.bias.detach()[place, 0].clone()
        return model


def _convolution(parts: list[nn.Conv2d]) -> nn.Conv2d:
    first, count = parts[0], len(parts)
    whole = nn.Conv2d(
        count * first.in_channels,
        count * first.out_channels,
        3,
        padding=1,
        bias=False,
        groups=count,
    )
    whole.weight.data = torch.cat([part.weight.detach() for part in parts])
    return whole


def _norm(parts: list[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    whole = nn.BatchNorm2d(len(parts) * parts[0].num_features)
    for name, values in whole.state_dict().items():
        if values.dim():
            values.copy_(torch.cat([part.state_dict()[name] for part in parts]))
    return whole
