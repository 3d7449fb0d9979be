"""Numbers that say how good a model is, how close to its teacher, and where it looks.

Pure functions of tensors; each returns a Python number, computed in double precision on the CPU,
since not every device has that. Shares are in [0, 1], not in per cent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.core.checks import (
    check_device,
    check_labels,
    check_logit_values,
    check_same_shape,
    check_temperature,
    check_tensor,
    check_whole,
)
from kdlearn.core.inputs import (
    Inputs,
    call,
    count,
    device_of,
    evaluating,
    join,
    map_tensors,
    place,
    take,
)
from kdlearn.core.numerics import kl_terms
from kdlearn.data.samples import Samples


@torch.no_grad()
def predict(model: nn.Module, images: Inputs, batch_size: int = 512) -> Tensor:
    """Return the model's logits, computed in evaluation mode and without gradients.

    The mode of every module (training or evaluation) is put back afterwards, also after an error.

    Args:
        model: takes a batch of images, returns logits (B, C), see `kdlearn.core.inputs.call`.
        images: shape (N, ...); or named tensors, each with N rows.
        batch_size: images at a time.

    Raises:
        ValueError: there are no images, or ``batch_size`` is not positive.

    Example:
        >>> predict(nn.Flatten(), torch.ones(3, 1, 2, 2)).shape
        torch.Size([3, 4])
    """
    batch_size, samples = check_whole(batch_size, "batch_size"), count(images)
    if samples == 0:
        raise ValueError("there are no images to predict: check how the split was cut.")
    home = next((p.device for p in getattr(model, "parameters", list)()), device_of(images))
    with evaluating(model):
        starts = range(0, samples, batch_size)
        parts = [place(take(images, slice(at, at + batch_size)), home) for at in starts]
        return torch.cat([call(model, part) for part in parts])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit is at the label.

    Args:
        logits: shape (N, C).
        labels: shape (N,).

    Raises:
        TypeError: the logits are no floating-point tensor, or the labels no class numbers.
        ValueError: the shapes do not fit, there are no rows, or the logits hold NaN or a row that
            is minus infinity throughout.

    Example:
        >>> accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0]))
        0.75
    """
    _check_logits(logits, probabilities=True)
    check_labels(labels, logits)
    return (logits.argmax(dim=1) == labels).sum().item() / len(labels)


def evaluate(
    model: nn.Module, data: Any, metric: Callable[[Tensor, Any], float] = accuracy
) -> float:
    """Return what a metric says of a model on data of any kind, in evaluation mode.

    Args:
        model: takes a batch of inputs, returns logits, see `kdlearn.core.inputs.call`.
        data: inputs with labels, as `kdlearn.data.Samples` takes them; placed where the model is.
        metric: from the logits and the labels of all samples to a number. Batches of tokens may
            differ in length where some of their labels are -100, which the metric leaves out then:
            the shorter get zeros at their ends, labeled so.

    Raises:
        TypeError: the metric returned no number.
        ValueError: outputs or labels of a sample have another shape in another batch, and are no
            such tokens.

    Example:
        >>> evaluate(nn.Identity(), (torch.eye(3), torch.tensor([0, 1, 1])))
        0.666...
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    logits, labels = [], []
    with evaluating(model), torch.no_grad():
        for batch in Samples.of(data, "data").in_order():
            logits.append(call(model, place(batch.inputs, device)))
            labels.append(place(batch.labels, device))
    pairs = zip(logits, labels, strict=True)
    shapes = [map_tensors(lambda tensor: tuple(tensor.shape[1:]), pair) for pair in pairs]
    other = next((shape for shape in shapes if shape != shapes[0]), None)
    if other is not None and _some_do_not_count(logits, labels):
        length = max(tokens.shape[1] for tokens in labels)
        logits = [F.pad(one, (0, 0, 0, length - one.shape[1])) for one in logits]
        labels = [F.pad(one, (0, length - one.shape[1]), value=-100) for one in labels]
    elif other is not None:
        raise ValueError(
            f"outputs and labels of a sample have the shapes {shapes[0]} in one batch and {other} "
            "in another, and the metric gets all samples in one tensor: pad them to one length."
        )
    value: Any = metric(torch.cat(logits), join(labels))
    shape = tuple(getattr(value, "shape", ()))
    if math.prod(shape) != 1 or not hasattr(value, "__float__"):
        given = f"numbers of shape {shape}" if shape else repr(value)
        raise TypeError(f"the metric returned {given}: expected one number.")
    return float(value.item() if shape else value)


def _some_do_not_count(logits: Sequence[Tensor], labels: Sequence[Any]) -> bool:
    """Whether these are logits (B, L, V) and class numbers (B, L), of which some are -100."""
    tokens = all(
        isinstance(y, Tensor) and y.dtype == torch.int64 and y.dim() == 2 and z.dim() == 3
        and z.shape[:2] == y.shape
        for z, y in zip(logits, labels, strict=True)
    )  # fmt: skip
    return tokens and any(bool((y == -100).any()) for y in labels)


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> float:
    """Return the share of rows where student and teacher give the same class, right or wrong.

    Args:
        student_logits: shape (N, C).
        teacher_logits: shape (N, C).

    Raises:
        TypeError: a side is no floating-point tensor.
        ValueError: the shapes differ, there are no rows, or a side holds NaN.

    Source: S. Stanton et al., Does Knowledge Distillation Really Work?, NeurIPS 2021
        ("top-1 agreement").

    Example:
        >>> agreement(torch.eye(2), torch.tensor([[9.0, 0.0], [3.0, 1.0]]))
        0.5
    """
    _check_pair(student_logits, teacher_logits, probabilities=True)
    same = student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1)
    return same.sum().item() / len(same)


def kl_to_teacher(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0
) -> float:
    r"""Return how many nats the student's distribution is away from the teacher's.

    .. math:: \frac{1}{N} \sum_{i=1}^{N} \mathrm{KL}\bigl(\sigma(z_t^i / T) \,\|\,
        \sigma(z_s^i / T)\bigr)

    Convention
        Order: student, teacher; direction KL(teacher || student); sum over classes, mean over
        rows; no factor :math:`T^2`. At T = 1 it is about what the two models say when used.
        Ruled out: a class that both sides give minus infinity counts nothing; one that the student
        alone does makes the divergence infinite.

    Args:
        student_logits: shape (N, C).
        teacher_logits: shape (N, C).
        temperature: T, above 0.

    Raises:
        ValueError: the shapes differ, there are no rows, the logits hold NaN or are probabilities,
            or the temperature is not above 0.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0]])
        >>> kl_to_teacher(logits + 5, logits)
        0.0
    """
    _check_pair(student_logits, teacher_logits)
    temperature = check_temperature(temperature)
    student = (student_logits.cpu().double() / temperature).log_softmax(dim=1)
    teacher = (teacher_logits.cpu().double() / temperature).log_softmax(dim=1)
    return kl_terms(teacher, student).sum(dim=1).mean().item()


def expected_calibration_error(logits: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    r"""Return how far confidence is from accuracy, averaged over bins of equal confidence.

    .. math:: \mathrm{ECE} = \sum_{m=1}^{M} \frac{|B_m|}{N}
        \bigl| \mathrm{acc}(B_m) - \mathrm{conf}(B_m) \bigr|

    Convention
        Confidence: the largest softmax probability at T = 1. Bin m holds confidences in
        ((m - 1) / M, m / M]. Empty bins count nothing. 0 is best.

    Args:
        logits: shape (N, C).
        labels: shape (N,).
        bins: M.

    Raises:
        ValueError: the shapes do not fit, there are no rows, the logits are probabilities, or
            ``bins`` is not positive.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017; they
        use 15 bins.

    Example:
        >>> sure = torch.tensor([[50.0, 0.0]] * 4)
        >>> expected_calibration_error(sure, torch.tensor([0, 0, 0, 1]))
        0.25
    """
    _check_logits(logits)
    check_labels(labels, logits)
    bins = check_whole(bins, "bins")
    confidence, predicted = logits.cpu().double().softmax(dim=1).max(dim=1)
    gap = (predicted == labels.cpu()).double() - confidence
    which = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    sums = torch.zeros(bins, dtype=torch.float64).index_add(0, which, gap)
    return sums.abs().sum().item() / len(gap)


def pointing_game(maps: Tensor, boxes: Tensor) -> float:
    """Return the share of images whose map has its maximum inside the box.

    Convention
        The maximum is at the center of its cell: cell (row i, column j) of an H x W map is at
        x = (j + 1/2) / W, y = (i + 1/2) / H. The edges of a box belong to it. Where several cells
        share the maximum, an image counts the share of those that lie inside (what picking one
        of them at random gives on average): a constant map scores the area of the box, not luck.
        No map is resized, and no tolerance is added around the box.

    Args:
        maps: shape (B, H, W), any resolution.
        boxes: shape (B, 4): x0, y0, x1, y1 as fractions of width and height.

    Raises:
        TypeError: maps or boxes are no floating-point tensor.
        ValueError: the shapes or devices do not fit, there are no maps, a map is not finite, or a
            box is outside [0, 1] or empty.

    Source: J. Zhang et al., Top-Down Neural Attention by Excitation Backprop, ECCV 2016; they
        allow a tolerance of 15 pixels, which is 0 here.

    Example:
        >>> maps = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
        >>> pointing_game(maps, torch.tensor([[0.5, 0.0, 1.0, 0.5]]))
        1.0
    """
    _check_maps(maps, boxes)
    height, width = maps.shape[1:]
    maps, boxes = maps.cpu(), boxes.cpu()
    # Rounded as the edges are, or an edge at a center would miss it.
    x = ((torch.arange(width) + 0.5).double() / width).to(boxes.dtype)
    y = ((torch.arange(height) + 0.5).double() / height).to(boxes.dtype)
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)
    inside = ((y >= y0) & (y <= y1))[:, :, None] & ((x >= x0) & (x <= x1))[:, None, :]
    at_maximum = maps == maps.amax(dim=(1, 2), keepdim=True)
    hits = (at_maximum & inside).sum(dim=(1, 2)).double() / at_maximum.sum(dim=(1, 2))
    return hits.mean().item()


def energy_in_box(maps: Tensor, boxes: Tensor) -> float:
    r"""Return the share of the maps' total that lies inside the box, averaged over images.

    .. math:: \frac{1}{B} \sum_b \frac{\sum_{ij} o^b_{ij} \, m^b_{ij}}{\sum_{ij} m^b_{ij}}

    with :math:`o_{ij}` the share of cell (i, j) that the box covers.

    Convention
        A constant map scores the area of the box. A map of zeros looks nowhere and scores 0.

    Args:
        maps: shape (B, H, W), any resolution, no value below 0.
        boxes: shape (B, 4): x0, y0, x1, y1 as fractions of width and height.

    Raises:
        TypeError, ValueError: as for :func:`pointing_game`; also a value below 0.

    Source: H. Wang et al., Score-CAM, CVPR Workshops 2020 ("energy-based pointing game"), which
        counts pixels; the cells that a box cuts are our addition.

    Example:
        >>> energy_in_box(torch.ones(1, 4, 4), torch.tensor([[0.0, 0.0, 0.5, 0.5]]))
        0.25
    """
    _check_maps(maps, boxes)
    if (maps < 0).any():
        raise ValueError(
            f"maps must not be below 0, got a minimum of {maps.min().item():.3g}: "
            "use kdlearn.losses.maps.activation_map, or take the absolute value."
        )
    maps, boxes = maps.cpu().double(), boxes.cpu().double()
    height, width = maps.shape[1:]
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)
    columns = _overlap(x0, x1, width)
    rows = _overlap(y0, y1, height)
    inside = (maps * rows[:, :, None] * columns[:, None, :]).sum(dim=(1, 2))
    total = maps.sum(dim=(1, 2))
    return torch.where(total > 0, inside / total, torch.zeros_like(total)).mean().item()


def _overlap(start: Tensor, stop: Tensor, cells: int) -> Tensor:
    """Return the share of each of ``cells`` equal intervals of [0, 1] between start and stop."""
    left = torch.arange(cells, dtype=start.dtype) / cells
    return ((stop.minimum(left + 1 / cells) - start.maximum(left)) * cells).clamp(0, 1)


def _check_logits(*sides: Tensor, probabilities: bool = False) -> None:
    for logits in sides:
        check_tensor(logits, "logits", "any")
        check_logit_values(logits, "logits", probabilities=probabilities)
        if logits.dim() != 2:
            raise ValueError(
                f"expected logits of shape (N, C), N at least 1, got {_shape(logits)}: make rows "
                "of tokens or pixels, and leave out what does not count."
            )


def _check_pair(
    student_logits: Tensor, teacher_logits: Tensor, *, probabilities: bool = False
) -> None:
    _check_logits(student_logits, teacher_logits, probabilities=probabilities)
    advice = "run both on the same images and classes"
    check_same_shape(student_logits, teacher_logits, "logits", advice, "any")


def _check_maps(maps: Tensor, boxes: Tensor) -> None:
    for tensor, name in ((maps, "maps"), (boxes, "boxes")):
        check_tensor(tensor, name, "any")
    check_device(maps, boxes, "maps", "boxes")
    if maps.dim() != 3:
        raise ValueError(
            f"expected maps of shape (B, H, W), got {_shape(maps)}: features (B, C, H, W) "
            "become maps by kdlearn.losses.maps.activation_map."
        )
    if boxes.shape != (len(maps), 4):
        raise ValueError(
            f"expected boxes of shape ({len(maps)}, 4), got {_shape(boxes)}: give one box a map."
        )
    if not maps.isfinite().all():
        raise ValueError("the maps hold NaN or infinity: look for a diverged training run.")
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    slack = 1e-5
    inside = (boxes >= -slack).all() and (boxes <= 1 + slack).all()
    if not (inside and (x0 < x1).all() and (y0 < y1).all()):
        raise ValueError(
            "boxes must be x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, as "
            "fractions of the image: divide pixels by the image's width and height."
        )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
