"""Losses on logits: soft targets and what came after them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.core.checks import (
    check_class_dimension,
    check_fraction,
    check_labels,
    check_logit_values,
    check_logits,
    check_number,
    check_overflow,
    check_same_shape,
    finite_or_refused,
)
from kdlearn.core.numerics import cross_terms, kl_sum, kl_terms, lengths, log_sum, widen
from kdlearn.losses.rows import as_usual, check_softening, log_softmax, row_mean, soften


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(widen(logits).flatten(0, -2), labels.flatten())


@finite_or_refused
def soft_target_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0
) -> Tensor:
    r"""Bring the student's softened probabilities to the teacher's.

    .. math:: L = \frac{T^2}{N} \sum_{n=1}^{N} \mathrm{KL}\bigl(\sigma(z_t^{(n)} / T) \,\|\,
              \sigma(z_s^{(n)} / T)\bigr)

    Convention
        Direction: KL(teacher || student), teacher probabilities in front of the logarithm.
        Normalized: softmax over the last dimension, the same temperature on both sides.
        Reduction: sum over classes, mean over the N rows (all leading dimensions).
        T²: included, so the gradient keeps its size when T changes.
        Range [0, inf); 0 when the softened probabilities agree. Adding a constant to a row of
            either side changes nothing.
        Limit: T to infinity gives :math:`\frac{1}{2C}\sum_c (\tilde z_s - \tilde z_t)_c^2` a row,
            with centered logits :math:`\tilde z`. Gradient: :math:`T (p_s^T - p_t^T) / N`.

    Args:
        student_logits: shape (..., C).
        teacher_logits: shape (..., C).
        temperature: T, positive.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
        section 2. RepDistiller, mdistiller, timm and the PyTorch tutorial compute this number.
        DeiT, and ``F.kl_div`` with ``reduction="mean"``, divide by C as well: multiply their
        weight by 1/C to use it here. TextBrewer and TinyBERT have no T² and keep the teacher's
        entropy: divide by T² and add the entropy.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, -2.0]])
        >>> soft_target_loss(logits, logits + 5).item()
        0.0
        >>> round(soft_target_loss(logits, -logits, temperature=1.0).item(), 4)
        3.4037
    """
    mean = row_mean(
        lambda student, teacher: kl_sum(teacher, student),
        student_logits,
        teacher_logits,
        temperature=temperature,
    )
    return float(temperature) ** 2 * mean


@finite_or_refused
def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    weight: float = 0.9,
) -> Tensor:
    r"""Learn from soft targets and labels at once.

    .. math:: L = w\, T^2\, \mathrm{KL}\bigl(\sigma(z_t / T) \,\|\, \sigma(z_s / T)\bigr)
              + (1 - w)\, \mathrm{CE}(z_s, y)

    Convention
        Weight: w stands before the soft term, 1 - w before the labels.
        T²: included in the soft term; the cross-entropy sees the logits at temperature 1.
        Reduction: mean over all leading dimensions in both terms.
        The rest is that of :func:`soft_target_loss`.

    Args:
        student_logits: shape (..., C).
        teacher_logits: shape (..., C).
        labels: class numbers, torch.int64, shape (...).
        temperature: T, positive.
        weight: w, from 0 (labels alone) to 1 (teacher alone).

    Source: Hinton, Vinyals and Dean, 2015, section 2. Zagoruyko's code has the same w ("alpha",
        0.9 with T = 4). In torchdistill alpha stands before the labels: use w = 1 - alpha.

    Example:
        >>> student, labels = torch.zeros(1, 4), torch.tensor([2])
        >>> round(distillation_loss(student, student, labels, weight=0.5).item(), 4)
        0.6931
    """
    weight = check_fraction(weight, "weight")
    soft = soft_target_loss(student_logits, teacher_logits, temperature=temperature)
    check_labels(labels, student_logits)
    return _weighed(weight, soft) + _weighed(1 - weight, _cross_entropy(student_logits, labels))


def _weighed(weight: float, term: Tensor) -> Tensor:
    """Weight times term; what weighs nothing may be infinite, where a label is ruled out."""
    return weight * (term if weight else term.nan_to_num(posinf=0.0))


@finite_or_refused
def soft_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Tensor:
    r"""Cross-entropy with the teacher's softened probabilities as targets.

    .. math:: L = -\frac{1}{N} \sum_{n=1}^{N} \sum_c p_{t,c}^T \log p_{s,c}^T

    Convention
        Normalized: softmax over the last dimension, the same temperature on both sides.
        Reduction: sum over classes, mean over the N rows (all leading dimensions).
        T²: not included.
        Relation: KL(teacher || student) plus the teacher's entropy. The gradient is that of
            ``soft_target_loss(...) / temperature**2``; the minimum is the entropy, not 0.

    Args:
        student_logits: shape (..., C).
        teacher_logits: shape (..., C).
        temperature: T, positive.
        chunk: rows at a time, as in :func:`kdlearn.losses.forward_kl`.

    Source: Hinton, Vinyals and Dean, 2015, section 2, without their factor T². TextBrewer's
        ``kd_ce_loss`` is this number; TinyBERT also divides by the number of classes.

    Example:
        >>> logits = torch.zeros(1, 4)
        >>> round(soft_cross_entropy(logits, logits).item(), 4)
        1.3863
    """
    return row_mean(
        lambda student, teacher: cross_terms(teacher, student).sum(),
        student_logits,
        teacher_logits,
        temperature=temperature,
        chunk=chunk,
    )


@finite_or_refused
def logit_mse_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Mean squared difference of the logits themselves.

    .. math:: L = \frac{1}{NC} \sum_{n,c} (z_s - z_t)_{n,c}^2

    Convention
        Normalized: nothing, so a constant added to a row counts, unlike after a softmax.
        Reduction: mean over rows and classes.
        Relation: T to infinity turns :func:`soft_target_loss` into half of this, on logits whose
            rows are centered.

    Args:
        student_logits: shape (..., C).
        teacher_logits: shape (..., C).

    Source: Ba and Caruana, "Do Deep Nets Really Need to be Deep?", 2014, who have the sum over
        classes and a factor 1/2: multiply by C/2. TextBrewer's ``kd_mse_loss`` is this number on
        logits divided by T.

    Example:
        >>> logit_mse_loss(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]])).item()
        5.0
    """
    check_same_shape(student_logits, teacher_logits, "logits", "give both the same outputs")
    return F.mse_loss(widen(student_logits), widen(teacher_logits.detach()))


@finite_or_refused
def target_class_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float = 4.0
) -> Tensor:
    r"""First part of DKD (TCKD): how sure the teacher is of the label, against all the rest.

    .. math:: L = \frac{T^2}{N} \sum_n \mathrm{KL}\bigl((p_y, 1 - p_y)_t \,\|\, (p_y, 1 - p_y)_s
              \bigr)

    Convention
        Direction: KL(teacher || student) of two events, the label's class and all others.
        Normalized: softmax over all classes at temperature T, then summed into the two events.
        Reduction: mean over rows. T²: included.

    Args:
        student_logits: shape (..., C).
        teacher_logits: shape (..., C).
        labels: class numbers, torch.int64, shape (...).
        temperature: T, positive.

    Source: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 5. mdistiller takes
        the logarithm of summed probabilities; the logarithms here do not underflow.

    Example:
        >>> logits, labels = torch.tensor([[4.0, 1.0, 0.0]]), torch.tensor([0])
        >>> swapped = logits[:, [0, 2, 1]]
        >>> target_class_loss(logits, swapped, labels).item()
        0.0
    """
    label, student, teacher, square = _decoupled(
        student_logits, teacher_logits, labels, temperature
    )
    terms = kl_terms(_two_events(teacher, label), _two_events(student, label))
    return as_usual(square * terms.sum(dim=-1).mean(), student_logits, teacher_logits)


@finite_or_refused
def nontarget_class_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float = 4.0
) -> Tensor:
    r"""Second part of DKD (NCKD): how the teacher ranks the classes that are not the label.

    .. math:: L = \frac{T^2}{N} \sum_n \mathrm{KL}\bigl(\hat p_t \,\|\, \hat p_s\bigr), \qquad
              \hat p_c = \frac{p_c}{1 - p_y}, \; c \neq y

    Convention
        Direction: KL(teacher || student) over the C - 1 other classes.
        Normalized: softmax at temperature T over the other classes alone; the label's logit
            changes nothing.
        Reduction: sum over classes, mean over rows. T²: included. With two classes it is 0.

    Args:
        student_logits: shape (..., C).
        teacher_logits: shape (..., C).
        labels: class numbers, torch.int64, shape (...).
        temperature: T, positive.

    Source: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 5. mdistiller
        subtracts 1000 from the label's scaled logit, which this leaves out exactly.

    Example:
        >>> student, teacher = torch.tensor([[9.0, 1.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]])
        >>> nontarget_class_loss(student, teacher, torch.tensor([0])).item()
        0.0
    """
    label, student, teacher, square = _decoupled(
        student_logits, teacher_logits, labels, temperature
    )
    others = (F.log_softmax(side.masked_fill(label, -torch.inf), -1) for side in (teacher, student))
    terms = kl_terms(*others)
    return as_usual(square * terms.sum(dim=-1).mean(), student_logits, teacher_logits)


@finite_or_refused
def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    r"""Decoupled knowledge distillation: soft targets with the weight of dark knowledge set free.

    .. math:: L = \alpha\, L_\text{TCKD} + \beta\, L_\text{NCKD}

    with :func:`target_class_loss` and :func:`nontarget_class_loss`.

    Convention
        Direction: KL(teacher || student) in both parts. Reduction: mean over rows. T²: included.
        Relation: per sample, :func:`soft_target_loss` is TCKD + (1 - p_y) NCKD with the teacher's
            p_y at temperature T: a sure teacher silences NCKD, beta does not let it.
        No cross-entropy: add it yourself, with weight 1 in the paper.

    Args:
        student_logits: shape (..., C).
        teacher_logits: shape (..., C).
        labels: class numbers, torch.int64, shape (...).
        temperature: T, positive.
        alpha: weight of the target part.
        beta: weight of the non-target part; 8 for most CIFAR-100 pairs, 6 for WRN-40-2 to 16-2.

    Source: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 7. mdistiller
        multiplies by ``min(epoch / 20, 1)`` outside of the loss.

    Example:
        >>> logits, labels = torch.tensor([[4.0, 1.0, 0.0]]), torch.tensor([0])
        >>> dkd_loss(logits, logits, labels).item()
        0.0
    """
    alpha, beta = check_number(alpha, "alpha"), check_number(beta, "beta")
    target = target_class_loss(student_logits, teacher_logits, labels, temperature=temperature)
    others = nontarget_class_loss(student_logits, teacher_logits, labels, temperature=temperature)
    return alpha * target + beta * others


def _decoupled(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Where the label is, logits divided by the temperature, the student's first, and T²."""
    check_logits(student_logits, teacher_logits)
    check_labels(labels, student_logits)
    classes = student_logits.shape[-1]
    temperature = check_softening(temperature, classes)
    return (
        F.one_hot(labels, classes).bool(),
        soften(student_logits, temperature, classes),
        soften(teacher_logits.detach(), temperature, classes),
        temperature**2,
    )


def _two_events(logits: Tensor, label: Tensor) -> Tensor:
    log_probabilities = F.log_softmax(logits, dim=-1)
    parts = (
        log_probabilities.masked_fill(~label, -torch.inf),
        log_probabilities.masked_fill(label, -torch.inf),
    )
    return torch.cat([log_sum(part) for part in parts], dim=-1)


@finite_or_refused
def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    r"""DIST: match the correlations of probabilities, within samples and within classes.

    .. math:: L = T^2 \Bigl[\beta\Bigl(1 - \frac1B \sum_i \rho(P_s^{i\cdot}, P_t^{i\cdot})\Bigr)
              + \gamma\Bigl(1 - \frac1C \sum_c \rho(P_s^{\cdot c}, P_t^{\cdot c})\Bigr)\Bigr]

    with P the (B, C) matrix of probabilities and :math:`\rho` Pearson's correlation.

    Convention
        Normalized: softmax over classes at temperature T; then rows (beta, "inter-class") and
            columns (gamma, "intra-class") are centered and divided by the product of their norms
            plus 1e-8.
        Reduction: mean over rows and over columns. All leading dimensions count as rows.
        T²: included, and 1 at the default temperature. The correlation hardly shrinks with T:
            divide by T² for its own scale.
        Range [0, 2 (beta + gamma) T²].
        Minimum: the 1e-8 keeps it from 0. At agreement a row or column of norm n has correlation
            n² / (n² + 1e-8): the loss is some 1e-7 for 10 classes, 1e-6 to 1e-5 for 100, but up to
            gamma T² where most columns have a norm below 1e-4, as with thousands of classes.

    Args:
        student_logits: shape (..., C).
        teacher_logits: shape (..., C).
        temperature: T, positive.
        beta: weight of the correlation within samples.
        gamma: weight of the correlation within classes.

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, section
        3. The authors' DIST_KD has no temperature; torchdistill adds it as here, and clamps
        each norm to 1e-8 instead: the same number for 10 classes, to some 1e-6, and a smaller one
        where columns have norms below 1e-4; with thousands of classes, near agreement, a fraction.

    Example:
        >>> logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]])
        >>> abs(round(dist_loss(logits, logits).item(), 4))
        0.0
    """
    check_logits(student_logits, teacher_logits, "finite")
    check_logit_values(student_logits, "student logits")
    check_logit_values(teacher_logits, "teacher logits")
    temperature = check_softening(temperature, student_logits.shape[-1])
    beta, gamma = check_number(beta, "beta"), check_number(gamma, "gamma")
    if gamma and student_logits[..., 0].numel() == 1:
        raise ValueError(
            "one row has no correlation over the batch: give two or more, or pass gamma=0."
        )
    student, teacher = (
        log_softmax(side, temperature).exp().flatten(0, -2)
        for side in (student_logits, teacher_logits.detach())
    )
    within_samples = 1 - _correlation(student, teacher).mean()
    within_classes = 1 - _correlation(student.T, teacher.T).mean()
    value = temperature**2 * (beta * within_samples + gamma * within_classes)
    return as_usual(value, student_logits, teacher_logits)


def _correlation(left: Tensor, right: Tensor) -> Tensor:
    left, right = _around_mean(left), _around_mean(right)
    return (left * right).sum(dim=1) / (lengths(left) * lengths(right) + 1e-8)


def _around_mean(rows: Tensor) -> Tensor:
    """Rows around their means; of numbers that are all equal exact zeros, without rounding."""
    rows = rows - rows[..., :1]
    return rows - rows.mean(dim=-1, keepdim=True)


def standardize_logits(logits: Tensor) -> Tensor:
    r"""Give each row of logits mean 0 and standard deviation 1, before a softmax at temperature T.

    .. math:: \mathcal{Z}(z)_c = \frac{z_c - \bar z}{\mathrm{std}(z) + 10^{-7}}

    Convention
        Normalized: over classes, each row on its own; the unbiased standard deviation (C - 1).
        Use: standardize both sides and pass them to :func:`soft_target_loss`. The student then
            matches the shape of the teacher's logits, not their size: scaling or shifting a row
            changes nothing.
        Detached: nothing. The loss detaches its teacher.
        Zero: a constant row becomes zeros, and its gradient is that of deviation 1.

    Args:
        logits: shape (..., C), C > 1.

    Returns:
        The same shape.

    Source: Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, algorithm 1.
        The epsilon is torchdistill's.

    Example:
        >>> standardize_logits(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[-1.0000,  0.0000,  1.0000]])
    """
    check_logits(logits, logits, "finite")
    check_logit_values(logits, "logits")
    centered = _around_mean(widen(logits))
    variance = centered.square().sum(dim=-1, keepdim=True) / (logits.shape[-1] - 1)
    check_overflow(variance, "logits")
    # A constant row has deviation 0, where the square root has no gradient.
    deviation = torch.where(variance > 0, variance, torch.ones_like(variance)).sqrt()
    return centered / (deviation + 1e-7)


@finite_or_refused
def deit_soft_loss(
    class_logits: Tensor,
    distillation_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 3.0,
    weight: float = 0.1,
) -> Tensor:
    r"""DeiT's soft distillation: one head learns from the labels, the other from soft targets.

    .. math:: L = (1 - w)\, \mathrm{CE}(z_\text{cls}, y) + w\, \frac{T^2}{N C} \sum_n
              \mathrm{KL}\bigl(\sigma(z_t / T) \,\|\, \sigma(z_\text{dist} / T)\bigr)

    Convention
        Direction: KL(teacher || distillation head). T²: included.
        Reduction: cross-entropy, mean over rows; KL, sum over rows and classes divided by rows
            times classes, so it is C times smaller than :func:`soft_target_loss`.
        Weight: w before the teacher's term. At inference DeiT averages the two heads.

    Args:
        class_logits: logits of the class token, shape (..., C).
        distillation_logits: logits of the distillation token, shape (..., C).
        teacher_logits: shape (..., C).
        labels: class numbers, torch.int64, shape (...).
        temperature: T, positive.
        weight: w, from 0 to 1.

    Source: Touvron et al., "Training data-efficient image transformers & distillation through
        attention", ICML 2021, equation 2; ``losses.py`` of the authors divides by ``numel``.
        vit-pytorch divides by rows alone: give w C / k here, and multiply by k, with
        k = 1 - w + w C.

    Example:
        >>> heads, labels = torch.zeros(1, 4), torch.tensor([1])
        >>> round(deit_soft_loss(heads, heads, heads, labels, weight=0.5).item(), 4)
        0.6931
    """
    weight = check_fraction(weight, "weight")
    _check_heads(class_logits, distillation_logits)
    check_logits(distillation_logits, teacher_logits, "finite")
    soft = soft_target_loss(distillation_logits, teacher_logits, temperature=temperature)
    check_labels(labels, class_logits)
    soft = soft / class_logits.shape[-1]
    hard = _cross_entropy(class_logits, labels)
    return _weighed(1 - weight, hard) + _weighed(weight, soft)


@finite_or_refused
def deit_hard_loss(
    class_logits: Tensor,
    distillation_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    weight: float = 0.5,
) -> Tensor:
    r"""DeiT's hard distillation: the teacher's decision is a second label, for a second head.

    .. math:: L = (1 - w)\, \mathrm{CE}(z_\text{cls}, y) + w\, \mathrm{CE}(z_\text{dist}, y_t),
              \qquad y_t = \arg\max_c z_{t,c}

    Convention
        Reduction: mean over rows. There is no temperature.
        Weight: w before the teacher's term.

    Args:
        class_logits: logits of the class token, shape (..., C).
        distillation_logits: logits of the distillation token, shape (..., C).
        teacher_logits: shape (..., C).
        labels: class numbers, torch.int64, shape (...).
        weight: w, from 0 to 1.

    Source: Touvron et al., ICML 2021, equation 3, where w = 1/2.

    Example:
        >>> heads, teacher = torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 9.0, 0.0]])
        >>> round(deit_hard_loss(heads, heads, teacher, torch.tensor([1])).item(), 4)
        1.3863
    """
    weight = check_fraction(weight, "weight")
    _check_heads(class_logits, distillation_logits)
    check_logits(distillation_logits, teacher_logits)
    check_labels(labels, class_logits)
    decision = teacher_logits.argmax(dim=-1)
    from_labels = _cross_entropy(class_logits, labels)
    from_teacher = _cross_entropy(distillation_logits, decision)
    return _weighed(1 - weight, from_labels) + _weighed(weight, from_teacher)


def _check_heads(class_logits: Tensor, distillation_logits: Tensor) -> None:
    check_same_shape(
        class_logits, distillation_logits, "class and distillation logits", values="logits"
    )


@finite_or_refused
def binary_distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0
) -> Tensor:
    r"""Soft targets for yes-or-no outputs: each logit is a coin of its own.

    .. math:: L = \frac{T^2}{M} \sum_{m=1}^{M} \mathrm{KL}\bigl(\mathrm{Bern}(q_t^{(m)}) \,\|\,
              \mathrm{Bern}(q_s^{(m)})\bigr), \qquad q = \mathrm{sigmoid}(z / T)

    Convention
        Direction: KL(teacher || student), of both outcomes of every coin.
        Normalized: sigmoid, each of the M logits alone.
        Reduction: mean over all elements. T²: included.
        Relation: a softmax over the two logits (z, 0) gives the same number.

    Args:
        student_logits: any shape.
        teacher_logits: the same shape.
        temperature: T, positive.

    Source: Hinton, Vinyals and Dean, 2015, section 2, for two classes.

    Example:
        >>> round(binary_distillation_loss(torch.tensor([0.0]), torch.tensor([50.0])).item(), 4)
        0.6931
    """
    return _bernoulli_kl(student_logits, teacher_logits, temperature).mean()


@finite_or_refused
def multi_label_distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0
) -> Tensor:
    r"""Soft targets for several labels at once: every label is a yes-or-no output.

    .. math:: L = \frac{T^2}{N} \sum_{n=1}^{N} \sum_{l=1}^{L} \mathrm{KL}\bigl(
              \mathrm{Bern}(q_t^{(n,l)}) \,\|\, \mathrm{Bern}(q_s^{(n,l)})\bigr)

    Convention
        Direction: KL(teacher || student), of both outcomes of every label.
        Normalized: sigmoid of z / T, each label alone.
        Reduction: sum over labels (the last dimension), mean over rows: L times
            :func:`binary_distillation_loss`. T²: included.

    Args:
        student_logits: shape (..., L).
        teacher_logits: shape (..., L).
        temperature: T, positive.

    Source: Yang et al., "Multi-Label Knowledge Distillation", ICCV 2023, the one-versus-all
        reduction of multi-label logits to binary ones.

    Example:
        >>> student, teacher = torch.zeros(2, 3), torch.full((2, 3), 50.0)
        >>> round(multi_label_distillation_loss(student, teacher).item(), 4)
        2.0794
    """
    divergences = _bernoulli_kl(student_logits, teacher_logits, temperature)
    check_class_dimension(student_logits, teacher_logits)
    return divergences.sum(dim=-1).mean()


def _bernoulli_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    check_same_shape(student_logits, teacher_logits, "logits", "give both the same outputs")
    temperature = check_softening(temperature, 2)
    student = soften(student_logits, temperature, 2)
    teacher = soften(teacher_logits.detach(), temperature, 2)
    log_student = torch.stack([F.logsigmoid(student), F.logsigmoid(-student)], dim=-1)
    log_teacher = torch.stack([F.logsigmoid(teacher), F.logsigmoid(-teacher)], dim=-1)
    terms = kl_terms(log_teacher, log_student).sum(dim=-1)
    return as_usual(temperature**2 * terms, student_logits, teacher_logits)
