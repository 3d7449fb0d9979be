"""Losses on relations between samples; widths of student and teacher may differ."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.core.checks import (
    check_device,
    check_number,
    check_overflow,
    check_pair,
    check_same_shape,
    check_temperature,
    checks_values,
    finite_or_refused,
)
from kdlearn.core.numerics import in_scale, lengths, matmul, unit, widen


def _rows(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """One flat row for each sample, student and detached teacher."""
    check_pair(student, teacher, what)
    if student.dim() < 2 or teacher.dim() < 2 or student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"{what} need shape (batch, ...) with one batch on both sides, got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}: feed both the same samples."
        )
    if len(student) == 1:
        raise ValueError(
            f"one sample of {what} has no relation to another: give two or more, and drop a last "
            "batch of one (drop_last=True)."
        )
    return widen(student).flatten(1), widen(teacher.detach()).flatten(1)


@finite_or_refused
def similarity_preserving_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Samples that are alike for the teacher should be alike for the student.

    .. math:: L = \frac{1}{B^2} \lVert \hat G_s - \hat G_t \rVert_F^2, \qquad
              G = F F^\top, \quad \hat G_{i\cdot} = G_{i\cdot} / \lVert G_{i\cdot} \rVert_2

    Convention
        Normalized: each row of the (B, B) Gram matrix of flattened features to L2 length 1; so
            scaling all features of one side changes nothing, rotating them neither.
        Reduction: sum of squares over B².

    Args:
        student_features: shape (B, ...), at least two dimensions.
        teacher_features: shape (B, ...); all but B may differ.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, equation
        4. RepDistiller, mdistiller: this number, weight 3000, last block. torchdistill
        normalizes rows to L1 length 1: no common factor.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> similarity_preserving_loss(features, features.flip(1)).item()
        0.0
    """
    student, teacher = map(in_scale, _rows(student_features, teacher_features, "features"))
    similar_s = unit(matmul(student, student.T), dim=1)
    similar_t = unit(matmul(teacher, teacher.T), dim=1)
    return F.mse_loss(similar_s, similar_t)


@finite_or_refused
def rkd_distance_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    r"""Relational distillation of distances: the same geometry up to scale.

    .. math:: L = \frac{1}{B^2} \sum_{i,j} \ell_1\Bigl(\frac{d_{ij}^s}{\mu^s},
              \frac{d_{ij}^t}{\mu^t}\Bigr), \qquad d_{ij} = \lVert e_i - e_j \rVert_2

    Convention
        Distance: squared distances below 1e-12 count as 1e-12 off the diagonal; 0 on it.
        Normalized: by mu, the mean of the positive distances of the batch, so scaling, shifting
            and rotating either side change nothing.
        Reduction: Huber loss with beta 1 ("smooth L1"), mean over all B² pairs, diagonal
            included. Two samples have one distance, which is its own mean, and give 0.

    Args:
        student_embeddings: shape (B, ...).
        teacher_embeddings: shape (B, ...); all but B may differ.

    Source: Park et al., "Relational Knowledge Distillation", CVPR 2019, section 3.2.1, which
        sum over pairs of different samples. RepDistiller and mdistiller: 25 times this plus 50
        times :func:`rkd_angle_loss`.

    Example:
        >>> embeddings = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 0.0]])
        >>> rkd_distance_loss(embeddings, 2 * embeddings).item()
        0.0
    """
    student, teacher = _rows(student_embeddings, teacher_embeddings, "embeddings")
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def _relative_distances(embeddings: Tensor) -> Tensor:
    squares = _squared_distances(embeddings).clamp(min=1e-12)
    diagonal = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    distances = squares.sqrt().masked_fill(diagonal, 0)
    # Off the diagonal every distance is positive.
    return distances * (len(embeddings) * (len(embeddings) - 1)) / distances.sum()


def _squared_distances(embeddings: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # a compiler need not store the (B, B, D) differences
        return (embeddings[:, None] - embeddings).square().sum(dim=2)
    # Distances are small differences of products, which a mean far from 0 would drown.
    centered = embeddings - embeddings.mean(dim=0)
    products = matmul(centered, centered.T)
    norms = centered.square().sum(dim=1)
    both = norms[:, None] + norms
    squares = both - 2 * products
    # Of samples that nearly coincide rounding is what the products leave.
    near = (squares < 1e-3 * both).fill_diagonal_(False).nonzero(as_tuple=True)
    if len(near[0]) == 0:
        return squares
    apart = embeddings[near[0]] - embeddings[near[1]]
    return squares.index_put(near, apart.square().sum(dim=1))


@finite_or_refused
def rkd_angle_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    r"""Relational distillation of angles: the same angle at each sample, for each two others.

    .. math:: L = \frac{1}{B^3} \sum_{i,j,k} \ell_1\bigl(\cos\angle_{jik}^s, \cos\angle_{jik}^t
              \bigr), \qquad \cos\angle_{jik} = \Bigl\langle
              \frac{e_j - e_i}{\lVert e_j - e_i \rVert},
              \frac{e_k - e_i}{\lVert e_k - e_i \rVert} \Bigr\rangle

    Convention
        Normalized: difference vectors to L2 length 1, so scaling, shifting and rotating either
            side change nothing. Equal samples have no direction: cosine 0, gradient 0. These are
            angles of triplets, not the cosines of the embeddings themselves.
        Reduction: Huber loss with beta 1, mean over all B³ triplets, those with equal members
            included; 0 for two samples.
        Cost: memory and time grow as B³.

    Args:
        student_embeddings: shape (B, ...).
        teacher_embeddings: shape (B, ...); all but B may differ.

    Source: Park et al., "Relational Knowledge Distillation", CVPR 2019, section 3.2.2.
        RepDistiller's number.

    Example:
        >>> embeddings = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 0.0]])
        >>> round(rkd_angle_loss(embeddings, 2 * embeddings + 1).item(), 4)
        0.0
    """
    student, teacher = _rows(student_embeddings, teacher_embeddings, "embeddings")
    return F.smooth_l1_loss(_triplet_cosines(student), _triplet_cosines(teacher))


def _triplet_cosines(embeddings: Tensor) -> Tensor:
    directions = unit(embeddings[None] - embeddings[:, None], dim=2)
    return matmul(directions, directions.mT)


@finite_or_refused
def pkt_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    r"""Probabilistic knowledge transfer: the same neighbors with the same probabilities.

    .. math:: L = \frac{1}{B^2} \sum_{i,j} p_{j|i} \log \frac{p_{j|i} + \epsilon}{q_{j|i} +
              \epsilon}, \qquad p_{j|i} = \frac{1 + \cos(t_i, t_j)}{\sum_k 1 + \cos(t_i, t_k)}

    Convention
        Direction: KL(teacher || student), p of the teacher, of each sample's neighbors, itself
        included. Normalized: cosines (eps 1e-7 added to each length) moved to [0, 1], then each row
            to sum 1; so scaling a sample changes nothing, shifting does.
        Reduction: mean over B² entries, so B times smaller than the mean KL of a row.
            epsilon is 1e-7.
        Precision: in float32, 1 + cos is rounded by as much as epsilon, so where cosines come
            within some 1e-4 of -1 the gradient is off by up to some per cent: give float64.

    Args:
        student_embeddings: shape (B, ...).
        teacher_embeddings: shape (B, ...); all but B may differ.

    Source: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge
        Transfer", ECCV 2018, section 3, cosine kernel. RepDistiller, mdistiller and
        torchdistill: this number, weight 30000.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> round(pkt_loss(3 * embeddings, embeddings).item(), 6)
        0.0
    """
    student, teacher = _rows(student_embeddings, teacher_embeddings, "embeddings")
    near_s, near_t = _neighbors(student), _neighbors(teacher)
    return (near_t * torch.log((near_t + 1e-7) / (near_s + 1e-7))).mean()


def _neighbors(embeddings: Tensor) -> Tensor:
    norms = lengths(embeddings)[:, None]
    check_overflow(norms, "embeddings")
    directions = embeddings / (norms + 1e-7)
    closeness = (matmul(directions, directions.T) + 1) / 2
    return closeness / closeness.sum(dim=1, keepdim=True)


@finite_or_refused
def correlation_congruence_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    r"""Errors of neighbors in the batch should not go together.

    .. math:: L = \frac{1}{B - 1} \sum_{i=1}^{B-1} \sum_d |\Delta_{i,d}|\, |\Delta_{i+1,d}|,
              \qquad \Delta = e^s - e^t

    Convention
        Normalized: nothing. Only neighbors in the order of the batch are compared, so a shuffle
            of the samples changes the value.
        Reduction: sum over the embedding, mean over the B - 1 neighboring pairs.

    Args:
        student_embeddings: shape (B, ...), after an embedding of the teacher's width.
        teacher_embeddings: the same shape.

    Source: RepDistiller's ``CC.py`` (weight 0.02) for Peng et al., "Correlation Congruence for
        Knowledge Distillation", ICCV 2019. torchdistill compares (B, B) kernel matrices, as the
        paper does: another loss, with no common factor.

    Example:
        >>> student = torch.tensor([[1.0, 0.0], [3.0, 5.0]])
        >>> correlation_congruence_loss(student, torch.zeros(2, 2)).item()
        3.0
    """
    check_same_shape(
        student_embeddings,
        teacher_embeddings,
        "embeddings",
        "bring both to one width with projectors.LinearProjector",
    )
    student, teacher = _rows(student_embeddings, teacher_embeddings, "embeddings")
    error = (student - teacher).abs()
    return (error[1:] * error[:-1]).sum() / (len(error) - 1)


@finite_or_refused
def contrastive_loss(
    student_embeddings: Tensor, teacher_embeddings: Tensor, *, temperature: float = 0.07
) -> Tensor:
    r"""Find your own teacher's embedding among those of the batch, and the other way round.

    .. math:: L = \frac{1}{2B} \sum_i \Bigl[
              -\log \frac{e^{\cos(s_i, t_i)/\tau}}{\sum_j e^{\cos(s_i, t_j)/\tau}}
              -\log \frac{e^{\cos(s_i, t_i)/\tau}}{\sum_j e^{\cos(s_j, t_i)/\tau}} \Bigr]

    Convention
        Normalized: embeddings to L2 length 1, so scaling a sample changes nothing.
        Negatives: the other samples of the batch, few in a small one. :func:`crd_loss` is CRD
            itself, with negatives from a memory and a noise-contrastive estimate: other numbers.
        Reduction: mean over samples and over both directions.
        Minimum: not 0 at equality; 0 is approached when positives and negatives part.

    Args:
        student_embeddings: shape (B, D), after an embedding of the teacher's width.
        teacher_embeddings: shape (B, D).
        temperature: tau, positive.

    Source: Tian, Krishnan and Isola, "Contrastive Representation Distillation", ICLR 2020, for
        the idea and tau; van den Oord et al., 2018, for the in-batch estimate (InfoNCE).

    Example:
        >>> embeddings = torch.eye(4)
        >>> round(contrastive_loss(embeddings, embeddings, temperature=1.0).item(), 4)
        0.7437
    """
    check_same_shape(
        student_embeddings,
        teacher_embeddings,
        "embeddings",
        "bring both to one width with projectors.LinearProjector",
    )
    temperature = check_temperature(temperature)
    student, teacher = _rows(student_embeddings, teacher_embeddings, "embeddings")
    cosines = matmul(unit(student, dim=1), unit(teacher, dim=1).T) / temperature
    own = torch.arange(len(cosines), device=cosines.device)
    return (F.cross_entropy(cosines, own) + F.cross_entropy(cosines.T, own)) / 2


@finite_or_refused
def crd_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    places: Tensor,
    *,
    normalizer: float,
    temperature: float = 0.07,
) -> Tensor:
    r"""One half of CRD: tell your own teacher's embedding from K others out of a memory.

    .. math:: L = -\frac{1}{B} \sum_{i=1}^{B} \Bigl[ \log h_{i0} + \sum_{k=1}^{K} \log (1 - h_{ik})
              \Bigr], \qquad h_{ik} = \frac{e^{\cos(s_i, t_{p_{ik}})/\tau}}
              {e^{\cos(s_i, t_{p_{ik}})/\tau} + c K}

    Convention
        Normalized: embeddings to L2 length 1, so scaling a sample changes nothing.
        Reduction: mean over samples; the 1 + K answers of a sample are a sum.
        Constant: c is what :math:`e^{\cos/\tau}` is on average. In the paper, M samples in
            memory, it is 1/M. The official code, by Z/M, takes the mean of the first batch, and so
            does :class:`kdlearn.distill.CRDLoss`, which has the memories and the embeddings.
        The other half has the roles changed: the teacher's embeddings against the student's memory.
        Minimum: not 0 at equality; 0 is approached when positives and negatives part.

    Args:
        student_embeddings: shape (B, D).
        teacher_embeddings: the memory, one for each sample of the training data, shape (M, D).
        places: rows of the memory, int64, shape (B, 1 + K): the sample's own, then K others.
        normalizer: c, positive.
        temperature: tau, positive.

    Raises:
        ValueError: a place is no row of the memory.

    Source: Tian, Krishnan and Isola, "Contrastive Representation Distillation", ICLR 2020,
        section 3. RepDistiller: this number up to its 1e-7 in denominators, K = 16384; the two
        halves are added, weight 0.8.

    Example:
        >>> memory, places = torch.eye(3), torch.tensor([[0, 1, 2], [1, 0, 2]])
        >>> loss = crd_loss(memory[:2], memory, places, normalizer=1.0, temperature=1.0)
        >>> round(loss.item(), 4)  # -log(e / (e + 2)) - 2 log(2 / (1 + 2))
        1.3624
    """
    temperature = check_temperature(temperature)
    normalizer = check_number(normalizer, "normalizer")
    if not 0 < normalizer < math.inf:
        raise ValueError(
            f"normalizer is {normalizer}: expected a positive finite number, the mean of "
            "exp(cosine / temperature) over a first batch."
        )
    check_pair(student_embeddings, teacher_embeddings, "embeddings")
    _check_places(student_embeddings, teacher_embeddings, places)
    student = unit(widen(student_embeddings), dim=1)
    teacher = unit(widen(teacher_embeddings.detach()), dim=1)
    cosines = matmul(student, teacher.T).gather(1, places)
    # The critic is a sigmoid, which knows its logarithm also where it is 0 or 1.
    scores = cosines / temperature - math.log(normalizer * (places.shape[1] - 1))
    return -(F.logsigmoid(scores[:, 0]) + F.logsigmoid(-scores[:, 1:]).sum(1)).mean()


def _check_places(student: Tensor, teacher: Tensor, places: Tensor) -> None:
    shapes = f"student embeddings have shape {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
    if student.dim() != 2 or teacher.dim() != 2 or student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"{shapes}: give (batch, width) and (memory, width) of one width, e.g. through "
            "projectors.LinearProjector."
        )
    if not isinstance(places, Tensor) or places.dtype != torch.int64:
        given = places.dtype if isinstance(places, Tensor) else type(places).__name__
        raise TypeError(f"places must be a tensor of torch.int64, got {given}.")
    if places.dim() != 2 or len(places) != len(student) or places.shape[1] < 2:
        raise ValueError(
            f"{shapes} and places {tuple(places.shape)}: give (batch, 1 + negatives), the sample's "
            "own row of the memory first and at least one other."
        )
    check_device(places, teacher, "places", "teacher embeddings")
    if checks_values():
        lowest, highest = (int(bound) for bound in torch.aminmax(places))
        if lowest < 0 or highest >= len(teacher):
            raise ValueError(
                f"{shapes} and places go from {lowest} to {highest}: each must be a row of the "
                "teacher's."
            )
