"""What a GPU must give: the numbers of the CPU. Skipped where there is none."""

import copy
import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from kdlearn.cli import app
from kdlearn.data import FixedCopies, RandomAffine, RandomShift
from kdlearn.distill import (
    CRDLoss,
    Distiller,
    attention_layers,
    crd_term,
    label_term,
    layer_term,
    logit_term,
)
from kdlearn.losses import (
    attention_transfer_loss,
    forward_kl,
    linear_distillation_loss,
    reverse_kl,
    soft_target_loss,
)
from kdlearn.measure import (
    accuracy,
    agreement,
    energy_in_box,
    evaluate,
    expected_calibration_error,
    kl_to_teacher,
    linear_cka,
    pointing_game,
    predict,
)
from kdlearn.models import RecurrentLM, SlimWRN, SmallCNN, TinyTransformer
from kdlearn.store import AttentionMap, cache_teacher, open_cache
from kdlearn.training import (
    Checkpoints,
    Engine,
    OnPolicy,
    adamw,
    answer_mask,
    fit,
    generate,
    speculate,
)
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


def trained(
    network, device, *, source=None, teacher_device=None, data_device="cpu", adam=False, **options
) -> nn.Module:
    student, teacher = network(0).to(device), network(1, 8).to(teacher_device or device)
    distiller = Distiller(student, source or teacher, terms(network))
    sgd = torch.optim.SGD(distiller.parameters(), lr=0.05, momentum=0.9)
    history = fit(
        distiller,
        tuple(part.to(data_device) for part in task()),
        validation=tuple(part.to(data_device) for part in task(20)),
        epochs=3,
        batch_size=16,
        optimizer=None if adam else sgd,
        progress=False,
        **options,
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
    assert off(network, trained(network, "cuda", data_device="cuda"), reference) < 1e-3
    pieces = Engine(accumulate=3, clip_norm=100.0)
    if network is mlp:  # batch normalization has the statistics of a piece
        assert off(network, trained(network, "cuda", engine=pieces), reference) < 1e-3


@pytest.mark.parametrize("network", [mlp, cnn])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.02), ("bf16", 0.3), ("fp16", 0.1)])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_the_default_optimizer_takes_the_steps_of_the_cpu(network, precision, tolerance, clip_norm):
    engine = Engine(precision=precision, clip_norm=clip_norm)
    student = trained(network, "cuda", adam=True, engine=engine)
    reference = trained(network, "cpu", adam=True, engine=Engine(clip_norm=clip_norm))
    assert off(network, student, reference) < tolerance


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_default_optimizer_steps_as_the_loop_over_weights(layout):
    ours, theirs = (cnn(0).cuda().to(memory_format=layout) for _ in range(2))
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    optimizer = adamw(ours.parameters(), 1e-2)
    assert optimizer.defaults["fused"] is (layout == torch.contiguous_format)
    loop = torch.optim.AdamW(theirs.parameters(), 1e-2, foreach=False)
    for _ in range(4):
        ours.zero_grad()
        ours(task()[0].cuda()).square().mean().backward()
        for weight, same in pairs:
            same.grad = weight.grad.clone()
        optimizer.step()
        loop.step()
    for weight, same in pairs:
        torch.testing.assert_close(weight, same)


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


@pytest.mark.parametrize("change", [RandomShift(2), RandomAffine()], ids=lambda c: type(c).__name__)
def test_data_on_the_gpu_are_stored_shown_and_measured_as_on_the_cpu(change, tmp_path):
    copies, images = FixedCopies(change, (0, 1)), task()[0]
    teacher = mlp(1, 8).cuda()
    on_gpu = {"copies": copies, "progress": False}
    stored = cache_teacher(teacher, images.cuda(), tmp_path, terms(mlp), **on_gpu)
    student = trained(mlp, "cuda", source=stored, data_device="cuda", augment=copies)
    open_cache(tmp_path, teacher=teacher, inputs=images, terms=terms(mlp), copies=copies)
    assert off(mlp, student, trained(mlp, "cpu", augment=copies)) < 1e-3
    drawn = trained(mlp, "cuda", data_device="cuda", augment=change)
    assert off(mlp, drawn, trained(mlp, "cpu", augment=change)) < 1e-3
    labels = (task()[0].cuda(), task()[1].cuda())
    assert evaluate(student, labels) == pytest.approx(evaluate(student.cpu(), task()))


def test_a_teacher_stored_by_a_gpu_as_pytorch_sets_it_is_opened_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.manual_seed(0)
    images = torch.randn(32, 3, 16, 16)
    teacher = SlimWRN((32, 64, 128), blocks=2, classes=100, channels=3)
    cache_teacher(teacher.cuda(), images, tmp_path, progress=False)
    assert len(open_cache(tmp_path, teacher=teacher.cpu(), inputs=images)) == 32


@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_on_another_device(first, then, tmp_path):
    keep = {"checkpoints": Checkpoints(tmp_path, every_steps=2, keep=9)}
    reference = trained(cnn, first, **keep)
    resumed = trained(cnn, then, **keep, resume=tmp_path / "step-00000004")
    assert off(cnn, resumed, reference) < 1e-3


@pytest.mark.parametrize("kind", [RecurrentLM, TinyTransformer])
def test_a_student_writes_on_the_gpu_what_it_writes_on_the_cpu(kind):
    def student(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return kind(symbols=12)

    prompts = torch.arange(32).view(8, 4) % 12
    ends = []
    for device in ("cpu", "cuda"):
        model, teacher = student(0).to(device), student(1).to(device)
        soft = logit_term("reverse", reverse_kl, mask=answer_mask)
        views = OnPolicy(model, prompt=4, new_tokens=5)
        sgd = torch.optim.SGD(model.parameters(), lr=0.01)
        settings = {"augment": views, "optimizer": sgd, "batch_size": 4, "progress": False}
        fit(Distiller(model, teacher, [soft]), (prompts, None), epochs=2, **settings)
        draws = torch.Generator().manual_seed(0)
        spoken = speculate(teacher, model, prompts[:1].to(device), 3, generator=draws)
        written = generate(model, prompts.to(device), 5, temperature=0)
        ends.append((model, written.tokens.cpu(), spoken.tokens.cpu()))
    (cpu, wrote, spoke), (gpu, wrote_too, spoke_too) = ends
    assert torch.equal(wrote, wrote_too) and torch.equal(spoke, spoke_too)
    assert (way(student(0), gpu) - way(student(0), cpu)).norm() < 1e-3 * way(student(0), cpu).norm()


def test_a_contrast_with_all_samples_is_drawn_on_the_gpu():
    features = torch.randn(48, 144)
    loss = CRDLoss(16, 8, task()[1], negatives=4)
    model = Distiller(mlp(0), mlp(1, 8), [crd_term("crd", loss, "1", "1")]).cuda()
    before = loss.student_memory.clone()
    fit(model, (features, None), epochs=1, progress=False)
    assert loss.student_memory.is_cuda and not torch.equal(loss.student_memory, before)


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


@pytest.mark.parametrize("make", [torch.optim.SGD, adamw])
def test_a_step_that_overflows_in_half_precision_is_left_out_and_the_scale_halved(make, tmp_path):
    student = mlp(0).cuda()
    model = Distiller(student, None, [label_term(1e4)])  # times the scale of 65536, past float16
    optimizer = make(model.parameters(), 1e-6)
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


def test_numbers_about_logits_features_and_maps_on_the_gpu_are_those_of_the_cpu():
    one, other, labels = torch.randn(40, 6), torch.randn(40, 6), torch.arange(40) % 6
    maps, boxes = torch.rand(40, 5, 5), torch.tensor([[0.1, 0.2, 0.7, 0.9]]).expand(40, 4)
    for measure, given in (
        (agreement, (one, other)),
        (kl_to_teacher, (one, other)),
        (linear_cka, (one, other)),
        (accuracy, (one, labels)),
        (expected_calibration_error, (one, labels)),
        (pointing_game, (maps, boxes)),
        (energy_in_box, (maps, boxes)),
    ):
        there = measure(*(part.cuda() for part in given))
        assert there == pytest.approx(measure(*given), abs=1e-12), measure


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
