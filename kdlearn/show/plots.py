"""Figures on paper: probabilities, curves of training, maps over images, differences over seeds.

Every function returns a matplotlib `Figure` in the one style of the book (`kdlearn.show.style`). A
notebook shows it when it is the last value of a cell; ``figure.savefig`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, Protocol

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from kdlearn.measure.paired import PairedDifference
from kdlearn.show.pictures import as_boxes, as_images, as_maps, finite
from kdlearn.show.style import GRAY, PALETTE, WIDTH, drawing

_MARKERS = "osD^vPX"
_MOST_NAMES = 20


class HasEpochs(Protocol):
    """Anything with ``epochs``, a list with a dict for each, such as `kdlearn.training.History`."""

    epochs: list[dict[str, Any]]


def probabilities(
    logits: Tensor,
    *,
    temperatures: Sequence[float] = (1, 4, 20),
    class_names: Sequence[str] | None = None,
) -> Figure:
    r"""Draw the softened probabilities of one sample, a row of bars for each temperature.

    .. math:: p_i = \frac{e^{z_i / T}}{\sum_j e^{z_j / T}}, \qquad
        H = -\sum_i p_i \ln p_i

    All rows share the scale from 0 to 1; the title of each tells T and the entropy H in nats.

    Args:
        logits: shape (C,), C at least 2.
        temperatures: the values of T, each above 0.
        class_names: C names; the numbers 0 to C - 1 if left out.

    Raises:
        ValueError: a shape, a temperature or the number of names is not as above.

    Example:
        >>> figure = probabilities(torch.tensor([8.0, 4.0, 0.0]), temperatures=(1, 4))
        >>> [axes.get_title() for axes in figure.axes]
        ['T = 1: entropy 0.09 nats', 'T = 4: entropy 0.83 nats']
    """
    row = finite(logits, "logits")
    if row.dim() != 1 or len(row) < 2:
        raise ValueError(
            f"expected the logits of one sample, shape (C,) with C at least 2, got "
            f"{tuple(row.shape)}: take one row, logits[0]."
        )
    if not temperatures or not all(temperature > 0 for temperature in temperatures):
        raise ValueError(f"temperatures must be above 0, at least one, got {temperatures}.")
    names = [str(name) for name in (range(len(row)) if class_names is None else class_names)]
    if len(names) != len(row):
        raise ValueError(f"got {len(names)} class names for {len(row)} classes: name each once.")

    panels = len(temperatures)
    with drawing(panels, 1, height=0.7 + 1.45 * panels, sharex=True) as (figure, axes):
        for (panel,), temperature in zip(axes, temperatures, strict=True):
            p = (row / temperature).softmax(dim=0)
            bars = panel.bar(range(len(row)), p.tolist(), color=PALETTE["blue"])
            panel.grid(axis="x", visible=False)
            panel.set_ylim(0, 1.12)
            panel.set_yticks([0, 0.5, 1])
            panel.set_title(
                f"T = {temperature:g}: entropy {torch.special.entr(p).sum().item():.2f} nats"
            )
            if len(row) <= _MOST_NAMES // 2:
                panel.bar_label(bars, [_short(value) for value in p.tolist()], fontsize=9)
        if len(names) <= _MOST_NAMES:
            long = max(map(len, names)) > 40 // len(names)
            panel.set_xticks(range(len(row)), names, rotation=40 if long else 0)
            plt.setp(panel.get_xticklabels(), ha="right" if long else "center")
        figure.supylabel("probability", fontsize=10)
        panel.set_xlabel("class")
    return figure


def learning_curves(
    histories: Mapping[str, HasEpochs], *, metric: str = "validation_accuracy"
) -> Figure:
    """Draw one metric of several trainings over the epochs, a line with its own marker for each.

    Args:
        histories: name to history, as :func:`kdlearn.training.fit` returns them.
        metric: a key of the epochs: ``"validation_accuracy"`` (drawn in per cent) or ``"loss"``.

    Raises:
        ValueError: there are no histories, or one has no epoch.
        KeyError: a history lacks the metric; the message lists what it has.

    Example:
        >>> from kdlearn.training import History
        >>> epochs = [{"epoch": 1, "validation_accuracy": 0.5, "parts": {}}]
        >>> figure = learning_curves({"scratch": History(epochs)})
        >>> figure.axes[0].get_ylabel()
        'validation accuracy (%)'
    """
    if not histories:
        raise ValueError('histories are empty: give {"scratch": history, ...}.')
    with drawing(1, 1, height=3.6) as (figure, axes):
        for k, (name, history) in enumerate(histories.items()):
            epochs = _epochs(history, name)
            if metric not in epochs[0]:
                raise KeyError(
                    f"{name} has no {metric!r} in its epochs, only {', '.join(epochs[0])}: "
                    "pass validation=... to fit, or choose another metric."
                )
            _curve(axes[0][0], epochs, [row[metric] for row in epochs], name, k, metric)
        _finish_curves(axes[0][0], metric)
    return figure


def history(history: HasEpochs) -> Figure:
    """Draw the parts of the loss and, where it was measured, the validation accuracy.

    Args:
        history: what :func:`kdlearn.training.fit` returned.

    Raises:
        ValueError: there is no epoch in it.

    Example:
        >>> from kdlearn.training import History
        >>> run = History([{"epoch": 1, "loss": 2.0, "parts": {"labels": 0.5, "hints": 1.5}}])
        >>> [line.get_label() for line in history(run).axes[0].get_lines()]
        ['total', 'labels', 'hints']
    """
    epochs = _epochs(history, "history")
    measured = all("validation_accuracy" in row for row in epochs)
    with drawing(1 + measured, 1, height=5.6 if measured else 3.4, sharex=True) as (figure, axes):
        parts = list(epochs[0]["parts"])
        lines = {"total": [row["loss"] for row in epochs]} if len(parts) != 1 else {}
        lines |= {part: [row["parts"][part] for row in epochs] for part in parts}
        for k, (name, values) in enumerate(lines.items()):
            _curve(axes[0][0], epochs, values, name, k, "loss")
        _finish_curves(axes[0][0], "loss")
        if measured:
            values = [row["validation_accuracy"] for row in epochs]
            _curve(axes[1][0], epochs, values, "student", 0, "validation_accuracy")
            _finish_curves(axes[1][0], "validation_accuracy", legend=False)
            axes[0][0].set_xlabel("")
    return figure


def overlays(
    images: Tensor,
    maps: Mapping[str, Tensor],
    *,
    boxes: Tensor | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Lay attention maps over images: a row for each image, a column for each model.

    The first column is the plain image. Each map is stretched to the image and scaled to its own
    maximum, so colors tell where a model looks, not how strongly.

    Args:
        images: shape (N, H, W), (N, 1, H, W) or (N, 3, H, W); a handful.
        maps: for each model maps of shape (N, h, w) without values below 0.
        boxes: the true boxes, shape (N, 4): x0, y0, x1, y1 as fractions of width and height.
        titles: one for each image, at the left of its row.

    Raises:
        ValueError: a shape, a map, a box or the number of titles is not as above.

    Example:
        >>> figure = overlays(torch.rand(2, 8, 8), {"teacher": torch.rand(2, 4, 4)})
        >>> [axes.get_title() for axes in figure.axes]
        ['image', 'teacher', '', '']
    """
    pixels = as_images(images)
    count, _, height, width = pixels.shape
    checked = as_maps(maps, count)
    frames = None if boxes is None else as_boxes(boxes, count)
    if titles is not None and len(titles) != count:
        raise ValueError(f"got {len(titles)} titles for {count} images: give one an image.")

    columns = 1 + len(checked)
    cell = min(WIDTH / columns, 1.6)
    edges = (0, width, height, 0)
    with drawing(count, columns, height=0.4 + cell * count * height / width) as (figure, axes):
        for n, panels in enumerate(axes):
            for panel, name in zip(panels, [None, *checked], strict=True):
                shown = pixels[n].permute(1, 2, 0).squeeze(-1).numpy()
                panel.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=edges)
                if name is not None:
                    values = checked[name][n]
                    panel.imshow(
                        (values / values.max().clamp_min(1e-30)).numpy(),
                        cmap="inferno",
                        alpha=0.6,
                        interpolation="bilinear",
                        vmin=0,
                        vmax=1,
                        extent=edges,
                    )
                if frames is not None:
                    _box(panel, frames[n].tolist(), width, height)
                panel.set_xticks([])
                panel.set_yticks([])
                panel.grid(False)
                panel.spines[:].set_visible(False)
                if n == 0:
                    panel.set_title("image" if name is None else fill(name, 24 // columns + 8))
            if titles is not None:
                panels[0].set_ylabel(titles[n])
    return figure


def paired_differences(differences: Mapping[str, PairedDifference]) -> Figure:
    """Draw each seed's difference as a dot, and the mean with its 95 % interval.

    An interval that does not touch the line at 0 is a difference that the seeds bear out.

    Args:
        differences: name to what :func:`kdlearn.experiments.paired_difference` returned; all in
            one unit.

    Raises:
        ValueError: there are none, or their units differ.

    Example:
        >>> from kdlearn.measure import PairedDifference
        >>> gain = PairedDifference(2.0, 1.0, -0.5, 4.5, 3, (1.0, 2.0, 3.0))
        >>> paired_differences({"KD - scratch": gain}).axes[0].get_xlabel()
        'difference (points)'
    """
    if not differences:
        raise ValueError('differences are empty: give {"KD - scratch": paired_difference(...)}.')
    units = {difference.unit for difference in differences.values()}
    if len(units) != 1:
        raise ValueError(
            f"the differences are in {' and '.join(sorted(units))}: draw a figure for each unit."
        )
    with drawing(1, 1, height=1.1 + 0.55 * len(differences)) as (figure, axes):
        panel = axes[0][0]
        panel.axvline(0, color=GRAY, linewidth=1)
        for row, difference in enumerate(differences.values()):
            low, high = difference.mean - difference.low, difference.high - difference.mean
            panel.plot(
                difference.values,
                [row - 0.18] * len(difference.values),
                marker="o",
                linestyle="",
                color=PALETTE["sky"],
                markersize=5,
                label="one seed" if row == 0 else None,
            )
            panel.errorbar(
                difference.mean,
                row + 0.12,
                xerr=[[low], [high]],
                fmt="D",
                color=PALETTE["blue"],
                capsize=4,
                markersize=6,
                label="mean, 95 % interval" if row == 0 else None,
            )
        panel.set_yticks(range(len(differences)), list(differences))
        panel.set_ylim(len(differences) - 0.5, -0.5)
        panel.grid(axis="y", visible=False)
        panel.set_xlabel(f"difference ({units.pop()})")
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def _short(probability: float) -> str:
    return f"{probability:.2f}" if probability >= 0.005 else "<0.01"


def _epochs(history: HasEpochs, name: str) -> list[dict[str, Any]]:
    if not history.epochs:
        raise ValueError(f"{name} has no epoch yet: train first, with fit(...).")
    return history.epochs


def _curve(
    panel: Axes,
    epochs: list[dict[str, Any]],
    values: list[float],
    name: str,
    k: int,
    metric: str,
) -> None:
    scale = 100 if metric.endswith("accuracy") else 1
    panel.plot(
        [row["epoch"] for row in epochs],
        [scale * value for value in values],
        color=list(PALETTE.values())[k % len(PALETTE)],
        marker=_MARKERS[k % len(_MARKERS)],
        markersize=5,
        markevery=max(1, len(epochs) // 10),
        label=name,
    )


def _finish_curves(panel: Axes, metric: str, *, legend: bool = True) -> None:
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylabel(metric.replace("_", " ") + (" (%)" if metric.endswith("accuracy") else ""))
    if legend:
        panel.legend()


def _box(panel: Axes, box: list[float], width: int, height: int) -> None:
    x0, y0, x1, y1 = box
    for color, thick in ((PALETTE["black"], 3.0), (PALETTE["sky"], 1.6)):
        panel.add_patch(
            Rectangle(
                (x0 * width, y0 * height),
                (x1 - x0) * width,
                (y1 - y0) * height,
                fill=False,
                edgecolor=color,
                linewidth=thick,
            )
        )
