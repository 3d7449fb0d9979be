"""A vision transformer small enough for a CPU, with DeiT's distillation token if wanted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdlearn.core.checks import check_sizes
from kdlearn.models.layer import Layer


class TinyViT(nn.Module):
    """Cut an image into patches, one token each, and let a class token look at them.

    Modules to tap, for each layer i: ``layers.i.attention.scores`` and
    ``layers.i.attention.weights``, shape (B, heads, N, N) with N tokens: the class token, then, if
    ``distilled``, the distillation token, then the patches row by row; ``layers.i``;
    ``classifier``, the logits of the class token; ``distillation``, those of the distillation
    token.

    Args:
        image: side of the image in pixels; ``patch`` must divide it.
        patch: side of a patch in pixels.
        channels: of the image.
        classes: number of classes.
        width: size of a token's vector.
        heads: attention heads in each layer; must divide ``width``.
        layers: number of layers.
        distilled: add a second token with a head of its own, which learns from the teacher while
            the first learns from labels. The model's logits are then the mean of both.

    Shape:
        Images (B, channels, image, image) to logits (B, classes).

    Raises:
        ValueError: a size is smaller than 1, ``patch`` does not divide ``image``, ``heads`` does
            not divide ``width``, or images have another size.

    Source: A. Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021; H. Touvron et al.,
        Training Data-Efficient Image Transformers & Distillation through Attention, ICML 2021,
        section 4, which adds the probabilities of both heads: here their logits are averaged, as
        in the authors' code.

    Example:
        >>> TinyViT(image=16, patch=4)(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        image: int,
        patch: int,
        channels: int = 1,
        classes: int = 10,
        width: int = 48,
        heads: int = 3,
        layers: int = 3,
        distilled: bool = False,
    ) -> None:
        """Make the layers; the weights follow from torch's current seed."""
        super().__init__()
        check_sizes(image=image, patch=patch, channels=channels, classes=classes, layers=layers)
        if image % patch:
            raise ValueError(f"patches of {patch} pixels do not fill a side of {image} evenly.")
        self.size = (channels, image, image)
        self.patches = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.special = nn.Parameter(0.02 * torch.randn(1 + distilled, width))
        places = 1 + distilled + (image // patch) ** 2
        self.position = nn.Parameter(0.02 * torch.randn(places, width))
        self.layers = nn.Sequential(*(Layer(width, heads, causal=False) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)
        self.distillation = nn.Linear(width, classes) if distilled else None

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ValueError: the images have another size than the model was made for.
        """
        if images.shape[1:] != self.size:
            raise ValueError(
                f"images have shape {tuple(images.shape)} and the model was made for "
                f"{self.size}: resize them, or make it with image={images.shape[-1]}."
            )
        patches = self.patches(images).flatten(2).transpose(1, 2)
        special = self.special.expand(len(images), -1, -1)
        states = self.norm(self.layers(torch.cat([special, patches], dim=1) + self.position))
        logits = self.classifier(states[:, 0])
        if self.distillation is None:
            return logits
        return (logits + self.distillation(states[:, 1])) / 2
