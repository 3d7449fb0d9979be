import torch

from kdlearn.experiments.which_teacher import pruned
from kdlearn.models import SmallCNN


def test_pruning_away_dead_channels_changes_nothing():
    teacher = SmallCNN(8).eval()
    kept = {"group1": 4, "group2": 8, "group3": 16}
    for name, count in kept.items():  # the second half of all channels is dead
        group = getattr(teacher, name)
        group[0].weight.data[count:] = 0
        group[1].weight.data[count:] = 0
        group[1].bias.data[count:] = 0
    images = torch.rand(5, 1, 16, 16)
    torch.testing.assert_close(pruned(teacher, 4).eval()(images), teacher(images))
    assert not torch.allclose(SmallCNN(4).eval()(images), teacher(images), atol=1e-3)
