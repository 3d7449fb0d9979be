"""Checks at the border: every loss asks here, once, whether its inputs make sense.

Each error tells what was given, what was expected and what to do about it.
"""

import math
import numbers

import torch
from torch import Tensor


def check_tensor(tensor: Tensor, name: str) -> None:
    """Refuse what is not a floating-point tensor, is empty, or holds NaN.

    Args:
        tensor: the value to look at.
        name: what to call it in a message, in the plural, e.g. "student logits".

    Raises:
        TypeError: not a tensor, or its numbers are not floating point.
        ValueError: it has no element, or one of them is NaN.

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
    values = tensor.detach()
    # A finite sum proves that there is no NaN; only a suspicious one pays for the full search.
    if not torch.isfinite(values.sum()) and bool(torch.isnan(values).any()):
        raise ValueError(
            f"{name} contain NaN: look for a diverged model or a division by zero before the loss."
        )


def check_pair(student: Tensor, teacher: Tensor, what: str) -> None:
    """Check a student tensor and a teacher tensor, and that both live on one device.

    Args:
        student: the student's side.
        teacher: the teacher's side.
        what: what both are, in the plural, e.g. "logits".

    Raises:
        TypeError: a side is no floating-point tensor.
        ValueError: the devices differ, or a side is empty or holds NaN.

    Example:
        >>> check_pair(torch.ones(2, 3), torch.zeros(0, 3), "logits")
        Traceback (most recent call last):
        ...
        ValueError: teacher logits are empty, shape (0, 3): skip empty batches, they have no mean.
    """
    if isinstance(student, Tensor) and isinstance(teacher, Tensor):
        check_device(student, teacher, f"student {what}", f"teacher {what}")
    check_tensor(student, f"student {what}")
    check_tensor(teacher, f"teacher {what}")


def check_device(first: Tensor, second: Tensor, first_name: str, second_name: str) -> None:
    """Refuse two tensors on different devices.

    Args:
        first: a tensor.
        second: another tensor.
        first_name: what to call the first one in a message, in the plural.
        second_name: what to call the second one.

    Raises:
        ValueError: the devices differ.

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
    student: Tensor, teacher: Tensor, what: str = "tensors", advice: str = "make them equal"
) -> None:
    """Check a pair of tensors and that their shapes are equal.

    Args:
        student: the student's side.
        teacher: the teacher's side.
        what: what both are, in the plural, e.g. "hidden states".
        advice: one clause that says what to do when the shapes differ.

    Raises:
        TypeError: a side is no floating-point tensor.
        ValueError: the shapes or devices differ, or a side is empty or holds NaN.

    Example:
        >>> check_same_shape(torch.ones(2, 3), torch.ones(2, 4), "states", "use a projector")
        Traceback (most recent call last):
        ...
        ValueError: student states have shape (2, 3) and teacher states (2, 4): use a projector.
    """
    check_pair(student, teacher, what)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {what} have shape {tuple(student.shape)} "
            f"and teacher {what} {tuple(teacher.shape)}: {advice}."
        )


def check_logits(student: Tensor, teacher: Tensor) -> None:
    """Check two tensors of logits: shape (..., C) with C > 1, equal on both sides.

    Args:
        student: the student's logits, classes last.
        teacher: the teacher's logits, same shape.

    Raises:
        TypeError: a side is no floating-point tensor.
        ValueError: shapes or devices differ, there is no leading dimension, only one class, an
            empty batch or a NaN.

    Example:
        >>> check_logits(torch.ones(2, 10), torch.ones(2, 100))
        Traceback (most recent call last):
        ...
        ValueError: student logits have shape (2, 10) and teacher logits (2, 100):
            keep only the rows and classes that both have, in the same order.
    """
    check_same_shape(
        student,
        teacher,
        "logits",
        "keep only the rows and classes that both have, in the same order",
    )
    if student.dim() < 2:
        raise ValueError(
            f"logits need shape (batch, ..., classes), got {tuple(student.shape)}: "
            "add a batch dimension with unsqueeze(0)."
        )
    if student.shape[-1] == 1:
        raise ValueError(
            "logits have 1 class: softmax over one class is always 1, use binary_distillation_loss."
        )


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Check integer labels against the logits that they belong to.

    Args:
        labels: class numbers, shape (...).
        logits: shape (..., C).

    Raises:
        TypeError: the labels are not a tensor of torch.int64.
        ValueError: the shape or device differs, or a label lies outside of 0 to C - 1.

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
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"labels go from {lowest} to {highest}, but {classes} classes are numbered 0 to "
            f"{classes - 1}: drop or renumber the rest."
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

    Raises:
        TypeError: a side is no floating-point tensor.
        ValueError: no spatial dimension, or the number of dimensions, the batch, the device, or
            what else was asked for differs; a side is empty or holds NaN.

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
    channels = (student.shape[1], teacher.shape[1])
    if same_channels and channels[0] != channels[1]:
        raise ValueError(
            f"student features have {channels[0]} channels and teacher features {channels[1]}: "
            f"bring the student's to {channels[1]} with "
            f"projectors.ConvProjector({channels[0]}, {channels[1]})."
        )
    if same_size and student.shape[2:] != teacher.shape[2:]:
        raise ValueError(
            f"features have different spatial sizes, {sizes}: "
            "pick layers of one resolution or pool the larger."
        )


def check_mask(mask: Tensor, shape: torch.Size) -> None:
    """Check a mask that is True where a token counts.

    Args:
        mask: the mask.
        shape: the shape that it must have.

    Raises:
        TypeError: the mask is not a tensor of torch.bool.
        ValueError: its shape is another one, or it keeps no token at all.

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
    if not bool(mask.any()):
        raise ValueError(
            "the mask keeps no token: it must be True where a token counts; skip such batches."
        )


def check_number(value: float, name: str) -> None:
    """Refuse what is not one number: a text, None, a tensor of several.

    Args:
        value: a Python or NumPy number, or a tensor with one element.
        name: what to call it in the message.

    Raises:
        TypeError: it is something else.

    Example:
        >>> check_number("4", "temperature")
        Traceback (most recent call last):
        ...
        TypeError: temperature is '4', a str: expected one number.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        return
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}: expected one number.")


def check_whole(value: int, name: str) -> None:
    """Refuse what is not a whole number of at least 1.

    Args:
        value: a count.
        name: what to call it in the message.

    Raises:
        ValueError: it is something else.

    Example:
        >>> check_whole(0, "epochs")
        Traceback (most recent call last):
        ...
        ValueError: epochs is 0: expected a whole number >= 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}: expected a whole number >= 1.")


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not a positive, finite number.

    Args:
        temperature: the number that logits are divided by.

    Raises:
        TypeError: it is no number.
        ValueError: it is zero, negative, infinite or NaN.

    Example:
        >>> check_temperature(0)
        Traceback (most recent call last):
        ...
        ValueError: temperature is 0, expected a positive finite number: 1 leaves logits unchanged.
    """
    check_number(temperature, "temperature")
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature}, expected a positive finite number: "
            "1 leaves logits unchanged."
        )


def check_fraction(value: float, name: str) -> None:
    """Refuse a mixing weight outside of [0, 1].

    Args:
        value: the weight.
        name: what to call it in the message.

    Raises:
        TypeError: it is no number.
        ValueError: it is below 0, above 1 or NaN.

    Example:
        >>> check_fraction(9, "weight")
        Traceback (most recent call last):
        ...
        ValueError: weight is 9, expected a number from 0 to 1: it mixes two terms.
    """
    check_number(value, name)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, expected a number from 0 to 1: it mixes two terms.")


def check_choice(value: str, name: str, choices: tuple[str, ...]) -> None:
    """Refuse an option that is not one of the known words.

    Args:
        value: what was asked for.
        name: the option's name.
        choices: the words that it knows.

    Raises:
        ValueError: the value is not among them.

    Example:
        >>> check_choice("codes", "convention", ("code", "paper"))
        Traceback (most recent call last):
        ...
        ValueError: convention is 'codes', expected one of 'code', 'paper'.
    """
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}, expected one of {known}.")
