import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from kdlearn.core.files import locked
from kdlearn.core.identity import described_parts
from kdlearn.distill import Distiller, Term, label_term, layer_term, logit_term, sparse_term
from kdlearn.losses import MGDLoss, reverse_kl, sampled_kl, soft_target_loss
from kdlearn.store import Sampled
from kdlearn.training.checkpoints import CheckpointError, Checkpoints
from kdlearn.training.engine import Engine, Run
from kdlearn.training.fit import fit
from kdlearn.training.resume import Keeper, Position
from tests.forked import python
from tests.training import resumable


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
        ({}, None),
        ({"validation": DataLoader(TensorDataset(*task(9)), 4, shuffle=True)}, "validation"),
        ({"validation": task(10)}, "validation"),
        ({"validation": (task(9)[0], 1 - task(9)[1])}, "validation"),
        ({"validation": None}, "validation"),
        ({"metric": lambda logits, labels: -1.0}, "metric"),
    ],
)
def test_a_history_is_of_one_validation_and_one_metric(tmp_path, changed, said):
    settings = {"validation": task(9), "metric": lambda logits, labels: 1.0}
    with_a_loader = {"validation": DataLoader(TensorDataset(*task(9)), 4, shuffle=True)}
    with_a_stream = {"validation": [task(9), task(9)]}
    for number, first in enumerate(
        (settings, {**settings, **with_a_loader}, {**settings, **with_a_stream})
    ):
        options = {"progress": False, "checkpoints": Checkpoints(tmp_path / str(number))}
        fit(network(), task(), epochs=1, **first, **options)
        fit(network(), task(), epochs=1, **first, **options, resume=True)
        if said is None or number and "metric" not in changed:
            continue
        with pytest.raises(CheckpointError, match=f"another run: other {said}"):
            fit(network(), task(), epochs=1, **{**first, **changed}, **options, resume=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher": 2}, "other teacher"),
        ({"temperature": 2.0}, "other loss of term 'soft'"),
        ({"loss": reverse_kl}, "other loss of term 'soft'"),
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


class Scaled(nn.Module):
    """A student, a loss or an augmentation with one setting that its text does not show."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale = nn.Linear(3, 3), scale

    def forward(self, images: torch.Tensor, other: object = None) -> torch.Tensor:
        return self.layer(F.dropout(images, self.scale / 10, self.training))


class ScaledLoss(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return soft_target_loss(student, teacher, temperature=self.scale)


class Heads(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 8)
        self.block = nn.TransformerEncoderLayer(8, heads, 16, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.block(self.first(images)[:, None])[:, 0])


class Opaque(nn.Module):
    """Writes into its own settings, so that only its answers tell them."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.noted = nn.Linear(3, 3), [scale]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.noted.append(0.0)
        return self.layer(self.noted[0] * images)


class Noting(nn.Module):
    """Keeps what it saw last beside a setting, which shows in training alone."""

    def __init__(self, share: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.drop, self.last = nn.Linear(3, 3), nn.Dropout(share), None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.last = self.layer(images).detach()
        return self.drop(self.layer(images))


class NotingLoss:
    def __init__(self, temperature: float) -> None:
        self.temperature, self.seen = temperature, []

    def __call__(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        loss = soft_target_loss(student, teacher, temperature=self.temperature)
        self.seen.append(loss.item())
        return loss


class Config:
    temperature = 1.0
    resume = False


def configured(temperature: float) -> dict:
    Config.temperature, Config.resume = temperature, not Config.resume
    return soft(lambda s, t: soft_target_loss(s, t, temperature=Config.temperature))


class Shrinking(torch.optim.SGD):
    """Has a setting and a counter outside of its groups."""

    def __init__(self, parameters, share: float) -> None:
        super().__init__(parameters, lr=0.1)
        self.share, self.calls = share, 0

    @torch.no_grad()
    def step(self, closure=None) -> None:
        super().step()
        self.calls += 1
        torch._foreach_mul_(self.param_groups[0]["params"], 1 - self.share)


def shrinking(share: float) -> dict:
    torch.manual_seed(0)
    model = network()
    return {"model": model, "optimizer": Shrinking(model.parameters(), share)}


def soft(loss, **more) -> dict:
    torch.manual_seed(0)
    return {"model": Distiller(network(), network(), [logit_term("soft", loss, **more)])}


def masked(student, teacher, mask):
    return ((student - teacher).square().mean(-1) * mask).mean()


def picked(scale: float) -> dict:
    torch.manual_seed(0)
    term = Term("x", 1.0, F.mse_loss, lambda s, t, y: [(scale * s.logits, t.logits)])
    return {"model": Distiller(network(), network(), [term])}


def mgd(share: float) -> dict:
    torch.manual_seed(0)
    student, teacher = resumable.convolved(), resumable.convolved()
    term = layer_term("mgd", MGDLoss(4, 4, masked=share), ["1"])
    return {"model": Distiller(student, teacher, [term])}


def scheduled(make) -> dict:
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return {"model": model, "optimizer": optimizer, "scheduler": make(optimizer)}


def chained(rate: float) -> dict:
    return scheduled(
        lambda o: schedules.SequentialLR(
            o, [schedules.LinearLR(o), schedules.LambdaLR(o, lambda k: rate**k)], [2]
        )
    )


def grouped(order: tuple[int, ...]) -> dict:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    groups = [{"params": model[place].parameters()} for place in order]
    return {"model": model, "optimizer": torch.optim.Adam(groups)}


def loaded(**options) -> dict:
    torch.manual_seed(0)
    return {"model": network(), "train": DataLoader(TensorDataset(*task()), **options)}


def weighted(weight: float) -> dict:
    weights = torch.where(task()[1] == 0, weight, 1.0).tolist()
    return loaded(batch_size=8, sampler=WeightedRandomSampler(weights, 48))


def tokens(kind: torch.dtype) -> dict:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3)).to(kind)
    return {"model": model, "train": (torch.arange(96).view(48, 2) % 5, task()[1])}


def seen_by_the_teacher(most: float) -> dict:
    """What differs shows in no sample as it is, but in augmented ones."""
    torch.manual_seed(0)
    models = network(), network()
    adapt = lambda images: images.clamp(max=10 * most)  # noqa: E731
    return {"model": Distiller(*models, [logit_term("soft", F.mse_loss)], teacher_input=adapt)}


class Reduced:
    def __init__(self, reduce) -> None:
        self.reduce = reduce

    def __call__(self, student, teacher):
        return self.reduce((student - teacher).abs())


class Shifted:
    def __init__(self, distribution) -> None:
        self.distribution = distribution

    def __call__(self, images, generator):
        return images + self.distribution.mean * torch.rand(len(images), 1, generator=generator)


class Hidden(nn.Linear):
    """A teacher with a factor in a place that no description sees."""

    def forward(self, images):
        return FACTORS[-1] * super().forward(images)


FACTORS: list[float] = []


def of_bytes(factor: float) -> dict:
    torch.manual_seed(0)
    FACTORS.append(factor)
    student, teacher = network(), Hidden(3, 3)
    images = (40 * task()[0].abs()).to(torch.uint8)
    return {
        "model": Distiller(student, teacher, [logit_term("soft", F.mse_loss)]),
        "train": (images, task()[1]),
        "augment": lambda images, generator: images.float() / 255,
    }


LOSS = "other loss of term 'soft'"
SHIFTS = {2: lambda images, generator: images + 1, 4: lambda images, generator: images + 2}
TYPES = {2: torch.float32, 4: torch.bfloat16}
OTHERS = {
    "closure": (LOSS, lambda T: soft(lambda s, t: soft_target_loss(s, t, temperature=T))),
    "module": (LOSS, lambda T: soft(ScaledLoss(T))),
    "method of a module": (LOSS, lambda T: soft(ScaledLoss(T).forward)),
    "array": (
        LOSS,
        lambda T: soft(partial(resumable.weighed, weights=np.r_[np.ones(2000), T, np.ones(2000)])),
    ),
    "mask": (
        "other mask of term 'soft'",
        lambda T: soft(masked, mask=lambda batch: batch.labels != T),
    ),
    "arguments": ("other arguments of term 'x'", picked),
    "loss of the package": ("other loss of term 'mgd'", lambda T: mgd(T / 10)),
    "weight": ("other terms", lambda T: soft(F.mse_loss, weight=T)),
    "lambda of the rate": (
        "schedule .LambdaLR .* there",
        lambda T: scheduled(lambda o: schedules.LambdaLR(o, lambda k: 1 / (T + k))),
    ),
    "lambda inside a schedule": ("schedule .SequentialLR .* there", lambda T: chained(1 / T)),
    "factor of each step": (
        "schedule .MultiplicativeLR .* there",
        lambda T: scheduled(lambda o: schedules.MultiplicativeLR(o, lambda k: 1 / T)),
    ),
    "groups": ("other optimizer", lambda T: grouped((0, 1) if T == 2 else (1, 0))),
    "augmentation": (
        "other augmentation",
        lambda T: {"model": network(), "augment": SHIFTS[T]},
    ),
    "augmentation's attribute": (
        "other augmentation",
        lambda T: {"model": network(), "augment": Scaled(T).requires_grad_(False)},
    ),
    "setting of a loss that notes what it saw": (LOSS, lambda T: soft(NotingLoss(T))),
    "layer of a student that notes what it saw": (
        "other model",
        lambda T: {"model": Noting(T / 10)},
    ),
    "constant of a class": (LOSS, configured),
    "attribute of an optimizer": (
        "other attributes of the optimizer",
        lambda T: shrinking(T / 10),
    ),
    "inputs of the teacher": ("other teacher_input", lambda T: seen_by_the_teacher(T)),
    "method of torch": (
        "other loss of term 'soft'",
        lambda T: soft(Reduced(torch.Tensor.mean if T == 2 else torch.Tensor.sum)),
    ),
    "distribution": (
        "other augmentation",
        lambda T: {"model": network(), "augment": Shifted(torch.distributions.Beta(T, T))},
    ),
    "teacher of bytes": ("other teacher", lambda T: of_bytes(T)),
    "heads": ("other model", lambda T: {"model": Heads(T)}),
    "dropout in forward": ("other model", lambda T: {"model": Scaled(T)}),
    "setting that a student writes to": (
        "answers other numbers",
        lambda T: {"model": Opaque(T)},
    ),
    "precision of the weights": ("other parameters", lambda T: tokens(TYPES[T])),
    "distiller of the same model": (
        "other parameters",
        lambda T: {"model": network() if T == 2 else Distiller(network())},
    ),
    "shuffling": ("other data", lambda T: loaded(batch_size=8, shuffle=T == 2)),
    "weights of a sampler": ("other data", weighted),
    "batches of a loader": ("other data", lambda T: loaded(batch_size={2: 10, 4: 11}[T])),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_each_kind_of_change_is_refused_by_name_and_none_is_not(tmp_path, kind):
    said, make = OTHERS[kind]
    settings = {"train": task(), "epochs": 1, "batch_size": 8, "progress": False}
    settings["checkpoints"] = Checkpoints(tmp_path)
    fit(**{**settings, **make(2)})
    fit(**{**settings, **make(2)}, resume=True)
    with pytest.raises(CheckpointError, match=f"another run: .*{said}"):
        fit(**{**settings, **make(4)}, resume=True)


def test_each_kind_of_script_goes_on_in_a_new_process_bit_for_bit(tmp_path):
    root, log = Path(__file__).parents[2], tmp_path / "log"
    words = ["-m", "tests.training.resumable"]
    assert python([*words, "6", str(tmp_path)], log, folder=root).wait() == 0, log.read_text()
    said = subprocess.run(
        [sys.executable, *words, "on", str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "2"},  # sets in another order
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.splitlines() == [f"{kind}: equal" for kind in resumable.KINDS]


def test_the_same_objects_go_on_though_they_noted_what_they_saw(tmp_path, monkeypatch):
    values: list[float] = []

    def noted(student, teacher):
        loss = soft_target_loss(student, teacher)
        values.append(loss.item())
        return loss

    whole = soft(noted)["model"]
    fit(whole, task(), epochs=2, batch_size=8, progress=False)
    run, checkpoints = soft(noted)["model"], Checkpoints(tmp_path, every_steps=1)
    settings = {"epochs": 2, "batch_size": 8, "progress": False, "checkpoints": checkpoints}
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        stop_after(stopping, 4)
        fit(run, task(), **settings)
    fit(run, task(), **settings, resume=True)
    assert same(whole, run) and len(values) > 24


def whole_and_resumed(make, data, folder, monkeypatch):
    """Return the model of a run that never stopped, and of one that went on after 4 steps."""
    settings = {"epochs": 2, "batch_size": 8, "progress": False}

    def run(**more):
        model, optimizer = make()
        fit(model, data, optimizer=optimizer, **settings, **more)
        return model

    every_step = Checkpoints(folder, every_steps=1)
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        stop_after(stopping, 4)
        run(checkpoints=every_step)
    return run(), run(checkpoints=every_step, resume=True)


@pytest.mark.parametrize(
    "kind",
    [
        partial(torch.optim.AdamW, lr=0.01, fused=True),
        partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True),
    ],
)
def test_a_fused_optimizer_goes_on_where_weights_lie_by_channels(tmp_path, kind, monkeypatch):
    def make():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
        model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        return model, kind(model.parameters())

    images = torch.randn(48, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    data = (images.to(memory_format=torch.channels_last), task()[1])
    assert same(*whole_and_resumed(make, data, tmp_path, monkeypatch))


class Exact(torch.optim.Optimizer):
    """Keeps the weights in float32, whatever type the model has."""

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for p in self.param_groups[0]["params"]:
            own = self.state[p].setdefault("own", p.float())
            p.copy_(own.sub_(p.grad, alpha=0.01))


def test_an_optimizer_goes_on_with_its_state_in_other_types_than_the_weights(tmp_path, monkeypatch):
    def make():
        torch.manual_seed(0)
        model = nn.Linear(3, 3).bfloat16()
        return model, Exact(model.parameters(), {})

    data = (task()[0].bfloat16(), task()[1])
    assert same(*whole_and_resumed(make, data, tmp_path, monkeypatch))


class Unsaved(nn.Module):
    """Holds what training moves in buffers that no state_dict() has."""

    def __init__(self, also_in_eval: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.also_in_eval = nn.Linear(3, 3), also_in_eval
        self.register_buffer("factor", torch.ones(()), persistent=False)
        self.register_buffer("seen", torch.zeros(0), persistent=False)
        self.register_buffer("first", None, persistent=False)
        self.register_buffer("wide", torch.ones(1).expand(3), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.factor.mul_(0.9)
            self.seen = torch.cat([self.seen, self.factor[None]])
            self.wide = self.factor.clone().expand(3)
            self.first = images[0].clone() if self.first is None else self.first
        if not self.training and not self.also_in_eval:
            return self.layer(images)
        first = torch.zeros(3) if self.first is None else self.first
        return self.layer(images + first) * (self.factor + self.seen.sum() + self.wide)


@pytest.mark.parametrize("also_in_eval", [False, True])
def test_buffers_that_are_no_part_of_the_weights_go_on_too(tmp_path, also_in_eval, monkeypatch):
    def make():
        model = Unsaved(also_in_eval)
        return model, torch.optim.SGD(model.parameters(), lr=0.01)

    whole, resumed = whole_and_resumed(make, task(), tmp_path, monkeypatch)
    ours, theirs = dict(whole.named_buffers()), dict(resumed.named_buffers())
    assert same(whole, resumed) and len(ours) == 4
    assert all(torch.equal(buffer, theirs[name]) for name, buffer in ours.items())


def test_a_teacher_that_is_drawn_from_draws_the_same_beside_checkpoints(tmp_path):
    def run(**more):
        torch.manual_seed(0)
        student, term = network(), sparse_term("sampled", sampled_kl, Sampled(2))
        taught = Distiller(student, network(), [term])
        fit(taught, task(), epochs=1, batch_size=8, progress=False, **more)
        return student

    assert same(run(), run(checkpoints=Checkpoints(tmp_path)))


def test_the_same_optimizer_goes_on_though_it_counted_its_steps(tmp_path, monkeypatch):
    held, checkpoints = shrinking(0.1), Checkpoints(tmp_path, every_steps=1)
    settings = {"epochs": 2, "batch_size": 8, "progress": False, "checkpoints": checkpoints}
    with monkeypatch.context() as stopping, pytest.raises(Stop):
        stop_after(stopping, 4)
        fit(**held, train=task(), **settings)
    fit(**held, train=task(), **settings, resume=True)
    assert held["optimizer"].calls == 12


OPTIMIZERS = [
    kind
    for name, kind in sorted(vars(torch.optim).items())
    if isinstance(kind, type) and name not in ("Optimizer", "LBFGS", "SparseAdam")
]
SCHEDULES = [
    lambda o: None,
    lambda o: schedules.LambdaLR(o, lambda k: 0.9**k),
    lambda o: schedules.CyclicLR(o, 0.01, 0.1, 2, cycle_momentum=False),
    lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o), schedules.CosineAnnealingLR(o, 6)], [2]
    ),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_no_optimizer_of_torch_has_attributes_of_its_own(kind, schedule):
    """Whatever a step or a schedule adds to one is no setting, or the same run were refused."""
    model = nn.Linear(3, 3, bias=False)
    optimizer = kind(model.parameters(), lr=0.1)
    scheduler = schedule(optimizer)
    keeper = Keeper(None, Run(Engine(), model, optimizer), Position(0, 1), model, optimizer, None)
    before = keeper._own_of_the_optimizer()
    model(task()[0]).sum().backward()
    optimizer.step()
    if scheduler is not None:
        scheduler.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert keeper._own_of_the_optimizer() == before == described_parts(SimpleNamespace())


def test_checkpoints_change_no_number_of_a_run(tmp_path):
    def run(**more):
        torch.manual_seed(0)
        model = network()
        fit(model, task(), epochs=2, batch_size=8, augment=jitter, progress=False, **more)
        return model

    assert same(run(), run(checkpoints=Checkpoints(tmp_path, every_steps=1)))


def test_what_only_an_augmentation_makes_ready_goes_on_too(tmp_path):
    images, labels = (task()[0] * 50).clamp(0, 255).to(torch.uint8), task()[1]
    settings = {"augment": lambda images, generator: images / 255, "epochs": 1, "progress": False}
    for resume in (False, True):
        checkpoints = Checkpoints(tmp_path)
        fit(distilled(), (images, labels), **settings, checkpoints=checkpoints, resume=resume)


class Stateful(nn.Linear):
    def get_extra_state(self):
        return {"a"}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("model", "options", "place"),
    [
        (Stateful(3, 3), {}, "_extra_state"),
        (nn.Linear(3, 3), {"tags": {1}}, "optimizer/param_groups/0/tags"),
    ],
)
def test_what_cannot_be_saved_is_told_before_the_first_step(tmp_path, model, options, place):
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD([{"params": model.parameters(), **options}], lr=0.1)
    with pytest.raises(TypeError, match=f"a set at '{place}' cannot be saved"):
        fit(model, task(), optimizer=optimizer, progress=False, checkpoints=Checkpoints(tmp_path))
    assert torch.equal(model.weight, before) and not Checkpoints(tmp_path).saved()


@pytest.mark.parametrize("every_steps", [None, 1])
def test_weights_that_a_step_broke_are_not_saved(tmp_path, every_steps):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=float("inf"))
    settings = {"epochs": 1, "batch_size": 48 if every_steps is None else 24, "progress": False}
    with pytest.raises(FloatingPointError, match="'student.0.weight' is NaN or infinite at epoch"):
        fit(
            model,
            task(),
            optimizer=optimizer,
            checkpoints=Checkpoints(tmp_path, every_steps=every_steps),
            **settings,
        )
    assert not Checkpoints(tmp_path).saved()
