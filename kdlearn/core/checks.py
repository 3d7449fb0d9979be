"""Checks at the border: what is let in gives a right, finite result, the rest is refused.

Each error tells what was given, what was expected and what to do. A wrong kind of thing is a
``TypeError``, a wrong value or shape a ``ValueError``. Kinds and shapes are always checked. Values
(NaN, infinities, labels out of range) are not under ``torch.compile``, nor where the environment
says ``KDLEARN_CHECKS=0`` when kdlearn is imported.

In all of them ``name`` and ``what`` are what a message calls the thing, in the plural ("student
logits"), ``values`` what it may hold, see :func:`check_tensor`, and ``advice`` a clause that says
what to do.
"""

import functools
import inspect
import math
import numbers
import operator
import os
from collections.abc import Callable
from typing import Any, Literal, ParamSpec

import torch
from torch import Tensor

CHECKS = os.environ.get("KDLEARN_CHECKS") != "0"
Values = Literal["finite", "logits", "any"]
Arguments = ParamSpec("Arguments")


def checks_values() -> bool:
    """Whether values are looked at, which costs a pass over them and makes a GPU wait.

    Example:
        >>> checks_values()
        True
    """
    return CHECKS and not torch.compiler.is_compiling()


def check_tensor(tensor: Tensor, name: str, values: Values = "finite") -> None:
    """Refuse what is no floating-point tensor, is empty, or holds values without a place there.

    Args:
        tensor: what to look at.
        name: what to call it in a message, in the plural, e.g. "student logits".
        values: "finite" numbers alone; "logits", see :func:`check_logit_values`; or "any".

    Example:
        >>> check_tensor(torch.tensor([1, 2]), "student logits")
        Traceback (most recent call last):
        ...
        TypeError: student logits must be floating point, got torch.int64: call .float() on them.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(tensor).__name__}: "
            "convert with torch.as_tensor."
        )
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name} must be floating point, got {tensor.dtype}: call .float() on them."
        )
    if tensor.numel() == 0:
        raise ValueError(
            f"{name} are empty, shape {tuple(tensor.shape)}: skip empty batches, they have no mean."
        )
    if values == "finite":
        check_values(tensor, name)
    elif values == "logits":
        check_logit_values(tensor, name)


def check_values(tensor: Tensor, name: str, *, minus_infinity: bool = False) -> float:
    """Refuse NaN and infinities; return the lowest number, or NaN where values are not looked at.

    Args:
        tensor: what to look at.
        name: what to call it in a message, in the plural.
        minus_infinity: whether minus infinity is welcome, as it is in logits and scores.

    Example:
        >>> check_values(torch.tensor([1.0, torch.inf]), "features")
        Traceback (most recent call last):
        ...
        ValueError: features contain inf: float16 ends at 65,504, so compute them in float32 or
            bfloat16, or look for a diverged model.
    """
    if not checks_values():
        return math.nan
    looked_at = tensor.detach()
    if not tensor.is_contiguous():
        # In the order of memory: images with channels side by side would take ten times as long.
        looked_at = looked_at.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
    ends = torch.aminmax(looked_at)
    # A GPU is waited for once; a CPU reads two numbers faster than it stacks them.
    low, high = torch.stack(ends).tolist() if tensor.is_cuda else (ends[0].item(), ends[1].item())
    if math.isnan(low):
        raise ValueError(
            f"{name} contain NaN: look for a diverged model or a division by zero before the loss."
        )
    if high == math.inf:
        raise ValueError(
            f"{name} contain inf: float16 ends at 65,504, so compute them in float32 or bfloat16, "
            "or look for a diverged model."
        )
    if low == -math.inf and not minus_infinity:
        raise ValueError(
            f"{name} contain -inf, which has a place only where a softmax leaves out what is ruled "
            "out: write a finite number such as -1e4, or look for a diverged model."
        )
    return low


def check_logit_values(logits: Tensor, name: str, *, probabilities: bool = False) -> None:
    """Refuse NaN, plus infinity, rows that are minus infinity throughout, and probabilities.

    Args:
        logits: shape (..., C), before a softmax over C.
        name: what to call them in a message, in the plural.
        probabilities: whether these are welcome too, where nothing but the order counts.

    Example:
        >>> check_logit_values(torch.tensor([[0.3, 0.7]]), "scores")
        Traceback (most recent call last):
        ...
        ValueError: scores sum to 1 in each row, as probabilities do: give what stood before the
            softmax, or the logarithms.
    """
    low = check_values(logits, name, minus_infinity=True)
    if low == -math.inf and bool((logits == -math.inf).all(dim=-1).any()):
        raise ValueError(
            f"{name} have a row that is -inf throughout, so nothing is left to choose from: leave "
            "such rows out, by the mask where the loss takes one."
        )
    # Rows of zeros with a one are logits too, in examples.
    if not probabilities and (low > 0 or (low == 0 and bool((logits != logits.round()).any()))):
        check_no_probabilities(logits, name)


def check_no_probabilities(scores: Tensor, name: str) -> None:
    """Refuse rows that are all at least 0 and sum to 1, which a softmax has gone over already."""
    if not checks_values() or scores.shape[-1] == 1:
        return
    if sum_to_one(scores) and bool(scores.any()):
        raise ValueError(
            f"{name} sum to 1 in each row, as probabilities do: give what stood before the "
            "softmax, or the logarithms."
        )


def sum_to_one(scores: Tensor) -> bool:
    """Whether all rows are at least 0 and sum to 1, or are 0 throughout as padding is.

    Example:
        >>> sum_to_one(torch.tensor([[0.25, 0.75], [0.0, 0.0]]))
        True
    """
    if scores.detach().amin().item() < 0:
        return False
    home = "cpu" if scores.device.type == "mps" else scores.device  # which has no double precision
    sums = scores.detach().to(home).double().sum(dim=-1)
    # Half precision is some thousandths off. Wider than need be, a few logits would fall inside.
    off = 1e-2 if scores.element_size() == 2 else 1e-5
    return bool(((sums - 1).abs() < off).logical_or(sums == 0).all())


def check_overflow(lengths: Tensor, name: str) -> None:
    """Refuse lengths or squares that have become infinite, and would turn vectors into zeros.

    Example:
        >>> check_overflow(torch.tensor([1e30]).square(), "features")
        Traceback (most recent call last):
        ...
        ValueError: features are so large that their squares leave torch.float32:
            look for a diverged model, or scale them down.
    """
    if checks_values() and not math.isfinite(lengths.detach().max().item()):
        raise ValueError(
            f"{name} are so large that their squares leave {lengths.dtype}: look for a diverged "
            "model, or scale them down."
        )


def finite_or_refused(loss: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Give a loss what autograd can save, on one device, and refuse a value that is not finite.

    Example:
        >>> loss = finite_or_refused(torch.nn.functional.mse_loss)
        >>> loss(torch.tensor([3e38]), torch.tensor([0.0]))
        Traceback (most recent call last):
        ...
        ValueError: mse_loss is inf: numbers are too large for torch.float32 or too far apart:
            look for a diverged model, scale them down, or give float64.
        >>> loss(torch.ones(1), torch.ones(1, device="meta"))
        Traceback (most recent call last):
        ...
        ValueError: input are on cpu and target on meta: move one of them.
    """
    names = tuple(inspect.signature(loss).parameters)

    @functools.wraps(loss)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        if torch.compiler.is_compiling():
            return loss(*args, **kwargs)
        # To look at each tensor ahead would take a small loss a fifth of its time.
        try:
            value = loss(*args, **kwargs)
        except RuntimeError:
            given = _tensors({**dict(zip(names, args, strict=False)), **kwargs})
            for name, tensor in given[1:]:
                check_device(given[0][1], tensor, given[0][0], name)
            if not any(tensor.is_inference() for _, tensor in given):
                raise
            value = loss(*trackable(args), **trackable(kwargs))
        if checks_values() and not math.isfinite(value.item()):
            given = _tensors({**dict(zip(names, args, strict=False)), **kwargs})
            if any(bool((tensor == -math.inf).any()) for _, tensor in given):
                why = (
                    "what one side rules out by -inf has probability on the other: rule it out on "
                    "both, or write a finite number such as -1e4"
                )
            else:
                why = (
                    f"numbers are too large for {value.dtype} or too far apart: look for a "
                    "diverged model, scale them down, or give float64"
                )
            name = loss.__qualname__.removesuffix(".forward")
            raise ValueError(f"{name} is {value.item()}: {why}.")
        return value

    return checked


def _tensors(arguments: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """The tensors among arguments, and in sequences of them, each with its argument's name."""
    return [
        (name.replace("_", " "), tensor)
        for name, given in arguments.items()
        for tensor in (given if isinstance(given, tuple | list) else (given,))
        if isinstance(tensor, Tensor)
    ]


def trackable(given: Any) -> Any:
    """Copy tensors that were made under ``torch.inference_mode``, which autograd does not save.

    Args:
        given: anything; of tuples, lists and dicts the members.

    Example:
        >>> with torch.inference_mode():
        ...     logits = torch.ones(2)
        >>> logits.is_inference(), trackable((logits, 4.0))[0].is_inference()
        (True, False)
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return given
    if isinstance(given, Tensor):
        return given.clone() if given.is_inference() else given
    if isinstance(given, tuple):
        return tuple(map(trackable, given))
    if isinstance(given, list):
        return list(map(trackable, given))
    if isinstance(given, dict):
        return {name: trackable(member) for name, member in given.items()}
    return given


def check_pair(student: Tensor, teacher: Tensor, what: str, values: Values = "finite") -> None:
    """Check a student tensor and a teacher tensor, and that both live on one device.

    Example:
        >>> check_pair(torch.ones(2, 3), torch.zeros(0, 3), "features")
        Traceback (most recent call last):
        ...
        ValueError: teacher features are empty, shape (0, 3): skip empty batches, they have no mean.
    """
    if isinstance(student, Tensor) and isinstance(teacher, Tensor):
        check_device(student, teacher, f"student {what}", f"teacher {what}")
    check_tensor(student, f"student {what}", values)
    check_tensor(teacher, f"teacher {what}", values)


def check_device(first: Tensor, second: Tensor, first_name: str, second_name: str) -> None:
    """Refuse two tensors on different devices.

    Example:
        >>> check_device(torch.ones(1), torch.ones(1, device="meta"), "logits", "labels")
        Traceback (most recent call last):
        ...
        ValueError: logits are on cpu and labels on meta: move one of them.
    """
    if first.device != second.device:
        raise ValueError(
            f"{first_name} are on {first.device} and {second_name} on {second.device}: "
            "move one of them."
        )


def check_same_shape(
    student: Tensor,
    teacher: Tensor,
    what: str = "tensors",
    advice: str = "make them equal",
    values: Values = "finite",
) -> None:
    """Check a pair of tensors and that their shapes are equal.

    Example:
        >>> check_same_shape(torch.ones(2, 3), torch.ones(2, 4), "states", "use a projector")
        Traceback (most recent call last):
        ...
        ValueError: student states have shape (2, 3) and teacher states (2, 4): use a projector.
    """
    check_pair(student, teacher, what, values)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {what} have shape {tuple(student.shape)} and teacher {what} "
            f"{tuple(teacher.shape)}: {advice}."
        )


def check_logits(student: Tensor, teacher: Tensor, values: Values = "logits") -> None:
    """Check two tensors of logits: shape (..., C) with C > 1, equal on both sides.

    Example:
        >>> check_logits(torch.ones(2, 10), torch.ones(2, 100))
        Traceback (most recent call last):
        ...
        ValueError: student logits have shape (2, 10) and teacher logits (2, 100):
            keep only the rows and classes that both have, in the same order,
            tokens padded to one length.
    """
    check_same_shape(
        student,
        teacher,
        "logits",
        "keep only the rows and classes that both have, in the same order, tokens padded to one "
        "length",
        values,
    )
    check_class_dimension(student, teacher)
    if student.shape[-1] == 1:
        raise ValueError(
            "logits have 1 class: softmax over one class is always 1, use binary_distillation_loss."
        )


def check_class_dimension(*sides: Tensor) -> None:
    """Refuse logits without a batch, and maps of logits whose classes may not come last.

    Four dimensions or more are taken where their strides leave one reading: as the view that
    ``movedim(1, -1)`` makes of what a network for segmentation returns.

    Example:
        >>> check_class_dimension(torch.ones(2, 10, 8, 8).movedim(1, -1))
        >>> check_class_dimension(torch.ones(2, 10, 8, 8))
        Traceback (most recent call last):
        ...
        ValueError: logits have shape (2, 10, 8, 8): make rows of them, by
            logits.movedim(1, -1).flatten(0, -2) where classes are the second dimension, by
            logits.flatten(0, -2) where they are the last; labels and mask by .flatten().
    """
    for logits in sides:
        if logits.dim() < 2:
            raise ValueError(
                f"logits need shape (batch, ..., classes), got {tuple(logits.shape)}: "
                "add a batch dimension with unsqueeze(0)."
            )
        if logits.dim() > 3 and not _was_moved(logits):
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}: make rows of them, by "
                "logits.movedim(1, -1).flatten(0, -2) where classes are the second dimension, by "
                "logits.flatten(0, -2) where they are the last; labels and mask by .flatten()."
            )


def _was_moved(logits: Tensor) -> bool:
    """Whether ``movedim(1, -1)`` made this view; of a dimension of size 1 strides tell nothing."""
    moved_back = logits.movedim(-1, 1)
    told = not logits.is_contiguous() and 1 not in logits.shape[1:]
    return told and moved_back.is_contiguous()


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Check integer labels against the logits that they belong to.

    Example:
        >>> check_labels(torch.tensor([0, 10]), torch.ones(2, 10))
        Traceback (most recent call last):
        ...
        ValueError: labels go from 0 to 10, but 10 classes are numbered 0 to 9:
            drop or renumber the rest.
    """
    classes = logits.shape[-1]
    if isinstance(labels, Tensor) and labels.dim() > 1 and labels.shape == logits.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, that of the logits: expected class numbers, "
            "not one-hot rows; take labels.argmax(-1)."
        )
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        given = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be a tensor of torch.int64, got {given}: call .long() on it.")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and logits {tuple(logits.shape)}: "
            "give one class number for each row of logits."
        )
    check_device(labels, logits, "labels", "logits")
    if checks_values():
        lowest, highest = (int(bound) for bound in torch.aminmax(labels))
        if lowest < 0 or highest >= classes:
            raise ValueError(
                f"labels go from {lowest} to {highest}, but {classes} classes are numbered 0 to "
                f"{classes - 1}: drop or renumber the rest."
            )


def check_batch(samples: Tensor, what: str) -> None:
    """Refuse numbers that do not lie in samples.

    Args:
        samples: shape (B, ...).
        what: what to call them in a message, in the plural.

    Raises:
        ValueError: there are fewer than two dimensions.

    Example:
        >>> check_batch(torch.ones(3), "gradients")
        Traceback (most recent call last):
        ...
        ValueError: gradients need shape (batch, ...), got (3,): add a batch dimension with
            unsqueeze(0).
    """
    if samples.dim() < 2:
        raise ValueError(
            f"{what} need shape (batch, ...), got {tuple(samples.shape)}: add a batch dimension "
            "with unsqueeze(0)."
        )


def check_features(
    student: Tensor, teacher: Tensor, *, same_channels: bool = False, same_size: bool = False
) -> None:
    """Check two feature tensors of shape (B, C, *spatial) from the same batch.

    Args:
        student: the student's features.
        teacher: the teacher's features.
        same_channels: whether the loss compares channel with channel.
        same_size: whether the loss compares position with position without pooling.

    Example:
        >>> check_features(torch.ones(2, 8, 4, 4), torch.ones(2, 16, 4, 4), same_channels=True)
        Traceback (most recent call last):
        ...
        ValueError: student features have 8 channels and teacher features 16:
            bring the student's to 16 with projectors.ConvProjector(8, 16).
    """
    check_pair(student, teacher, "features")
    sizes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
    if student.dim() < 3 or student.dim() != teacher.dim():
        raise ValueError(
            f"features need shape (batch, channels, *spatial) on both sides, got {sizes}: "
            "take a layer before the global pooling."
        )
    if student.shape[0] != teacher.shape[0]:
        raise ValueError(f"features come from different batches, {sizes}: feed both the same one.")
    check_channels_first(student, teacher)
    channels = (student.shape[1], teacher.shape[1])
    if same_channels and channels[0] != channels[1]:
        raise ValueError(
            f"student features have {channels[0]} channels and teacher features {channels[1]}: "
            f"bring the student's to {channels[1]} with projectors.ConvProjector({channels[0]}, "
            f"{channels[1]})."
        )
    if same_size and student.shape[2:] != teacher.shape[2:]:
        raise ValueError(
            f"features have different spatial sizes, {sizes}: pick layers of one resolution or "
            "pool the larger."
        )


def check_channels_first(student: Tensor, teacher: Tensor) -> None:
    """Refuse pairs of features whose shapes tell that channels are not the second dimension.

    Two layers of one picture have one shape of it, only larger or smaller; two sequences of as many
    tokens, each as wide as its model, have equal second and different last dimensions.

    Args:
        student: shape (B, C_s, *spatial).
        teacher: shape (B, C_t, *spatial), with as many dimensions.

    Example:
        >>> check_channels_first(torch.ones(2, 8, 8, 64), torch.ones(2, 32, 8, 8))
        Traceback (most recent call last):
        ...
        ValueError: features of shape (2, 8, 8, 64) and (2, 32, 8, 8) do not show one picture in two
            sizes. They must be (batch, channels, *spatial): kdlearn.losses.maps.channels_first
            brings tokens and channels to that; otherwise transpose, crop or pool one side first.
    """
    ours, theirs = student.shape[2:], teacher.shape[2:]
    # Halving rounds, so a product of two sizes may be off by the larger of them.
    stretched = any(
        abs(ours[0] * theirs[i] - ours[i] * theirs[0]) > max(*ours, *theirs)
        for i in range(1, len(ours))
    )
    tokens = len(ours) == 1 and ours != theirs and student.shape[1] == teacher.shape[1]
    if stretched or tokens:
        raise ValueError(
            f"features of shape {tuple(student.shape)} and {tuple(teacher.shape)} do not show one "
            "picture in two sizes. They must be (batch, channels, *spatial): "
            "kdlearn.losses.maps.channels_first brings tokens and channels to that; otherwise "
            "transpose, crop or pool one side first."
        )


def check_mask(mask: Tensor, shape: torch.Size) -> None:
    """Check a mask that is True where a token counts.

    Example:
        >>> check_mask(torch.tensor([[False, False]]), torch.Size([1, 2]))
        Traceback (most recent call last):
        ...
        ValueError: the mask keeps no token: it must be True where a token counts;
            skip such batches.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a tensor of torch.bool, got {given}: call .bool() on it.")
    if mask.shape != shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, expected {tuple(shape)}: "
            "give one truth value for each token."
        )
    if checks_values() and not bool(mask.any()):
        raise ValueError(
            "the mask keeps no token: it must be True where a token counts; skip such batches."
        )


def check_number(value: float, name: str) -> float:
    """Return one number as a float; refuse a text, None, a truth value, a tensor of several.

    And a tensor that asks for a gradient, which it would not get.

    Example:
        >>> check_number("4", "temperature")
        Traceback (most recent call last):
        ...
        TypeError: temperature is '4', a str: expected one number.
        >>> check_number(torch.tensor(4.0, requires_grad=True), "temperature")
        Traceback (most recent call last):
        ...
        TypeError: temperature is tensor(4., requires_grad=True), a Tensor: expected one number.
            It is not learned: take .item().
    """
    if isinstance(value, Tensor):
        number = value.dim() == 0 and not value.requires_grad and value.dtype != torch.bool
    else:
        number = isinstance(value, (float, numbers.Real)) and not isinstance(value, bool)
    if not number:
        learned = isinstance(value, Tensor) and value.requires_grad
        raise TypeError(
            f"{name} is {value!r}, a {type(value).__name__}: expected one number."
            + learned * " It is not learned: take .item()."
        )
    return float(value)


def check_whole(value: int, name: str, least: int = 1) -> int:
    """Return a whole number of Python's, NumPy's or a tensor's as an int, if it is large enough.

    Args:
        value: a count.
        name: what to call it in the message.
        least: the smallest that makes sense.

    Example:
        >>> check_whole(0, "epochs")
        Traceback (most recent call last):
        ...
        ValueError: epochs is 0: expected a whole number >= 1.
    """
    wrong = f"{name} is {value!r}: expected a whole number >= {least}."
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(wrong) from None
    if isinstance(value, bool):
        raise TypeError(wrong)
    if number < least:
        raise ValueError(wrong)
    return number


def check_sizes(**sizes: int) -> list[int]:
    """Return several counts, each at least 1, as :func:`check_whole` does.

    Example:
        >>> check_sizes(width=16, classes=0)
        Traceback (most recent call last):
        ...
        ValueError: classes is 0: expected a whole number >= 1.
    """
    return [check_whole(size, name) for name, size in sizes.items()]


def check_temperature(temperature: float) -> float:
    """Return a temperature as a float; refuse what is not a positive, finite number.

    Example:
        >>> check_temperature(0)
        Traceback (most recent call last):
        ...
        ValueError: temperature is 0, expected a positive finite number: 1 leaves logits unchanged.
    """
    number = check_number(temperature, "temperature")
    if not 0 < number < math.inf:
        raise ValueError(
            f"temperature is {temperature}, expected a positive finite number: "
            "1 leaves logits unchanged."
        )
    return number


def check_fraction(value: float, name: str) -> float:
    """Return a mixing weight as a float; refuse one outside of [0, 1].

    Example:
        >>> check_fraction(9, "weight")
        Traceback (most recent call last):
        ...
        ValueError: weight is 9, expected a number from 0 to 1: it mixes two terms.
    """
    number = check_number(value, name)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {value}, expected a number from 0 to 1: it mixes two terms.")
    return number


def check_choice(value: str, name: str, choices: tuple[str, ...]) -> None:
    """Refuse an option that is not one of the known words, as a recipe may name it.

    Example:
        >>> check_choice("codes", "convention", ("code", "paper"))
        Traceback (most recent call last):
        ...
        ValueError: convention is 'codes', expected one of 'code', 'paper'.
    """
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}, expected one of {known}.")
