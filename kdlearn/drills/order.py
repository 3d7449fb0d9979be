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
        introduction: what its drills practice, in Markdown.
        drills: their names, in order.
    """

    name: str
    title: str
    introduction: str
    drills: tuple[str, ...]


CHAPTERS = (
    Chapter(
        "logits",
        "Drills: soft targets",
        (
            "From a stable softmax with a temperature to the decoupled loss: six functions on logits. Each is a "
            "few lines, and each has a factor, an order or a reduction that is easy to get wrong. An interviewer "
            "who asks for one of them listens for just that."
        ),
        (
            "softmax-temperature",
            "soft-cross-entropy",
            "kd-loss",
            "kd-gradient",
            "kd-total",
            "decoupled-kd",
        ),
    ),
    Chapter(
        "attention",
        "Drills: attention and features",
        (
            "Read a layer without editing the model, make a map of it, and match it; then the attention of "
            "transformers. The mistakes here are wrong dimensions: a normalization over the batch still runs, and "
            "still gives a number."
        ),
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
        ),
    ),
    Chapter(
        "training",
        "Drills: training and measuring",
        (
            "What surrounds the loss: which parameters train, which mode the teacher is in, which pixels both "
            "networks see, and whether the difference at the end is more than luck. It begins with twelve "
            "statements to call true or false."
        ),
        (
            "rapid-fire",
            "standardize",
            "trainable-parameters",
            "train-step",
            "same-view",
            "teacher-cache",
            "whole-process",
            "fidelity-report",
            "paired-comparison",
            "loss-grader",
        ),
    ),
    Chapter(
        "language",
        "Drills: language models",
        (
            "Distributions over tokens: padding, the direction of the divergence, teachers that stored only their "
            "largest probabilities, and a student that learns on what it writes itself."
        ),
        ("token-kd", "reverse-kl", "generalized-jsd", "top-k-kd", "on-policy"),
    ),
)
"""All chapters."""


def names() -> list[str]:
    """Give the names of all drills, in order.

    Example:
        >>> len(names())
        30
    """
    return [drill for chapter in CHAPTERS for drill in chapter.drills]


def find(name: str) -> Drill:
    """Give a drill by its name.

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
            f"there is no drill {name!r}: choose from {', '.join(near or known)}. status() lists all."
        )
    drill: Drill = import_module(f"kdlearn.drills.{name.replace('-', '_')}").drill
    return drill
