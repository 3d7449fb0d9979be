"""A recipe that trains in a second, and networks and data such as a reader would bring along."""

import torch
from torch import nn

from kdlearn.data import Split, Splits

RECIPE = """
about = "small"

[data]
name = "warped-digits"
train = 300
validation = 50
test = 50
images = 60

[teacher]
model = "small-cnn"
width = 4

[student]
model = "small-cnn"
width = 2

[teacher_training]
epochs = 1
batch_size = 100

[training]
epochs = 2
augment = "shift"

[methods]
student = [{ loss = "labels" }]
KD = [{ loss = "labels", weight = 0.1 }, { loss = "soft_target_loss" }]
"KD+AT" = [
  { loss = "soft_target_loss" },
  { loss = "attention_transfer_loss", weight = 10, layers = ["group1"], options = { p = 4 } },
]

[published]
source = "nobody"
"KD+AT" = "12.3"
"""


class Everything(nn.Module):
    """A network with a layer of each kind that a loss may read."""

    def __init__(self, classes: int, hidden: int = 4) -> None:
        super().__init__()
        self.flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 2 * hidden * 4))
        self.features = nn.Unflatten(1, (2 * hidden, 2, 2))
        self.states = nn.Unflatten(1, (4, 2 * hidden))
        self.scores = nn.Unflatten(1, (2, 4, hidden))
        self.logits = nn.Linear(8 * hidden, classes)

    def forward(self, images):
        flat = self.flat(images)
        for layer in (self.features, self.states, self.scores):
            layer(flat)
        return self.logits(flat)


class Shared(Everything):
    """Uses one layer under two names."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.again = self.logits


class Normalized(Everything):
    """Has batch normalization, which cannot train on one image."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.flat.append(nn.BatchNorm1d(32))


class Stateful(Everything):
    """Has a number in its state_dict()."""

    def get_extra_state(self):
        return 3

    def set_extra_state(self, state):
        pass


def trained_teacher(classes: int) -> nn.Module:
    model = Everything(classes)
    with torch.no_grad():
        model.logits.bias.fill_(7.0)
    return model


def make_data(size: int = 40, *, seed: int) -> Splits:
    generator = torch.Generator().manual_seed(seed)

    def split(rows: int) -> Split:
        labels = torch.arange(rows) % 5
        return Split(torch.rand(rows, 1, 4, 4, generator=generator), labels, torch.arange(rows))

    return Splits(split(size), split(10), split(10))


OWN = """
[data]
name = "tests.recipes.small:make_data"

[teacher]
model = "tests.recipes.small:trained_teacher"

[student]
model = "tests.recipes.small:Everything"

[training]
epochs = 1

[methods]
KD = [{ loss = "soft_target_loss" }]
"""
