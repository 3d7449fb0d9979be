"""What every figure asks of its input: images, maps and boxes that can be drawn."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdlearn.measure.metrics import energy_in_box


def finite(values: Tensor, name: str) -> Tensor:
    """Return the values as a float64 tensor on the CPU, cut from any graph.

    Args:
        values: a tensor, an array or nested lists of numbers.
        name: what to call them in a message, in the plural.

    Raises:
        ValueError: there are none, or one is NaN or infinite.

    Example:
        >>> finite(torch.tensor([1.0, float("nan")]), "logits")
        Traceback (most recent call last):
        ...
        ValueError: logits hold NaN or infinity: a figure of them says nothing, look for a diverged
            run.
    """  # noqa: E501
    tensor = torch.as_tensor(values).detach().to("cpu", torch.float64)
    if tensor.numel() == 0:
        raise ValueError(f"{name} are empty, shape {tuple(tensor.shape)}: give at least one.")
    if not tensor.isfinite().all():
        raise ValueError(
            f"{name} hold NaN or infinity: a figure of them says nothing, look for a diverged run."
        )
    return tensor


def as_images(images: Tensor, count: int | None = None) -> Tensor:
    """Return images as (N, channels, H, W), channels 1 or 3, scaled to [0, 1] if they leave it.

    Args:
        images: shape (N, H, W), (N, 1, H, W) or (N, 3, H, W).
        count: the N that is wanted, if it is known.

    Raises:
        ValueError: another shape, another number of images, none at all, or NaN.

    Example:
        >>> as_images(torch.tensor([[[0.0, 2.0]]]))
        tensor([[[[0., 1.]]]], dtype=torch.float64)
    """
    tensor = finite(images, "images")
    if tensor.dim() == 3:
        tensor = tensor[:, None]
    if tensor.dim() != 4 or tensor.shape[1] not in (1, 3):
        raise ValueError(
            "expected images of shape (N, H, W), (N, 1, H, W) or (N, 3, H, W), got "
            f"{tuple(torch.as_tensor(images).shape)}: one image needs images[None]."
        )
    if count is not None and len(tensor) != count:
        raise ValueError(f"got {len(tensor)} images for {count} samples: give one image a sample.")
    low, high = tensor.min(), tensor.max()
    if low < 0 or high > 1:
        tensor = (tensor - low) / (high - low).clamp_min(1e-12)
    return tensor


def as_maps(maps: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return attention maps of several models or layers, each of shape (N, h, w), checked.

    Args:
        maps: name to maps; the names appear in the messages.
        count: the N that is wanted.

    Raises:
        ValueError: there are no maps, or one has another shape, is not finite, or is below 0.

    Example:
        >>> as_maps({"teacher": torch.ones(2, 8, 4, 4)}, count=2)
        Traceback (most recent call last):
        ...
        ValueError: expected maps of teacher of shape (2, h, w), got (2, 8, 4, 4):
            kdlearn.losses.maps.activation_map makes them from features.
    """  # noqa: E501
    if not maps:
        raise ValueError("maps are empty: give at least one, by name.")
    checked = {name: finite(values, f"maps of {name}") for name, values in maps.items()}
    for name, values in checked.items():
        if values.dim() != 3 or len(values) != count:
            raise ValueError(
                f"expected maps of {name} of shape ({count}, h, w), got "
                f"{tuple(values.shape)}: kdlearn.losses.maps.activation_map makes them from "
                f"features."
            )
        if (values < 0).any():
            raise ValueError(
                f"maps of {name} must not be below 0, got {values.min().item():.3g}: "
                "use kdlearn.losses.maps.activation_map, or take the absolute value."
            )
    return checked


def as_boxes(boxes: Tensor, count: int) -> Tensor:
    """Return boxes of shape (N, 4), checked: x0, y0, x1, y1 as fractions of width and height.

    Args:
        boxes: shape (N, 4).
        count: the N that is wanted.

    Raises:
        ValueError: another shape, or a box that is empty or leaves the image.

    Example:
        >>> as_boxes(torch.tensor([[4.0, 4.0, 20.0, 20.0]]), count=1)
        Traceback (most recent call last):
        ...
        ValueError: boxes must be x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, as
            fractions of the image: divide pixels by the image's width and height.
    """  # noqa: E501
    frames = finite(boxes, "boxes")
    energy_in_box(torch.ones(count, 1, 1), frames)  # knows what a box is, and says it
    return frames
