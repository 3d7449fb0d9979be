"""Where teacher and students look, side by side, with the layer and the image to choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kdlearn.measure.metrics import energy_in_box, pointing_game
from kdlearn.show.pictures import as_boxes, as_images, as_maps
from kdlearn.show.widgets.figure import HTMLFigure, pack, static_table


def attention_explorer(
    images: Tensor,
    maps: Mapping[str, Mapping[str, Tensor]],
    *,
    boxes: Tensor | None = None,
) -> HTMLFigure:
    r"""Lay attention maps of several models over the same images; choose image, layer, strength.

    With boxes, each model is told by two numbers: whether the peak of its map is inside the
    true box, and the share of the map's energy there,
    :math:`\sum_{\text{box}} m_{ij} / \sum m_{ij}`. Both come from the maps as given, by
    :func:`kdlearn.measure.pointing_game` and :func:`kdlearn.measure.energy_in_box`. The
    drawing scales each map to its own maximum and keeps 16 levels of it. It starts at the first
    image and the last layer.

    Args:
        images: shape (N, H, W), (N, 1, H, W) or (N, 3, H, W).
        maps: for each model, and in it for each layer, maps of shape (N, h, w) without values
            below 0, such as those of :func:`kdlearn.losses.maps.activation_map`. All models have the
            same layers; the sizes may differ.
        boxes: shape (N, 4): x0, y0, x1, y1 as fractions of width and height.

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` tells the numbers at the start.

    Raises:
        ValueError: there are no maps, the layers of the models differ, or a shape, a map or a box
            is not as above.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[3.0, 1.0], [0.0, 0.0]]])
        >>> attention_explorer(
        ...     torch.zeros(1, 8, 8),
        ...     {"teacher": {"group3": maps}, "student": {"group3": maps.flip(2)}},
        ...     boxes=torch.tensor([[0.0, 0.0, 0.5, 0.5]]),
        ... )
        Attention maps of teacher and student over 1 image, with controls for image, layer (group3) and strength. Image 1, group3, box 25 % of the image: teacher peak inside the box, 75 % of the energy in it; student peak outside the box, 25 % of the energy in it.
    """  # noqa: E501
    pixels = as_images(images)
    count = len(pixels)
    models = list(maps)
    if not models or not maps[models[0]]:
        raise ValueError('maps are empty: give {"teacher": {"group3": maps}, ...}.')
    layers = list(maps[models[0]])
    checked = {
        model: _checked_layers(model, maps[model], layers, models[0], count) for model in models
    }

    data: dict[str, Any] = {
        "count": count,
        "images": pack(pixels),
        "size": list(pixels.shape[1:]),
        "models": models,
        "layers": layers,
        "maps": [
            [
                {"size": list(values.shape[1:]), "values": pack(_scaled(values), levels=16)}
                for values in checked[model].values()
            ]
            for model in models
        ],
    }
    listed = " and ".join(", ".join(models).rsplit(", ", 1))
    text = (
        f"Attention maps of {listed} over {count} image{'s' * (count > 1)}, with controls for "
        f"image, layer ({', '.join(layers)}) and strength."
    )
    head = "Attention maps; with scripts on (in a notebook: run this cell) they are drawn here."
    if boxes is None:
        rows = [[model, ", ".join(layers)] for model in models]
        return HTMLFigure("attention", data, static_table(head, ["model", "layers"], rows), text)

    frames = as_boxes(boxes, count)
    verdicts = [
        [
            [_verdict(values[n : n + 1], frames[n : n + 1]) for n in range(count)]
            for values in checked[model].values()
        ]
        for model in models
    ]
    widths, heights = (frames[:, 2:] - frames[:, :2]).unbind(dim=1)
    data["boxes"] = [[round(edge, 4) for edge in frame] for frame in frames.tolist()]
    data["areas"] = [f"{100 * area:.0f} %" for area in (widths * heights).tolist()]
    data["verdicts"] = verdicts
    told = "; ".join(
        f"{model} {of_layers[-1][0]}" for model, of_layers in zip(models, verdicts, strict=True)
    )
    text += f" Image 1, {layers[-1]}, box {data['areas'][0]} of the image: {told}."
    rows = [
        [model, *(of_layer[0] for of_layer in of_layers)]
        for model, of_layers in zip(models, verdicts, strict=True)
    ]
    caption = f"{head} Image 1, whose box covers {data['areas'][0]} of it:"
    return HTMLFigure("attention", data, static_table(caption, ["model", *layers], rows), text)


def _checked_layers(
    model: str, given: Mapping[str, Tensor], layers: list[str], first: str, count: int
) -> dict[str, Tensor]:
    if set(given) != set(layers):
        raise ValueError(
            f"{model} has maps of {', '.join(given) or 'no layer'}, {first} of "
            f"{', '.join(layers)}: give every model maps under the same layer names."
        )
    named = as_maps({f"{model}, {layer},": given[layer] for layer in layers}, count)
    return dict(zip(layers, named.values(), strict=True))


def _scaled(maps: Tensor) -> Tensor:
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)


def _verdict(values: Tensor, box: Tensor) -> str:
    hit = pointing_game(values, box)
    peak = {0.0: "peak outside the box", 1.0: "peak inside the box"}.get(
        hit, f"{100 * hit:.0f} % of its equal peaks inside the box"
    )
    return f"{peak}, {100 * energy_in_box(values, box):.0f} % of the energy in it"
