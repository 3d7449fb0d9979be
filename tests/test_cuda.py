"""What a GPU must give: the numbers of the CPU. Skipped where there is none."""

import copy
import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from kdlearn.cli import app
from kdlearn.distill import Distiller, attention_layers, label_term, layer_term, logit_term
from kdlearn.losses import (
    attention_transfer_loss,
    forward_kl,
    linear_distillation_loss,
    soft_target_loss,
)
from kdlearn.measure import evaluate, predict
from kdlearn.models import SmallCNN
from kdlearn.store import AttentionMap, cache_teacher, open_cache
from kdlearn.training import Checkpoints, Engine, fit
from tests.losses.table import MASKED, SHAPES, TABLE, masked_call
from tests.recipes.small import RECIPE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

MAPS = AttentionMap()


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Convolve in float32, not in TF32, and in one order."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def task(count: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 1, 12, 12, generator=generator), torch.arange(count) % 4


def mlp(seed: int, width: int = 16, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Flatten(), nn.Linear(144, width), nn.ReLU(), nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(width, 4))


def cnn(seed: int, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return SmallCNN(width, classes=4)


def terms(network) -> list:
    kd = [label_term(0.5), logit_term("soft", soft_target_loss, 0.5)]
    at = layer_term("maps", attention_transfer_loss, ["group1"], 10.0, keep=MAPS)
    return kd if network is mlp else [*kd, at]


def trained(network, device, *, engine=None, source=None, teacher_device=None) -> nn.Module:
    student, teacher = network(0).to(device), network(1, 8).to(teacher_device or device)
    distiller = Distiller(student, source or teacher, terms(network))
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.05, momentum=0.9)
    history = fit(
        distiller,
        task(),
        validation=task(20),
        epochs=3,
        batch_size=16,
        optimizer=optimizer,
        engine=engine,
        progress=False,
    )
    assert 0 <= history.epochs[-1]["validation_accuracy"] <= 1
    assert {p.device.type for p in student.parameters()} == {torch.device(device).type}
    assert {p.device.type for p in teacher.parameters()} == {
        torch.device(teacher_device or device).type
    }
    return student


def way(start: nn.Module, end: nn.Module) -> torch.Tensor:
    """All that training moved, as one vector."""
    pairs = zip(start.parameters(), end.parameters(), strict=True)
    return torch.cat([(q.detach().cpu() - p.detach().cpu()).flatten() for p, q in pairs])


def off(network, student: nn.Module, reference: nn.Module) -> float:
    """How far a training ended from another, as a share of the way it went."""
    expected = way(network(0), reference)
    return ((way(network(0), student) - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("network", [mlp, cnn])
def test_training_on_the_gpu_takes_the_steps_of_the_cpu(network):
    reference = trained(network, "cpu")
    assert off(network, trained(network, "cuda"), reference) < 1e-3
    assert off(network, trained(network, "cuda", teacher_device="cpu"), reference) < 1e-3
    pieces = Engine(accumulate=3, clip_norm=100.0)
    if network is mlp:  # batch normalization has the statistics of a piece
        assert off(network, trained(network, "cuda", engine=pieces), reference) < 1e-3


@pytest.mark.parametrize("network", [mlp, cnn])
@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.3), ("fp16", 0.1)])
def test_mixed_precision_trains_near_float32(network, precision, tolerance):
    student = trained(network, "cuda", engine=Engine(precision=precision))
    assert all(p.dtype == torch.float32 for p in student.parameters())
    assert 1e-6 < off(network, student, trained(network, "cpu")) < tolerance


@pytest.mark.parametrize("network", [mlp, cnn])
def test_a_teacher_stored_on_the_gpu_teaches_as_a_live_one_and_is_opened_on_the_cpu(
    network, tmp_path
):
    teacher, images = network(1, 8).cuda(), task()[0]
    stored = cache_teacher(teacher, images, tmp_path, terms(network), progress=False)
    student = trained(network, "cuda", source=stored)
    assert off(network, student, trained(network, "cuda")) < 1e-3
    again = open_cache(tmp_path, teacher=teacher.cpu(), inputs=images, terms=terms(network))
    assert off(network, trained(network, "cpu", source=again), student) < 1e-3


def test_a_projector_follows_its_distiller_to_the_gpu():
    class Hint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(16, 8)

        def forward(self, student, teacher):
            return (self.project(student) - teacher).square().mean()

    model = Distiller(mlp(0), mlp(1, 8), [layer_term("hint", Hint(), ["1"])]).cuda()
    before = copy.deepcopy(model.projectors.state_dict())
    fit(model, task(), epochs=1, progress=False)
    assert all(not torch.equal(v, before[n]) for n, v in model.projectors.state_dict().items())


def test_a_step_that_overflows_in_half_precision_is_left_out_and_the_scale_halved(tmp_path):
    student = mlp(0).cuda()
    model = Distiller(student, None, [label_term(1e4)])  # times the scale of 65536, past float16
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    settings = {"optimizer": optimizer, "engine": Engine(precision="fp16"), "progress": False}
    fit(model, task(), epochs=1, batch_size=48, checkpoints=Checkpoints(tmp_path), **settings)
    assert way(mlp(0), student).norm() == 0
    saved = Checkpoints(tmp_path)
    assert saved.load(saved.latest())["training"]["run"]["scale"] == 32768
    fit(model, task(), epochs=20, batch_size=48, **settings)
    assert 0 < way(mlp(0), student).norm() < 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_resumed_on_the_gpu_ends_bit_for_bit_as_one_that_never_stopped(precision, tmp_path):
    def run(folder, **more) -> nn.Module:
        student = mlp(0, dropout=0.3).cuda()
        model = Distiller(student, mlp(1, 8).cuda(), [label_term(100.0), *terms(mlp)[1:]])
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        fit(
            model,
            task(),
            epochs=4,
            batch_size=16,
            optimizer=optimizer,
            engine=Engine(precision=precision),
            checkpoints=Checkpoints(folder, every_steps=5, keep=9),
            progress=False,
            **more,
        )
        return student

    whole = run(tmp_path / "whole")
    assert way(mlp(0), whole).norm() > 0
    run(tmp_path / "stopped")
    resumed = run(tmp_path / "stopped", resume=tmp_path / "stopped" / "step-00000005")
    for first, second in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, second)


def test_predictions_and_measures_of_a_model_on_the_gpu_are_those_of_the_cpu():
    images, labels = task()
    here, there = cnn(0), cnn(0).cuda()
    logits = predict(there, images, batch_size=10)
    assert logits.is_cuda and torch.allclose(logits.cpu(), predict(here, images), atol=1e-4)
    assert evaluate(there, (images, labels)) == evaluate(here, (images, labels))


def test_attention_maps_are_found_on_the_gpu():
    layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, batch_first=True)
    model = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False).cuda()
    names = attention_layers(model, torch.randn(3, 5, 8))
    assert names == ["layers.0.self_attn[1]", "layers.1.self_attn[1]"]


@pytest.mark.parametrize("cache", ["", "[cache]\ncopies = 2\n"], ids=["live", "stored"])
def test_the_command_line_trains_on_the_gpu(cache, tmp_path):
    text = RECIPE.replace("[methods]", f"{cache}[methods]")
    text = text.replace("epochs = 2", 'epochs = 2\nprecision = "fp16"')
    (tmp_path / "recipe.toml").write_text(text)
    words = [str(tmp_path / "recipe.toml"), "--method", "KD+AT", "--folder", str(tmp_path / "runs")]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    done = CliRunner().invoke(app, ["train", *words, "--no-progress"])
    assert done.exit_code == 0, done.output
    assert torch.cuda.max_memory_allocated() > before
    measured = json.loads((tmp_path / "runs" / "KD+AT-0" / "test.json").read_text())
    again = CliRunner().invoke(app, ["evaluate", *words])
    assert again.exit_code == 0 and f"{measured['accuracy']:.4f}" in again.output


def sides(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, *SHAPES[kind]).to(dtype).unbind()
    return student, teacher


def value_and_gradient(call, student, teacher, *more) -> tuple[torch.Tensor, torch.Tensor]:
    student = student.detach().requires_grad_()
    value = call(student, teacher, *more)
    value.backward()
    return value.detach().cpu().double(), student.grad.cpu().double()


def check_against_the_cpu(call, name, student, teacher, *masks) -> None:
    value, gradient = value_and_gradient(
        call, student.cuda(), teacher.cuda(), *(mask.cuda() for mask in masks)
    )
    exact, exact_gradient = value_and_gradient(call, student.double(), teacher.double(), *masks)
    assert torch.allclose(value, exact, rtol=2e-4, atol=2e-6), name
    step = torch.finfo(student.dtype).eps
    bound = max(2 * step, 2e-4) * exact_gradient.abs().max().item() + 1e-6
    assert (gradient - exact_gradient).abs().max().item() < bound, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", TABLE)
def test_a_loss_on_the_gpu_is_that_of_float64_on_the_cpu(name, dtype):
    student, teacher = sides(TABLE[name].kind, dtype)
    check_against_the_cpu(TABLE[name].call, name, student, teacher)


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_loss_on_the_gpu_is_that_of_float64_on_the_cpu(name):
    student, teacher = sides(MASKED[name], torch.float32)
    mask = torch.arange(student.shape[1 if student.dim() == 3 else -1])[None] < torch.tensor(
        [[3], [2]]
    )
    check_against_the_cpu(masked_call(name), name, student, teacher, mask)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_gradients_of_a_half_precision_head_do_not_suffer_from_chunks(autocast, compiled):
    make = {"device": "cuda", "dtype": torch.bfloat16}
    torch.manual_seed(0)
    hidden = torch.randn(1024, 32, **make, requires_grad=True)
    head, teacher = torch.randn(64, 32, **make, requires_grad=True), torch.randn(1024, 64, **make)
    kl = torch.compile(forward_kl, dynamic=False) if compiled else forward_kl
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        fused = linear_distillation_loss(hidden, head, teacher, loss=kl, chunk=16)
        whole = forward_kl(hidden @ head.T, teacher)
    torch.testing.assert_close(fused, whole)
    found, right = (torch.autograd.grad(loss, (hidden, head)) for loss in (fused, whole))
    for ours, theirs in zip(found, right, strict=True):
        assert (ours - theirs).float().norm() < 1e-3 * theirs.float().norm()
