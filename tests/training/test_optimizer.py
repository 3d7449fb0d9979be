"""AdamW in one kernel: the numbers of the loop over weights, or the loop itself."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from kdlearn.training.optimizer import adamw


def descended(make, start: torch.Tensor) -> tuple[torch.Tensor, bool]:
    place = torch.empty_strided(start.shape, start.stride(), dtype=start.dtype)
    weight = nn.Parameter(place.copy_(start))
    optimizer = make([weight])
    goal = torch.arange(float(start.numel())).view(start.shape)
    for _ in range(5):
        optimizer.zero_grad()
        (weight - goal).abs().square().sum().backward()
        optimizer.step()
    return weight.detach(), bool(optimizer.defaults["fused"])


@pytest.mark.parametrize(
    ("start", "fused"),
    [
        (torch.ones(4, 3), True),
        (torch.ones(4, 3, dtype=torch.float64), True),
        (torch.ones(3, 4).t(), False),
        (torch.ones(4, 6)[:, ::2], False),
        (torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), False),
        (torch.ones(4, 3, dtype=torch.bfloat16), False),
        (torch.ones(4, 3, dtype=torch.complex64), False),
    ],
)
def test_weights_move_as_in_the_loop_however_they_lie_in_memory(start, fused):
    loop, _ = descended(lambda weights: AdamW(weights, 0.1, weight_decay=0.2), start)
    ours, was_fused = descended(lambda weights: adamw(weights, 0.1, weight_decay=0.2), start)
    assert was_fused == fused
    torch.testing.assert_close(ours, loop)
    assert not torch.equal(ours, start)


def test_frozen_weights_are_left_out():
    frozen, free = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(2))
    assert adamw([frozen, free]).param_groups[0]["params"] == [free]
