"""Attention without a softmax: a sum of fixed size in place of all keys and values."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.core.checks import check_choice
from kdlearn.models.layer import Attention, Past, Scores, without_future

Model = TypeVar("Model", bound=nn.Module)
FeatureMap = Literal["elu", "hedgehog"]
LIMIT = 15.0
"""Inputs of a feature map are cut to +-15: no feature is 0, and no product overflows."""


class LinearScores(nn.Module):
    r"""Causal scores of linear attention, in the place of softmax attention's.

    .. math:: a_{ij} = \log \phi_q(q_i)^\top \phi_k(k_j), \qquad
        \mathrm{softmax}_j(a_{ij}) = \frac{\phi_q(q_i)^\top \phi_k(k_j)}
        {\sum_{l \le i} \phi_q(q_i)^\top \phi_k(k_l)}

    Convention
        The softmax that follows normalizes exactly, so that maps are read where they were. With
        y = W x / d^(1/4) + b for each head, W starting near the identity:
        "elu": phi = 1 + ELU(y), d features, never negative.
        "hedgehog": phi = (exp(y), exp(-y)), 2 d features, which can make spiky maps.

    Args:
        heads: attention heads.
        size: d, of a head.
        features: phi, "elu" or "hedgehog".

    Raises:
        ValueError: there is no such feature map.

    Source: A. Katharopoulos et al., Transformers are RNNs, ICML 2020, section 3.2, for the form
        and 1 + ELU; M. Zhang et al., The Hedgehog & the Porcupine, ICLR 2024, for the learned map.

    Example:
        >>> scores = LinearScores(heads=1, size=4, features="elu")
        >>> scores(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 4)).softmax(-1)[0, 0, 1]
        tensor([0.5000, 0.5000, 0.0000], grad_fn=<SelectBackward0>)
    """

    def __init__(self, heads: int, size: int, features: FeatureMap) -> None:
        """Make the maps of queries and keys; the noise follows from torch's current seed."""
        super().__init__()
        self.causal = True
        check_choice(features, "features", ("elu", "hedgehog"))
        self.features = features
        self.size = size
        self.of_query = HeadwiseLinear(heads, size)
        self.of_key = HeadwiseLinear(heads, size)

    def forward(self, query: Tensor, key: Tensor, mask: None = None) -> Tensor:
        """Return the scores (B, heads, L, L), whose softmax is linear attention's map."""
        products = self._phi(self.of_query(query)) @ self._phi(self.of_key(key)).transpose(-1, -2)
        return without_future(products.log())

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: None = None) -> Tensor:
        """Return the map times the values; of short sequences the map is the quickest way."""
        return self(query, key).softmax(dim=-1) @ value

    def continued(
        self, query: Tensor, key: Tensor, value: Tensor, past: Past | None
    ) -> tuple[Tensor, Past]:
        r"""Return the mixture for more queries, and the sums so far.

        They are :math:`\sum_j \phi(k_j) v_j^\top` and :math:`\sum_j \phi(k_j)`, of one size however
        many tokens there were.
        """
        query, key = self._phi(self.of_query(query)), self._phi(self.of_key(key))
        products = (key[..., :, None] * value[..., None, :]).cumsum(dim=2)
        totals = key.cumsum(dim=2)
        if past is not None:
            products, totals = products + past[0][:, :, None], totals + past[1][:, :, None]
        mixed = torch.einsum("bhlf,bhlfd->bhld", query, products)
        norm = torch.einsum("bhlf,bhlf->bhl", query, totals)
        return mixed / norm[..., None], (products[:, :, -1], totals[:, :, -1])

    def _phi(self, inputs: Tensor) -> Tensor:
        inputs = inputs.clamp(-LIMIT, LIMIT)
        if self.features == "elu":
            if inputs.element_size() == 2:  # where 1 + (e^x - 1) would leave nothing of e^x
                return torch.where(inputs > 0, 1 + inputs, inputs.clamp(max=0).exp())
            return 1 + F.elu(inputs)
        return torch.cat([inputs.exp(), (-inputs).exp()], dim=-1)


class HeadwiseLinear(nn.Module):
    r"""A linear map for each head, :math:`W_a x / d^{1/4} + b_a`, near the identity at first.

    Args:
        heads: how many maps.
        size: d, of input and output.

    Example:
        >>> HeadwiseLinear(2, 3)(torch.zeros(5, 2, 7, 3)).shape
        torch.Size([5, 2, 7, 3])
    """

    def __init__(self, heads: int, size: int) -> None:
        """Make the weights; the noise follows from torch's current seed."""
        super().__init__()
        self.weight = nn.Parameter(torch.eye(size) + 0.02 * torch.randn(heads, size, size))
        self.bias = nn.Parameter(torch.zeros(heads, 1, size))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map vectors (B, heads, L, d)."""
        return inputs / inputs.shape[-1] ** 0.25 @ self.weight + self.bias


def linearized(model: Model, features: FeatureMap) -> Model:
    """Return a copy of a causal model with linear attention in place of each softmax attention.

    Only the feature maps are new; every other weight is copied. They are the parameters named
    ``....attention.scores....``.

    Args:
        model: has `kdlearn.models.layer.Attention` inside, causal, such as a `TinyTransformer`.
        features: the feature map, see `LinearScores`.

    Raises:
        ValueError: the model has no such attention, or one that is not causal or linear already.

    Example:
        >>> from kdlearn.models import TinyTransformer
        >>> student = linearized(TinyTransformer(), "hedgehog")
        >>> sum(p.numel() for n, p in student.named_parameters() if ".scores." in n)
        8448
    """
    student = copy.deepcopy(model)
    layers = [module for module in student.modules() if isinstance(module, Attention)]
    softmax = [isinstance(layer.scores, Scores) and layer.scores.causal for layer in layers]
    if not layers or not all(softmax):
        raise ValueError(
            f"{type(model).__name__} has {sum(softmax)} layers of causal softmax attention to "
            f"replace and {len(layers) - sum(softmax)} of another kind: pass a model made of "
            "kdlearn.models.layer.Layer(..., causal=True) alone, such as TinyTransformer, that "
            "is not linearized yet."
        )
    for layer in layers:
        size = layer.output.in_features // layer.heads
        layer.scores = LinearScores(layer.heads, size, features).to(layer.output.weight)
    return student
