from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdlearn.data import Split, Splits
from kdlearn.experiments import silent_failures
from kdlearn.experiments.common import Bench
from kdlearn.experiments.feature_losses import RECIPE
from kdlearn.experiments.shortcut import network
from kdlearn.experiments.silent_failures import METHODS, Step
from kdlearn.losses import attention_transfer_loss, soft_target_loss
from kdlearn.measure import predict

RECIPE = replace(RECIPE, images=8, copies=2, soft_targets=0.5)


@pytest.fixture
def step():
    torch.manual_seed(0)
    digits, labels = torch.rand(8, 1, 28, 28), torch.arange(8)
    noise = 0.05 * torch.randn(16, 1, 28, 28)
    boxes = torch.tensor([[0.25, 0.0, 0.75, 0.5]]).expand(16, 4)
    shown = Split(digits.repeat(2, 1, 1, 1) + noise, labels.repeat(2), labels.repeat(2), boxes)
    teacher = network(RECIPE.teacher)
    teacher(shown.images)  # statistics that are not those of a new network
    teacher.classifier.weight.data *= 20  # and answers that differ
    stored = predict(teacher.eval(), shown.images)
    return Step(network(RECIPE.student).eval(), teacher, shown, stored, torch.arange(4), RECIPE)


def loss(name, step):
    return METHODS[name].loss(step)


def soft(name, step):
    labels = loss("labels", step)
    return 2 * loss(name, step) - labels


def test_the_right_run_is_half_labels_and_half_soft_targets(step):
    own = step.student(step.images)
    expected = F.cross_entropy(own, torch.arange(4)) + soft_target_loss(own, step.stored[:4])
    torch.testing.assert_close(2 * loss("KD", step), expected)


def test_the_divergence_is_too_small_by_the_classes_or_by_the_square_of_the_temperature(step):
    torch.testing.assert_close(10 * soft("mean reduction", step), soft("KD", step))
    torch.testing.assert_close(16 * soft("factor missing", step), soft("KD", step))


def test_half_precision_gives_the_divergence_up_to_its_rounding(step):
    assert soft("float16 softmax", step) != soft("KD", step)
    # Ten rounded logarithms and probabilities, times the square of the temperature.
    torch.testing.assert_close(soft("float16 softmax", step), soft("KD", step), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    "name",
    [
        "another crop",
        "cache off by one row",
        "other class order",
        "other preprocessing",
        "untrained head",
        "teacher in train()",
    ],
)
def test_a_wrong_target_is_another_loss_with_a_gradient_of_the_student_alone(name, step):
    assert abs(loss(name, step) - loss("KD", step)) > 1e-5
    loss(name, step).backward()
    assert all(p.grad is not None for p in step.student.parameters())
    assert all(p.grad is None for p in step.teacher.parameters())


def test_another_crop_is_of_the_same_digit(step, monkeypatch):
    asked = []
    monkeypatch.setattr(Step, "learn", lambda self, said: asked.append(said) or said.sum())
    loss("another crop", step)
    (said,) = asked
    torch.testing.assert_close(said, step.stored[8:12])
    assert torch.equal(step.shown.labels[8:12], step.shown.labels[:4])


def test_only_a_teacher_that_learns_too_gets_a_gradient_and_its_loss_is_the_right_one(step):
    torch.testing.assert_close(loss("teacher learns too", step), loss("KD", step))
    loss("teacher learns too", step).backward()
    assert all(p.grad is not None for p in step.teacher.parameters())


def test_a_teacher_in_training_mode_changes_its_own_statistics(step):
    before = deepcopy(step.teacher.state_dict())
    loss("KD", step)
    assert all(torch.equal(step.teacher.state_dict()[key], before[key]) for key in before)
    loss("teacher in train()", step)
    mean = "group1.1.running_mean"
    assert not torch.equal(step.teacher.state_dict()[mean], before[mean])


def test_a_map_in_the_true_box_has_no_attention_loss(step, monkeypatch):
    seen = []

    def compared(student, teacher):
        seen.append(teacher)
        return attention_transfer_loss(student, teacher)

    monkeypatch.setattr(silent_failures, "attention_transfer_loss", compared)
    loss("AT, true box", step)
    box = seen[0][0, 0]
    rows, columns = (box.sum(dim) > 0 for dim in (1, 0))
    # Centers of seven cells that lie in 0 to 0.5, and in 0.25 to 0.75.
    assert rows.tolist() == [True] * 4 + [False] * 3
    assert columns.tolist() == [False] * 2 + [True] * 3 + [False] * 2


def test_a_hundred_times_the_weight_is_a_hundred_times_the_loss(step):
    labels = loss("labels", step)
    right, strong = loss("AT", step) - labels, loss("AT, 100 x weight", step) - labels
    torch.testing.assert_close(strong, 100 * right, rtol=1e-3, atol=1e-5)


def test_training_leaves_the_teacher_of_the_others_as_it_was(step):
    recipe, data = replace(RECIPE, batch_size=8, student_epochs=1), Splits(*(3 * [step.shown]))
    bench = Bench(0, recipe, data, step.shown, step.teacher, step.shown, step.stored)
    before = deepcopy(step.teacher.state_dict())
    for name in ("teacher learns too", "teacher in train()", "MLP: KD"):
        student = silent_failures.train_student(bench, step.stored, METHODS[name])
        assert predict(student, step.shown.images).isfinite().all()
    assert all(torch.equal(step.teacher.state_dict()[key], before[key]) for key in before)
