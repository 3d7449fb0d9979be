"""Contrastive representation distillation: the loss with its embeddings and its two memories."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdlearn.core.checks import check_fraction, check_pair, check_sizes, check_temperature
from kdlearn.core.numerics import matmul, unit, widen
from kdlearn.distill.outputs import Outputs
from kdlearn.distill.terms import Term
from kdlearn.losses.relations import crd_loss


class CRDLoss(nn.Module):
    r"""Tell a sample's pair of embeddings from pairs of different samples, student's and teacher's.

    .. math:: L = \mathrm{crd}(s_i;\ t_1 \dots t_M) + \mathrm{crd}(t_i;\ s_1 \dots s_M), \qquad
              s_i \leftarrow \frac{\mu s_i + (1 - \mu) g_s(f_s)}
              {\lVert \mu s_i + (1 - \mu) g_s(f_s) \rVert}

    with :func:`kdlearn.losses.crd_loss`; the memories :math:`s_1 \dots s_M` and
    :math:`t_1 \dots t_M` have a row for each sample of the training data.

    Convention
        Embeddings: :math:`g_s, g_t`, one linear map a side to ``width``, then L2 length 1. Both are
            trained with the student; no gradient reaches the teacher's features.
        Memories: random directions at first. In ``train()``, a batch moves its own rows after the
            loss was computed, once for each call.
        Negatives: drawn anew at each call, from torch's global generator, with replacement, from
            the rows of other classes.
        Constants: the c of each half is set by the first batch. Memories and constants are buffers,
            so a checkpoint has them.

    Args:
        student_width: of the student's flattened features.
        teacher_width: of the teacher's.
        labels: class numbers of the training data in their order, int64, shape (M,). Where there
            are none, ``torch.arange(M)``: all other samples are negatives.
        negatives: K.
        width: of the embeddings.
        temperature: tau, positive.
        momentum: :math:`\mu`, what a memory keeps of itself, from 0 to 1.

    Raises:
        ValueError: all labels are one class, so there is no negative.

    Source: Tian, Krishnan and Isola, "Contrastive Representation Distillation", ICLR 2020,
        section 3; memory and first-batch constants, Wu et al., "Unsupervised Feature Learning via
        Non-Parametric Instance Discrimination", CVPR 2018. RepDistiller starts its memories with
        rows of about length 1 and, where K is no more than there are, draws without replacement.

    Example:
        >>> loss = CRDLoss(8, 16, torch.tensor([0, 0, 1, 1]), negatives=2)
        >>> loss(torch.randn(2, 8), torch.randn(2, 16), torch.tensor([0, 3])).shape
        torch.Size([])
    """

    student_memory: Tensor
    teacher_memory: Tensor
    constants: Tensor
    order: Tensor
    first: Tensor
    count: Tensor

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        labels: Tensor,
        *,
        negatives: int = 16384,
        width: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        self.negatives, width = check_sizes(negatives=negatives, width=width)
        check_sizes(student_width=student_width, teacher_width=teacher_width)
        check_temperature(temperature)
        check_fraction(momentum, "momentum")
        order, first, count = _sorted(labels)
        self.temperature, self.momentum = temperature, momentum
        self.embed_student = nn.Linear(student_width, width)
        self.embed_teacher = nn.Linear(teacher_width, width)
        for side in ("student", "teacher"):
            self.register_buffer(f"{side}_memory", unit(torch.randn(len(labels), width), dim=1))
        # The logarithms, since half precision ends below exp(1 / 0.07); NaN until they are set.
        self.register_buffer("constants", torch.full((2,), torch.nan))
        # Sorted by class, the rows of a class lie beside each other.
        self.register_buffer("order", order)
        self.register_buffer("first", first)
        self.register_buffer("count", count)

    def forward(self, student_features: Tensor, teacher_features: Tensor, rows: Tensor) -> Tensor:
        """The loss of one batch: features (B, ...) of both, and its rows in the training data."""
        check_pair(student_features, teacher_features, "features")
        self._check(student_features, teacher_features, rows)
        student = self._embedded(self.embed_student, student_features)
        teacher = self._embedded(self.embed_teacher, teacher_features.detach())
        places = torch.cat([rows[:, None], self._others(rows)], dim=1)
        halves = ((student, self.teacher_memory), (teacher, self.student_memory))
        if self.constants[0].isnan():
            means = [self._log_mean(anchor, memory, places) for anchor, memory in halves]
            self.constants.copy_(torch.stack(means))
        student_half, teacher_half = (
            crd_loss(
                anchor,
                memory.clone(),  # the backward pass reads it after it has moved
                places,
                normalizer=math.exp(constant),
                temperature=self.temperature,
            )
            for (anchor, memory), constant in zip(halves, self.constants.tolist(), strict=True)
        )
        if self.training:
            self._move(self.student_memory, student, rows)
            self._move(self.teacher_memory, teacher, rows)
        return student_half + teacher_half

    def extra_repr(self) -> str:
        """Settings, by which a checkpoint tells one run from another."""
        return (
            f"negatives={self.negatives}, temperature={self.temperature}, momentum={self.momentum}"
        )

    def _check(self, student: Tensor, teacher: Tensor, rows: Tensor) -> None:
        widths = self.embed_student.in_features, self.embed_teacher.in_features
        given = student[0].numel(), teacher[0].numel()
        if widths != given or len(student) != len(teacher):
            raise ValueError(
                f"features have shapes {tuple(student.shape)} and {tuple(teacher.shape)}, and this "
                f"loss was made for widths {widths[0]} and {widths[1]}: make it for these layers."
            )
        if rows is None:
            raise ValueError(
                "CRD needs the rows of the batch in the training data, to find it in its memory: "
                "fit passes them, of all data but streams; by hand distiller(inputs, labels, rows)."
            )
        if rows.shape != (len(student),) or rows.dtype != torch.int64:
            raise ValueError(
                f"rows are {rows.dtype} of shape {tuple(rows.shape)}: expected one torch.int64 for "
                f"each of {len(student)} samples."
            )
        if int(rows.min()) < 0 or int(rows.max()) >= len(self.order):
            raise ValueError(
                f"rows go from {int(rows.min())} to {int(rows.max())} and CRD was made for "
                f"{len(self.order)} labels: give it those of all training data, in their order, "
                "once for each of several fixed copies."
            )

    @staticmethod
    def _embedded(embed: nn.Module, features: Tensor) -> Tensor:
        weight = next(embed.parameters())
        return unit(widen(embed(features.flatten(1).to(weight.dtype))), dim=1)

    def _others(self, rows: Tensor) -> Tensor:
        """Draw rows of other classes: of the sorted rows, those before the own class and after."""
        first, count = self.first[rows, None], self.count[rows, None]
        shape = (len(rows), self.negatives)
        drawn = torch.randint(2**62, shape, device=rows.device) % (len(self.order) - count)
        return self.order[drawn + count * (drawn >= first)]

    @torch.no_grad()
    def _log_mean(self, anchors: Tensor, memory: Tensor, places: Tensor) -> Tensor:
        cosines = matmul(anchors, widen(memory).T).gather(1, places)
        return (cosines / self.temperature).flatten().logsumexp(0) - math.log(cosines.numel())

    @torch.no_grad()
    def _move(self, memory: Tensor, new: Tensor, rows: Tensor) -> None:
        mixed = self.momentum * widen(memory[rows]) + (1 - self.momentum) * new
        memory[rows] = unit(mixed, dim=1).to(memory.dtype)


def crd_term(name: str, loss: CRDLoss, student: str, teacher: str, weight: float = 0.8) -> Term:
    """Compare a layer of the student with one of the teacher by CRD, which reads the batch's rows.

    Args:
        name: name of the part.
        loss: with its memories.
        student: name of the student's layer, see `kdlearn.distill.Taps`.
        teacher: name of the teacher's.
        weight: a number >= 0; the authors' is 0.8.

    Example:
        >>> term = crd_term("crd", CRDLoss(8, 16, torch.arange(4)), "flatten", "flatten")
        >>> term.layers
        {'flatten': 'flatten'}
    """

    def arguments(
        said: Outputs, by_teacher: Outputs, labels: object
    ) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        rows = None if said.batch is None else said.batch.rows
        return [(said.taps[student], by_teacher.taps[teacher], rows)]

    return Term(name, weight, loss, arguments, {student: teacher}, reads_batch=False)


def _sorted(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows by class, and for each row where its class begins there and how many it has.

    Raises:
        TypeError: labels are no class numbers.
        ValueError: they are all alike.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.dim() != 1:
        raise TypeError(
            "labels must be a tensor of torch.int64 of shape (samples,), of all training data."
        )
    _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ValueError(
            f"labels have {len(counts)} class: negatives are rows of other classes, so give labels "
            "of two or more, or torch.arange(samples) for all other samples."
        )
    begins = counts.cumsum(0) - counts
    return labels.argsort(stable=True), begins[classes], counts[classes]
