"""A narrow wide-residual network: the architecture of the attention-transfer paper, made small."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdlearn.core.checks import check_sizes
from kdlearn.models.layout import channels_last


class SlimWRN(nn.Module):
    """Pre-activation residual network of three groups.

    With 16, 32, 64 channels and 2 blocks a group it is the WRN-16-1 of the papers on one input
    channel, 175 thousand parameters; with 8, 16, 32 and 1 block it has 20 thousand.

    Modules to tap: ``stem``, ``group1``, ``group2``, ``group3`` (the sums of the residual
    branches, before normalization and ReLU, as in the official attention-transfer code),
    ``classifier``. Groups 2 and 3 halve the resolution.

    Args:
        widths: channels of the three groups.
        blocks: residual blocks in each group.
        classes: number of classes.
        channels: channels of the image.
        stem_stride: stride of the first convolution; 2 makes everything four times cheaper.

    Shape:
        (B, channels, H, W) to logits (B, classes).

    Raises:
        ValueError: not three widths, or a size is smaller than 1.

    Source: S. Zagoruyko and N. Komodakis, Wide Residual Networks, BMVC 2016, table 1.

    Example:
        >>> import torch
        >>> SlimWRN((8, 16, 32), blocks=1, stem_stride=2)(torch.zeros(2, 1, 40, 40)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        widths: tuple[int, int, int] = (16, 32, 64),
        blocks: int = 2,
        classes: int = 10,
        channels: int = 1,
        stem_stride: int = 1,
    ) -> None:
        """Make the layers; the weights follow from torch's current seed."""
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"widths must hold 3 numbers, one a group, got {tuple(widths)}.")
        check_sizes(
            **{f"widths[{i}]": width for i, width in enumerate(widths)},
            blocks=blocks,
            classes=classes,
            channels=channels,
            stem_stride=stem_stride,
        )
        first, second, third = widths
        self.stem = nn.Conv2d(channels, first, 3, stride=stem_stride, padding=1, bias=False)
        self.group1 = _group(first, first, blocks, stride=1)
        self.group2 = _group(first, second, blocks, stride=2)
        self.group3 = _group(second, third, blocks, stride=2)
        self.norm = nn.BatchNorm2d(third)
        self.classifier = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = self.group3(self.group2(self.group1(self.stem(channels_last(images)))))
        return self.classifier(F.relu(self.norm(features)).mean(dim=(2, 3)))


class Block(nn.Module):
    """Two times normalize, ReLU, convolve; added to the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make the layers; a 1 x 1 convolution stands in the short cut where shapes differ."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of the short cut and the residual branch."""
        active = F.relu(self.norm1(features))
        residual = self.conv2(F.relu(self.norm2(self.conv1(active))))
        plain = isinstance(self.shortcut, nn.Identity)
        return residual + (features if plain else self.shortcut(active))


def _group(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))
