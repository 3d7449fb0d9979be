import copy

import pytest
import torch
from torch import nn

from kdlearn.data import Batch, Samples
from kdlearn.distill import LiveTeacher, TeacherOutputs, Want
from kdlearn.distill.teachers import NoTeacher, same_teacher
from kdlearn.store import AttentionMap, TopK


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))


def test_a_live_teacher_runs_in_eval_without_gradient():
    network = model().train()
    batch = Batch(torch.randn(5, 4))
    teacher = LiveTeacher(network, [Want("0")])
    outputs = teacher.outputs(batch)
    assert isinstance(teacher, TeacherOutputs)
    assert not network.training and not outputs.logits.requires_grad
    assert torch.equal(outputs.taps["0"], network[0](batch.inputs))
    assert network[1].num_batches_tracked == 0


def test_what_is_not_recorded_is_named():
    teacher = LiveTeacher(model(), [Want("0"), Want("0")])
    teacher.check([Want("0")])
    with pytest.raises(KeyError, match="3 is not recorded"):
        teacher.check([Want("0"), Want("3")])
    with pytest.raises(KeyError, match=r"0 as TopK\(k=2\) is not recorded"):
        teacher.check([Want("0", TopK(2))])
    with pytest.raises(KeyError, match="no module 'first'"):
        LiveTeacher(model(), [Want("first")])


def test_a_layer_may_be_wanted_whole_and_in_two_kinds():
    features = torch.rand(2, 3, 4, 4)
    wants = [Want("0"), Want("0", AttentionMap(p=2)), Want("0", AttentionMap(p=4))]
    outputs = LiveTeacher(nn.Sequential(nn.Identity()), wants).outputs(Batch(features))
    assert torch.equal(outputs.taps["0"], features)
    for want in wants[1:]:
        assert torch.equal(outputs.kept[want], want.keep.reduce(features))


def test_no_teacher_is_enough_only_where_none_is_read():
    NoTeacher().check([])
    with pytest.raises(KeyError, match="a term reads its group1: pass a teacher"):
        NoTeacher().check([Want("group1")])


def test_a_teacher_in_another_precision_answers_in_float32():
    network, batch = model().eval(), Batch(torch.randn(5, 4))
    exact = LiveTeacher(network).outputs(batch).logits
    rounded = LiveTeacher(copy.deepcopy(network).to(torch.bfloat16)).outputs(batch).logits
    double = LiveTeacher(copy.deepcopy(network).double()).outputs(batch).logits
    assert rounded.dtype == torch.float32 and double.dtype == torch.float64
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    torch.testing.assert_close(double.float(), exact)


def test_a_teacher_under_inference_mode_can_be_learned_from():
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        @torch.inference_mode()
        def forward(self, x):
            return self.layer(x)

    answers = LiveTeacher(Frozen(), [Want("layer")]).outputs(Batch(torch.randn(2, 4)))
    weight = torch.ones(3, requires_grad=True)
    (answers.logits * weight + answers.taps["layer"] * weight).sum().backward()
    assert torch.isfinite(weight.grad).all()


def test_a_teacher_may_see_the_inputs_in_its_own_way():
    seen = LiveTeacher(nn.Identity(), adapt=lambda images: 2 * images).outputs(Batch(torch.ones(2)))
    assert torch.equal(seen.logits, 2 * torch.ones(2))
    assert torch.equal(seen.batch.inputs, torch.ones(2))


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.factor = nn.Linear(4, 3), factor

    def forward(self, x):
        return self.factor * self.layer(x)


def test_a_teacher_that_changes_what_the_student_sees_next_is_told():
    batch = Batch(torch.randn(5, 4))
    with pytest.raises(ValueError, match="Sequential changes its inputs in place"):
        LiveTeacher(nn.Sequential(nn.ReLU(inplace=True), model())).outputs(batch)
    with pytest.raises(ValueError, match="teacher_input changes its inputs in place"):
        LiveTeacher(model(), adapt=lambda inputs: inputs.mul_(2)).outputs(batch)


def test_the_same_weights_with_another_forward_are_another_teacher():
    samples = Samples.of(torch.randn(10, 4))
    one, again, other = (LiveTeacher(Scaled(f)).identity(samples) for f in (1.0, 1.0, -9.0))
    assert one["weights"] == other["weights"]
    assert same_teacher(one, again) and not same_teacher(one, other)


class Normalized(nn.Module):
    """A layer that is scaled, and a head that does not care about the scale."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.norm = Scaled(factor), nn.LayerNorm(3, eps=0.0)

    def forward(self, x):
        return self.norm(self.body(x))


def test_what_moves_a_recorded_layer_alone_is_another_teacher():
    samples = Samples.of(torch.randn(10, 4))
    for wants, is_told in (((), False), ((Want("body"),), True)):
        one, again, other = (
            LiveTeacher(Normalized(f), wants).identity(samples) for f in (1.0, 1.0, 2.0)
        )
        assert same_teacher(one, again)
        assert same_teacher(one, other) is not is_told
    assert same_teacher(one, LiveTeacher(Normalized(1.0)).identity(samples))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_answers_of_any_size_may_differ_by_rounding_and_by_no_more(scale: float):
    def identity(change: float) -> dict:
        layer = [scale * value for value in (3.0, change, -1.0)]
        return {"weights": "a", "answers": layer, "layers": {"body": [layer]}}

    assert same_teacher(identity(0.5), identity(0.5 + 2e-5))
    assert not same_teacher(identity(0.5), identity(0.51))


def test_what_a_mask_stands_for_hides_no_change():
    one, other = ({"layers": {"scores": [[first, -1e9]]}} for first in (1.0, 1.1))
    assert not same_teacher(one, other)
