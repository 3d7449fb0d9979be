from dataclasses import replace

import pytest
import torch

from kdlearn.data import balanced_subset
from kdlearn.experiments import capacity_gap
from kdlearn.experiments.capacity_gap import RECIPE, Method, train_students, train_teacher
from kdlearn.measure import predict

SHORT = replace(RECIPE, pool=192, images=64, teacher_epochs=2, student_epochs=3)
DATA = SHORT.make_data(0)
IMAGES = balanced_subset(DATA.train, SHORT.images, seed=0)


def test_a_path_has_a_network_for_each_pass_and_ends_with_the_finished_one():
    path = train_teacher(4, DATA.train, SHORT, seed=0)
    assert len(path) == SHORT.teacher_epochs
    once = train_teacher(4, DATA.train, replace(SHORT, teacher_epochs=1), seed=0)
    first, last = (predict(model, IMAGES.images) for model in path)
    assert not torch.allclose(first, last, atol=1e-2)
    assert len(once) == 1


def test_an_assistant_reads_no_label():
    answers = torch.randn(len(DATA.train), 10, generator=torch.Generator().manual_seed(0))
    wrong = replace(DATA.train, labels=(DATA.train.labels + 1) % 10)
    one, other = (train_teacher(4, d, SHORT, 0, answers)[-1] for d in (DATA.train, wrong))
    assert torch.equal(predict(one, IMAGES.images), predict(other, IMAGES.images))
    one, other = (train_teacher(4, d, SHORT, 0)[-1] for d in (DATA.train, wrong))
    assert not torch.equal(predict(one, IMAGES.images), predict(other, IMAGES.images))


def test_a_teacher_in_three_equal_parts_is_one_teacher():
    said = torch.randn(len(IMAGES), 10, generator=torch.Generator().manual_seed(0))
    methods = [Method("wide"), Method("in order"), Method("in order")]
    targets = [[said], [said] * 3, [said, -said, said]]
    whole, parts, turned = (
        predict(student, IMAGES.images)
        for student in train_students(targets, methods, IMAGES, SHORT, seed=0)
    )
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(whole, turned, atol=1e-3)


def test_the_mean_of_checkpoints_and_their_last_are_answers_of_different_teachers():
    names = ["labels", "KD, assistant 8", "KD, checkpoints in order", "KD, mean of checkpoints"]
    rows = {r["method"]: r for r in capacity_gap.run_seed(0, recipe=SHORT, methods=names)}
    assert list(rows) == ["teacher", *names]
    assert "teacher_accuracy" not in rows["labels"]
    in_order, mean = (rows[name] for name in names[2:])
    assert in_order["teacher_accuracy"] == pytest.approx(rows["teacher"]["accuracy"])
    assert mean["kl_seen"] != in_order["kl_seen"]
