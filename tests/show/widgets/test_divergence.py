"""One bump onto two: values against closed forms and numerical integration by scipy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from kdlearn.show.widgets import divergence_explorer
from tests.show.opened import Pages, data_of, numbers, press, tap


def teacher(x: float) -> float:
    return float(0.6 * stats.norm.pdf(x, -2, 0.7) + 0.4 * stats.norm.pdf(x, 2, 0.7))


def integral(function: Callable[[float], float]) -> float:
    pieces = [(-20, -4), (-4, 0), (0, 4), (4, 20)]
    return sum(integrate.quad(function, a, b, epsabs=1e-11)[0] for a, b in pieces)


def kl(p: Callable[[float], float], q: Callable[[float], float]) -> float:
    return integral(lambda x: p(x) * math.log(p(x) / q(x)) if p(x) > 1e-290 else 0.0)


def divergences(mean: float, width: float, beta: float) -> list[float]:
    def student(x: float) -> float:
        return float(stats.norm.pdf(x, mean, width))

    def mixture(x: float) -> float:
        return beta * teacher(x) + (1 - beta) * student(x)

    jsd = beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)
    # The teacher's entropy does not move; the rest of the forward KL has a closed form.
    entropy = -integral(lambda x: teacher(x) * math.log(teacher(x)) if teacher(x) > 1e-290 else 0.0)
    spread = 0.6 * (0.49 + (-2 - mean) ** 2) + 0.4 * (0.49 + (2 - mean) ** 2)
    forward = spread / (2 * width**2) + math.log(width * math.sqrt(2 * math.pi)) - entropy
    return [forward, kl(student, teacher), jsd]


def test_the_page_integrates_as_scipy_does(pages: Pages) -> None:
    page = pages.open(divergence_explorer())
    np.testing.assert_allclose(numbers(page), divergences(0, 1, 0.5), atol=1e-6)
    press(page, "slider", "Mean of the student", "ArrowRight", "ArrowRight", "ArrowRight")
    press(page, "slider", "Width of the student", "Home", "ArrowRight")
    page.get_by_role("combobox", name="β of the JSD").select_option("0.9")
    np.testing.assert_allclose(numbers(page), divergences(0.3, 0.4, 0.9), atol=1e-6)


def test_forward_kl_is_lowest_where_mean_and_variance_agree() -> None:
    mean, width, _ = data_of(divergence_explorer())["best"][0]
    true_mean = 0.6 * -2 + 0.4 * 2
    true_width = math.sqrt(0.49 + 0.6 * 4 + 0.4 * 4 - true_mean**2)
    assert abs(mean - true_mean) <= 0.05 + 1e-9 and abs(width - true_width) <= 0.05 + 1e-9


@pytest.mark.parametrize(("number", "beta"), [(1, None), (2, 0.1), (3, 0.5), (4, 0.9)])
def test_the_marked_optimum_is_that_of_scipy(number: int, beta: float | None) -> None:
    x = np.linspace(-20, 20, 4001)
    p = 0.6 * stats.norm.pdf(x, -2, 0.7) + 0.4 * stats.norm.pdf(x, 2, 0.7)

    def value(at: np.ndarray) -> float:
        log_q = stats.norm.logpdf(x, at[0], abs(at[1]))
        q = np.exp(log_q)
        if beta is None:
            return float(np.trapezoid(q * (log_q - np.log(p)), x))
        m = beta * p + (1 - beta) * q + 1e-320
        terms = beta * p * np.log(p / m) + (1 - beta) * q * (log_q - np.log(m))
        return float(np.trapezoid(terms, x))

    starts = [(-2.0, 0.7), (0.0, 2.0), (2.0, 0.7)]
    found = min(
        (optimize.minimize(value, s, method="Nelder-Mead") for s in starts), key=lambda r: r.fun
    )
    mean, width, low = data_of(divergence_explorer())["best"][number]
    assert abs(mean - found.x[0]) <= 0.1 and abs(width - abs(found.x[1])) <= 0.1
    assert found.fun - 1e-9 <= low <= found.fun + 0.01


def test_reverse_kl_takes_one_bump_and_forward_kl_covers_both(pages: Pages) -> None:
    page = pages.open(divergence_explorer(), width=390, touch=True)
    mean = page.get_by_role("slider", name="Mean of the student")
    width = page.get_by_role("slider", name="Width of the student")
    tap(page, "button", "Best reverse KL")
    assert (float(mean.input_value()), float(width.input_value())) == (-2, 0.7)
    tap(page, "button", "Best forward KL")
    assert (float(mean.input_value()), float(width.input_value())) == (-0.4, 2.1)


def test_the_bump_follows_the_pointer(pages: Pages) -> None:
    page = pages.open(divergence_explorer())
    chart = page.get_by_role("img", name="Densities of teacher and student").bounding_box()
    y = chart["y"] + chart["height"] / 2
    left = chart["x"] + chart["width"] * 34 / 340
    span = chart["width"] * (340 - 34 - 8) / 340
    page.mouse.move(left + span / 2, y)
    page.mouse.down()
    page.mouse.move(left + span * (6 + 1.5) / 12, y)
    page.mouse.up()
    mean = page.get_by_role("slider", name="Mean of the student")
    assert float(mean.input_value()) == pytest.approx(1.5, abs=0.05)
