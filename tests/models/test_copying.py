import pytest
import torch

from kdlearn.models import SlimWRN, SmallCNN, copy_matching_weights


def test_a_shallower_student_gets_stem_first_blocks_and_classifier():
    student, teacher = SlimWRN((8, 16, 32), blocks=1), SlimWRN((8, 16, 32), blocks=2)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    copied = copy_matching_weights(student, teacher)
    assert set(copied) == set(student.state_dict())
    assert all(torch.equal(student.state_dict()[name], before[name]) for name in copied)


def test_the_copy_is_no_longer_tied_to_the_teacher():
    student, teacher = SmallCNN(4), SmallCNN(4)
    copy_matching_weights(student, teacher)
    with torch.no_grad():
        student.classifier.bias += 1
    assert torch.allclose(teacher.classifier.bias + 1, student.classifier.bias)


def test_running_statistics_are_copied_too():
    student, teacher = SmallCNN(4), SmallCNN(4)
    teacher(torch.rand(8, 1, 16, 16))
    copy_matching_weights(student, teacher)
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(student.eval()(images), teacher.eval()(images))


def test_other_shapes_stay_as_they_were():
    student, teacher = SmallCNN(4, classes=3), SmallCNN(4, classes=10)
    before = student.classifier.weight.clone()
    copied = copy_matching_weights(student, teacher)
    assert "group1.0.weight" in copied and "classifier.weight" not in copied
    assert torch.equal(student.classifier.weight, before)


def test_nothing_in_common_says_what_to_do():
    with pytest.raises(ValueError, match="the teacher's widths and fewer layers"):
        copy_matching_weights(torch.nn.Linear(2, 3), torch.nn.Linear(4, 5))


def test_a_narrower_student_is_refused_and_left_as_it_was():
    student, teacher = SlimWRN((4, 8, 16), blocks=1), SlimWRN((8, 16, 32), blocks=1)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(ValueError, match="nothing to copy"):
        copy_matching_weights(student, teacher)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4)),
        (torch.nn.BatchNorm1d(4, track_running_stats=False), torch.nn.BatchNorm1d(4)),
    ],
    ids=["a bias", "running statistics"],
)
def test_a_layer_of_which_one_side_has_more_is_left_as_it_was(ours, theirs):
    with torch.no_grad():
        ours.weight.fill_(1), theirs.weight.fill_(2)
    for student, teacher in ((ours, theirs), (theirs, ours)):
        before = student.weight.clone()
        student, teacher = (
            torch.nn.Sequential(layer, torch.nn.Linear(4, 2)) for layer in (student, teacher)
        )
        assert copy_matching_weights(student, teacher) == ["1.weight", "1.bias"]
        assert torch.equal(student[0].weight, before)
