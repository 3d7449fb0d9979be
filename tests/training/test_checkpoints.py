import errno
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from kdlearn.core.files import locked, read_json, write_json
from kdlearn.distill import Distiller, label_term, layer_term, logit_term
from kdlearn.losses import reverse_kl, soft_target_loss
from kdlearn.training import checkpoints as module
from kdlearn.training.checkpoints import CheckpointError, Checkpoints
from kdlearn.training.engine import Engine, Run
from kdlearn.training.fit import fit


def network(width: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3)
    )


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


SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_checkpoints import distiller, jitter, task
from kdlearn.training.checkpoints import Checkpoints
from kdlearn.training.engine import Engine, Run
from kdlearn.training.fit import fit
torch.set_num_threads(1)
model = distiller()
fit(model, task(480), epochs=40, batch_size=8, augment=jitter, progress=False,
    checkpoints=Checkpoints({folder!r}, every_steps=7), resume=True)
print("finished", flush=True)
"""


def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tmp_path):
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "run"))
    moments, checkpoints = random.Random(0), Checkpoints(tmp_path / "run")
    for _ in range(3):
        before = checkpoints.saved()
        process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
        while checkpoints.saved() == before:
            assert process.poll() is None, "the run ended before it saved anything"
            time.sleep(0.01)
        time.sleep(0.5 * moments.random())
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "finished" in done.stdout, done.stderr
    whole = distiller()
    fit(whole, task(480), epochs=40, batch_size=8, augment=jitter, progress=False)
    saved = load_file(checkpoints.latest() / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in whole.state_dict().items())


def test_a_tree_comes_back_as_it_was(tmp_path):
    tied = torch.arange(3.0)
    tree = {
        "list": [1, 2.5, None, True, "x"],
        "tuple": (1, (2, tied)),
        "numbers": {0: {"step": torch.tensor(3)}, 7: tied},
        "$odd": {"a": tied.to(torch.bfloat16), "empty": torch.zeros(0, 2)},
        "large": [1e-300, 0.1, 2**80],
    }
    saved = Checkpoints(tmp_path).save(1, {"w": tied, "tied": tied}, tree)
    back = Checkpoints(tmp_path).load(saved)
    assert repr(back["training"]) == repr(tree)
    assert torch.equal(back["model"]["tied"], tied) and back["step"] == 1


def test_the_weights_can_be_used_alone(tmp_path):
    model = network()
    fit(model, task(), epochs=1, progress=False, checkpoints=Checkpoints(tmp_path))
    other = network()
    other.load_state_dict(load_file(Checkpoints(tmp_path).latest() / "model.safetensors"))
    assert same(model, other)


def test_only_the_newest_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, every_steps=2, keep=3)
    fit(network(), task(), epochs=2, batch_size=8, progress=False, checkpoints=checkpoints)
    assert [path.name for path in checkpoints.saved()] == [
        "step-00000008",
        "step-00000010",
        "step-00000012",
    ]


def test_minutes_alone_decide_too():
    checkpoints = Checkpoints("unused", every_steps=None, every_minutes=2)
    assert not checkpoints.is_due(1000, 119) and checkpoints.is_due(1, 120)
    assert Checkpoints("unused", every_steps=5, every_minutes=None).is_due(10, 0)


def test_what_cannot_be_saved_without_pickle_is_named(tmp_path):
    with pytest.raises(TypeError, match="a object at 'optimizer/hook'"):
        Checkpoints(tmp_path).save(1, {}, {"optimizer": {"hook": object()}})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_last_good_one(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    good = checkpoints.save(1, {"w": torch.ones(2)}, {})

    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left.*step-00000001 is whole and stays"):
        checkpoints.save(2, {"w": torch.zeros(2)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(checkpoints.load(good)["model"]["w"], torch.ones(2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a limit on the size of files")
def test_a_real_limit_on_file_sizes_is_told(tmp_path):
    script = (
        "import resource, signal, torch\n"
        "from kdlearn.training.checkpoints import Checkpoints, CheckpointError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        f"try: Checkpoints({str(tmp_path)!r}).save(1, {{'w': torch.zeros(100000)}}, {{}})\n"
        "except CheckpointError as error: print('told:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "told: the checkpoint of step 1 could not be written" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written.*Name another folder"):
        fit(network(), task(), progress=False, checkpoints=Checkpoints(tmp_path / "file" / "run"))


def test_a_damaged_checkpoint_is_refused_and_an_older_one_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    older = checkpoints.save(1, {"w": torch.ones(2)}, {})
    newer = checkpoints.save(2, {"w": torch.ones(2)}, {})
    content = bytearray((newer / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (newer / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged.*older one is .*step-00000001"):
        checkpoints.load(newer)
    assert checkpoints.load(older)["step"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "state.json").write_text("{"), "cannot be read"),
        (lambda folder: write_json(folder / "state.json", []), "is not a"),
        (lambda folder: write_json(folder / "state.json", {"format": "other"}), "is not a"),
        (lambda folder: (folder / "state.json").unlink(), "state.json is not there"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is not there"),
        (lambda folder: (folder / "training.safetensors").write_bytes(b"x"), "is damaged"),
    ],
)
def test_a_foreign_or_broken_folder_is_told(tmp_path, change, said):
    saved = Checkpoints(tmp_path).save(1, {"w": torch.ones(2)}, {})
    change(saved)
    with pytest.raises(CheckpointError, match=said):
        Checkpoints(tmp_path).load(saved)


def test_a_format_that_lists_other_tensors_is_told(tmp_path):
    saved = Checkpoints(tmp_path).save(1, {"w": torch.ones(2)}, {})
    state = read_json(saved / "state.json")
    state["model"]["v"] = {"$tensor": "v"}
    write_json(saved / "state.json", state)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoints(tmp_path).load(saved)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 3}, "epochs 2 there, 3 here"),
        ({"batch_size": 4}, "batch_size 8 there, 4 here"),
        ({"seed": 1}, "seed 0 there, 1 here"),
        ({"model": network(4)}, "other parameters"),
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


def test_two_runs_in_one_folder_are_told_apart(tmp_path):
    with locked(tmp_path), pytest.raises(CheckpointError, match="another run is at work"):
        fit(network(), task(), progress=False, checkpoints=Checkpoints(tmp_path))


def test_any_flipped_bit_of_the_state_is_told(tmp_path):
    fit(network(), task(), epochs=1, progress=False, checkpoints=Checkpoints(tmp_path))
    saved = Checkpoints(tmp_path).latest()
    path = saved / "state.json"
    whole = path.read_bytes()
    for place in range(0, len(whole) - 1, 97):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 7)
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            Checkpoints(tmp_path).load(saved)


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


@pytest.mark.parametrize(
    "settings", [{"every_steps": 0}, {"keep": 0}, {"every_minutes": -1}, {"every_steps": True}]
)
def test_intervals_out_of_range_are_told(settings):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(settings))} is"):
        Checkpoints("run", **settings)


def test_what_a_killed_run_left_is_swept(tmp_path):
    (tmp_path / ".partial-step-00000007-123").mkdir()
    Checkpoints(tmp_path).prepare()
    assert list(tmp_path.iterdir()) == []
