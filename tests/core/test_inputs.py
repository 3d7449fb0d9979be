"""Named inputs and outputs of any kind, through every door of the package."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from kdlearn.core.inputs import (
    buffers_kept,
    call,
    count,
    evaluating,
    join,
    map_tensors,
    run,
    take,
    tensors_in,
)
from kdlearn.data import FixedCopies, RandomShift
from kdlearn.distill import Distiller, label_term, logit_term
from kdlearn.losses import soft_target_loss
from kdlearn.measure.metrics import predict
from kdlearn.store import cache_teacher
from kdlearn.training.engine import Engine
from kdlearn.training.fit import fit


class Named(nn.Module):
    """Takes and returns names, as Hugging Face models do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 4)

    def forward(self, values: Tensor, mask: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(logits=self.body(values * mask), states=values)


class Plain(nn.Module):
    """The same model of one tensor: values and mask side by side."""

    def __init__(self, body: nn.Linear) -> None:
        super().__init__()
        self.body = body

    def forward(self, both: Tensor) -> Tensor:
        return self.body(both[:, :6] * both[:, 6:])


def data(samples: int = 32) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(samples, 6, generator=generator)
    mask = (torch.rand(samples, 6, generator=generator) > 0.3).float()
    return {"values": values, "mask": mask}, torch.arange(samples) % 4


@pytest.mark.parametrize("engine", [Engine(), Engine(accumulate=2)], ids=["plain", "accumulate"])
@pytest.mark.parametrize("stored", [False, True], ids=["live", "stored"])
def test_named_inputs_train_to_the_weights_that_one_tensor_gives(engine, stored, tmp_path):
    inputs, labels = data()
    both = torch.cat([inputs["values"], inputs["mask"]], dim=1)
    student, teacher = Named(), Named()
    plain, plain_teacher = Plain(nn.Linear(6, 4)), Plain(teacher.body)
    plain.body.load_state_dict(student.body.state_dict())

    def trained(student, teacher, inputs, folder):
        source = cache_teacher(teacher, inputs, folder, shard_rows=10, progress=False)
        terms = [label_term(), logit_term("soft", soft_target_loss)]
        model = Distiller(student, source if stored else teacher, terms)
        fit(model, (inputs, labels), epochs=2, batch_size=8, engine=engine, progress=False)
        return predict(student, inputs, batch_size=5)

    named = trained(student, teacher, inputs, tmp_path / "named")
    torch.testing.assert_close(
        named, trained(plain, plain_teacher, both, tmp_path / "plain"), rtol=0, atol=0
    )


def test_a_stored_teacher_of_named_inputs_refuses_the_same_tensors_under_swapped_names(tmp_path):
    inputs, labels = data()
    stored = cache_teacher(Named(), inputs, tmp_path, progress=False)
    swapped = {"values": inputs["mask"], "mask": inputs["values"]}
    model = Distiller(Named(), stored, [logit_term("soft", soft_target_loss)])
    with pytest.raises(ValueError, match="saw other samples"):
        fit(model, (swapped, labels), epochs=1, progress=False)


def test_fixed_copies_of_named_inputs_are_refused(tmp_path):
    copies = FixedCopies(RandomShift(1), seeds=[0, 1])
    with pytest.raises(ValueError, match="one tensor of images"):
        cache_teacher(Named(), data()[0], tmp_path, copies=copies, progress=False)
    assert not any(tmp_path.glob("*.safetensors"))


def test_logits_are_found_as_tensor_entry_or_attribute():
    class Returns(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.wrap = wrap

        def forward(self, inputs):
            return self.wrap(inputs)

    logits = torch.randn(2, 3)
    for wrap in (
        lambda z: z,
        lambda z: {"loss": None, "logits": z},
        lambda z: SimpleNamespace(logits=z),
    ):
        assert call(Returns(wrap), logits) is logits
    with pytest.raises(TypeError, match="dict with last_hidden_state.*model with a head"):
        call(Returns(lambda z: {"last_hidden_state": z}), logits)
    with pytest.raises(TypeError, match="returns a tuple: expected logits"):
        call(Returns(lambda z: (z, z)), logits)


def test_named_inputs_are_counted_cut_and_joined():
    inputs = UserDict(data(7)[0])
    assert count(inputs) == 7
    pieces = [take(inputs, slice(0, 3)), take(inputs, torch.arange(3, 7))]
    again = join(pieces)
    assert all(torch.equal(again[name], inputs[name]) for name in inputs)


def test_rows_are_taken_of_tensors_on_whatever_device():
    with FakeTensorMode():  # which knows devices that are not here
        taken = take({"ids": torch.zeros(3, 2, device="cuda"), "x": torch.ones(3)}, torch.arange(2))
    assert [(x.device.type, tuple(x.shape)) for x in taken.values()] == [
        ("cuda", (2, 2)),
        ("cpu", (2,)),
    ]


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"a": torch.ones(2), "b": torch.ones(3)}, ValueError, "lengths {'a': 2, 'b': 3}"),
        ({}, ValueError, "expected one length"),
        ({"a": [1, 2]}, TypeError, "'a' are no tensors.*return_tensors='pt'"),
    ],
)
def test_named_inputs_of_no_common_length_or_no_tensors_are_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        fit(nn.Linear(2, 2), (inputs, torch.zeros(2).long()), epochs=1, progress=False)


def test_a_model_has_its_modes_again_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval(), nn.Linear(2, 2))
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before


def test_a_run_gives_the_whole_output():
    class Two(nn.Module):
        def forward(self, left, right):
            return left, right

    left, right = torch.zeros(1), torch.ones(1)
    assert run(Two(), {"right": right, "left": left}) == (left, right)


@pytest.mark.parametrize("named", [False, True])
def test_a_model_that_changes_its_inputs_is_told(named):
    class Halved(nn.Module):
        def forward(self, pixels):
            return pixels.mul_(0.5)

    pixels = torch.ones(2, 3)
    with pytest.raises(ValueError, match="Halved changes its inputs in place"):
        run(Halved(), {"pixels": pixels} if named else pixels)
    with torch.inference_mode():
        assert run(nn.Identity(), torch.ones(2, 3)).sum() == 6


def test_what_is_no_tensor_cannot_be_counted():
    with pytest.raises(TypeError, match="the inputs are a list: expected a tensor"):
        count([1, 2])
    for one in (torch.tensor(1.0), {"pixels": torch.tensor(1.0)}):
        with pytest.raises(ValueError, match="hold one number: expected a dimension of samples"):
            count(one)


def test_statistics_come_back_after_an_error():
    model = nn.BatchNorm1d(2)
    with pytest.raises(KeyError), buffers_kept(model):
        model(torch.randn(4, 2))
        raise KeyError
    assert model.num_batches_tracked == 0 and not model.running_mean.any()


class Registers(nn.Module):
    """Makes a buffer in its first forward, and puts another in the place of one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("wide", torch.ones(1).expand(3))

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "first"):
            self.register_buffer("first", x.detach()[0])
        self.seen = self.seen + 1
        return self.layer(x) * self.wide


def test_buffers_go_back_to_those_that_were_there():
    model = Registers()
    before = dict(model.named_buffers())
    with buffers_kept(model):
        model(torch.ones(2, 3))
        assert model.seen == 1 and set(before) < set(dict(model.named_buffers()))
    after = dict(model.named_buffers())
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    assert model.seen == 0
    fit(model, (torch.randn(8, 3), torch.arange(8) % 3), epochs=1, batch_size=4, progress=False)
    assert model.seen == 2


@dataclass(frozen=True)
class States:
    hidden: Tensor
    scores: Tensor | None = None
    note: str = "kept"


def test_tensors_of_a_dataclass_are_seen_and_changed():
    value = {"a": States(torch.ones(2), None), "b": [States(torch.zeros(2), torch.ones(1), "own")]}
    assert len(tensors_in(value)) == 3
    changed = map_tensors(lambda one, other: one + other, value, value)
    assert torch.equal(changed["a"].hidden, torch.full((2,), 2.0))
    assert changed["b"][0].scores.item() == 2 and changed["b"][0].note == "own"
    assert value["a"].hidden.sum() == 2


class EncoderDecoder(nn.Module):
    """Makes inputs of the decoder by itself where none are given, as BART does."""

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        return labels.roll(1, 1)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor | None = None) -> Tensor:
        read = input_ids if decoder_input_ids is None else decoder_input_ids
        return nn.functional.one_hot(read, 5).float()


def test_a_decoder_without_inputs_of_its_own_is_refused():
    model, tokens = EncoderDecoder(), torch.randint(5, (2, 4))
    with pytest.raises(ValueError, match="EncoderDecoder has a decoder and gets no decoder_input"):
        run(model, {"input_ids": tokens})
    shifted = model.prepare_decoder_input_ids_from_labels(tokens)
    said = run(model, {"input_ids": tokens, "decoder_input_ids": shifted})
    assert torch.equal(said.argmax(-1), shifted)


def test_a_field_that_is_not_there_yet_is_left_out():
    @dataclass
    class Late:
        now: Tensor
        later: Tensor = field(init=False)

    assert map_tensors(lambda tensor: tensor + 1, Late(torch.zeros(1))).now.item() == 1
