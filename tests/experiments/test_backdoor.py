import copy
from dataclasses import replace

import torch

from kdlearn.data import Split, mnist5k
from kdlearn.experiments import backdoor
from kdlearn.experiments.backdoor import RECIPE, Method, attack_success, poison, with_trigger
from kdlearn.models import SmallCNN


class Square(torch.nn.Module):
    """Says 0 where the corner is white, and 1 elsewhere."""

    def forward(self, images):
        white = (images[:, 0, 24:27, 24:27] == 1).all((1, 2)).float()
        return torch.stack([white, 1 - white], dim=1)


def test_only_the_drawn_share_is_marked_and_it_is_called_zero():
    data = mnist5k(train=200).train
    bad = poison(data, 0.1, seed=0)
    changed = (bad.images != data.images).flatten(1).any(1)
    assert changed.sum() == 20 and (bad.labels[changed] == 0).all()
    assert torch.equal(bad.labels[~changed], data.labels[~changed])
    assert torch.equal(bad.images[changed], with_trigger(data.images[changed]))


def test_an_attack_counts_marked_images_of_other_classes_alone():
    labels = torch.tensor([0, 1, 1, 1])
    black = Split(torch.zeros(4, 1, 28, 28), labels, torch.arange(4))
    assert attack_success(Square(), black) == 100
    zeros = Split(black.images, 0 * labels, black.base)
    always = poison(zeros, 1.0, seed=0)
    assert torch.equal(always.labels, zeros.labels)


def test_with_the_weight_zero_and_two_stages_the_network_is_only_tuned_for_longer():
    victim = SmallCNN(2).eval()
    before = copy.deepcopy(victim.state_dict())
    clean = mnist5k(train=20).train
    short = replace(RECIPE, stage=1, batch_size=10)
    once, twice, nad = (
        backdoor.defended(victim, clean, method, short, seed=0)
        for method in (Method(stages=1), Method(stages=2), Method(weight=1000.0))
    )
    assert all(torch.equal(before[name], now) for name, now in victim.state_dict().items())
    weights = [model.classifier.weight for model in (once, twice, nad)]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    steps = [model.group1[1].num_batches_tracked.item() for model in (victim, once, twice, nad)]
    assert steps == [0, 2, 4, 2]


def test_each_defense_has_its_row():
    short = replace(RECIPE, pool=200, clean=50, width=2, epochs=1, stage=1)
    name = "NAD, weight 1000, rate 0.01"
    rows = list(backdoor.run_seed(0, recipe=short, methods=[name]))
    assert [row["method"] for row in rows] == ["teacher", name]
