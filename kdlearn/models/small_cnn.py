"""A plain convolutional network of three groups."""

from __future__ import annotations

from torch import Tensor, nn

from kdlearn.core.checks import check_sizes
from kdlearn.models.layout import channels_last


class SmallCNN(nn.Module):
    """Three times convolution, batch normalization, ReLU, pooling; then one linear layer.

    The linear layer reads group 3 on a grid of 2 x 2: all there is for images of 16 x 16, an
    average for larger ones. Width 16 has 26 thousand parameters, width 4 has 2 thousand.

    Modules to tap: ``group1``, ``group2``, ``group3`` (after pooling; ``width``, 2 ``width`` and
    4 ``width`` channels), ``classifier``.

    Args:
        width: channels of the first group.
        classes: number of classes.
        channels: channels of the image.

    Shape:
        (B, channels, H, W) with H and W of at least 16, to logits (B, classes).

    Raises:
        ValueError: a size is smaller than 1.

    Example:
        >>> import torch
        >>> SmallCNN(4)(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """

    def __init__(self, width: int, classes: int = 10, channels: int = 1) -> None:
        """Make the layers; the weights follow from torch's current seed."""
        super().__init__()
        check_sizes(width=width, classes=classes, channels=channels)
        self.channels = channels
        self.group1 = _group(channels, width)
        self.group2 = _group(width, 2 * width)
        self.group3 = _group(2 * width, 4 * width)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Linear(4 * 4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ValueError: the images have other channels, or less than 8 pixels a side.
        """
        if images.dim() != 4 or images.shape[1] != self.channels or min(images.shape[2:]) < 8:
            raise ValueError(
                f"images have shape {tuple(images.shape)}: expected (batch, {self.channels}, "
                "height, width) of at least 8 pixels; make the network with channels= of the "
                "images, or enlarge them."
            )
        features = self.group3(self.group2(self.group1(channels_last(images))))
        return self.classifier(self.pool(features).flatten(1))


def _group(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )
