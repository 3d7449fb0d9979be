"""The drills in the order in which to take them, and how to find one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from kdlearn.drills.grader.drill import Drill


@dataclass(frozen=True)
class Chapter:
    """Drills that belong together.

    Attributes:
        name: the chapter's file, ``book/implement/drills-<name>``.
        title: its heading.
        drills: their names, in order.
    """

    name: str
    title: str
    drills: tuple[str, ...]


CHAPTERS = (
    Chapter(
        "logits",
        "Drills: soft targets",
        (
            "softmax-temperature",
            "soft-cross-entropy",
            "kd-loss",
            "kd-gradient",
            "kd-total",
            "decoupled-kd",
            "ensemble-targets",
        ),
    ),
    Chapter(
        "attention",
        "Drills: attention and features",
        (
            "capture-features",
            "activation-map",
            "at-loss",
            "at-layers",
            "hint-loss",
            "rkd-angle",
            "attention-weights",
            "attention-rollout",
            "attention-kl",
            "linear-attention-map",
        ),
    ),
    Chapter(
        "training",
        "Drills: training and measuring",
        (
            "rapid-fire",
            "standardize",
            "trainable-parameters",
            "train-step",
            "same-view",
            "teacher-cache",
            "whole-process",
            "fidelity-report",
            "calibration-error",
            "temperature-scaling",
            "permuted-targets",
            "paired-comparison",
            "loss-grader",
        ),
    ),
    Chapter(
        "language",
        "Drills: language models",
        (
            "token-kd",
            "reverse-kl",
            "generalized-jsd",
            "top-k-kd",
            "tail-bucket",
            "span-alignment",
            "on-policy",
            "opd-step",
            "k-estimators",
            "speculative-acceptance",
            "marginmse",
        ),
    ),
)
"""All chapters."""


def names() -> list[str]:
    """Return the names of all drills, in order.

    Example:
        >>> names()[:2]
        ['softmax-temperature', 'soft-cross-entropy']
    """
    return [drill for chapter in CHAPTERS for drill in chapter.drills]


def find(name: str) -> Drill:
    """Return a drill by its name.

    Raises:
        KeyError: there is no such drill; the message has the nearest names.

    Example:
        >>> find("kd-loss").function
        'kd_loss'
    """
    known = names()
    if name not in known:
        near = [other for other in known if set(other.split("-")) & set(str(name).split("-"))]
        raise KeyError(
            f"there is no drill {name!r}: choose from {', '.join(near or known)}. status() lists "
            "all."
        )
    drill: Drill = import_module(f"kdlearn.drills.tasks.{name.replace('-', '_')}").drill
    return drill
