"""Kill trainings and caches at random steps and in the middle of writes, and see what is left.

    python -m tests.kills fit --kills 20 --processes 2
    python -m tests.kills cache --kills 20

Each run goes on from what the killed one left. After each kill all that counts as saved must be
whole, and in the end the files must be those of a run that never stopped, byte for byte. Runs are
forked from one process that has imported torch, so that a kill costs little. `make test` does a few
(test_kills.py); the commands above do more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")

import torch
import torch.distributed as dist
from safetensors.torch import save
from torch import Tensor, nn

from kdlearn.core.files import digest, read_json
from kdlearn.data import RandomShift
from kdlearn.distill import Distiller, label_term, logit_term, sparse_term
from kdlearn.losses import soft_target_loss, top_k_kl
from kdlearn.store import Sampled, cache_teacher
from kdlearn.training import Checkpoints, Engine, checkpoints, fit
from kdlearn.training.engine import Run

STEPS, SHARDS = 4, 8  # a kill, so that a run lasts longer than its kills
ALIVE = os.WEXITED | os.WNOHANG | os.WNOWAIT


def network(seed: int, width: int) -> nn.Sequential:
    torch.manual_seed(seed)
    body = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.2)
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(36 * width, 4))


def images(count: int) -> Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def train(kills: int, folder: Path) -> None:
    """A run with all that a checkpoint must hold: dropout, statistics, momentum, a schedule."""
    terms = [label_term(0.5), logit_term("soft", soft_target_loss, 0.5)]
    model = Distiller(network(0, 3), network(1, 4), terms)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    fit(
        model,
        (images(32), torch.arange(32) % 4),
        validation=(images(8), torch.arange(8) % 4),
        epochs=kills + 2,
        batch_size=32 // STEPS,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.9),
        augment=RandomShift(1),
        engine=Engine(accumulate=2, clip_norm=1.0),
        progress=False,
        checkpoints=Checkpoints(folder, every_steps=1),
        resume=True,
    )


def store(kills: int, folder: Path) -> None:
    """A cache whose contents are drawn."""
    kept = sparse_term("drawn", top_k_kl, Sampled(5))
    data = images(4 * SHARDS * (kills + 2))
    cache_teacher(network(1, 4), data, folder, [kept], shard_rows=4, progress=False)


class Death:
    """Counts what a process does, and ends it at a given number, in the middle of a write."""

    def __init__(self, number: int) -> None:
        self.left = number

    def comes(self) -> bool:
        self.left -= 1
        return self.left == 0

    def now(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before(self, action: Callable) -> Callable:
        def dying(*arguments, **named):
            if self.comes():
                self.now()
            return action(*arguments, **named)

        return dying

    def halfway(self, write: Callable) -> Callable:
        """A method of Path that may write the first half alone."""

        def dying(path, content, **named):
            if self.comes():
                write(path, content[: len(content) // 2], **named)
                self.now()
            return write(path, content, **named)

        return dying

    def at_a_step(self) -> None:
        Run.forward = self.before(Run.forward)  # type: ignore[method-assign]

    def at_a_write(self) -> None:
        os.replace, os.fsync, os.unlink = map(self.before, (os.replace, os.fsync, os.unlink))
        Path.write_text = self.halfway(Path.write_text)  # type: ignore[method-assign]
        Path.write_bytes = self.halfway(Path.write_bytes)  # type: ignore[method-assign]
        # safetensors writes by itself, in a file that its own code names.
        checkpoints.save_file = lambda tensors, path: path.write_bytes(save(tensors))


def forked(work: Callable[[], None]) -> int:
    number = os.fork()
    if number == 0:
        try:
            work()
            sys.stdout.flush()
            os._exit(0)
        finally:
            os._exit(1)
    return number


def ranks(work: partial, folder: Path, count: int, prepare: Callable[[int], None]) -> list[int]:
    """Start the processes of one run."""
    meeting = Path(tempfile.mkdtemp()) / "meeting"

    def one(rank: int) -> None:
        random.seed(0)  # a fork has drawn it anew
        if count > 1:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
            if work.func is train:
                dist.init_process_group(
                    "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count
                )
        prepare(rank)
        work(folder)

    return [forked(lambda rank=rank: one(rank)) for rank in range(count)]


def killed(work: partial, folder: Path, count: int, dice: random.Random) -> str:
    """Start a run and see it killed; return how."""
    kinds, victims = ["write", "moment"], 1
    if work.func is train:
        kinds, victims = ["step", *kinds], count
    kind, victim = dice.choice(kinds), dice.randrange(victims)
    number = dice.randint(1, 4) if kind == "step" else dice.randint(1, 40)

    def prepare(rank: int) -> None:
        if rank == victim and kind == "step":
            Death(number).at_a_step()
        if kind == "write" and rank == 0:  # the one that writes
            Death(number).at_a_write()

    started = ranks(work, folder, count, prepare)
    dying = started[0 if kind == "write" else victim]
    if kind == "moment":
        wanted = written(folder) + dice.randint(0, 2)
        while written(folder) < wanted and os.waitid(os.P_PID, dying, ALIVE) is None:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.02))
        os.kill(dying, signal.SIGKILL)
    _, status = os.waitpid(dying, 0)
    for other in started:  # as torchrun does
        if other != dying:
            os.kill(other, signal.SIGKILL)
            os.waitpid(other, 0)
    assert os.WIFSIGNALED(status), f"the run ended before it was killed ({kind} {number})"
    return f"{kind} {number if kind != 'moment' else ''}".strip()


def written(folder: Path) -> int:
    """Count what was written, by names alone."""
    steps = [int(path.name.removeprefix("step-")) for path in folder.glob("step-*")]
    return max(steps, default=len(list(folder.glob("*.safetensors"))))


def finished(work: partial, folder: Path, count: int) -> None:
    for process in ranks(work, folder, count, lambda rank: None):
        _, status = os.waitpid(process, 0)
        assert status == 0, f"a run that was not killed ended with {status}"


def saved_steps(folder: Path) -> int:
    """Read all checkpoints, which must be whole, and count the steps of the newest."""
    found = Checkpoints(folder).saved()
    return max((Checkpoints(folder).load(path)["step"] for path in found), default=0)


def saved_shards(folder: Path) -> int:
    """Read all shards that are listed, which must be whole, and count them."""
    if not (folder / "index.json").exists():
        return 0
    shards = read_json(folder / "index.json")["shards"]
    assert all(digest(folder / name) == known for name, known in shards.items())
    return len(shards)


def contents(folder: Path) -> Iterator[tuple[str, object]]:
    """What must be equal: every file, of a checkpoint without the time at which it was written."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name == "state.json":
            state = read_json(path)
            yield name, json.dumps({key: state[key] for key in state if key != "saved"})
        elif path.name != ".lock":
            yield name, path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fit", "cache"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    dice = random.Random(chosen.seed)
    saved = saved_steps if chosen.what == "fit" else saved_shards
    work = partial(train if chosen.what == "fit" else store, chosen.kills)
    with tempfile.TemporaryDirectory() as place:
        whole, cut = Path(place, "whole"), Path(place, "cut")
        finished(work, whole, chosen.processes)
        before = 0
        for number in range(chosen.kills):
            how = killed(work, cut, chosen.processes, dice)
            now = saved(cut)
            print(f"kill {number + 1}: {how}; {now} saved", flush=True)
            assert now >= before, f"{before} were saved before the kill, {now} are left"
            before = now
        finished(work, cut, chosen.processes)
        expected, found = dict(contents(whole)), dict(contents(cut))
        assert expected.keys() == found.keys(), expected.keys() ^ found.keys()
        differ = [name for name in expected if expected[name] != found[name]]
        assert not differ, f"{differ} are not those of a run that never stopped"
    print(f"{chosen.kills} kills, {len(expected)} files as of a run that never stopped")


if __name__ == "__main__":
    main()
