import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

from kdlearn.distill import Distiller, label_term, layer_term, logit_term
from kdlearn.losses import soft_target_loss
from kdlearn.training import optimizer
from kdlearn.training.engine import Engine
from kdlearn.training.fit import History, fit


def blobs(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centers = 3 * torch.eye(3)[labels]
    return centers + torch.randn(count, 3, generator=generator), labels


def network(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
    )


TRAIN, HELD_OUT = blobs(90, 1), blobs(60, 2)


def test_a_plain_student_learns_its_task():
    history = fit(network(), TRAIN, validation=HELD_OUT, epochs=20, progress=False)
    assert history.epochs[0]["loss"] > history.epochs[-1]["loss"]
    assert history.epochs[-1]["validation_accuracy"] > 0.85
    assert [row["epoch"] for row in history.epochs] == list(range(1, 21))


def test_a_distiller_trains_its_student_toward_the_teacher():
    teacher, student = network(1), network(2)
    fit(teacher, TRAIN, epochs=20, progress=False)
    before = copy.deepcopy(teacher.state_dict())
    distiller = Distiller(
        student, teacher, [label_term(0.1), logit_term("soft", soft_target_loss, 0.9)]
    )
    history = fit(distiller, TRAIN, validation=HELD_OUT, epochs=60, progress=False)
    first, last = history.epochs[0], history.epochs[-1]
    assert list(first["parts"]) == ["labels", "soft"]
    assert math.isclose(last["loss"], sum(last["parts"].values()))
    assert last["parts"]["soft"] < 0.2 * first["parts"]["soft"]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not student.training


def test_one_step_is_plain_gradient_descent_on_the_mean_cross_entropy():
    torch.manual_seed(0)
    student = nn.Linear(3, 3)
    reference = copy.deepcopy(student)
    F.cross_entropy(reference(TRAIN[0]), TRAIN[1]).backward()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    fit(student, TRAIN, epochs=1, batch_size=90, optimizer=optimizer, progress=False)
    for p, q in zip(student.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, q - 0.5 * q.grad, atol=1e-6)


def test_the_same_seed_gives_the_same_numbers_bit_for_bit():
    def noise(images, generator):
        return images + torch.randn(images.shape, generator=generator)

    def run(seed):
        student = network(dropout=0.3)
        fit(student, TRAIN, epochs=3, augment=noise, seed=seed, progress=False)
        return student.state_dict()

    first, again, other = run(4), run(4), run(5)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_the_random_state_outside_is_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    student = network(dropout=0.3)
    torch.manual_seed(7)
    fit(student, TRAIN, epochs=1, progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_batches_differ_in_size_by_one_at_most_and_cover_every_image_once():
    seen = []

    def watch(images, generator):
        seen.append(images[:, 0])
        return images

    images = torch.arange(130.0).unsqueeze(1).repeat(1, 3)
    labels = torch.zeros(130, dtype=torch.long)
    fit(nn.Linear(3, 2), (images, labels), epochs=1, augment=watch, progress=False)
    tried, *batches = seen
    assert len(tried) == 2 and sorted(map(len, batches)) == [43, 43, 44]
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(130.0))
    assert not torch.equal(torch.cat(batches), torch.arange(130.0))


def test_student_and_teacher_see_the_same_augmented_images():
    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = nn.Linear(3, 3), []

        def forward(self, x):
            self.seen.append(x)
            return self.layer(x)

    student, teacher = Recorder(), Recorder()
    distiller = Distiller(student, teacher, [logit_term("soft", soft_target_loss)])
    fit(
        distiller,
        TRAIN,
        epochs=1,
        augment=lambda images, generator: images + torch.randn(images.shape, generator=generator),
        progress=False,
    )
    assert all(map(torch.equal, student.seen, teacher.seen))
    assert not any(torch.equal(x, TRAIN[0]) for x in student.seen)


def test_the_default_schedule_ends_near_zero():
    rates = []

    class Watched(AdamW):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizer, "AdamW", Watched)
        fit(network(), TRAIN, epochs=4, batch_size=30, learning_rate=0.1, progress=False)
    assert len(rates) == 12 and max(rates) == pytest.approx(0.1, rel=0.01)
    assert rates[0] < 0.01 and rates[-1] < 1e-4


def test_a_given_optimizer_keeps_its_rate_or_has_its_own_schedule():
    student = network()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    fit(student, TRAIN, epochs=2, optimizer=optimizer, progress=False)
    assert optimizer.param_groups[0]["lr"] == 0.1
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    fit(
        student,
        TRAIN,
        epochs=2,
        batch_size=30,
        optimizer=optimizer,
        scheduler=scheduler,
        progress=False,
    )
    assert math.isclose(optimizer.param_groups[0]["lr"], 0.1 * 0.5**6)


def test_a_data_loader_and_an_object_with_images_and_labels_serve_as_data():
    class Labeled:
        images, labels = TRAIN

    loader = DataLoader(TensorDataset(*TRAIN), batch_size=30, shuffle=True)
    for data in (loader, Labeled()):
        history = fit(
            network(), data, validation=data, epochs=10, learning_rate=1e-2, progress=False
        )
        assert history.epochs[-1]["validation_accuracy"] > 0.8


def test_a_broken_loss_names_term_epoch_and_step_and_takes_no_step():
    calls = []

    def breaks(student, teacher):
        calls.append(1)
        return student.sum() * (math.nan if len(calls) == 6 else 0.0)

    student = network()
    distiller = Distiller(student, network(1), [label_term(), logit_term("odd", breaks)])
    with pytest.raises(
        FloatingPointError, match="epoch 2, step 2: term 'odd' is nan. The step was not"
    ):
        fit(distiller, TRAIN, epochs=2, batch_size=30, progress=False)
    assert all(torch.isfinite(p).all() for p in student.parameters())


class Breaks:
    """Anything that is called, but fails at one call."""

    def __init__(self, inner, call: int) -> None:
        self.inner, self.calls_left = inner, call

    def __call__(self, *arguments, **named):
        self.calls_left -= 1
        if self.calls_left == 0:
            raise RuntimeError("something broke")
        return self.inner(*arguments, **named)


def notes_of(model: nn.Module, call: int, **settings) -> list[str]:
    """What is noted on the error of a training in 3 steps an epoch."""
    with pytest.raises(RuntimeError, match="something broke") as caught:
        fit(model, TRAIN, epochs=2, batch_size=30, progress=False, **settings)
    return caught.value.__notes__


# The first call of each is the trial, so the sixth is in the fifth step.
@pytest.mark.parametrize(
    ("call", "place"),
    [(1, "in a trial on two samples, before the first step"), (6, "epoch 2, step 2")],
)
def test_an_error_in_a_loss_a_model_or_the_data_says_where(call, place):
    soft = logit_term("soft", Breaks(soft_target_loss, call))
    assert notes_of(Distiller(network(1), network(2), [soft]), call) == ["in term 'soft'", place]
    student = network()
    student[0].forward = Breaks(student[0].forward, call)
    assert notes_of(student, call) == ["in the forward pass of Sequential", place]
    augment = Breaks(lambda images, generator: images, call)
    assert notes_of(network(), call, augment=augment) == [place]


def test_an_error_in_a_metric_says_after_which_epoch():
    metric = Breaks(lambda logits, labels: 0.5, 3)
    notes = notes_of(network(), 3, validation=HELD_OUT, metric=metric)
    assert notes == ["epoch 2, after the last step"]


@pytest.mark.parametrize("layout", ["rows", "columns", "gaps"])
def test_a_fused_optimizer_steps_as_the_loop_or_is_refused(layout):
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            start = torch.randn(3, 4)
            held = {"rows": start, "columns": start.T.clone().T, "gaps": torch.zeros(3, 8)[:, ::2]}
            self.weight = nn.Parameter(held[layout].copy_(start))

        def forward(self, inputs):
            return inputs @ self.weight.T

    def trained(fused):
        model, data = Linear(), (torch.eye(4), torch.arange(4) % 3)
        optimizer = torch.optim.AdamW(model.parameters(), 0.1, fused=fused)
        fit(model, data, optimizer=optimizer, epochs=3, batch_size=2, progress=False)
        return model.weight.detach()

    by_loop = trained(fused=False)
    if layout == "gaps":
        with pytest.raises(ValueError, match="fused and 'weight' is a view with gaps in memory"):
            trained(fused=True)
    else:
        torch.testing.assert_close(trained(fused=True), by_loop)


def test_a_forgotten_projector_and_a_teacher_in_the_optimizer_are_refused():
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(16, 16)

        def forward(self, student, teacher):
            return F.mse_loss(self.project(student), teacher)

    student, teacher = network(1), network(2)
    distiller = Distiller(student, teacher, [layer_term("hint", Projected(), ["2"])])
    lacking = torch.optim.SGD(student.parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"lacks 2 trainable parameters.*projectors\.hint\.project\.weight"
    ):
        fit(distiller, TRAIN, optimizer=lacking, progress=False)
    too_many = torch.optim.SGD([*distiller.parameters(), *teacher.parameters()], lr=0.1)
    with pytest.raises(
        ValueError, match="holds 6 parameters that are not the model's, such as the teacher's"
    ):
        fit(distiller, TRAIN, optimizer=too_many, progress=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, "epochs is 0: expected a whole number >= 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: expected a finite number > 0"),
        ({"train": (TRAIN[0], TRAIN[1][:5])}, r"train: 90 samples and labels of shape \(5,\)"),
        ({"train": (TRAIN[0][:0], TRAIN[1][:0])}, "train is empty"),
        ({"train": []}, "train has no batch"),
        ({"train": 3}, r"train is a int: expected \(inputs, labels\)"),
        (
            {"validation": (TRAIN[0], TRAIN[1][:5])},
            r"validation: 90 samples and labels of shape \(5,\)",
        ),
    ],
)
def test_bad_input_says_what_was_expected(change, says):
    arguments = {"train": TRAIN, "progress": False} | change
    with pytest.raises((TypeError, ValueError), match=says):
        fit(network(), arguments.pop("train"), **arguments)


def test_what_wants_more_at_a_step_than_fit_has_is_told_before():
    student = network()
    sgd = torch.optim.SGD(student.parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd)
    for pair in ((torch.optim.LBFGS(student.parameters()), None), (sgd, plateau)):
        with pytest.raises(ValueError, match="LBFGS wants a closure and ReduceLROnPlateau a metr"):
            fit(student, TRAIN, optimizer=pair[0], scheduler=pair[1], progress=False)


def test_a_schedule_belongs_to_the_optimizer_given():
    student = network()
    one, other = (torch.optim.SGD(student.parameters(), lr=0.1) for _ in range(2))
    scheduler = torch.optim.lr_scheduler.ConstantLR(one)
    with pytest.raises(ValueError, match="without its optimizer"):
        fit(student, TRAIN, scheduler=scheduler, progress=False)
    with pytest.raises(ValueError, match="steps another optimizer"):
        fit(student, TRAIN, optimizer=other, scheduler=scheduler, progress=False)


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        fit(network().requires_grad_(False), TRAIN, progress=False)


def test_the_bar_shows_every_part(capsys):
    distiller = Distiller(
        network(1), network(2), [label_term(), logit_term("soft", soft_target_loss)]
    )
    fit(distiller, TRAIN, validation=HELD_OUT, epochs=1)
    shown = capsys.readouterr().err
    assert "labels=" in shown and "soft=" in shown and "validation=" in shown


def test_the_history_prints_a_row_an_epoch_and_plots():
    history = fit(network(), TRAIN, validation=HELD_OUT, epochs=3, progress=False)
    lines = str(history).splitlines()
    assert len(lines) == 4
    assert f"{100 * history.epochs[2]['validation_accuracy']:.1f} %" in lines[3]
    assert str(History()) == "no epoch yet"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"engine": {"accumulate": 2}}, TypeError, r"expected a Engine, as in engine=Engine\("),
        ({"checkpoints": "runs"}, TypeError, r"as in checkpoints=Checkpoints\("),
        ({"optimizer": "adam"}, TypeError, "optimizer is 'adam': expected an Optimizer"),
        ({"learning_rate": math.inf}, ValueError, "learning_rate is inf"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate is 'fast'"),
        ({"seed": 0.5}, TypeError, "seed is 0.5"),
        ({"epochs": True}, TypeError, "epochs is True"),
        ({"augment": "shift"}, TypeError, "augment is 'shift': expected a function"),
    ],
)
def test_an_option_of_another_kind_is_told(change, error, says):
    with pytest.raises(error, match=says):
        fit(network(), TRAIN, **({"progress": False} | change))


def test_a_class_in_place_of_a_model_is_told():
    with pytest.raises(TypeError, match=r"expected a Module, as in model=Module\("):
        fit(nn.Linear, TRAIN, progress=False)


def test_whole_numbers_of_numpy_are_taken():
    settings = {"epochs": np.int64(2), "batch_size": np.int32(30), "seed": np.uint8(3)}
    history = fit(network(), TRAIN, progress=False, **settings)
    again = fit(network(), TRAIN, epochs=2, batch_size=30, seed=3, progress=False)
    assert history.epochs == again.epochs


BATCHES_OF_ONE = {
    "a last batch of one": (DataLoader(TensorDataset(*blobs(61, 1)), 10, shuffle=True), {}),
    "batches of one": (blobs(6, 1), {"batch_size": 1}),
    "pieces of one": (blobs(6, 1), {"batch_size": 6, "engine": Engine(accumulate=4)}),
}


@pytest.mark.parametrize("kind", BATCHES_OF_ONE)
def test_one_sample_for_batch_normalization_is_told_before_the_first_step(kind):
    data, settings = BATCHES_OF_ONE[kind]
    student = network()
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(ValueError, match="in some step train gives the student one sample at a ti"):
        fit(student, data, epochs=1, progress=False, **settings)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    plain = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    fit(plain, data, epochs=1, progress=False, **settings)
    fit(Frozen(), data, epochs=1, progress=False, **settings)
    fit(Spatial(), data, epochs=1, progress=False, **settings)


class Frozen(nn.Module):
    """Its batch normalization never trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    def train(self, mode: bool = True):
        super().train(mode)
        self.layers[1].eval()
        return self

    def forward(self, x):
        return self.layers(x)


class Spatial(nn.Module):
    """One sample has three positions, which batch normalization can train on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 3, 1), nn.BatchNorm1d(3))

    def forward(self, x):
        return self.layers(x[:, None]).mean(2)


def test_what_fails_on_one_sample_for_another_reason_is_told_by_the_trial():
    with pytest.raises(RuntimeError, match="cannot be multiplied") as caught:
        fit(nn.Linear(4, 3), blobs(6, 1), batch_size=1, progress=False, epochs=1)
    assert "in a trial on two samples, before the first step" in caught.value.__notes__


def test_a_seed_is_one_that_generators_take():
    for seed in (-(2**63), 2**63 - 1):
        fit(network(), TRAIN, epochs=1, seed=seed, progress=False)
    for seed in (-(2**63) - 1, 2**63, 2**64):
        with pytest.raises(ValueError, match="seed is .*: expected a whole number"):
            fit(network(), TRAIN, epochs=1, seed=seed, progress=False)


@pytest.mark.parametrize("lazy", [nn.LazyLinear(4), nn.Sequential(nn.LazyBatchNorm1d())])
def test_layers_without_a_shape_are_refused(lazy):
    model = nn.Sequential(lazy, nn.LazyLinear(3))
    with pytest.raises(ValueError, match="'0.*' has no shape yet.*run the model on one batch"):
        fit(model, TRAIN, progress=False)
    model(TRAIN[0][:2])
    fit(model, TRAIN, epochs=1, progress=False)


def test_a_last_step_that_breaks_a_weight_is_told():
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=math.inf)
    with pytest.raises(FloatingPointError, match="the optimizer's step broke it"):
        fit(model, TRAIN, epochs=1, batch_size=90, optimizer=optimizer, progress=False)
