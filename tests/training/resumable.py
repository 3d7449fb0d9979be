"""Kinds of scripts that must go on in a new process; started twice by test_resume.py."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    SequentialLR,
)
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from kdlearn.data import FixedCopies
from kdlearn.distill import Distiller, Term, layer_term, logit_term
from kdlearn.losses import MGDLoss, soft_target_loss
from kdlearn.training import Checkpoints, Engine, fit
from kdlearn.training.engine import Run

X = torch.randn(40, 3, generator=Generator().manual_seed(0))
Y = torch.arange(40) % 3


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))


def distilled(loss: Callable[..., Tensor], **more: Any) -> Distiller:
    return Distiller(network(), network(1), [logit_term("soft", loss, **more)])


def with_a_set(student: Tensor, teacher: Tensor, kind: str = "kl") -> Tensor:
    if kind in {"kl", "soft", "hinton", "softened"}:
        return soft_target_loss(student, teacher)
    return (student - teacher).square().mean()


class Loss:
    """Holds a set, a cycle, a generator and a private temperature."""

    __slots__ = ("_T", "generator", "kinds", "me")

    def __init__(self) -> None:
        self.kinds, self.me, self._T = {"a", "b", "c", "d"}, self, 2.0
        self.generator = np.random.default_rng(0)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return soft_target_loss(student, teacher, temperature=self._T)


class Logged(nn.Module):
    """Notes its values and counts its calls, in attributes and in a buffer that sets T."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.calls += 1
        loss = soft_target_loss(student, teacher, temperature=1 + self.calls.item())
        self.values.append(loss.item())
        return loss


class Jitter:
    def __init__(self, scale: float) -> None:
        self.scale, self.unused = scale, [random.Random(0), np.random.default_rng(0), Generator()]

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return images + self.scale * torch.randn(images.shape, generator=generator)


def convolved() -> nn.Module:
    first = nn.Conv2d(1, 4, 1)
    return nn.Sequential(nn.Unflatten(1, (1, 1, 3)), first, nn.Flatten(), nn.Linear(12, 3))


def generative() -> Distiller:
    torch.manual_seed(0)
    student, teacher = convolved(), convolved()
    return Distiller(student, teacher, [layer_term("mgd", MGDLoss(4, 4), ["1"])])


def masked(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    return ((student - teacher).square().mean(-1) * mask).mean()


def weighed(student: Tensor, teacher: Tensor, weights: np.ndarray) -> Tensor:
    return (student - teacher).square().mean() * float(weights.mean())


def by_hand() -> Distiller:
    term = Term("x", 1.0, nn.functional.mse_loss, lambda s, t, y: [(2 * s.logits, t.logits)])
    return Distiller(network(), network(1), [term])


def scheduled(make: Callable[[Any], Any], kind: Any = AdamW, **options: Any) -> dict[str, Any]:
    model = network()
    optimizer = kind(model.parameters(), lr=0.01, **options)
    return {"model": model, "optimizer": optimizer, "scheduler": make(optimizer)}


def loaded(**options: Any) -> dict[str, Any]:
    data = TensorDataset(X, Y)
    inside = options.pop("inside", None)
    if inside is not None:
        sampler = RandomSampler(data, generator=Generator().manual_seed(inside))
        options = {"batch_sampler": BatchSampler(sampler, 10, drop_last=False)}
    return {"model": network(), "train": DataLoader(data, **options)}


def warmed(optimizer: Any) -> Any:
    return SequentialLR(optimizer, [LinearLR(optimizer), CosineAnnealingLR(optimizer, 9)], [3])


def weighted() -> WeightedRandomSampler:
    return WeightedRandomSampler(torch.where(Y == 0, 3.0, 1.0).tolist(), 40)


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "labels": lambda: {"model": network()},
    "a set in the code": lambda: {"model": distilled(with_a_set)},
    "an object": lambda: {"model": distilled(Loss())},
    "a closure": lambda: {"model": distilled(lambda s, t: soft_target_loss(s, t, temperature=2.0))},
    "a partial with an array": lambda: {
        "model": distilled(partial(weighed, weights=np.ones(3000)))
    },
    "a loss that counts in a buffer": lambda: {"model": distilled(Logged())},
    "a mask": lambda: {"model": distilled(masked, mask=lambda batch: batch.labels != 0)},
    "arguments by hand": lambda: {"model": by_hand()},
    "a loss with parameters": lambda: {"model": generative()},
    "a loss from torch": lambda: {"model": distilled(nn.MSELoss())},
    "an augmentation with generators": lambda: {"model": network(), "augment": Jitter(0.1)},
    "fixed copies": lambda: {"model": network(), "augment": FixedCopies(Jitter(0.1), (0, 1))},
    "a lambda of the rate": lambda: scheduled(lambda o: LambdaLR(o, lambda k: 0.9**k)),
    "a sequence of schedules": lambda: scheduled(warmed),
    "milestones of numpy": lambda: scheduled(lambda o: MultiStepLR(o, np.array([3, 9]))),
    "numbers of numpy": lambda: scheduled(
        lambda o: CosineAnnealingLR(o, np.int64(12), np.float32(1e-3)),
        SGD,
        momentum=np.float32(0.9),
        weight_decay=np.float32(0.01),
    ),
    "a shuffling loader": lambda: loaded(batch_size=10, shuffle=True),
    "a sampler with weights": lambda: loaded(batch_size=10, sampler=weighted()),
    "a batch sampler with a generator inside": lambda: loaded(inside=5),
    "accumulation": lambda: {"model": network(), "engine": Engine(accumulate=3)},
    "half the precision": lambda: {"model": network().bfloat16(), "train": (X.bfloat16(), Y)},
}


def run(kind: str, folder: Path | None = None, **more: Any) -> nn.Module:
    settings = {"train": (X, Y), "epochs": 3, "batch_size": 10, "progress": False, **KINDS[kind]()}
    if folder is not None:
        more["checkpoints"] = Checkpoints(folder, every_steps=3)
    fit(**settings, **more)
    return settings["model"]


class Stop(Exception):
    pass


def stop(folder: Path, steps: int) -> None:
    """Run each kind for some steps, and each without a stop."""
    forward = Run.forward
    for number, kind in enumerate(KINDS):
        torch.save(run(kind).state_dict(), folder / f"{number}.pt")
        left = iter(range(steps))

        def until(self: Run, batch: Any, left: Any = left) -> Any:
            if next(left, None) is None:
                raise Stop
            return forward(self, batch)

        Run.forward = until  # type: ignore[method-assign]
        try:
            run(kind, folder / str(number))
        except Stop:
            pass
        finally:
            Run.forward = forward  # type: ignore[method-assign]


def go_on(folder: Path) -> None:
    """Go on with each kind; print what became of it."""
    for number, kind in enumerate(KINDS):
        try:
            ours = run(kind, folder / str(number), resume=True).state_dict()
            whole = torch.load(folder / f"{number}.pt")
            equal = all(torch.equal(ours[name], whole[name]) for name in whole)
            print(f"{kind}: {'equal' if equal else 'differs'}")
        except Exception as error:
            print(f"{kind}: {type(error).__name__} {error}")


if __name__ == "__main__":
    where = Path(sys.argv[2])
    go_on(where) if sys.argv[1] == "on" else stop(where, int(sys.argv[1]))
