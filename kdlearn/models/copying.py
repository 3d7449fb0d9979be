"""Start a student with some of its teacher's weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def copy_matching_weights(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Copy every weight and statistic that both models have under one name and in one shape.

    A student with fewer blocks in each group gets the first blocks, the stem and the classifier;
    a narrower one gets nothing, since no shape fits.

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
    theirs = teacher.state_dict()
    matching = {
        name: tensor
        for name, tensor in student.state_dict().items()
        if name in theirs and theirs[name].shape == tensor.shape
    }
    if not matching:
        raise ValueError(
            "student and teacher have no weight of the same name and shape, so there is nothing to "
            "copy: give the student the teacher's widths and fewer layers, or start it at random."
        )
    for name, tensor in matching.items():
        tensor.copy_(theirs[name])
    return list(matching)
