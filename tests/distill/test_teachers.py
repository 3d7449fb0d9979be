import pytest
import torch
from torch import nn

from kdlearn.distill.teachers import LiveTeacher, Outputs, TeacherOutputs, run


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))


def test_a_live_teacher_runs_in_eval_without_gradient():
    network = model().train()
    inputs = torch.randn(5, 4)
    teacher = LiveTeacher(network, ["0"])
    outputs = teacher.outputs(inputs)
    assert isinstance(teacher, TeacherOutputs)
    assert not network.training and not outputs.logits.requires_grad
    assert torch.equal(outputs.taps["0"], network[0](inputs))
    assert torch.equal(outputs.logits, teacher.outputs(inputs, torch.arange(5)).logits)
    assert network[1].num_batches_tracked == 0


def test_layers_that_are_not_recorded_are_named():
    teacher = LiveTeacher(model(), ["0", "0"])
    teacher.check(["0"])
    with pytest.raises(KeyError, match="'3' is not recorded"):
        teacher.check(["0", "3"])
    with pytest.raises(KeyError, match="no module 'first'"):
        LiveTeacher(model(), ["first"])


def test_nothing_is_sparse_and_nothing_tapped_unless_asked():
    outputs = run(nn.Linear(4, 3), None, torch.ones(2, 4))
    assert isinstance(outputs, Outputs) and outputs.taps == {} and outputs.sparse is None
