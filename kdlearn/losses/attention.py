"""Attention transfer: compare where student and teacher look, by activations or by gradients."""

from typing import Literal

from torch import Tensor

from kdlearn.core.checks import (
    check_batch,
    check_choice,
    check_features,
    check_same_shape,
    check_tensor,
    finite_or_refused,
)
from kdlearn.core.numerics import lengths, match_sizes, widen
from kdlearn.losses.maps import map_of


@finite_or_refused
def attention_transfer_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    p: float = 2,
    convention: Literal["code", "paper"] = "code",
) -> Tensor:
    r"""Make the student look where the teacher looks: compare activation-based attention maps.

    .. math:: L_\text{code} = \frac{1}{B\,P} \sum_{i=1}^{B}
              \lVert \hat Q_s^{(i)} - \hat Q_t^{(i)} \rVert_2^2, \qquad
              L_\text{paper} = \frac{1}{B} \sum_{i=1}^{B}
              \lVert \hat Q_s^{(i)} - \hat Q_t^{(i)} \rVert_2

    with :math:`\hat Q` the map of :func:`kdlearn.losses.maps.activation_map` and P its positions.

    Convention
        Normalized: each sample's map to L2 length 1 over space, so scaling either side changes
            nothing. The number of channels may differ.
        Reduction: "code" is the mean of squared differences over batch and positions; "paper" is
            the norm, not squared, over positions, and its mean over the batch. Neither has the
            factor 1/2 that stands before beta in the paper's equation 2.
        Range: code [0, 2/P], because it is (2 - 2 cos)/P; paper [0, sqrt 2]. 0 when maps agree.
        Size: the larger feature tensor is average-pooled to the smaller one, before the power.
        Layout: channels second. Tokens and channels-last features come by
            :func:`kdlearn.losses.maps.channels_first`.
        One pair of layers: add the losses of several pairs.
        Zero: features that are all 0 have a map of zeros; the gradient stays finite.

    Args:
        student_features: shape (B, C_s, *spatial).
        teacher_features: shape (B, C_t, *spatial).
        p: power of the map, at least 1.
        convention: "code" or "paper".

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, equation 2;
        ``at_loss`` in ``utils.py`` of their repository is "code", with weight 1000. On
        :math:`\lVert\cdot\rVert_2^2` that weight acts as 1000/P: 0.98 at 32x32, 15.6 at 8x8.
        RepDistiller pools square maps alike, and keeps the sign of odd powers.

    Example:
        >>> import torch
        >>> left, right = torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 2, 2)
        >>> left[..., 0], right[..., 1] = 1.0, 1.0
        >>> attention_transfer_loss(left, right).item()
        0.5
        >>> round(attention_transfer_loss(left, right, convention="paper").item(), 4)
        1.4142
    """
    check_choice(convention, "convention", ("code", "paper"))
    check_features(student_features, teacher_features)
    student, teacher = match_sizes(widen(student_features), widen(teacher_features.detach()))
    gap = map_of(student, p) - map_of(teacher, p)
    if convention == "code":
        return gap.square().mean()
    return lengths(gap).mean()


@finite_or_refused
def gradient_attention_loss(student_gradients: Tensor, teacher_gradients: Tensor) -> Tensor:
    r"""Make the student sensitive to the pixels to which the teacher is sensitive.

    .. math:: L = \frac{1}{B} \sum_{i=1}^{B} \lVert J_s^{(i)} - J_t^{(i)} \rVert_2, \qquad
              J = \frac{\partial\, \mathrm{CE}(z(x), y)}{\partial x}

    with the gradients of :func:`kdlearn.losses.maps.input_gradients`.

    Convention
        Normalized: nothing; the gradients' size counts.
        Reduction: the norm, not squared, over all pixels and channels of a sample, and its mean
            over the batch. Without the factor 1/2 that stands before beta in the paper.
        Double backward: the student's gradients must be made with ``create_graph=True``; then
            this loss trains its weights through a second backward pass.

    Args:
        student_gradients: shape (B, ...).
        teacher_gradients: the same shape.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, section 3.2.
        Their repository has no code for it.

    Example:
        >>> import torch
        >>> gradients = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> gradient_attention_loss(gradients, torch.zeros(2, 2)).item()
        2.5
    """
    check_same_shape(
        student_gradients,
        teacher_gradients,
        "gradients",
        "take both with respect to the same images",
    )
    check_batch(student_gradients, "gradients")
    gap = widen(student_gradients) - widen(teacher_gradients.detach())
    return lengths(gap).mean()


@finite_or_refused
def flip_symmetry_loss(gradients: Tensor, flipped_gradients: Tensor) -> Tensor:
    r"""Make a network equally sensitive to an image and to its mirror image.

    .. math:: L = \frac{1}{B} \sum_{i=1}^{B} \bigl\lVert J(x^{(i)}) -
              \mathrm{flip}\bigl(J(\mathrm{flip}(x^{(i)}))\bigr) \bigr\rVert_2

    Convention
        Order: gradients at the images, then at the images flipped left to right
            (``images.flip(-1)``). This function flips the second one back.
        No teacher, and nothing is detached: both sides belong to the student and train it.
        Reduction: the norm, not squared, of each sample, and its mean over the batch.

    Args:
        gradients: shape (B, ..., W), of :func:`kdlearn.losses.maps.input_gradients` with
            ``create_graph=True``.
        flipped_gradients: the same shape.

    Source: Zagoruyko and Komodakis, ICLR 2017, section 3.2, the symmetry term.

    Example:
        >>> import torch
        >>> gradients = torch.tensor([[[1.0, 2.0, 5.0]]])
        >>> flip_symmetry_loss(gradients, gradients.flip(-1)).item()
        0.0
    """
    check_tensor(gradients, "gradients")
    check_tensor(flipped_gradients, "flipped gradients")
    if gradients.shape != flipped_gradients.shape:
        raise ValueError(
            f"gradients have shape {tuple(gradients.shape)} and flipped gradients "
            f"{tuple(flipped_gradients.shape)}: take them at the images and at images.flip(-1)."
        )
    check_batch(gradients, "gradients")
    gap = widen(gradients) - widen(flipped_gradients).flip(-1)
    return lengths(gap).mean()
