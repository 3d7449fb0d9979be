"""One number that makes a finished model say how sure it may be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    r"""Return the T that makes the labels most probable when logits are divided by it.

    .. math:: \max_T \sum_n \log \sigma(z^{(n)} / T)_{y^{(n)}}

    Dividing by it changes no prediction; T above 1 says that the model was too sure. Tried are
    1/20 to 20 in steps of 1 per cent.

    Args:
        logits: shape (N, C), of a split that is not reported on.
        labels: shape (N,).

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2
        ("temperature scaling").

    Example:
        >>> sure = torch.tensor([[8.0, 0.0]] * 4)  # 3 of 4 are right: odds of 3 would be honest
        >>> T = best_temperature(sure, torch.tensor([0, 0, 0, 1]))
        >>> round((8 / torch.tensor(T)).exp().item(), 1)
        3.0
    """
    candidates = 1.01 ** torch.arange(-301, 302, dtype=torch.float64)
    losses = [F.cross_entropy(logits.double() / t, labels).item() for t in candidates]
    return candidates[torch.tensor(losses).argmin()].item()
