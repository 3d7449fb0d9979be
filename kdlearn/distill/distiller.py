"""Student, teacher and weighted terms make one loss with named parts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.core.checks import check_number
from kdlearn.core.inputs import Inputs
from kdlearn.distill.taps import Taps
from kdlearn.distill.teachers import LiveTeacher, Outputs, TeacherOutputs, run
from kdlearn.store.cache import Sampled, TopK


@dataclass(frozen=True)
class Term:
    r"""One named, weighted part of a distillation loss; made by `label_term`, `logit_term` and `layer_term`.

    Its value is :math:`w \sum_j \mathrm{loss}(a_j)`, where ``arguments`` picks the :math:`a_j` from
    the outputs.

    Attributes:
        name: how the part is called in histories and messages; no dot, unique in a `Distiller`.
        weight: :math:`w`, a number >= 0.
        loss: a function, or a module whose parameters (a projector) are trained with the student;
        returns a scalar. arguments: from the outputs of student and teacher and the labels to the
        argument lists of ``loss``. layers: the student's layer name to the teacher's layer name.

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
    arguments: Callable[[Outputs, Outputs, Tensor | None], list[tuple[Tensor, ...]]]
    layers: Mapping[str, str] = field(default_factory=dict)

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
        check_number(self.weight, f"the weight of term {self.name!r}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(
                f"term {self.name!r} has weight {self.weight}: expected a finite number >= 0."
            )

    def compute(self, student: Outputs, teacher: Outputs, labels: Tensor | None) -> Tensor:
        """Weight times loss, summed over what ``arguments`` picks."""
        losses = [self.loss(*picked) for picked in self.arguments(student, teacher, labels)]
        return self.weight * torch.stack(losses).sum()


def label_term(
    weight: float = 1.0,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
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
    )


def logit_term(
    name: str, loss: Callable[..., Tensor], weight: float = 1.0, *, with_labels: bool = False
) -> Term:
    r"""Compare the student's logits with the teacher's, :math:`w\,\mathrm{loss}(z_s, z_t)`.

    Args:
        name: name of the part.
        loss: takes (student_logits, teacher_logits), and the labels as third where ``with_labels``;
        returns a scalar. weight: :math:`w`, a number >= 0.
        with_labels: the loss needs the labels too, as `kdlearn.losses.dkd_loss` does.

    Example:
        >>> from kdlearn.losses import soft_target_loss
        >>> term = logit_term("soft_targets", soft_target_loss, weight=0.9)
        >>> equal = Outputs(torch.zeros(2, 4))
        >>> term.compute(equal, equal, None).item()
        0.0
    """

    def arguments(
        student: Outputs, teacher: Outputs, labels: Tensor | None
    ) -> list[tuple[Tensor, ...]]:
        logits = (student.logits, teacher.logits)
        return [(*logits, _required(labels, name))] if with_labels else [logits]

    return Term(name, weight, loss, arguments)


def layer_term(
    name: str,
    loss: Callable[[Tensor, Tensor], Tensor],
    layers: Mapping[str, str] | Sequence[str],
    weight: float = 1.0,
) -> Term:
    r"""Compare pairs of layers, :math:`w \sum_j \mathrm{loss}(A_s^j, A_t^j)`: a sum over pairs, not a mean.

    Args:
        name: name of the part.
        loss: takes (student_features, teacher_features), returns a scalar. A module with parameters
            (a projector) is trained with the student; it serves every pair.
        layers: ``{"student_layer": "teacher_layer"}``, or a list of names that both models have.
        weight: :math:`w`, a number >= 0.

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
    return Term(
        name,
        weight,
        loss,
        lambda student, teacher, labels: [
            (student.taps[of_student], teacher.taps[of_teacher])
            for of_student, of_teacher in pairs.items()
        ],
        pairs,
    )


def sparse_term(
    name: str, loss: Callable[..., Tensor], kind: TopK | Sampled, weight: float = 1.0
) -> Term:
    r"""Compare the student's logits with a few log-probabilities of the teacher.

    Args:
        name: name of the part.
        loss: takes (student_logits, teacher_log_probs, teacher_indices), as
            `kdlearn.losses.top_k_kl` and `kdlearn.losses.sampled_kl`; returns a scalar.
        kind: what a live teacher's logits are reduced to; stored outputs are of their own kind
        already. weight: :math:`w`, a number >= 0.

    Example:
        >>> from kdlearn.losses import top_k_kl
        >>> term = sparse_term("top3", top_k_kl, TopK(3))
        >>> equal = Outputs(torch.randn(2, 10))
        >>> abs(term.compute(equal, equal, None).item()) < 1e-6
        True
    """
    return Term(
        name,
        weight,
        loss,
        lambda student, teacher, labels: [
            (student.logits, *(teacher.sparse or kind.reduce(teacher.logits, None)))
        ],
    )


class DistillationLoss(NamedTuple):
    """What a `Distiller` returns for a batch.

    Attributes:
        total: the scalar to call ``backward()`` on: the sum of the parts.
        parts: name of a term to weight times loss, a scalar with its graph.
        logits: the student's logits.

    Example:
        >>> one = torch.ones(())
        >>> DistillationLoss(one, {"labels": one}, torch.zeros(2, 10)).total.item()
        1.0
    """

    total: Tensor
    parts: dict[str, Tensor]
    logits: Tensor


class Distiller(nn.Module):
    r"""Run student and teacher once on a batch and add up weighted terms, :math:`L = \sum_k w_k L_k`.

    Convention
        A teacher that is a module runs in ``eval()`` under ``no_grad``, also after ``train()``; its
        parameters are never part of ``parameters()`` or ``state_dict()``, and ``to()`` moves it
        along. ``parameters()`` are the student's and those of losses that are modules (projectors):
        hand them all to one optimizer. ``parts`` hold weight times loss, so they add up to
        ``total``. A teacher may also be stored outputs, such as `kdlearn.store.CachedTeacher`; then
        the rows of the batch in the training data are needed, which `kdlearn.training.fit` passes.
        Losses cannot tell the difference.

    Args:
        student: the model to train; gives logits, see `kdlearn.core.inputs.call`.
        teacher: the trained model, another object than the student; or stored outputs of one.
        terms: at least one term, names unique.

    Raises:
        TypeError: the terms are no list of terms, or a model is neither a module nor stored
        outputs. ValueError: no terms, names used twice, or one object as student and teacher.
        KeyError: a model has no layer that a term names (the message lists the close ones).

    Source: the soft and the hard term, Hinton, Vinyals, Dean (2015), section 2; layer terms, Romero
    et al. (2015).

    Example:
        >>> from kdlearn.losses import soft_target_loss
        >>> student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        >>> distiller = Distiller(
        ...     student,
        ...     teacher,
        ...     [label_term(0.1), logit_term("soft_targets", soft_target_loss, 0.9)],
        ... )
        >>> loss = distiller(torch.ones(2, 4), torch.tensor([0, 2]))
        >>> loss.total.backward()
        >>> list(loss.parts), teacher.weight.grad
        (['labels', 'soft_targets'], None)
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module | TeacherOutputs, terms: Sequence[Term]
    ) -> None:
        super().__init__()
        if student is teacher:
            raise ValueError(
                "student and teacher are one object: pass a separate teacher, e.g. copy.deepcopy."
            )
        if not isinstance(terms, Sequence) or not all(isinstance(term, Term) for term in terms):
            raise TypeError(
                "terms must be a list of terms: make them with label_term, logit_term or layer_term."
            )
        if not isinstance(student, nn.Module):
            raise TypeError(f"student is {student!r}: expected a module, such as SmallCNN(8).")
        if isinstance(teacher, type) or not isinstance(teacher, nn.Module | TeacherOutputs):
            raise TypeError(
                f"teacher is {teacher!r}: expected a trained module, or stored outputs of one."
            )
        names = [term.name for term in terms]
        if not names:
            raise ValueError("no terms: pass at least one, e.g. [label_term()].")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"terms share the names {twice}: give each a name of its own.")
        self.student = student
        self.terms = tuple(terms)
        self.projectors = nn.ModuleDict(
            {term.name: term.loss for term in terms if isinstance(term.loss, nn.Module)}
        )
        self._student_taps = _student_taps(
            student, [name for term in terms for name in term.layers]
        )
        layers = [name for term in terms for name in term.layers.values()]
        try:
            if isinstance(teacher, nn.Module):
                teacher = LiveTeacher(teacher, layers)
            teacher.check(layers)
        except KeyError as error:
            raise KeyError(f"teacher: {error.args[0]}") from None
        # A tuple hides a teacher that is a module from parameters(), state_dict() and train().
        self._source = (teacher,)

    @property
    def source(self) -> TeacherOutputs:
        """Where the teacher's outputs come from."""
        return self._source[0]

    @property
    def teacher(self) -> nn.Module:
        """The teacher, never trained here.

        Raises:
            ValueError: its outputs are stored, so there is no model.
        """
        if not isinstance(self.source, LiveTeacher):
            raise ValueError("the teacher's outputs are stored: there is no model, see .source.")
        return self.source.model

    def forward(
        self, inputs: Inputs, labels: Tensor | None = None, indices: Tensor | None = None
    ) -> DistillationLoss:
        """Compute every term on one batch; labels may be left out where no term reads them.

        ``indices`` are the rows of the batch in the training data, for stored teacher outputs.
        """
        teacher = self.source.outputs(inputs, indices)
        student = run(self.student, self._student_taps, inputs)
        for term in self.terms:
            for of_student, of_teacher in term.layers.items():
                self.source.check_student(of_teacher, student.taps[of_student])
        parts = {term.name: term.compute(student, teacher, labels) for term in self.terms}
        return DistillationLoss(torch.stack(list(parts.values())).sum(), parts, student.logits)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distiller:
        # to(), cuda(), half() and their like all come through here.
        if isinstance(self.source, LiveTeacher):
            self.source.model._apply(fn)
        return super()._apply(fn, recurse)


def _student_taps(student: nn.Module, layers: Sequence[str]) -> Taps | None:
    try:
        return Taps(student, dict.fromkeys(layers)) if layers else None
    except KeyError as error:
        raise KeyError(f"student: {error.args[0]}") from None


def _required(labels: Tensor | None, name: str) -> Tensor:
    if labels is None:
        raise ValueError(
            f"term {name!r} reads the labels and none were given: call distiller(inputs, labels)."
        )
    return labels
