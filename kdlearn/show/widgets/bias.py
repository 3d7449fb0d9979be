"""The digit that was left out: one bias to slide, and what it brings and costs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdlearn.core.checks import check_labels
from kdlearn.show.pictures import finite
from kdlearn.show.widgets.figure import HTMLFigure, static_table

# First, last and step of the shift.
SHIFTS = (-2.0, 8.0, 0.1)
MOST_STUDENTS = 3


def bias_explorer(students: Mapping[str, Tensor], labels: Tensor, *, missing: int) -> HTMLFigure:
    r"""Slide the bias of a class that students never saw, and watch recall and accuracy.

    .. math:: \hat y(b) = \arg\max_c \bigl(z_c + b\, [c = m]\bigr)

    For each shift b from -2 to 8 in steps of 0.1: the share of samples of class m that are
    recognized, and the accuracy on the samples of all other classes. Ties go to the smaller class
    number, as in ``argmax``. It starts at b = 0, the network as it was trained.

    Args:
        students: name to logits on the same samples, shape (N, C); up to 3 students.
        labels: class numbers, torch.int64, shape (N,).
        missing: the class m that no student saw.

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` tells the numbers at shifts 0
        and 2.

    Raises:
        ValueError: there are no students or too many, logits and labels do not fit, or no or
            every sample is of the missing class.

    Example:
        >>> logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [9.0, 0.0]])
        >>> bias_explorer({"KD": logits}, torch.tensor([1, 1, 0]), missing=1)
        A shift of the logit of class 1 to slide, for KD on 3 samples. KD: at shift 0 recall of the 1 0.0 %, accuracy on the others 100.0 %; at shift 2 recall of the 1 100.0 %, accuracy on the others 100.0 %.
    """  # noqa: E501
    if not 1 <= len(students) <= MOST_STUDENTS:
        raise ValueError(f"got {len(students)} students: give 1 to {MOST_STUDENTS}.")
    first, last, step = SHIFTS
    shifts = [round(first + i * step, 1) for i in range(round((last - first) / step) + 1)]
    curves: dict[str, list[list[float]]] = {"recall": [], "others": [], "all": []}
    for name, given in students.items():
        logits = finite(given, f"logits of {name}")
        check_labels(labels, logits)
        its = labels == missing
        if not its.any() or its.all():
            raise ValueError(
                f"{int(its.sum())} of {len(labels)} samples are of class {missing}: give samples "
                "of the missing class and of others."
            )
        answers = [_shifted(logits, missing, shift).argmax(dim=1) == labels for shift in shifts]
        right = 100 * torch.stack(answers).double()
        for key, part in (("recall", right[:, its]), ("others", right[:, ~its]), ("all", right)):
            curves[key].append([round(share, 4) for share in part.mean(dim=1).tolist()])

    def told(m: int, shift: float) -> str:
        at = shifts.index(shift)
        return (
            f"at shift {shift:g} recall of the {missing} {curves['recall'][m][at]:.1f} %, accuracy "
            f"on the others {curves['others'][m][at]:.1f} %"
        )

    names = list(students)
    text = (
        f"A shift of the logit of class {missing} to slide, for {', '.join(names)} on "
        f"{len(labels)} samples. "
        + " ".join(f"{name}: {told(m, 0.0)}; {told(m, 2.0)}." for m, name in enumerate(names))
    )
    fallback = static_table(
        f"Recall of the {missing}, and accuracy on the others, in per cent. With scripts on (in a "
        "notebook: run this cell), the shift can be changed.",
        ["shift", *(f"{name}, {what}" for name in names for what in (f"the {missing}", "others"))],
        [
            [
                f"{shift:g}",
                *(
                    f"{curves[key][m][shifts.index(shift)]:.1f}"
                    for m in range(len(names))
                    for key in ("recall", "others")
                ),
            ]
            for shift in (0.0, 1.0, 2.0, 4.0, 8.0)
        ],
    )
    data = {"students": names, "missing": str(missing), "shifts": SHIFTS, **curves}
    return HTMLFigure("bias", data, fallback, text)


def _shifted(logits: Tensor, missing: int, shift: float) -> Tensor:
    moved = logits.clone()
    moved[:, missing] += shift
    return moved
