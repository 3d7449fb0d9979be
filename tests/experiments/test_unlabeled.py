from dataclasses import dataclass, replace

import torch

from kdlearn.data import Splits
from kdlearn.experiments import unlabeled
from kdlearn.experiments.unlabeled import METHODS, Recipe


@dataclass(frozen=True)
class Mislabeled(Recipe):
    """The labels of the unlabeled signals are wrong on purpose."""

    def make_data(self, seed: int) -> Splits:
        data = super().make_data(seed)
        labels = data.train.labels.clone()
        labels[self.images :] = (labels[self.images :] + 1) % 10
        return replace(data, train=replace(data.train, labels=labels))


SHORT = {"images": 60, "unlabeled": 100, "hidden": 8, "channels": 2}
STEPS = {"teacher_steps": 5, "student_steps": 5, "batch_size": 10}


def test_the_labels_of_the_unlabeled_signals_are_read_by_one_method_alone():
    right, wrong = (
        {row["method"]: row for row in unlabeled.run_seed(0, recipe=make(**SHORT, **STEPS))}
        for make in (Recipe, Mislabeled)
    )
    assert list(right) == ["teacher", *METHODS]
    assert {name for name in right if right[name] != wrong[name]} == {"labels for all"}


def test_a_teacher_that_knows_the_labels_teaches_what_they_teach():
    signals, labels = torch.randn(50, 1, 40), torch.arange(50) % 10
    sure = 1e4 * torch.nn.functional.one_hot(labels, 10).float()
    recipe = Recipe(**SHORT, **STEPS)
    students = [unlabeled.seeded(lambda: unlabeled.fully_connected(8), 0) for _ in range(2)]
    how = {"recipe": recipe, "steps": 5, "seed": 0}
    unlabeled.learn(students[0], signals, labels, **how)
    loss = unlabeled.partial(unlabeled.soft_target_loss, temperature=1.0)
    unlabeled.learn(students[1], signals, sure, loss=loss, **how)
    for one, other in zip(students[0].parameters(), students[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
