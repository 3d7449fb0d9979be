"""Start a student with some of its teacher's weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def copy_matching_weights(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Copy every layer whose weights and statistics both models have, all in the same shapes.

    A student with fewer blocks in each group gets the first blocks, the stem and the classifier;
    a narrower one gets nothing. A layer is copied whole or not at all.

    Args:
        student: changed in place.
        teacher: left as it is.

    Returns:
        The names of what was copied.

    Raises:
        ValueError: nothing fits.

    Example:
        >>> teacher = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> student = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
        >>> copy_matching_weights(student, teacher)
        ['0.weight', '0.bias']
    """
    ours, theirs = student.state_dict(), teacher.state_dict()
    unlike = {
        name.rpartition(".")[0]
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or theirs[name].shape != ours[name].shape
    }
    matching = {
        name: tensor for name, tensor in ours.items() if name.rpartition(".")[0] not in unlike
    }
    if not matching:
        raise ValueError(
            "student and teacher have no weight of the same name and shape, so there is nothing to "
            "copy: give the student the teacher's widths and fewer layers, or start it at random."
        )
    for name, tensor in matching.items():
        tensor.copy_(theirs[name])
    return list(matching)
