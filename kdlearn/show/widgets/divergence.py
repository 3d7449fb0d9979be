"""One bump to fit onto two: what forward KL, reverse KL and the JSD each call the best place."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from kdlearn.show.widgets.figure import HTMLFigure, static_table

# The teacher: shares, means and the width of its two bumps. The left one is larger, so that
# reverse KL has one best place and not two.
SHARES, MEANS, WIDTH = (0.6, 0.4), (-2.0, 2.0), 0.7
# First, last and step of the student's sliders, and of the grid that sums run over: wide enough
# that 5 widths of the widest student fit beside the outermost mean.
MEANS_OF, WIDTHS_OF, GRID = (-4.0, 4.0, 0.1), (0.3, 3.0, 0.1), (-20.0, 20.0, 0.05)
BETAS = (0.1, 0.5, 0.9)
START = (0.0, 1.0)


def divergences(mean: Tensor, width: Tensor) -> Tensor:
    """Return forward KL, reverse KL and the JSD for each of ``BETAS``, in nats.

    Args:
        mean: of the student's bump, any shape.
        width: its standard deviation, the same shape.

    Returns:
        The shape of the mean, and a last dimension of 2 + len(BETAS).

    Example:
        >>> divergences(torch.tensor(-2.0), torch.tensor(0.7)).shape
        torch.Size([5])
    """
    x = _ticks(GRID)
    student = torch.distributions.Normal(mean[..., None], width[..., None]).log_prob(x)
    bumps = torch.distributions.Normal(torch.tensor(MEANS, dtype=x.dtype)[:, None], WIDTH).log_prob(
        x
    )
    teacher = (torch.tensor(SHARES, dtype=x.dtype).log()[:, None] + bumps).logsumexp(dim=0)
    p, q = teacher.exp(), student.exp()
    terms = [p * (teacher - student), q * (student - teacher)]
    for beta in BETAS:
        mixture = torch.logaddexp(math.log(beta) + teacher, math.log(1 - beta) + student)
        terms.append(beta * p * (teacher - mixture) + (1 - beta) * q * (student - mixture))
    return torch.stack(terms, dim=-1).sum(dim=-2) * GRID[2]


def _ticks(span: tuple[float, float, float]) -> Tensor:
    first, last, step = span
    return torch.linspace(first, last, round((last - first) / step) + 1, dtype=torch.float64)


@cache
def _best() -> list[list[float]]:
    """Mean, width and value of the best student for each divergence, among the sliders' values."""
    means, widths = _ticks(MEANS_OF), _ticks(WIDTHS_OF)
    values = torch.stack([divergences(mean.expand_as(widths), widths) for mean in means])
    lowest, place = values.flatten(0, 1).min(dim=0)
    return [
        [round(means[at // len(widths)].item(), 1), round(widths[at % len(widths)].item(), 1), low]
        for at, low in zip(place.tolist(), lowest.tolist(), strict=True)
    ]


def divergence_explorer() -> HTMLFigure:
    r"""Let the reader fit one bump onto two, and see what each divergence calls the best place.

    .. math:: \mathrm{KL}(p_t \| p_s), \qquad \mathrm{KL}(p_s \| p_t), \qquad
        \beta\,\mathrm{KL}(p_t \| m) + (1 - \beta)\,\mathrm{KL}(p_s \| m), \quad
        m = \beta p_t + (1 - \beta) p_s

    in nats. The teacher is :math:`0.6\,N(-2, 0.7^2) + 0.4\,N(2, 0.7^2)`; the student is one
    normal density whose mean and width move. The best students are searched among all values of
    the two sliders. The JSD is that of :func:`kdlearn.losses.generalized_jsd`. It starts at mean
    0, width 1.

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` tells the best students.

    Example:
        >>> divergence_explorer()
        One bump to fit onto two, with the values of forward KL, reverse KL and JSD. Best student: forward KL mean -0.4, width 2.1 (0.422 nats); reverse KL mean -2.0, width 0.7 (0.506 nats); ...
    """  # noqa: E501
    best = _best()
    names = ["forward KL", "reverse KL", *(f"JSD, beta = {beta}" for beta in BETAS)]
    told = "; ".join(
        f"{name} mean {mean:.1f}, width {width:.1f} ({value:.3f} nats)"
        for name, (mean, width, value) in zip(names, best, strict=True)
    )
    text = (
        "One bump to fit onto two, with the values of forward KL, reverse KL and JSD. Best "
        f"student: {told}."
    )
    fallback = static_table(
        "The best single bump for a teacher with two, at -2 (60 %) and 2 (40 %), each 0.7 wide. "
        "With scripts on (in a notebook: run this cell), it can be moved.",
        ["divergence", "mean", "width", "nats"],
        [
            [name, f"{mean:.1f}", f"{width:.1f}", f"{value:.3f}"]
            for name, (mean, width, value) in zip(names, best, strict=True)
        ],
    )
    data = {
        "shares": SHARES,
        "means": MEANS,
        "width": WIDTH,
        "grid": GRID,
        "means_of": MEANS_OF,
        "widths_of": WIDTHS_OF,
        "betas": BETAS,
        "best": [[mean, width, round(value, 6)] for mean, width, value in best],
        "start": START,
    }
    return HTMLFigure("divergence", data, fallback, text)
