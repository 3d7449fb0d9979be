"""Losses on the features of a layer, shape (B, C, *spatial)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.core.checks import (
    check_batch,
    check_features,
    check_fraction,
    check_number,
    check_same_shape,
    check_sizes,
    finite_or_refused,
)
from kdlearn.core.numerics import in_scale, match_sizes, matmul, pool, unit, widen

Pair = tuple[Tensor, Tensor]


@finite_or_refused
def hint_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""FitNets: mean squared difference of a student's layer and the teacher's hint.

    .. math:: L = \frac{1}{|A|} \lVert A_s - A_t \rVert_2^2

    Convention
        Normalized: nothing. Reduction: mean over every element.
        Size: shapes must be equal; a regressor such as :class:`kdlearn.distill.ConvProjector`
            brings the student's features to the teacher's channels. Its parameters are trained.

    Args:
        student_features: shape (B, C, *spatial), or (B, D).
        teacher_features: the same shape.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3, which sums
        over elements with a factor 1/2. RepDistiller and mdistiller use this mean, weight 100.

    Example:
        >>> hint_loss(torch.zeros(1, 2, 3), torch.full((1, 2, 3), 2.0)).item()
        4.0
    """
    check_same_shape(
        student_features,
        teacher_features,
        "features",
        "bring the student's to the teacher's shape with a projector",
    )
    return F.mse_loss(widen(student_features), widen(teacher_features.detach()))


@finite_or_refused
def nst_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Neuron selectivity transfer: match the distribution of channels' spatial patterns (MMD).

    .. math:: L = \frac1B \sum_i \Bigl[ \frac{1}{C_t^2} \sum_{c,d} k(t_c, t_d)
              + \frac{1}{C_s^2} \sum_{c,d} k(s_c, s_d)
              - \frac{2}{C_s C_t} \sum_{c,d} k(s_c, t_d) \Bigr], \qquad k(a, b) = (a^\top b)^2

    Convention
        Channels: their number may differ, and their order has no meaning, on either side.
        Normalized: each channel's pattern to L2 length 1 over space.
        Reduction: mean over pairs of channels and over the batch. The teacher-teacher term is
            part of the value, so it is a squared distance: at least 0, and 0 at equality.
        Size: the larger feature tensor is average-pooled to the smaller one.
        Layout: channels second; others come by :func:`kdlearn.losses.maps.channels_first`.

    Args:
        student_features: shape (B, C_s, *spatial).
        teacher_features: shape (B, C_t, *spatial).

    Source: Huang and Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity
        Transfer", 2017, section 4, with the polynomial kernel, d = 2 and c = 0. RepDistiller's
        number (weight 50), by matrix products instead of (B, C, C, H W) tensors.

    Example:
        >>> features = torch.eye(4).reshape(1, 4, 2, 2)
        >>> nst_loss(features, features[:, [3, 1, 0, 2]]).item()
        0.0
    """
    check_features(student_features, teacher_features)
    sides = match_sizes(widen(student_features), widen(teacher_features.detach()))
    student, teacher = (in_scale(side.flatten(2), dim=2) for side in sides)
    own_s, own_t = matmul(student, student.mT), matmul(teacher, teacher.mT)
    across = matmul(student, teacher.mT)
    # Patterns become unit vectors after the products, in C x C numbers instead of C x positions.
    unit_s, unit_t = _inverse_lengths(own_s), _inverse_lengths(own_t)
    own = _mean_kernel(own_s, unit_s, unit_s) + _mean_kernel(own_t, unit_t, unit_t)
    return own - 2 * _mean_kernel(across, unit_s, unit_t)


def _inverse_lengths(products: Tensor) -> Tensor:
    squares = products.diagonal(dim1=1, dim2=2)
    return 1 / torch.where(squares > 0, squares, torch.inf).sqrt()


def _mean_kernel(products: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return (products * left[:, :, None] * right[:, None]).square().mean()


@finite_or_refused
def hcl_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""ReviewKD's hierarchical context loss: features compared at several resolutions.

    .. math:: L = \frac{\sum_{k=0}^{K} 2^{-k}\, \mathrm{MSE}\bigl(\mathrm{pool}_k(A_s),
              \mathrm{pool}_k(A_t)\bigr)}{\sum_{k=0}^{K} 2^{-k}}

    Convention
        Levels: full size with weight 1, then average-pooled to 4, 2 and 1 positions a side with
            weights 1/2, 1/4, 1/8; a level that is not below the height (the first spatial
            dimension) is left out, and the next one takes its weight.
        Normalized: weights divided by their sum. Reduction: mean over every element of a level.
        Shapes must be equal. The attention-based fusion of layers is not part of it.
        Layout: channels second; others come by :func:`kdlearn.losses.maps.channels_first`.

    Args:
        student_features: shape (B, C, *spatial), one to three spatial dimensions.
        teacher_features: the same shape.

    Source: Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021, section 3;
        ``hcl`` of the authors and ``hcl_loss`` of mdistiller.

    Example:
        >>> student = torch.zeros(1, 1, 2, 2)
        >>> teacher = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
        >>> round(hcl_loss(student, teacher).item(), 4)
        0.6667
    """
    check_features(student_features, teacher_features, same_channels=True, same_size=True)
    # Pooling is linear: the pooled difference is the difference of the pooled.
    difference = widen(student_features) - widen(teacher_features.detach())
    levels = [level for level in (4, 2, 1) if level < difference.shape[2]]
    # Where bins are equal, a coarser level is the mean of a finer one.
    equal_bins = all(size % 4 == 0 for size in difference.shape[2:])
    losses, finer = [_squares(difference, "mean")], difference
    for level in levels:
        finer = pool(finer if equal_bins else difference, level)
        losses.append(_squares(finer, "mean"))
    weights = [0.5**power for power in range(len(losses))]
    weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    return torch.stack(weighted).sum() / sum(weights)


@finite_or_refused
def fsp_loss(student_pair: Pair, teacher_pair: Pair) -> Tensor:
    r"""Flow of the solution procedure: match how two layers' channels go together.

    .. math:: L = \frac{1}{B\,C_1 C_2} \sum_i \lVert G_s^{(i)} - G_t^{(i)} \rVert_F^2, \qquad
              G_{cd} = \frac{1}{P} \sum_{x} A^1_{c}(x)\, A^2_{d}(x)

    Convention
        A pair is the features of the first and of the last layer of a stage.
        Normalized: the product is divided by the number of positions P.
        Reduction: mean over batch and entries of G.
        Size: within a pair, the larger feature tensor is average-pooled to the smaller one.
            Student and teacher need equal channels in both layers; their sizes may differ.
        Layout: channels second; others come by :func:`kdlearn.losses.maps.channels_first`.

    Args:
        student_pair: shapes (B, C_1, *spatial) and (B, C_2, *spatial).
        teacher_pair: the same numbers of channels.

    Source: Yim et al., "A Gift from Knowledge Distillation", CVPR 2017, equations 1 and 2, used to
        initialize a student before training. RepDistiller's number, by a matrix product;
        torchdistill pools with the maximum and sums norms of columns: no common factor.

    Example:
        >>> ones, twos = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 2.0)
        >>> fsp_loss((ones, ones), (ones, twos)).item()
        1.0
    """
    for side, name in ((student_pair, "student_pair"), (teacher_pair, "teacher_pair")):
        if not isinstance(side, tuple | list) or len(side) != 2:
            raise TypeError(f"{name} must be (features of the first, of the last layer).")
    for student, teacher in zip(student_pair, teacher_pair, strict=True):
        check_features(student, teacher, same_channels=True)
    # Two layers of one side, so only after each was looked at by its own name.
    check_features(*student_pair)
    check_features(*teacher_pair)
    return F.mse_loss(_flow(*student_pair), _flow(*teacher_pair).detach())


def _flow(first: Tensor, last: Tensor) -> Tensor:
    first, last = match_sizes(widen(first), widen(last))
    first, last = first.flatten(2), last.flatten(2)
    return matmul(first, last.mT) / first.shape[2]


@finite_or_refused
def activation_boundary_loss(
    student_features: Tensor, teacher_features: Tensor, *, margin: float = 1.0
) -> Tensor:
    r"""Match on which side of zero each neuron stands, not how far.

    .. math:: L = \frac1B \sum_{i,n} \begin{cases}
              \max(0, m - s_n)^2 & t_n > 0 \\ \max(0, m + s_n)^2 & t_n \le 0 \end{cases}

    Convention
        Inputs: both sides before their ReLU. Only the teacher's signs count.
        Reduction: sum over neurons, mean over the batch.
        Minimum: 0 when every student neuron is beyond the margin on the teacher's side, so not
            at equality with a teacher whose activations lie within the margin.

    Args:
        student_features: shape (B, ...).
        teacher_features: the same shape.
        margin: m, positive; how far beyond zero is far enough.

    Source: Heo et al., "Knowledge Transfer via Distillation of Activation Boundaries Formed by
        Hidden Neurons", AAAI 2019. RepDistiller multiplies by 3/1000: multiply its
        weight by that to use it here.

    Example:
        >>> activation_boundary_loss(torch.tensor([[0.5, -2.0]]), torch.tensor([[7.0, 1.0]])).item()
        9.25
    """
    check_same_shape(
        student_features,
        teacher_features,
        "features",
        "bring the student's to the teacher's shape with a projector",
    )
    check_batch(student_features, "features")
    margin = check_number(margin, "margin")
    if not 0 < margin < math.inf:
        raise ValueError(f"margin is {margin}, expected a positive finite number: the paper has 1.")
    student = widen(student_features)
    # Numbers at once, not booleans to be converted: passes over memory are what this costs.
    active = torch.gt(teacher_features.detach(), 0, out=torch.empty_like(student))
    away = torch.rsub(active, 1, alpha=2)  # 1 where the teacher is silent, -1 where it is active
    missing = (away * student).add_(margin).relu_()
    return _squares(missing, "sum") / student.shape[0]


def _squares(values: Tensor, reduction: str) -> Tensor:
    # One kernel each way, with no second tensor of the same size: what a large layer costs is
    # memory traffic.
    return F.mse_loss(values, values.new_zeros(()).expand_as(values), reduction=reduction)


@finite_or_refused
def factor_transfer_loss(student_factors: Tensor, teacher_factors: Tensor) -> Tensor:
    r"""Match the factors of a translator (student) and a paraphraser (teacher).

    .. math:: L = \frac{1}{B\,D} \sum_i \Bigl\lVert
              \frac{f_s^{(i)}}{\lVert f_s^{(i)} \rVert_2} -
              \frac{f_t^{(i)}}{\lVert f_t^{(i)} \rVert_2} \Bigr\rVert_1

    Convention
        Normalized: each sample's flattened factor (D numbers) to L2 length 1.
        Reduction: absolute differences, mean over batch and D.
        The factors are made by :class:`kdlearn.distill.Paraphraser`, trained beforehand to
            reconstruct the teacher's features, and by a projector on the student's side.

    Args:
        student_factors: shape (B, ...).
        teacher_factors: the same shape.

    Source: Kim, Park and Kwak, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", NeurIPS 2018, section 3, with p = 1. RepDistiller has no paraphraser and takes
        the mean of squares over channels as the factor: pass activation maps for its number.

    Example:
        >>> left, right = torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0]])
        >>> factor_transfer_loss(left, right).item()
        0.0
    """
    check_same_shape(
        student_factors, teacher_factors, "factors", "give translator and paraphraser one size"
    )
    check_batch(student_factors, "factors")
    student = unit(widen(student_factors).flatten(1), dim=1)
    teacher = unit(widen(teacher_factors.detach()).flatten(1), dim=1)
    return F.l1_loss(student, teacher)


def _check_images(
    student: Tensor, teacher: Tensor, channels: tuple[int, int], *, same_size: bool = False
) -> None:
    """Check features (B, C, H, W) for convolutions that were made for so many channels."""
    check_features(student, teacher, same_size=same_size)
    if student.dim() != 4 or (student.shape[1], teacher.shape[1]) != channels:
        raise ValueError(
            f"features have shapes {tuple(student.shape)} and {tuple(teacher.shape)}, but this "
            f"loss was made for (batch, {channels[0]}, height, width) and (batch, {channels[1]}, "
            "height, width): make it for the channels of these layers, and bring other layouts "
            "to this one by kdlearn.losses.maps.channels_first."
        )


class VIDLoss(nn.Module):
    r"""Variational information distillation: predict the teacher's features, and how surely.

    .. math:: L = \frac{1}{|A_t|} \sum_{i,c,x} \frac12 \Bigl[
              \frac{(\mu_c(A_s) - A_{t,c})^2}{\sigma_c^2} + \log \sigma_c^2 \Bigr], \qquad
              \sigma_c^2 = \log(1 + e^{\alpha_c}) + 10^{-5}

    Convention
        Parameters: the mean, three 1x1 convolutions without bias and ReLUs between, and one
            variance a teacher channel. They are trained with the student.
        Reduction: mean over every element; the constant log(2 pi)/2 is left out, so the value
            can be negative. At equality of mean and features it is the mean of log(sigma²)/2.
        Size: the larger feature tensor is average-pooled to the smaller one.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        middle_channels: width of the mean's hidden layers; C_t unless given.
        initial_variance: sigma² at the start.

    Source: Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019;
        RepDistiller's ``VID.py``, weight 1.

    Example:
        >>> loss = VIDLoss(2, 3)
        >>> loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)).item()
        0.8047...
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        middle_channels: int | None = None,
        initial_variance: float = 5.0,
    ) -> None:
        super().__init__()
        middle = teacher_channels if middle_channels is None else middle_channels
        check_sizes(
            student_channels=student_channels,
            teacher_channels=teacher_channels,
            middle_channels=middle,
        )
        initial_variance = check_number(initial_variance, "initial_variance")
        if not 1e-5 < initial_variance < torch.finfo(torch.float32).max:
            raise ValueError(
                f"initial_variance is {initial_variance}, expected a finite number above 1e-5, "
                "in float32."
            )
        self.channels = student_channels, teacher_channels
        self.mean = nn.Sequential(
            nn.Conv2d(student_channels, middle, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(middle, middle, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(middle, teacher_channels, 1, bias=False),
        )
        # softplus(alpha) + 1e-5 is the initial variance, of which the exponential may overflow.
        softened = initial_variance - 1e-5
        alpha = softened + math.log(-math.expm1(-softened))
        self.alpha = nn.Parameter(torch.full((teacher_channels,), alpha))

    @finite_or_refused
    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """The loss of one batch; shapes (B, C_s, H, W) and (B, C_t, H, W)."""
        _check_images(student_features, teacher_features, self.channels)
        student, teacher = match_sizes(
            student_features.to(self.alpha.dtype), teacher_features.detach()
        )
        variance = (F.softplus(widen(self.alpha)) + 1e-5).view(-1, 1, 1)
        squared = (widen(self.mean(student)) - widen(teacher)).square()
        return (0.5 * (squared / variance + variance.log())).mean()


class MGDLoss(nn.Module):
    r"""Masked generative distillation: rebuild the teacher's features from a masked student.

    .. math:: L = \frac1B \lVert A_t - g(M \odot \mathrm{align}(A_s)) \rVert_2^2

    Convention
        Mask: M is 0 at a random ``masked`` share of positions, the same for all channels of a
            sample; drawn anew at each call from torch's global generator.
        Parameters: align, a 1x1 convolution where the channels differ; g, two 3x3 convolutions
            with a ReLU between. They are trained with the student.
        Reduction: sum over elements, divided by the batch. The authors' weight is 2e-5 for
            detectors and 7e-5 for classifiers.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        masked: share of positions that is hidden, from 0 to 1.

    Source: Yang et al., "Masked Generative Distillation", ECCV 2022, and the authors'
        ``mgd.py``, where 0.65 is masked in detection.

    Example:
        >>> loss = MGDLoss(2, 3, masked=0.5)
        >>> loss(torch.ones(1, 2, 4, 4), torch.ones(1, 3, 4, 4)).shape
        torch.Size([])
    """

    def __init__(
        self, student_channels: int, teacher_channels: int, *, masked: float = 0.65
    ) -> None:
        super().__init__()
        masked = check_fraction(masked, "masked")
        check_sizes(student_channels=student_channels, teacher_channels=teacher_channels)
        self.masked, self.channels = masked, (student_channels, teacher_channels)
        self.align = (
            nn.Identity()
            if student_channels == teacher_channels
            else nn.Conv2d(student_channels, teacher_channels, 1)
        )
        self.generation = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )

    @finite_or_refused
    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """The loss of one batch; shapes (B, C_s, H, W) and (B, C_t, H, W)."""
        _check_images(student_features, teacher_features, self.channels, same_size=True)
        batch, _, *size = student_features.shape
        kept = torch.rand(batch, 1, *size, device=student_features.device) >= self.masked
        student_features = student_features.to(next(self.generation.parameters()).dtype)
        rebuilt = widen(self.generation(self.align(student_features) * kept))
        return (rebuilt - widen(teacher_features.detach())).square().sum() / batch
