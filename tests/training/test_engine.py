import copy
import json
import os
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from kdlearn.data import Batch
from kdlearn.distill import Distiller, Term, label_term, layer_term, logit_term
from kdlearn.losses import (
    attention_transfer_loss,
    correlation_congruence_loss,
    forward_kl,
    linear_distillation_loss,
    pkt_loss,
    reverse_kl,
    rkd_distance_loss,
    similarity_preserving_loss,
    soft_target_loss,
)
from kdlearn.training import engine
from kdlearn.training.checkpoints import Checkpoints
from kdlearn.training.engine import Engine, Run
from kdlearn.training.fit import fit
from tests.processes import run_processes


def task(count: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 3


def network(seed: int, width: int = 8) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.GroupNorm(2, width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.Flatten(),
        nn.Linear(64 * width, 3),
    )


def distiller() -> Distiller:
    return Distiller(
        network(0),
        network(1),
        [
            label_term(0.1),
            logit_term("soft", soft_target_loss, 0.9),
            layer_term("attention", attention_transfer_loss, ["0", "3"], 10.0),
        ],
    )


def trained(engine: Engine | None = None, epochs: int = 2, **settings) -> Distiller:
    model = distiller()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    fit(
        model,
        task(),
        epochs=epochs,
        batch_size=8,
        optimizer=optimizer,
        engine=engine,
        progress=False,
        **settings,
    )
    return model


def farthest(first: nn.Module, second: dict[str, torch.Tensor]) -> float:
    return max(
        (value - second[name]).abs().max().item() for name, value in first.state_dict().items()
    )


def moved_from(start: nn.Module, model: nn.Module) -> float:
    return farthest(model, start.state_dict())


def moved(model: nn.Module) -> float:
    return farthest(model, distiller().state_dict())


WHOLE = trained()


def test_pieces_of_a_batch_give_the_gradient_of_the_batch():
    # 30 samples make batches of 8, 8, 7 and 7: the pieces are not all of one size.
    pieces = trained(Engine(accumulate=3))
    assert farthest(pieces, WHOLE.state_dict()) < 1e-5 < 1e-2 < moved(WHOLE)


class Words(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Embedding(11, 8), nn.Dropout(0.0), nn.Linear(8, 11))

    def forward(self, ids):
        return self.layers(ids)


IDS = torch.randint(0, 11, (6, 5), generator=torch.Generator().manual_seed(0))
COUNTED = IDS.roll(1, 1).clone()
COUNTED[0, 1:], COUNTED[1], COUNTED[2, 2:] = -100, -100, -100
CLASS_WEIGHT = torch.tensor([10.0, 1.0, 0.1])
SAMPLE_WEIGHT = torch.tensor([5.0] * 4 + [0.1] * 26)


def sample_weighted(logits, labels, weight):
    return (F.cross_entropy(logits, labels, reduction="none") * weight).sum() / weight.sum()


def masked_words() -> tuple:
    mask = {"mask": lambda batch: batch.labels != -100}
    terms = [
        label_term(),
        logit_term("kl", forward_kl, **mask),
        logit_term("rkl", reverse_kl, **mask),
    ]
    return Distiller(Words(0), Words(1), terms), (IDS, COUNTED)


def class_weighted() -> tuple:
    loss = partial(F.cross_entropy, weight=CLASS_WEIGHT)
    return Distiller(network(0), None, [label_term(loss=loss)]), task()


def weighted_samples() -> tuple:
    term = Term(
        "weighted",
        1.0,
        sample_weighted,
        lambda student, teacher, labels: [(student.logits, labels, student.batch.weight)],
    )
    images, labels = task()
    return Distiller(network(0), network(1), [term]), Batch(images, labels, weight=SAMPLE_WEIGHT)


def relations() -> tuple:
    names = (similarity_preserving_loss, rkd_distance_loss, pkt_loss, correlation_congruence_loss)
    terms = [layer_term(loss.__name__, loss, ["3"]) for loss in names]
    return Distiller(network(0), network(1), terms), task()


def trained_projector() -> tuple:
    torch.manual_seed(4)
    projector = nn.Conv2d(8, 4, 1)

    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projector = projector

        def forward(self, student, teacher):
            return F.mse_loss(self.projector(student), teacher)

    term = layer_term("hint", Projected(), {"3": "0"})
    return Distiller(network(0), network(1, width=4), [term]), task()


class OfHeads(nn.Module):
    """A loss that is given weights of the student, beside what goes through its outputs."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.own, self.other = student, [teacher]  # the list hides the teacher's

    def forward(self, hidden, taught):
        return linear_distillation_loss(hidden, self.own, taught, self.other[0])


def heads(as_module: bool) -> tuple:
    student, teacher = Words(0), Words(1)
    loss = OfHeads(student.layers[2], teacher.layers[2])
    terms = [label_term(), layer_term("heads", loss if as_module else loss.forward, ["layers.1"])]
    return Distiller(student, teacher, terms), (IDS, COUNTED)


def heads_in_a_function() -> tuple:
    return heads(as_module=False)


def heads_in_a_module() -> tuple:
    return heads(as_module=True)


def weights_in_another_order():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    images = torch.randn(30, 3, 6, 6)
    return model.to(memory_format=torch.channels_last), (images, torch.arange(30) % 3)


UNEVEN = [
    weights_in_another_order,
    masked_words,
    class_weighted,
    weighted_samples,
    relations,
    trained_projector,
    heads_in_a_function,
    heads_in_a_module,
]


def step_of(make, pieces: int = 1) -> dict[str, torch.Tensor]:
    """Weights after one step of plain gradient descent on the whole data."""
    model, data = make()
    fit(
        model,
        data,
        epochs=1,
        batch_size=30,
        # A fused one takes gradients as they lie in memory.
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5, fused=True),
        engine=Engine(accumulate=pieces),
        progress=False,
    )
    return model.state_dict()


@pytest.mark.parametrize("pieces", [2, 3, 6])
@pytest.mark.parametrize("make", UNEVEN)
def test_a_loss_of_any_kind_has_the_gradient_of_the_whole_batch(make, pieces):
    start, whole, cut = make()[0].state_dict(), step_of(make), step_of(make, pieces)
    moved = max((whole[name] - start[name]).abs().max().item() for name in whole)
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=0, atol=1e-4 * moved)


class Waves(nn.Module):
    """Double and complex weights, and buffers that gloo does not send as they are."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(4, 3, dtype=torch.complex128))
        self.waves, self.outer = nn.Identity(), nn.Linear(3, 3).double()
        self.register_buffer("whole", torch.randint(1, 99, (3,)).short())
        self.register_buffer("spread", torch.randn(1, 3).expand(2, 3))

    def forward(self, x):
        waves = self.waves(x.to(self.inner.dtype) @ self.inner)
        return self.outer(waves.abs() / self.whole) + self.spread[1]


def far(student, teacher):
    return (student - teacher).abs().square().mean()


def step_of_waves(engine: Engine | None = None) -> dict[str, torch.Tensor]:
    """The same step wherever it is computed: processes begin with other numbers of their own."""
    student = Waves(seed=int(os.environ.get("RANK", "0")))
    model = Distiller(student, Waves(1), [label_term(), layer_term("far", far, ["waves"])])
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(-9, 10, (6, 4), dtype=torch.int16, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    fit(model, (inputs, torch.arange(6) % 3), epochs=1, batch_size=6, optimizer=optimizer,
        engine=engine, progress=False)  # fmt: skip
    state = student.state_dict()
    return {**state, "inner": torch.view_as_real(state["inner"])}  # a file has no complex128


def test_pieces_give_the_gradient_of_complex_layers_and_weights():
    whole, cut = step_of_waves(), step_of_waves(Engine(accumulate=2))
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=0, atol=1e-13)
    assert (whole["inner"] - torch.view_as_real(Waves(0).inner)).abs().min() > 1e-3


def draws() -> list[tuple[float, ...]]:
    """What a loss draws in each step, from all that one may draw from."""
    drawn: list[tuple[float, ...]] = []

    def loss(student, teacher):
        drawn.append((random.random(), float(np.random.rand()), torch.rand(()).item()))
        return F.mse_loss(student, teacher)

    images, labels = torch.randn(8, 3), torch.arange(8) % 3
    model = Distiller(nn.Linear(3, 3), nn.Linear(3, 3), [logit_term("loss", loss)])
    random.seed(int(os.environ["RANK"]))
    np.random.seed(int(os.environ["RANK"]))
    fit(model, (images, labels), epochs=1, batch_size=4, progress=False)
    return drawn[1:]  # the first is the trial's


def test_pieces_count_once_in_statistics_and_draw_the_same_dropout():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    second = copy.deepcopy(first)
    images, labels = torch.randn(8, 3), torch.arange(8) % 3
    optimizer = torch.optim.SGD(first.parameters(), lr=0.0)
    fit(first, (images, labels), epochs=1, optimizer=optimizer, engine=Engine(accumulate=2),
        progress=False)  # fmt: skip
    assert first[1].num_batches_tracked == 2
    gradients = {}
    for pieces in (1, 2):
        student = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
        student.load_state_dict({"0.weight": torch.eye(3), "0.bias": torch.ones(3)})
        seen = []
        student[1].register_forward_hook(lambda m, i, o, seen=seen: seen.append(o == 0))
        fit(student, (images, labels), epochs=1, engine=Engine(accumulate=pieces), progress=False)
        gradients[pieces] = seen[1:]  # the first is the trial
    assert all(torch.equal(*pair) for pair in zip(gradients[2][:2], gradients[2][2:], strict=True))
    assert second[1].num_batches_tracked == 0


class Again(nn.Sequential):
    """Layers of which all but the first are computed again in the backward pass."""

    def forward(self, x):
        return checkpoint(nn.Sequential(*list(self)[1:]), self[0](x), use_reentrant=True)


@pytest.mark.parametrize("kind", [nn.Sequential, Again])
def test_a_finite_loss_with_a_broken_gradient_is_told_and_not_stepped_on(kind, tmp_path):
    def bad(student, teacher):
        gap = (student - teacher).pow(2).sum(1)
        return torch.where(gap > 1e9, (gap * 0).sqrt(), gap).mean()  # NaN behind where

    student = kind(*network(0))
    model = Distiller(student, network(0), [label_term(), logit_term("bad", bad)])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FloatingPointError, match="epoch 1, step 1: term 'bad' has a finite loss"):
        fit(model, task(), progress=False, checkpoints=Checkpoints(tmp_path, every_steps=1))
    assert farthest(model, before) == 0 and not Checkpoints(tmp_path).saved()


def test_outputs_without_samples_first_cannot_be_cut():
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)
            self.turned = nn.Identity()

        def forward(self, x):
            return self.turned(self.inner(x).T).T

    terms = [layer_term("hint", F.mse_loss, ["turned"])]
    with pytest.raises(ValueError, match="the first dimension must be the sample"):
        fit(
            Distiller(Turned(), Turned(), terms),
            (torch.randn(8, 3), torch.arange(8) % 3),
            engine=Engine(accumulate=2),
            progress=False,
        )


def test_the_gradient_is_clipped_to_its_norm():
    model = network(0)
    before = copy.deepcopy(model.state_dict())
    fit(
        model,
        task(),
        epochs=1,
        batch_size=30,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        engine=Engine(clip_norm=0.01),
        progress=False,
    )
    squares = sum((value - before[n]).square().sum() for n, value in model.state_dict().items())
    assert squares.sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_bfloat16_trains_near_float32_and_keeps_float32_weights():
    model = trained(Engine(precision="bf16"))
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    assert 1e-7 < farthest(model, WHOLE.state_dict()) < 0.2 * moved(WHOLE)


def test_the_next_run_has_its_own_precision():
    trained(Engine(precision="bf16"))
    assert farthest(trained(), WHOLE.state_dict()) == 0


def test_half_precision_needs_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="the model is on no GPU: use 'bf16'"):
        trained(Engine(precision="fp16"))


def test_more_processes_than_gpus_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match="LOCAL_RANK is 1 and there are 1 GPUs: start one"):
        engine._own_device()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"accumulate": True}, "accumulate is True"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"clip_norm": float("nan")}, "clip_norm is nan"),
    ],
)
def test_options_out_of_range_are_told(settings, said):
    with pytest.raises((TypeError, ValueError), match=said):
        Engine(**settings)


def test_a_last_batch_with_fewer_samples_than_pieces_counts_whole():
    loader = DataLoader(TensorDataset(*task(9)), batch_size=4)  # 4, 4 and 1
    models = [network(0), network(0)]
    for model, pieces in zip(models, (1, 3), strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        engine = Engine(accumulate=pieces)
        fit(model, loader, epochs=1, optimizer=optimizer, engine=engine, progress=False)
    assert farthest(models[0], models[1].state_dict()) < 1e-5 < moved_from(network(0), models[0])


SCRIPT = """
import itertools, json, os, sys
folder, *parts = sys.argv[1:]
sys.path[:0] = [{tests!r}, {tests!r} + "/../.."]
import torch
from test_engine import UNEVEN, Engine, draws, fit, network, step_of, step_of_waves, task, trained
from kdlearn.distill import Distiller, logit_term
from kdlearn.losses import soft_target_loss
from kdlearn.training.engine import Run
from kdlearn.training.checkpoints import Checkpoints
from safetensors.torch import save_file
from torch.nn.utils.rnn import pad_sequence as pad

def save(state, name):
    # Two names may share one; and a file holds them in the usual order.
    own = {{name: value.contiguous().clone() for name, value in state.items()}}
    save_file(own, f"{{folder}}/{{name}}{{os.environ['RANK']}}")

def whole():
    save(trained(Engine(accumulate=2), validation=task(9)).state_dict(), "whole")

def kinds():
    for make in UNEVEN:
        save(step_of(make), make.__name__)

def waves():
    save(step_of_waves(), "waves")

def drawn():
    print("DREW", json.dumps(draws()))

def same():
    model, rank, count = network(0), int(os.environ["RANK"]), itertools.count()
    run = Run(Engine(), model, torch.optim.SGD(model.parameters(), lr=0.1))
    run.check_same("the seed", lambda: 3, "")
    run.check_same("what changes", lambda: (rank, next(count)), "")
    try: run.check_same("the seed", lambda: rank + 3, "Pass one seed.")
    except ValueError as error: print("TOLD", error)

def apart():
    images, labels = task()
    rank = int(os.environ["RANK"])
    checkpoints = Checkpoints(f"{{folder}}/of{{rank}}")
    trained(epochs=1, checkpoints=checkpoints)
    for data, options in (
        ((images[rank::2], labels[rank::2]), {{}}),
        (task(), {{"checkpoints": checkpoints, "resume": True}}),
    ):
        try: fit(network(0), data, epochs=1, progress=False, **options)
        except ValueError as error: print("TOLD", error)
    soft = logit_term("soft", soft_target_loss)
    try: fit(Distiller(network(0), network(rank), [soft]), task(), epochs=1, progress=False)
    except ValueError as error: print("TOLD", error)
    tokens = [torch.arange(1, 2 + row) for row in range(4)]
    loader = torch.utils.data.DataLoader(
        tokens, 4, collate_fn=lambda rows: (pad(rows, True), 0 * pad(rows, True))
    )
    try: fit(torch.nn.Embedding(9, 9), loader, epochs=1, progress=False)
    except ValueError as error: print("TOLD", error)

def loader():
    seen = []
    class Seen(torch.nn.Linear):
        def forward(self, x):
            seen.extend(x[:, 0].int().tolist() if self.training else [])
            return super().forward(x / 32)
    rows = torch.arange(32.0)[:, None]
    data = torch.utils.data.TensorDataset(rows, torch.arange(32) % 2)
    loader = torch.utils.data.DataLoader(data, 8, shuffle=True)
    history = fit(Seen(1, 2), loader, epochs=1, progress=False)
    print("SEEN", sorted(seen[2:]), history.epochs[0]["loss"])  # without the two that are tried
    try: fit(Seen(1, 2), [(rows, torch.arange(32) % 2)] * 2, progress=False)
    except ValueError as error: print("TOLD", error)
    uneven = torch.utils.data.DataLoader(data, 31)
    class Own:
        def of_epoch(self, samples, epoch): return samples
        def of_batch(self, batch, generator): return batch
    augment = lambda images, generator: images
    for loader, views in ((uneven, None), (loader, augment), (loader, Own())):
        try: fit(Seen(1, 2), loader, augment=views, progress=False)
        except ValueError as error: print("TOLD", error)

def stop():
    class Stop(Exception): pass
    forward, taken = Run.forward, []
    def counted(self, batch):
        taken.append(1)
        if len(taken) > 5: raise Stop
        return forward(self, batch)
    Run.forward = counted
    try: trained(checkpoints=Checkpoints(f"{{folder}}/run", every_steps=1))
    except Stop: pass

def resume():
    checkpoints = Checkpoints(f"{{folder}}/run", every_steps=1)
    save(trained(checkpoints=checkpoints, resume=True).state_dict(), "resume")

for part in parts:
    globals()[part]()
"""


def launch(folder: Path, *parts: str) -> list[str]:
    script = folder / "train.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return run_processes([str(script), str(folder), *parts])


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, list[str]]:
    """What two processes left in a folder, and what each of them printed; the last run stops."""
    folder = tmp_path_factory.mktemp("two")
    parts = ("whole", "kinds", "waves", "drawn", "same", "apart", "loader", "stop")
    return folder, launch(folder, *parts)


def test_two_processes_give_the_parameters_of_one_with_the_same_batches(two):
    first, second = (load_file(two[0] / f"whole{rank}") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert farthest(WHOLE, first) < 1e-5


def test_two_processes_resume_where_they_were(two):
    folder, _ = two
    assert (folder / "run" / "step-00000005").is_dir()
    launch(folder, "resume")
    assert farthest(WHOLE, load_file(folder / "resume0")) < 1e-5


def test_two_processes_have_the_gradient_of_the_whole_batch_for_any_loss(two):
    for make in UNEVEN:
        start, whole = make()[0].state_dict(), step_of(make)
        moved = max((whole[name] - start[name]).abs().max().item() for name in whole)
        first, second = (load_file(two[0] / f"{make.__name__}{rank}") for rank in (0, 1))
        for name, value in whole.items():
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], value, rtol=0, atol=1e-4 * moved)


def test_two_processes_take_the_double_and_complex_step_of_one(two):
    first, second = (load_file(two[0] / f"waves{rank}") for rank in (0, 1))
    for name, value in step_of_waves().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value.contiguous(), rtol=0, atol=1e-13)


def test_a_loss_draws_the_same_in_two_processes(two):
    lines = [next(line for line in text.splitlines() if "DREW" in line) for text in two[1]]
    steps = json.loads(lines[0].removeprefix("DREW "))
    assert lines[0] == lines[1] and len(steps) == 2
    assert all(one != other for one, other in zip(*steps, strict=True))


def test_what_should_be_the_same_and_is_not_is_told_by_both_processes(two):
    said = "the seed is 3 in process 0 and 4 in process 1: expected the same in all 2 processes. "
    assert all(text.count("TOLD the seed") == 1 for text in two[1])
    assert all(f"{said}Pass one seed." in text for text in two[1])


@pytest.mark.parametrize(
    "said",
    [
        "the digest of train is '",
        "the checkpoint to resume from is 'step-00000004' in process 0 and None in process 1",
        "the digest of the teacher's weights is '",
        "a sample of this batch is ('torch.int64', 2) in one process and ('torch.int64', 4) in",
    ],
)
def test_processes_with_data_or_a_folder_of_their_own_are_refused(two, said):
    assert all(f"TOLD {said}" in text for text in two[1])


def test_two_processes_share_a_shuffling_loader_and_refuse_a_stream(two):
    _, outputs = two
    lines = [next(line for line in text.splitlines() if "SEEN" in line) for text in outputs]
    rows = [json.loads(line.removeprefix("SEEN ").rpartition(" ")[0]) for line in lines]
    assert sorted(rows[0] + rows[1]) == list(range(32)) and len(rows[0]) == 16
    assert lines[0].rpartition(" ")[2] == lines[1].rpartition(" ")[2]
    assert all("has 1 samples for 2 processes" in text for text in outputs)
    assert all(text.count("augment draws for whole batches") == 2 for text in outputs)
    assert all("is a stream and 2 processes would each read all of it" in text for text in outputs)


@pytest.mark.parametrize("variable", ["RANK", "MASTER_ADDR"])
def test_a_launcher_that_did_not_finish_its_work_is_told(monkeypatch, variable):
    for name, value in (
        ("WORLD_SIZE", "2"),
        ("RANK", "0"),
        ("MASTER_ADDR", "x"),
        ("MASTER_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(variable)
    with pytest.raises(ValueError, match=f"WORLD_SIZE is 2 and {variable} is not set"):
        fit(network(0), task(), progress=False)


class Average(nn.Module):
    """Divides by an average of sizes that each forward moves, in one of three ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("size", torch.ones(3))

    def forward(self, x):
        if self.training:
            now = 0.5 * self.size + 0.5 * x.detach().abs().mean(0)
            if self.way == "in place":
                self.size.copy_(now)
            elif self.way == "by data":
                self.size.data.copy_(now)
            else:
                self.size = now
        return x / self.size.clone()


MOVED = {
    **{way: lambda way=way: Average(way) for way in ("in place", "by data", "another tensor")},
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(3, 3)),
    "parametrized": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)),
    "batch norm": lambda: nn.BatchNorm1d(3),
}


@pytest.mark.parametrize("layer", MOVED)
def test_pieces_give_the_gradient_at_the_buffers_that_their_loss_saw(layer):
    def made():
        torch.manual_seed(0)
        return nn.Sequential(MOVED[layer](), nn.Linear(3, 3))

    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(60, 3, generator=generator), torch.arange(60) % 3
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    ours, by_hand = made(), made().train()
    fit(
        ours,
        (inputs, labels),
        epochs=1,
        batch_size=60,
        optimizer=torch.optim.SGD(ours.parameters(), lr=1.0),
        engine=Engine(accumulate=4),
        progress=False,
    )
    said = torch.cat([by_hand(piece) for piece in inputs[order].chunk(4)])
    F.cross_entropy(said, labels[order]).backward()
    with torch.no_grad():
        for p in by_hand.parameters():
            p -= p.grad
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("again", [True, False], ids=["differs", "drawn anew"])
def test_what_differs_between_processes_is_told_unless_it_is_drawn_anew(again, monkeypatch):
    model = nn.Linear(2, 2)
    run = Run(Engine(), model, torch.optim.SGD(model.parameters(), lr=0.1))
    run.check_same("the order", pytest.fail, "One process has nothing to compare.")
    run.processes = 2
    gathered = iter([["a", "b"], [again, again]])
    monkeypatch.setattr(run, "gather", lambda value: next(gathered))
    if not again:
        run.check_same("the order", lambda: "a", "Pass one.")
        return
    with pytest.raises(
        ValueError, match="the order is 'a' in process 0 and 'b' in process 1.*Pass"
    ):
        run.check_same("the order", lambda: "a", "Pass one.")


@dataclass
class States:
    hidden: torch.Tensor


class WithStates(nn.Module):
    def __init__(self, form) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.form = nn.Linear(4, 4), nn.Linear(4, 3), nn.Identity()
        self.form.register_forward_hook(lambda module, inputs, output: form(output))

    def forward(self, x):
        hidden = self.body(x)
        self.form(hidden)
        return self.head(hidden)


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_layer_that_returns_a_dataclass_is_computed_in_pieces_too(pieces):
    inputs, labels = torch.randn(12, 4), torch.arange(12) % 3
    weights = []
    for form, pick in ((States, lambda value: value.hidden), (lambda x: x, lambda value: value)):
        student, teacher = WithStates(form), WithStates(form)
        nn.init.ones_(teacher.body.weight)
        term = layer_term("states", lambda a, b, pick=pick: F.mse_loss(pick(a), pick(b)), ["form"])
        fit(
            Distiller(student, teacher, [label_term(), term]),
            (inputs, labels),
            epochs=2,
            engine=Engine(accumulate=pieces),
            progress=False,
        )
        weights.append(student.body.weight)
    assert torch.equal(*weights)


def test_weights_that_a_hook_thaws_have_the_gradient_of_their_step_alone():
    inputs, labels = torch.randn(32, 4), torch.arange(32) % 3
    ours, theirs = (
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double() for _ in range(2)
    )
    theirs.load_state_dict(ours.state_dict())
    optimizers = []
    for model in (ours, theirs):
        model[0].requires_grad_(False)
        optimizer, steps = torch.optim.SGD(model.parameters(), lr=0.5), []

        def thaw(*_, model=model, steps=steps):
            steps.append(1)
            model[0].requires_grad_(len(steps) >= 2)

        optimizer.register_step_post_hook(thaw)
        optimizers.append(optimizer)
    data, engine = (inputs.double(), labels), Engine(clip_norm=0.1)
    options = {"batch_size": 32, "optimizer": optimizers[0], "engine": engine, "progress": False}
    fit(ours, data, epochs=6, **options)
    for _ in range(6):
        optimizers[1].zero_grad()
        F.cross_entropy(theirs(data[0]), labels).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        optimizers[1].step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_shares_that_do_not_fit_together_are_told(monkeypatch):
    model = nn.Linear(2, 2)
    run = Run(Engine(), model, torch.optim.SGD(model.parameters(), lr=0.1))
    batch = Batch(torch.zeros(2, 5))
    run._check_shapes(batch, None)  # one process has nothing to compare
    run.processes = 2
    monkeypatch.setattr(engine.dist, "all_gather", lambda others, told: others[0].copy_(told + 1))
    monkeypatch.setattr(run, "gather", lambda shapes: [[("torch.float32", 4)], shapes])
    with pytest.raises(
        ValueError, match=r"\('torch.float32', 4\) in one process.*, 5\) in another"
    ):
        run._check_shapes(batch, None)
