import random
import signal
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from kdlearn.core.files import locked
from kdlearn.distill import Distiller, label_term, layer_term, logit_term
from kdlearn.losses import reverse_kl, soft_target_loss
from kdlearn.training.checkpoints import CheckpointError, Checkpoints
from kdlearn.training.engine import Engine, Run
from kdlearn.training.fit import fit
from kdlearn.training.resume import Position


def network(width: int = 8, slope: type = nn.ReLU, drop: float = 0.2) -> nn.Sequential:
    first, last = nn.Linear(3, width), nn.Linear(width, 3)
    return nn.Sequential(first, nn.BatchNorm1d(width), slope(), nn.Dropout(drop), last)


def frozen(model: nn.Sequential) -> nn.Sequential:
    model[0].requires_grad_(False)
    return model


def task(count: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    return torch.eye(3)[labels] + torch.randn(count, 3, generator=generator), labels


def jitter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return images + 0.1 * torch.randn(images.shape, generator=generator)


def distiller() -> Distiller:
    torch.manual_seed(5)
    student, teacher, projector = network(8), network(8), Projected()
    return Distiller(
        student,
        teacher,
        [
            label_term(0.5),
            logit_term("soft", soft_target_loss, 0.5),
            layer_term("hint", projector, ["0"], 0.1),
        ],
    )


def distilled(
    teacher: int = 1,
    temperature: float = 4.0,
    weight: float = 0.9,
    loss=soft_target_loss,
    layer: str = "0",
) -> Distiller:
    torch.manual_seed(teacher)
    taught = network(8)
    torch.manual_seed(0)
    terms = [
        logit_term("soft", partial(loss, temperature=temperature), weight),
        layer_term("hint", F.mse_loss, [layer]),
    ]
    return Distiller(network(8), taught, terms)


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return (self.linear(student) - teacher).square().mean()


class Stop(Exception):
    pass


def stop_after(monkeypatch, steps: int) -> None:
    """Let the next step after so many end the run, as a crash would."""
    forward, taken = Run.forward, []

    def counted(self, batch):
        taken.append(1)
        if len(taken) > steps:
            raise Stop
        return forward(self, batch)

    monkeypatch.setattr(Run, "forward", counted)


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("stop", [1, 4, 6, 7, 13])
def test_a_stopped_and_resumed_run_equals_one_that_never_stopped(tmp_path, stop, monkeypatch):
    settings = {"epochs": 3, "batch_size": 8, "validation": task(12), "progress": False, "seed": 3}
    whole = distiller()
    expected = fit(whole, task(), augment=jitter, **settings)
    every_step = Checkpoints(tmp_path, every_steps=1)
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        stop_after(stopping, stop)
        fit(distiller(), task(), augment=jitter, checkpoints=every_step, **settings)
    resumed = distiller()
    torch.manual_seed(99)  # the state outside must not matter
    with torch.no_grad():
        resumed.student[0].weight.zero_()
    history = fit(resumed, task(), augment=jitter, checkpoints=every_step, resume=True, **settings)
    assert same(whole, resumed)
    assert history.epochs == expected.epochs


class Noisy(Dataset):
    """Draws from all three generators while it loads a sample."""

    def __len__(self) -> int:
        return 48

    def __getitem__(self, row: int):
        images, labels = task()
        noise = torch.randn(3) + random.random() + float(np.random.rand())
        return images[row] + 0.1 * noise, labels[row]


@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", [3, 8])
def test_a_loader_goes_on_with_the_batches_that_were_left(
    tmp_path, stop, workers, own_generator, monkeypatch
):
    def run(**more):
        torch.manual_seed(0)
        model = network()
        generator = torch.Generator().manual_seed(5) if own_generator else None
        loader = DataLoader(
            Noisy(),
            batch_size=8,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=generator,
        )
        return model, fit(model, loader, epochs=2, progress=False, **more)

    whole, expected = run()
    every_step = Checkpoints(tmp_path, every_steps=1)
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        stop_after(stopping, stop)
        run(checkpoints=every_step)
    resumed, history = run(checkpoints=every_step, resume=True)
    assert same(whole, resumed)
    assert history.epochs == expected.epochs


def test_a_stream_cannot_be_resumed_and_says_so(tmp_path):
    batches = [task(8), task(8)]
    with pytest.raises(ValueError, match="train is a stream, which cannot be entered again"):
        fit(network(), batches, progress=False, checkpoints=Checkpoints(tmp_path))


def test_the_weights_can_be_used_alone(tmp_path):
    model = network()
    fit(model, task(), epochs=1, progress=False, checkpoints=Checkpoints(tmp_path))
    other = network()
    other.load_state_dict(load_file(Checkpoints(tmp_path).latest() / "model.safetensors"))
    assert same(model, other)


def test_a_place_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written.*Name another folder"):
        fit(network(), task(), progress=False, checkpoints=Checkpoints(tmp_path / "file" / "run"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 3}, "epochs 2 there, 3 here"),
        ({"batch_size": 4}, "batch_size 8 there, 4 here"),
        ({"seed": 1}, "seed 0 there, 1 here"),
        ({"model": network(4)}, "other parameters"),
        ({"model": network(slope=nn.Tanh)}, "other model"),
        ({"model": network(drop=0.3)}, "other model"),
        ({"model": frozen(network())}, "other trained"),
        ({"train": task(51)}, "other data"),
        ({"train": (task()[0].flip(0), task()[1].flip(0))}, "other data"),
        ({"train": (task()[0].double().float() + 1e-6, task()[1])}, "other data"),
        ({"augment": jitter}, "other augmentation"),
        ({"learning_rate": 1e-4}, "other optimizer; schedule .* there, .* here"),
        ({"engine": Engine(accumulate=2)}, r"engine .*accumulate=1.* there, .*accumulate=2.* here"),
        ({"model": distilled()}, "other terms; other teacher"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changed, said):
    settings = {"epochs": 2, "batch_size": 8, "seed": 0, "model": network(), "train": task()}
    checkpoints = Checkpoints(tmp_path)
    fit(**settings, progress=False, checkpoints=checkpoints)
    with pytest.raises(CheckpointError, match=f"another run: .*{said}"):
        fit(**{**settings, **changed}, progress=False, checkpoints=checkpoints, resume=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher": 2}, "other teacher"),
        ({"temperature": 2.0}, "other terms"),
        ({"loss": reverse_kl}, "other terms"),
        ({"weight": 0.5}, "other terms"),
        ({"layer": "2"}, "other terms"),
    ],
)
def test_another_teacher_or_loss_is_refused(tmp_path, changed, said):
    checkpoints = Checkpoints(tmp_path)
    fit(distilled(), task(), epochs=1, progress=False, checkpoints=checkpoints)
    fit(distilled(), task(), epochs=1, progress=False, checkpoints=checkpoints, resume=True)
    with pytest.raises(CheckpointError, match=f"another run: {said}"):
        fit(
            distilled(**changed),
            task(),
            epochs=1,
            progress=False,
            checkpoints=checkpoints,
            resume=True,
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_end_saves_and_stops(tmp_path, number, monkeypatch):
    forward, taken = Run.forward, []

    def interrupted(self, batch):
        taken.append(1)
        if len(taken) == 4:
            signal.raise_signal(number)
        return forward(self, batch)

    monkeypatch.setattr(Run, "forward", interrupted)
    before = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(143)))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(network(), task(), batch_size=8, progress=False, checkpoints=Checkpoints(tmp_path))
    signal.signal(signal.SIGTERM, before)
    assert Checkpoints(tmp_path).latest().name == "step-00000004"


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, monkeypatch):
    forward = Run.forward

    def interrupted(self, batch):
        signal.raise_signal(signal.SIGINT)
        return forward(self, batch)

    monkeypatch.setattr(Run, "forward", interrupted)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        fit(network(), task(), epochs=2, progress=False, checkpoints=Checkpoints(tmp_path))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(Checkpoints(tmp_path).saved()) == 1


def test_two_runs_in_one_folder_are_told_apart(tmp_path):
    with locked(tmp_path), pytest.raises(CheckpointError, match="another run is at work"):
        fit(network(), task(), progress=False, checkpoints=Checkpoints(tmp_path))


def test_time_that_has_passed_is_enough_to_save(tmp_path):
    checkpoints = Checkpoints(tmp_path, every_minutes=1e-12, keep=9)
    fit(network(), task(), epochs=1, batch_size=12, progress=False, checkpoints=checkpoints)
    assert [path.name[-1] for path in checkpoints.saved()] == ["1", "2", "3", "4"]


def test_a_bar_shows_an_accuracy_in_per_cent_and_another_metric_as_it_is():
    for measured, shown in (("accuracy", "50.0%"), ("error", "0.5000")):
        at = Position(seed=0, steps_per_epoch=1)
        at.took_step({"labels": 0.25})
        said = at.ended_epoch({f"validation_{measured}": 0.5})
        assert said == {"labels": "0.250", "validation": shown}


def test_a_finished_run_is_given_back_without_training(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    model = network()
    first = fit(model, task(), epochs=2, progress=False, checkpoints=checkpoints)
    again = network()
    second = fit(again, task(), epochs=2, progress=False, checkpoints=checkpoints, resume=True)
    assert second.epochs == first.epochs and same(model, again)


def test_an_earlier_run_is_not_overwritten_unasked(tmp_path):
    fit(network(), task(), epochs=1, progress=False, checkpoints=Checkpoints(tmp_path))
    with pytest.raises(ValueError, match="pass resume=True"):
        fit(network(), task(), epochs=1, progress=False, checkpoints=Checkpoints(tmp_path))


def test_resume_needs_a_folder_and_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="resume was given without checkpoints"):
        fit(network(), task(), resume=True, progress=False)
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        fit(
            network(),
            task(),
            progress=False,
            checkpoints=Checkpoints(tmp_path),
            resume=tmp_path / "step-9",
        )
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Checkpoints(tmp_path / "none").latest()
