"""Student, teacher and weighted terms make one loss with named parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdlearn.core.inputs import Inputs, tensors_in
from kdlearn.data.batch import Batch
from kdlearn.distill.outputs import Outputs, run
from kdlearn.distill.taps import Taps
from kdlearn.distill.teachers import LiveTeacher, NoTeacher, TeacherOutputs
from kdlearn.distill.terms import Term, label_term


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
    r"""Run student and teacher once and add up weighted terms, :math:`L = \sum_k w_k L_k`.

    Convention
        A teacher that is a module runs in ``eval()`` under ``no_grad``, also after ``train()``; its
        parameters are never part of ``parameters()`` or ``state_dict()``, and ``to()`` moves it
        along. ``parameters()`` are the student's and those of losses that are modules
        (projectors): hand them all to one optimizer.
        ``parts`` hold weight times loss, so they add up to ``total``.
        A teacher may also be stored outputs, such as `kdlearn.store.CachedTeacher`; then the rows
        of the batch in the training data are needed, which `kdlearn.training.fit` passes. Losses
        cannot tell the difference.

    Args:
        student: the model to train; returns logits, see `kdlearn.core.inputs.call`.
        teacher: the trained model, which shares nothing that is trained with the student; stored
            outputs of one; or None where no term reads it.
        terms: at least one term, names unique; by default the labels alone.
        teacher_input: from the student's inputs to the teacher's, where these differ (size,
            normalization, names).

    Raises:
        TypeError: the terms are no list of terms, or a model is neither a module nor stored
            outputs.
        ValueError: no terms, names used twice, or student and teacher share weights or statistics.
        KeyError: a model has no layer that a term names (the message lists the close ones).

    Source: the soft and the hard term, Hinton, Vinyals, Dean (2015), section 2; layer terms, Romero
        et al. (2015).

    Example:
        >>> from kdlearn.distill import logit_term
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
        self,
        student: nn.Module,
        teacher: nn.Module | TeacherOutputs | None = None,
        terms: Sequence[Term] | None = None,
        *,
        teacher_input: Callable[[Inputs], Inputs] | None = None,
    ) -> None:
        super().__init__()
        terms = [label_term()] if terms is None else terms
        _check_terms(terms)
        if not isinstance(student, nn.Module):
            raise TypeError(f"student is {student!r}: expected a module, such as SmallCNN(8).")
        self.student = student
        self.terms = tuple(terms)
        self.projectors = nn.ModuleDict(
            {term.name: term.loss for term in terms if isinstance(term.loss, nn.Module)}
        )
        layers = dict.fromkeys(name for term in terms for name in term.layers)
        try:
            self._student_taps = Taps(student, layers) if layers else None
        except KeyError as error:
            raise KeyError(f"student: {error.args[0]}") from None
        # A tuple hides a teacher that is a module from parameters(), state_dict() and train().
        self._source = (_source_of(teacher, terms, teacher_input),)
        self._shared: tuple[nn.Module, ...] = ()
        if isinstance(teacher, nn.Module):
            _check_apart(student, teacher)
            own = set(student.modules())
            self._shared = tuple(part for part in teacher.modules() if part in own)

    @property
    def source(self) -> TeacherOutputs:
        """Where the teacher's outputs come from."""
        return self._source[0]

    @property
    def teacher(self) -> nn.Module:
        """The teacher, never trained here.

        Raises:
            ValueError: its outputs are stored, or there is none, so there is no model.
        """
        if not isinstance(self.source, LiveTeacher):
            raise ValueError("the teacher's outputs are stored: there is no model, see .source.")
        return self.source.model

    def forward(
        self, inputs: Inputs, labels: Any = None, rows: Tensor | None = None
    ) -> DistillationLoss:
        """Compute every term on one batch; labels may be left out where no term reads them.

        ``rows`` are the rows of the batch in the training data, for stored teacher outputs.
        """
        return self.compute(Batch(inputs, labels, rows))

    def compute(self, batch: Batch) -> DistillationLoss:
        """Compute every term on one batch."""
        taught = self.teach(batch)
        return self.loss(self.study(batch), taught)

    def teach(self, batch: Batch) -> Outputs:
        """Return what the teacher says of a batch."""
        modes = [part.training for part in self._shared]
        taught = self.source.outputs(batch)
        # A frozen base that both have is in eval() for the teacher alone.
        for part, mode in zip(self._shared, modes, strict=True):
            part.training = mode
        return taught

    def study(self, batch: Batch) -> Outputs:
        """Return what the student says of a batch.

        Raises:
            ValueError: a tapped layer carries no gradient, so its term could not train.
        """
        outputs = run(self.student, self._student_taps, batch)
        if torch.is_grad_enabled():
            for layer, value in outputs.taps.items():
                floats = [part for part in tensors_in(value) if part.is_floating_point()]
                if floats and not any(part.requires_grad for part in floats):
                    raise ValueError(
                        f"layer {layer!r} of the student carries no gradient, so no term on it "
                        "trains the student: it is frozen, detached, or inside "
                        "torch.utils.checkpoint with use_reentrant=True (pass False)."
                    )
        return outputs

    def loss(self, student: Outputs, teacher: Outputs) -> DistillationLoss:
        """Add up the terms over what both say of one batch."""
        batch = student.batch
        if batch is not None and (batch.mask is not None or batch.weight is not None):
            self._check_read(batch)
        labels = None if batch is None else batch.labels
        parts = {term.name: term.compute(student, teacher, labels) for term in self.terms}
        return DistillationLoss(reduce(torch.add, parts.values()), parts, student.logits)

    def _check_read(self, batch: Batch) -> None:
        """Refuse a mask or weights that no term reads."""
        reading = [term for term in self.terms if term.reads_batch]
        if not reading:
            raise ValueError(
                "the batch has a mask or weights and no term reads them: pass mask=lambda "
                "batch: batch.mask to a term, or write a Term with a loss that takes them."
            )
        if batch.weight is not None and all(term.mask is not None for term in reading):
            raise ValueError(
                "the batch has weights and its terms read a mask alone: write a Term with a loss "
                "that takes student.batch.weight."
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distiller:
        # to(), cuda(), half() and their like all come through here.
        if isinstance(self.source, LiveTeacher):
            self.source.model._apply(fn)
        return super()._apply(fn, recurse)


def as_distiller(model: nn.Module) -> Distiller:
    """Return a plain model as a `Distiller` that learns from labels, and a distiller as it is.

    Example:
        >>> [term.name for term in as_distiller(nn.Linear(2, 2)).terms]
        ['labels']
    """
    return model if isinstance(model, Distiller) else Distiller(model)


def _check_terms(terms: Sequence[Term]) -> None:
    if not isinstance(terms, Sequence) or not all(isinstance(term, Term) for term in terms):
        raise TypeError(
            "terms must be a list of terms: make them with label_term, logit_term or layer_term."
        )
    if not terms:
        raise ValueError("no terms: pass at least one, e.g. [label_term()].")
    names = Counter(term.name for term in terms)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"terms share the names {twice}: give each a name of its own.")


def _source_of(teacher: Any, terms: Sequence[Term], adapt: Any) -> TeacherOutputs:
    wants = [want for term in terms for want in term.wants or ()]
    try:
        if teacher is None:
            source: TeacherOutputs = NoTeacher()
        elif isinstance(teacher, nn.Module):
            source = LiveTeacher(teacher, wants, adapt)
        elif isinstance(teacher, TeacherOutputs) and not isinstance(teacher, type):
            if adapt is not None:
                raise ValueError(
                    "teacher_input is for a teacher that runs, and this one's outputs are stored: "
                    "pass it to cache_teacher, and leave it out here."
                )
            source = teacher
        else:
            raise TypeError(
                f"teacher is {teacher!r}: expected a trained module, or stored outputs of one."
            )
        source.check(wants)
    except KeyError as error:
        raise KeyError(f"teacher: {error.args[0]}") from None
    return source


def _check_apart(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a student whose training would change the teacher."""
    if student is teacher:
        raise ValueError(
            "student and teacher are one object: pass a separate teacher, e.g. copy.deepcopy."
        )
    held = (*teacher.named_parameters(), *teacher.named_buffers())
    theirs = {place: name for name, value in held if (place := _address(value))}
    trained = [(name, p) for name, p in student.named_parameters() if p.requires_grad]
    changing = [(name, b) for name, b in student.named_buffers() if b.is_floating_point()]
    for name, value in (*trained, *changing):
        shared = theirs.get(_address(value))
        if shared is not None:
            raise ValueError(
                f"student and teacher share memory, {name!r} is the teacher's {shared!r}: training "
                "would change the teacher. Build the student from copy.deepcopy of its layers."
            )


def _address(value: Tensor) -> int:
    """Return where a tensor's numbers lie, 0 where it has none yet."""
    return 0 if is_lazy(value) or not value.numel() else value.untyped_storage().data_ptr()
