"""Random changes of images that leave the label as it is: callables (images, generator) -> images.

Each image of the batch gets its own draw. All randomness comes from the generator that is given,
so that a training run can be repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlearn.core.numerics import widen


@dataclass(frozen=True)
class RandomAffine:
    r"""Rotate, scale, shear and shift each image about its center, by a fresh random amount.

    .. math:: x_{in} = \frac{1}{s} \, R(\varphi) \begin{pmatrix} 1 & k \\ 0 & 1 \end{pmatrix}
        x_{out} + d

    with :math:`\varphi, s - 1, k, d_x, d_y` drawn uniformly from symmetric intervals, in
    coordinates where the image reaches from -1 to 1. Pixels are read bilinearly; outside is 0.

    Attributes:
        rotation: largest angle, degrees.
        scale: largest relative change of size; 0.25 means 0.75 to 1.25 times.
        shear: largest shear factor k.
        shift: largest shift, as a fraction of the image's side.

    Raises:
        ValueError: an amount is negative, or scale is 1 or more.

    Example:
        >>> images = torch.rand(5, 1, 16, 16)
        >>> still = RandomAffine(rotation=0, scale=0, shear=0, shift=0)
        >>> torch.allclose(still(images, torch.Generator()), images, atol=1e-5)
        True
    """

    rotation: float = 30.0
    scale: float = 0.25
    shear: float = 0.3
    shift: float = 0.1

    def __post_init__(self) -> None:
        """Refuse amounts that make no sense."""
        for name in ("rotation", "scale", "shear", "shift"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} is the largest change, so it must be 0 or more, "
                    f"got {getattr(self, name)}."
                )
        if self.scale >= 1:
            raise ValueError(
                f"scale must be below 1, got {self.scale}: 0.25 means 0.75 to 1.25 times."
            )

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return warped copies, same shape (B, C, H, W)."""
        _check_images(images)
        draws = 2 * torch.rand(5, len(images), generator=generator) - 1
        angle = draws[0] * math.radians(self.rotation)
        size = 1 + draws[1] * self.scale
        shear = draws[2] * self.shear
        cos, sin = angle.cos() / size, angle.sin() / size
        matrices = torch.stack(
            [
                torch.stack([cos, shear * cos - sin, 2 * self.shift * draws[3]], dim=1),
                torch.stack([sin, shear * sin + cos, 2 * self.shift * draws[4]], dim=1),
            ],
            dim=1,
        )
        wide = widen(images)
        # Half precision, autocast's too, puts the places of a large image pixels off.
        with torch.autocast(images.device.type, enabled=False):
            grid = F.affine_grid(matrices.to(wide), list(images.shape), align_corners=False)
            warped = F.grid_sample(wide, grid, padding_mode="zeros", align_corners=False)
        return warped.to(images.dtype)


@dataclass(frozen=True)
class RandomShift:
    """Move each image by a fresh whole number of pixels, each way; what comes in is 0.

    Attributes:
        pixels: largest shift, in pixels, in either direction of either axis.

    Raises:
        ValueError: pixels is negative.

    Example:
        >>> shift = RandomShift(pixels=2)
        >>> shift(torch.ones(4, 1, 10, 10), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 1, 10, 10])
    """

    pixels: int = 8

    def __post_init__(self) -> None:
        """Refuse a negative shift."""
        if self.pixels < 0:
            raise ValueError(f"pixels is the largest shift, so 0 or more, got {self.pixels}.")

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return shifted copies, same shape (B, C, H, W)."""
        _check_images(images)
        padded = F.pad(images, [self.pixels] * 4)
        return _windows(padded, images.shape[2:], 2 * self.pixels, generator)


@dataclass(frozen=True)
class RandomCropFlip:
    """Cut a random window out of each padded image, and mirror half of them: CIFAR's views.

    Attributes:
        padding: pixels added on each side, mirrored from the image; the window has the image's
            size.

    Raises:
        ValueError: the padding is negative.

    Example:
        >>> views = RandomCropFlip(padding=2)
        >>> views(torch.rand(4, 3, 8, 8), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 8, 8])
    """

    padding: int = 4

    def __post_init__(self) -> None:
        """Refuse a negative padding."""
        if self.padding < 0:
            raise ValueError(f"padding must be 0 or more, got {self.padding}.")

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return new views, same shape (B, C, H, W)."""
        _check_images(images)
        if self.padding >= min(images.shape[2:]):
            raise ValueError(
                f"padding is {self.padding} and the images have {min(images.shape[2:])} pixels: "
                "a mirrored border is smaller than the image."
            )
        padded = F.pad(images, [self.padding] * 4, mode="reflect")
        views = _windows(padded, images.shape[2:], 2 * self.padding, generator)
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        return torch.where(mirrored.to(images.device)[:, None, None, None], views.flip(-1), views)


def _windows(
    padded: Tensor, size: torch.Size, most: int, generator: torch.Generator | None
) -> Tensor:
    """Cut a window out of each image, its corner drawn from 0 to ``most`` in both directions."""
    batch, (height, width) = len(padded), size
    start = torch.randint(0, most + 1, (2, batch, 1), generator=generator)
    rows = (start[0] + torch.arange(height)).to(padded.device)
    columns = (start[1] + torch.arange(width)).to(padded.device)
    which = torch.arange(batch, device=padded.device)[:, None, None]
    cut = padded.movedim(1, -1)[which, rows[:, :, None], columns[:, None, :]]
    return cut.movedim(-1, 1).contiguous()


def _check_images(images: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"expected float images of shape (B, C, H, W), got {images.dtype} of shape "
            f"{tuple(images.shape)}."
        )
