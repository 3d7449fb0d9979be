from functools import partial

import torch
import torch.nn.functional as F

from kdlearn.experiments.common import seeded
from kdlearn.experiments.lanes import Lanes
from kdlearn.models import SmallCNN


def train(starts, images, labels):
    """Ten steps; network g learns labels[g]. Return the networks."""
    lanes = Lanes(starts)
    optimizer = torch.optim.AdamW(lanes.parameters(), 3e-3)
    for _ in range(10):
        logits = lanes(images.expand(-1, len(starts), -1, -1))
        loss = sum(F.cross_entropy(own, told) for own, told in zip(logits, labels, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [lanes.lane(place).eval() for place in range(len(starts))]


def test_networks_side_by_side_learn_what_each_would_learn_alone():
    starts = [seeded(partial(SmallCNN, 4), seed) for seed in (1, 2)]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 1, 16, 16, generator=generator)
    labels = [torch.randint(10, (20,), generator=generator) for _ in starts]
    together = train(starts, images, labels)
    for start, told, network in zip(starts, labels, together, strict=True):
        (alone,) = train([start], images, [told])
        torch.testing.assert_close(network(images), alone(images), atol=1e-4, rtol=1e-3)
        assert not torch.allclose(network(images), start.eval()(images), atol=1e-2)


def test_a_network_taken_out_is_the_one_that_was_put_in():
    starts = [seeded(partial(SmallCNN, width=2), seed) for seed in (1, 2, 3)]
    images = torch.randn(6, 1, 16, 16)
    for start in starts:  # running statistics other than those of a new network
        start.train()(images)
    for place, start in enumerate(starts):
        out = Lanes(starts).lane(place).eval()
        torch.testing.assert_close(out(images), start.eval()(images))
