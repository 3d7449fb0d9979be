"""The named, weighted parts of a distillation loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.core.checks import check_number, checks_values
from kdlearn.core.errors import noting
from kdlearn.data.batch import Batch
from kdlearn.distill.outputs import LOGITS, Keep, Outputs, Want

MaskOf = Callable[[Batch], Tensor]
"""From a batch to the mask that a loss gets as ``mask=``, True where a position counts."""


@dataclass(frozen=True)
class Term:
    r"""One named, weighted part of a distillation loss.

    Made by `label_term`, `logit_term`, `layer_term` and `sparse_term`, or by hand.

    Its value is :math:`w \sum_j \mathrm{loss}(a_j)`, where ``arguments`` picks the :math:`a_j`.

    Convention
        The loss sees the whole batch, also where a step is computed in pieces or by several
        processes, so whatever its mean runs over (samples, tokens that count, class weights), it
        is the mean of the batch. It returns one number.

    Attributes:
        name: how the part is called in histories and messages; no dot, unique in a `Distiller`.
        weight: :math:`w`, a number >= 0.
        loss: a function, or a module whose parameters (a projector) are trained with the student.
        arguments: from the outputs of student and teacher and the labels to the argument lists of
            ``loss``. The whole batch, with mask and weights, is ``student.batch``.
        layers: the student's layer name to the teacher's layer name.
        wants: what is read of the teacher, and so stored; by default its logits and layers.
        mask: from the batch to what the loss gets as ``mask``, where it takes one.
        reads_batch: whether mask and weights of the batch are looked at.

    Raises:
        TypeError: the name is no text, the weight no number, or the loss no function.
        ValueError: the name is empty or has a dot, or the weight is negative or not finite.

    Example:
        >>> term = Term(
        ...     "size", 2.0, torch.sum, lambda student, teacher, labels: [(student.logits,)]
        ... )
        >>> term.compute(Outputs(torch.ones(2, 4)), Outputs(torch.ones(2, 4)), None).item()
        16.0
    """

    name: str
    weight: float
    loss: Callable[..., Tensor]
    arguments: Callable[[Outputs, Outputs, Any], list[tuple[Any, ...]]]
    layers: Mapping[str, str] = field(default_factory=dict)
    wants: tuple[Want, ...] | None = None
    mask: MaskOf | None = None
    reads_batch: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(
                f"a term is named {self.name!r}: the name, a text, comes before the loss."
            )
        if not self.name or "." in self.name:
            raise ValueError(f"a term is named {self.name!r}: give it a name without a dot.")
        if not callable(self.loss):
            raise TypeError(
                f"term {self.name!r} has the loss {self.loss!r}: expected a function, such as "
                "losses.soft_target_loss, neither its name nor its value."
            )
        weight = check_number(self.weight, f"the weight of term {self.name!r}")
        object.__setattr__(self, "weight", weight)
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(
                f"term {self.name!r} has weight {self.weight}: expected a finite number >= 0."
            )
        if self.wants is None:
            layers = [Want(layer) for layer in self.layers.values()]
            object.__setattr__(self, "wants", (Want(LOGITS), *layers))

    def compute(self, student: Outputs, teacher: Outputs, labels: Any) -> Tensor:
        """Return weight times loss, summed over what ``arguments`` picks.

        Raises:
            ValueError: the loss returned no single number.
        """
        with noting(f"in term {self.name!r}"):
            options = (
                {} if self.mask is None else {"mask": self.mask(_batch_of(student, self.name))}
            )
            picks = self.arguments(student, teacher, labels)
            losses = [self.loss(*picked, **options) for picked in picks]
        for loss in losses:
            if not isinstance(loss, Tensor) or loss.dim():
                given = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise ValueError(
                    f"term {self.name!r} has a loss of {given}: expected one number, a tensor of "
                    "shape (); take the mean over the samples."
                )
        total = reduce(torch.add, losses)
        # A product with 1 would change no number and cost a small step's time, there and back.
        return total if self.weight == 1 else self.weight * total


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Compare logits with labels, :math:`-\frac{1}{N}\sum_n \log \sigma(z^{(n)})_{y^{(n)}}`.

    Convention
        Classes are the last dimension of (B, C) and of tokens (B, L, C), and dimension 1 of maps
        (B, C, H, W), as in PyTorch. Positions whose label is -100 do not count. Labels of floating
        point are probabilities of the classes.

    Args:
        logits: of one of the shapes above.
        labels: class numbers, the shape of the logits without classes; or as the logits.

    Raises:
        TypeError: labels are one-hot rows of whole numbers, or numbers without classes.
        IndexError: a label is no class.
        ValueError: labels of floating point are no probabilities.

    Example:
        >>> label_cross_entropy(
        ...     torch.zeros(2, 3, 5), torch.tensor([[1, 2, -100], [0, -100, 4]])
        ... ).item()
        1.6094...
    """
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"labels are a {type(labels).__name__}: cross-entropy needs one tensor of class "
            "numbers or probabilities, for others pass label_term(loss=...)."
        )
    classes = logits.shape[1] if logits.dim() > 3 else logits.shape[-1]
    if labels.is_floating_point() and labels.shape != logits.shape:
        raise TypeError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)} and logits have shape "
            f"{tuple(logits.shape)}: cross-entropy needs class numbers, call .long() on them, or "
            "probabilities of all classes. For a regression pass a Distiller with "
            "label_term(loss=...)."
        )
    if labels.is_floating_point() and checks_values():
        sums = labels.float().sum(1 if logits.dim() > 3 else -1)
        lowest = labels.min().item()
        if not bool((sums - 1).abs().max() < 1e-2) or lowest < 0:
            raise ValueError(
                f"labels of floating point start at {lowest:.4g} and have sums up to "
                f"{sums.max().item():.4g} over the classes: cross-entropy needs probabilities, "
                "none below 0 and of sum 1. For several classes at once "
                "pass label_term(loss=F.binary_cross_entropy_with_logits), for a regression "
                "label_term(loss=F.mse_loss)."
            )
    if not labels.is_floating_point() and labels.dim() == logits.dim():
        advice = "labels.squeeze(1)" if labels.shape[1] == 1 else "labels.argmax(1)"
        raise TypeError(
            f"labels have shape {tuple(labels.shape)}, as many dimensions as the logits: expected "
            f"class numbers, take {advice}; rows of probabilities are floating point."
        )
    if logits.dim() == 3:
        if not labels.is_floating_point() and labels.shape != logits.shape[:2]:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} and logits {tuple(logits.shape)}: "
                "expected one class number for each token of (B, L, C); logits (B, C, L) come to "
                "that by .transpose(1, 2)."
            )
        logits = logits.flatten(0, 1)
        labels = labels.flatten(0, 1)
    try:
        return F.cross_entropy(logits, labels)
    except IndexError as error:
        raise IndexError(
            f"labels go from {int(labels.min())} to {int(labels.max())} and the model has "
            f"{classes} classes, numbered from 0: renumber them, or make the model with more."
        ) from error


def label_term(
    weight: float = 1.0,
    loss: Callable[[Tensor, Any], Tensor] = label_cross_entropy,
    name: str = "labels",
) -> Term:
    r"""Compare the student's logits with the labels, :math:`w\,\mathrm{loss}(z_s, y)`.

    Args:
        weight: :math:`w`, a number >= 0.
        loss: takes (student_logits, labels), returns a scalar.
        name: name of the part.

    Example:
        >>> term = label_term(weight=0.5)
        >>> equal = Outputs(torch.zeros(2, 4))
        >>> term.compute(equal, equal, torch.tensor([0, 1])).item()
        0.6931...
    """
    return Term(
        name,
        weight,
        loss,
        lambda student, teacher, labels: [(student.logits, _required(labels, name))],
        wants=(),
        reads_batch=False,
    )


def logit_term(
    name: str,
    loss: Callable[..., Tensor],
    weight: float = 1.0,
    *,
    with_labels: bool = False,
    mask: MaskOf | None = None,
) -> Term:
    r"""Compare the student's logits with the teacher's, :math:`w\,\mathrm{loss}(z_s, z_t)`.

    Args:
        name: name of the part.
        loss: takes (student_logits, teacher_logits), and the labels as third where
            ``with_labels``; returns a scalar.
        weight: :math:`w`, a number >= 0.
        with_labels: the loss needs the labels too, as `kdlearn.losses.dkd_loss` does.
        mask: what the loss gets as ``mask``, such as ``lambda batch: batch.labels != -100``.

    Example:
        >>> from kdlearn.losses import soft_target_loss
        >>> term = logit_term("soft_targets", soft_target_loss, weight=0.9)
        >>> equal = Outputs(torch.zeros(2, 4))
        >>> term.compute(equal, equal, None).item()
        0.0
    """

    def arguments(student: Outputs, teacher: Outputs, labels: Any) -> list[tuple[Any, ...]]:
        asked = (_required(labels, name),) if with_labels else ()
        return [(student.logits, teacher.logits, *asked)]

    return Term(name, weight, loss, arguments, mask=mask, reads_batch=mask is not None)


def layer_term(
    name: str,
    loss: Callable[..., Tensor],
    layers: Mapping[str, str] | Sequence[str],
    weight: float = 1.0,
    *,
    keep: Keep | None = None,
    mask: MaskOf | None = None,
) -> Term:
    r"""Compare pairs of layers, :math:`w \sum_j \mathrm{loss}(A_s^j, A_t^j)`: a sum, not a mean.

    Args:
        name: name of the part.
        loss: takes (student_features, teacher_features), returns a scalar. A module with
            parameters (a projector) is trained with the student; it serves every pair.
        layers: ``{"student_layer": "teacher_layer"}``, or a list of names that both models have.
        weight: :math:`w`, a number >= 0.
        keep: what is kept of the teacher's layers, such as `kdlearn.store.AttentionMap`, so that a
            stored teacher takes less room; None for the whole features. It counts for a live
            teacher too: both give the same number.
        mask: what the loss gets as ``mask``, such as
            ``lambda batch: batch.inputs["attention_mask"].bool()``.

    Raises:
        ValueError: no pair is given.

    Example:
        >>> term = layer_term("attention", F.mse_loss, ["group1"], weight=10)
        >>> features = Outputs(torch.zeros(2, 4), {"group1": torch.ones(2, 3)})
        >>> term.compute(features, features, None).item()
        0.0
    """
    if isinstance(layers, str):
        raise ValueError(f"term {name!r}: layers is the string {layers!r}: pass [{layers!r}].")
    pairs = dict(layers) if isinstance(layers, Mapping) else {layer: layer for layer in layers}
    if not pairs:
        raise ValueError(
            f"term {name!r} compares no layers: pass layers={{'student_layer': 'teacher_layer'}}."
        )

    def theirs(teacher: Outputs, layer: str, ours: Any) -> Any:
        if keep is None:
            return teacher.taps[layer]
        return keep.restore(teacher.kept[Want(layer, keep)], ours)

    def arguments(student: Outputs, teacher: Outputs, labels: Any) -> list[tuple[Any, ...]]:
        return [
            (ours := student.taps[of_student], theirs(teacher, of_teacher, ours))
            for of_student, of_teacher in pairs.items()
        ]

    wants = tuple(Want(layer, keep) for layer in pairs.values())
    return Term(name, weight, loss, arguments, pairs, wants, mask, mask is not None)


def sparse_term(
    name: str,
    loss: Callable[..., Tensor],
    keep: Keep,
    weight: float = 1.0,
    *,
    mask: MaskOf | None = None,
) -> Term:
    r"""Compare the student's logits with a few log-probabilities of the teacher.

    Args:
        name: name of the part.
        loss: takes (student_logits, teacher_log_probs, teacher_indices), as
            `kdlearn.losses.top_k_kl` and `kdlearn.losses.sampled_kl`; returns a scalar.
        keep: what the teacher's logits are reduced to, `kdlearn.store.TopK` or
            `kdlearn.store.Sampled`.
        weight: :math:`w`, a number >= 0.
        mask: what the loss gets as ``mask``.

    Example:
        >>> from kdlearn.losses import top_k_kl
        >>> from kdlearn.store import TopK
        >>> kept = {Want(LOGITS, TopK(3)): TopK(3).reduce(torch.ones(2, 10))}
        >>> term = sparse_term("top3", top_k_kl, TopK(3))
        >>> abs(
        ...     term.compute(Outputs(torch.ones(2, 10)), Outputs(None, kept=kept), None).item()
        ... ) < 1e-6
        True
    """
    want = Want(LOGITS, keep)
    return Term(
        name,
        weight,
        loss,
        lambda student, teacher, labels: [(student.logits, *keep.restore(teacher.kept[want]))],
        wants=(want,),
        mask=mask,
        reads_batch=mask is not None,
    )


def _required(labels: Any, name: str) -> Any:
    if labels is None:
        raise ValueError(
            f"term {name!r} reads the labels and none were given: call distiller(inputs, labels)."
        )
    return labels


def _batch_of(student: Outputs, name: str) -> Batch:
    if student.batch is None:
        raise ValueError(f"term {name!r} has a mask, which needs outputs that know their batch.")
    return student.batch
