import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kdlearn.distill import Distiller, label_term, layer_term, logit_term
from kdlearn.losses import attention_transfer_loss, soft_target_loss
from kdlearn.training.engine import Engine
from kdlearn.training.fit import fit


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


def moved(model: nn.Module) -> float:
    return farthest(model, distiller().state_dict())


WHOLE = trained()


def test_pieces_of_a_batch_give_the_gradient_of_the_batch():
    # 30 samples make batches of 8, 8, 7 and 7: the pieces are not all of one size.
    pieces = trained(Engine(accumulate=3))
    assert farthest(pieces, WHOLE.state_dict()) < 1e-5 < 1e-2 < moved(WHOLE)


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
    with pytest.raises(ValueError, match=said):
        Engine(**settings)


def test_more_pieces_than_samples_are_refused():
    with pytest.raises(ValueError, match="7 samples for 1 processes x 8 pieces"):
        fit(network(0), task(7), epochs=1, engine=Engine(accumulate=8), progress=False)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_engine import Engine, os, task, trained
from kdlearn.training.engine import Run
from kdlearn.training.checkpoints import Checkpoints
from safetensors.torch import save_file
if sys.argv[1] == "stop":
    class Stop(Exception): pass
    forward, taken = Run.forward, []
    def counted(self, batch):
        taken.append(1)
        if len(taken) > 5: raise Stop
        return forward(self, batch)
    Run.forward = counted
    try: trained(checkpoints=Checkpoints({folder!r} + "/run", every_steps=1))
    except Stop: pass
elif sys.argv[1] == "resume":
    model = trained(checkpoints=Checkpoints({folder!r} + "/run", every_steps=1), resume=True)
else:
    model = trained(Engine(accumulate=2), validation=task(9))
if sys.argv[1] != "stop":
    save_file(model.state_dict(), {folder!r} + "/" + sys.argv[1] + os.environ["RANK"] + ".safetensors")
"""


def launch(folder: Path, mode: str) -> None:
    script = folder / "train.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), mode]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_give_the_parameters_of_one_with_the_same_batches(tmp_path):
    launch(tmp_path, "whole")
    first, second = (load_file(tmp_path / f"whole{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert farthest(WHOLE, first) < 1e-5


def test_two_processes_resume_where_they_were(tmp_path):
    launch(tmp_path, "stop")
    assert (tmp_path / "run" / "step-00000005").is_dir()
    launch(tmp_path, "resume")
    assert farthest(WHOLE, load_file(tmp_path / "resume0.safetensors")) < 1e-5
