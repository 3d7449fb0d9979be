"""Attention maps: where a network looks, as one number for each position."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.core.checks import check_batch, check_labels, check_number, check_tensor
from kdlearn.core.numerics import all_between, peaks, unit, widen


def activation_map(features: Tensor, *, p: float = 2) -> Tensor:
    r"""Activation-based attention map: the energy over channels, normalized over space.

    .. math:: \hat Q = \frac{Q}{\lVert Q \rVert_2}, \qquad
              Q = \mathrm{vec}\Bigl(\sum_c |A_c|^p\Bigr)

    Convention
        Normalized: each sample's map to L2 length 1 over all its positions (not sum 1, not over
            the batch), so scaling the features changes nothing, and the sum and the mean over
            channels give the same map.
        Sign: :math:`|A|^p`, so odd p ignores the sign; the official code squares, p = 2.
        Zero: a sample whose features are all 0 gets a map of zeros, with gradient 0.
        Range: where powers come near the ends of what float32 holds, each sample is divided by its
            largest absolute value first.
        Layout: channels second; :func:`channels_first` brings others to that.

    Args:
        features: shape (B, C, *spatial), any number of spatial dimensions.
        p: power, at least 1; a larger one looks more at the strongest activations.

    Returns:
        Shape (B, *spatial).

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, section 3.1;
        ``utils.py`` of their repository attention-transfer uses p = 2 and the mean over channels.

    Example:
        >>> features = torch.tensor([[[[3.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, -3.0]]]])
        >>> activation_map(features)
        tensor([[[0.7071, 0.0000],
                 [0.0000, 0.7071]]])
    """
    check_tensor(features, "features")
    if features.dim() < 3:
        raise ValueError(
            f"features need shape (batch, channels, *spatial), got {tuple(features.shape)}: "
            "take a layer before the global pooling."
        )
    return map_of(widen(features), p)


def map_of(features: Tensor, p: float) -> Tensor:
    """Return the map of :func:`activation_map` of features that were looked at.

    Example:
        >>> map_of(torch.tensor([[[3.0, 0.0], [4.0, 0.0]]]), 2.0)
        tensor([[1., 0.]])
    """
    p = check_number(p, "p")
    if not 1 <= p < math.inf:
        raise ValueError(f"p is {p}, expected a finite number from 1: the paper uses 1, 2 and 4.")
    energy = _energy(features, p)
    squares = energy.flatten(1).square().sum(dim=1, keepdim=True)
    if all_between(squares, 1e-18, 1e30):
        return (energy.flatten(1) / squares.sqrt()).view_as(energy)
    # The map does not depend on the scale, so the peak may count as a constant in the gradient.
    energy = _energy(features / peaks(features, tuple(range(1, features.dim()))), p)
    return unit(energy.flatten(1), dim=1).view_as(energy)


def _energy(features: Tensor, p: float) -> Tensor:
    if p == 2:
        # Without a gradient what prepares one would take as long as the sum.
        asks = features.requires_grad
        return _SumOfSquares.apply(features) if asks else features.square().sum(dim=1)
    sizes = features.abs()
    if not 1 < p < 2:
        return sizes.pow(p).sum(dim=1)
    # The slope of such a power has an infinite slope at 0, which no zero behind it would stop.
    zeros = sizes == 0
    return sizes.masked_fill(zeros, 1).pow(p).masked_fill(zeros, 0).sum(dim=1)


class _SumOfSquares(torch.autograd.Function):
    """Sum of squares over channels, whose gradient is one product: a third of the time."""

    @staticmethod
    def forward(features: Tensor) -> Tensor:
        return features.square().sum(dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        return features * (2 * gradient).unsqueeze(1)


def channels_first(features: Tensor) -> Tensor:
    """Bring features that end in their channels to the layout of all losses on features.

    Tokens (B, N, C), as transformers return them, become (B, C, N); images (B, H, W, C) become
    (B, C, H, W). Leave out a class token first: ``channels_first(states[:, 1:])``.

    Args:
        features: shape (B, *spatial, C).

    Returns:
        Shape (B, C, *spatial), a view.

    Example:
        >>> channels_first(torch.ones(2, 49, 384)).shape
        torch.Size([2, 384, 49])
    """
    check_tensor(features, "features", "any")
    check_batch(features, "features")
    return features.movedim(-1, 1)


def input_gradients(
    logits: Tensor, labels: Tensor, images: Tensor, *, create_graph: bool = True
) -> Tensor:
    r"""Gradient-based attention: how much each pixel moves the classification loss.

    .. math:: J^{(i)} = \frac{\partial\, \mathrm{CE}(z(x)^{(i)}, y^{(i)})}{\partial x^{(i)}}

    Convention
        Reduction: the cross-entropy is summed over the batch, so each sample's gradient is its
            own and does not shrink with the batch.
        Batch normalization: in training mode it mixes samples, and the sum then differentiates
            through that too. Use ``model.eval()`` for maps of single images.

    Args:
        logits: shape (B, C), computed from the images.
        labels: class numbers, torch.int64, shape (B,).
        images: shape (B, ...), with ``requires_grad_()`` set before the model saw them.
        create_graph: keep the graph, so that a loss of the gradients can be trained (double
            backward). Set False for a teacher.

    Returns:
        Gradients of the images' shape.

    Raises:
        ValueError: the images do not require a gradient, or the logits do not depend on them.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2014; used for
        transfer by Zagoruyko and Komodakis, ICLR 2017, section 3.2.

    Example:
        >>> images = torch.tensor([[1.0, -1.0]], requires_grad=True)
        >>> input_gradients(2 * images, torch.tensor([0]), images, create_graph=False)
        tensor([[-0.0360,  0.0360]])
    """
    check_tensor(logits, "logits", "logits")
    if logits.dim() != 2:
        raise ValueError(
            f"logits need shape (batch, classes), got {tuple(logits.shape)}: make rows of tokens "
            "or pixels by logits.flatten(0, -2), and flatten their labels."
        )
    check_labels(labels, logits)
    check_tensor(images, "images")
    if not images.requires_grad:
        raise ValueError("images need requires_grad_() before the model sees them.")
    loss = F.cross_entropy(widen(logits), labels, reduction="sum")
    gradients = None
    if loss.requires_grad:
        (gradients,) = torch.autograd.grad(
            loss, images, create_graph=create_graph, allow_unused=True
        )
    if gradients is None:
        raise ValueError(
            "the logits do not depend on these images: pass the model's own input, and run both "
            "outside of torch.no_grad."
        )
    return gradients
