"""What a recipe calls by name: data and networks, shipped or your own, and public losses."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import nn

from kdlearn import losses
from kdlearn.data import cifar, cluttered_digits, warped_digits
from kdlearn.distill.terms import label_cross_entropy
from kdlearn.models import SlimWRN, SmallCNN

DATA: Mapping[str, Callable[..., Any]] = {
    "warped-digits": warped_digits,
    "cluttered-digits": cluttered_digits,
    "cifar10": partial(cifar, "cifar10"),
    "cifar100": partial(cifar, "cifar100"),
}
LABELS = "labels"  # the loss of `kdlearn.distill.label_term`
NETWORKS: Mapping[str, Callable[..., nn.Module]] = {"small-cnn": SmallCNN, "wrn": SlimWRN}

# The words of the package for the output of a layer; relation_loss says only whose it is.
LAYER_PAIRS = {
    (f"student{word}", f"teacher{word}")
    for word in ("_features", "_embeddings", "_states", "_factors", "_scores", "")
}


def function(name: str, shipped: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Find what a name stands for: a shipped function, or ``package.module:function`` of your own.

    Raises:
        ValueError: there is none.

    Example:
        >>> function("small-cnn", NETWORKS) is function("kdlearn.models:SmallCNN", NETWORKS)
        True
    """
    if name in shipped:
        return shipped[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(
            f"{name!r} is not one of {', '.join(map(repr, shipped))}; your own has the form "
            "'my_module:my_function'"
        )
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # your module may fail in any way
        raise ValueError(
            f"{name!r} cannot be imported ({error}): start kdlearn in the folder of {module}.py"
        ) from error
    if not callable(found):
        raise ValueError(f"{name!r} is {found!r}: expected a function")
    return found


def check_options(make: Callable[..., Any], given: Collection[str], taken: Collection[str]) -> None:
    """Check that a function has the options that it is given, and is given all that it needs.

    Args:
        make: the function.
        given: names of the options.
        taken: parameters that are no options, because the caller fills them in.

    Raises:
        ValueError: the function has no such option, or one is missing.

    Example:
        >>> check_options(SmallCNN, ["widht"], taken=("classes", "channels"))
        Traceback (most recent call last):
        ...
        ValueError: there is no 'widht'; did you mean 'width'?
    """
    parameters = inspect.signature(make).parameters.values()
    known = {
        p.name: p.default
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in taken
    }
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in given:
            if name not in known:
                raise ValueError(f"there is no {name!r}; {hint(name, known)}")
    for name, default in known.items():
        if default is inspect.Parameter.empty and name not in given:
            raise ValueError(f"{name!r} is missing and has no default")


def make(function: Callable[..., Any], options: Mapping[str, Any], **offered: Any) -> Any:
    """Call a function with its options, and with what is offered where it has such a parameter.

    Example:
        >>> make(lambda width: width, {"width": 4}, seed=0), make(lambda seed: seed, {}, seed=3)
        (4, 3)
    """
    parameters = inspect.signature(function).parameters
    return function(
        **options, **{name: value for name, value in offered.items() if name in parameters}
    )


def hint(wrong: str, known: Iterable[str]) -> str:
    """Return what was probably meant, or else all that is known.

    Example:
        >>> hint("epoch", ["epochs", "seed"]), hint("x", ["epochs", "seed"]), hint("x", [])
        ("did you mean 'epochs'?", 'known are epochs, seed', 'there is none')
    """
    known = list(known)
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(known)}" if known else "there is none"


Reads = Literal["labels", "logits", "logits and labels", "layers"]


@dataclass(frozen=True)
class Loss:
    """A loss, and what it reads: the names of its parameters say that.

    Attributes:
        function: the loss; or a class whose objects are the loss, with parameters to train.
        reads: what a recipe has to hand on to it.
        tensors: the parameters that are filled in, never options.
    """

    function: Callable[..., Any]
    reads: Reads
    tensors: tuple[str, ...]


def loss(name: str) -> Loss:
    """Find a loss by name, and read what it needs from its signature.

    Convention
        ``labels`` is the cross-entropy that `kdlearn.distill.label_term` has.
        ``student_logits, teacher_logits`` are logits, with ``labels`` behind them the labels too;
        ``student_X, teacher_X`` are a layer's outputs, where X is what the package calls such an
        output.

    Raises:
        ValueError: there is no such loss, or it reads what a recipe cannot name.

    Example:
        >>> [loss(name).reads for name in ("dkd_loss", "hint_loss")]
        ['logits and labels', 'layers']
        >>> loss("fsp_loss")
        Traceback (most recent call last):
        ...
        ValueError: fsp_loss reads student_pair, teacher_pair; a recipe gives a loss ...
    """
    known = (LABELS, *losses.__all__)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
        raise ValueError(f"there is no loss {name!r}; close are {', '.join(close)}")
    function = label_cross_entropy if name == LABELS else getattr(losses, name)
    tensors = tuple(
        p.name
        for p in inspect.signature(function).parameters.values()
        if "Tensor" in str(p.annotation)
    )
    called = getattr(function, "forward", function)  # of a class, what its objects are called with
    inputs = [
        p.name
        for p in inspect.signature(called).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"
    ]
    match inputs:
        case [_, "labels"]:
            return Loss(function, "labels", tensors)
        case ["student_logits", "teacher_logits"]:
            return Loss(function, "logits", tensors)
        case ["student_logits", "teacher_logits", "labels"]:
            return Loss(function, "logits and labels", tensors)
        case [student, teacher] if (student, teacher) in LAYER_PAIRS:
            return Loss(function, "layers", tensors)
    raise ValueError(
        f"{name} reads {', '.join(inputs)}; a recipe gives a loss the logits of both models, with "
        "or without labels, or one layer of each: what reads something else goes into a "
        "kdlearn.distill.Term, in Python"
    )
