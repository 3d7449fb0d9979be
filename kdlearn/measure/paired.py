"""Read the tables of results, and compare two methods seed by seed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class PairedDifference:
    """How much better one method is than another, measured within each seed.

    Attributes:
        mean: mean of the differences.
        std: their standard deviation over seeds (n - 1 in the denominator), what stands after ±.
        low: lower end of the 95 % t interval of the mean.
        high: upper end of it.
        n: number of seeds.
        values: the differences, one a seed, in the order of the seeds.
        unit: what they are counted in.

    Example:
        >>> print(PairedDifference(6.8, 1.4, 5.1, 8.5, 5, (), unit="points"))
        +6.8 ± 1.4 points, n = 5 (95 % interval +5.1 to +8.5)
    """

    mean: float
    std: float
    low: float
    high: float
    n: int
    values: tuple[float, ...] = field(repr=False)
    unit: str = "points"

    def __str__(self) -> str:
        """Return the difference as it is quoted in the book."""
        digits = 1 if self.unit == "points" else 2
        mean, std, low, high = (
            f"{value:{sign}.{digits}f}"
            for value, sign in (
                (self.mean, "+"),
                (self.std, ""),
                (self.low, "+"),
                (self.high, "+"),
            )
        )
        return f"{mean} ± {std} {self.unit}, n = {self.n} (95 % interval {low} to {high})"


def paired_difference(
    table: pd.DataFrame, method: str, baseline: str, metric: Hashable = "accuracy"
) -> PairedDifference:
    r"""Subtract the baseline from the method within each seed, and average.

    .. math:: d_i = m_i - b_i, \qquad \bar d \pm t_{0.975,\, n-1} \, \frac{s_d}{\sqrt n}

    Within a seed both methods have the same data, teacher, first weights and order of batches, so
    what these do to both drops out.

    Args:
        table: long format, with the columns ``seed``, ``method`` and the metric.
        method: name in the column ``method``.
        baseline: the same, what to compare with.
        metric: a column of numbers.

    Raises:
        KeyError: no such method or column.
        TypeError: the metric is no column of numbers.
        ValueError: the two methods have not the same seeds, a seed occurs twice, a value is
            missing or infinite, or there are fewer than 2 seeds.

    Source: W. S. Gosset ("Student"), The Probable Error of a Mean, Biometrika 1908: the paired t
        interval.

    Example:
        >>> table = pd.DataFrame(
        ...     {
        ...         "seed": [0, 1, 0, 1],
        ...         "method": ["KD", "KD", "scratch", "scratch"],
        ...         "accuracy": [82.0, 84.0, 76.0, 77.0],
        ...     }
        ... )
        >>> paired_difference(table, "KD", "scratch").values
        (6.0, 7.0)
    """
    _check_columns(table, "seed", "method", metric)
    _check_metrics(table, metric)
    first, second = (_by_seed(table, name, metric) for name in (method, baseline))
    if list(first.index) != list(second.index):
        raise ValueError(
            f"{method!r} was run with seeds {list(first.index)} and {baseline!r} with "
            f"{list(second.index)}: a paired difference needs the same seeds for both."
        )
    if len(first) < 2:
        raise ValueError(f"an interval needs at least 2 seeds, got {len(first)}: run more.")
    values = (first - second).to_numpy()
    mean, std, n = float(values.mean()), float(values.std(ddof=1)), len(values)
    half = float(stdtrit(n - 1, 0.975)) * std / n**0.5
    unit = "nats" if str(metric).startswith("kl") else "points"
    return PairedDifference(mean, std, mean - half, mean + half, n, tuple(values.tolist()), unit)


def holm(differences: Mapping[Name, PairedDifference], level: float = 0.05) -> list[Name]:
    r"""Say which of several differences are told from zero, counted together.

    Of m differences the one with the smallest p-value of the paired t test stays if it is at most
    level / m, the next if at most level / (m - 1), and so on to the first that fails: with
    probability 1 - level no difference stays that is zero.

    Convention
        Differences that are all the same have p-value 1 where they are 0, and 0 elsewhere.

    Args:
        differences: all that were looked at, also those that nobody wants to report.
        level: the chance of one false name, or more, that is accepted.

    Returns:
        The names that stay, the smallest p-value first.

    Raises:
        TypeError: the differences are no mapping from names to paired differences.
        ValueError: the level is not between 0 and 1.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal
        of Statistics 1979.

    Example:
        >>> table = pd.DataFrame({"seed": [0, 1, 2] * 3, "method": list("aaabbbccc")})
        >>> table["accuracy"] = [80.0, 81, 82, 70, 71, 72.1, 69, 72, 73]
        >>> holm({"a - b": paired_difference(table, "a", "b")})
        ['a - b']
        >>> holm({"c - b": paired_difference(table, "c", "b")})
        []
    """
    if not isinstance(differences, Mapping) or not all(
        isinstance(each, PairedDifference) for each in differences.values()
    ):
        raise TypeError(
            f"got {type(differences).__name__}: expected names and what paired_difference returns, "
            "such as {'KD - labels': paired_difference(table, 'KD', 'labels')}."
        )
    if not 0 < level < 1:
        raise ValueError(f"the level must be between 0 and 1, such as 0.05; got {level!r}.")
    p = {name: _p_value(each) for name, each in differences.items()}
    ranked = sorted(p, key=lambda name: p[name])
    passed = [p[name] <= level / (len(p) - rank) for rank, name in enumerate(ranked)]
    return ranked[: passed.index(False) if False in passed else None]


def _p_value(difference: PairedDifference) -> float:
    """Return the p-value of the paired t test, from both sides."""
    if difference.std == 0:
        return float(difference.mean == 0)
    t = abs(difference.mean) / (difference.std / difference.n**0.5)
    return 2 * float(stdtr(difference.n - 1, -t))


def _check_columns(table: pd.DataFrame, *names: Hashable) -> None:
    for name in names:
        if name not in table:
            columns = ", ".join(map(str, table))
            raise KeyError(f"the table has no column {name!r}: it has {columns}.")


def _metrics(table: pd.DataFrame) -> list[Hashable]:
    """Return the columns that hold numbers, but not those of the seeds."""
    numbers = table.select_dtypes("number", exclude=["complex", "timedelta"])
    return [column for column in numbers if column != "seed"]


def _check_metrics(table: pd.DataFrame, *names: Hashable) -> None:
    for name in names:
        if name not in (known := _metrics(table)):
            raise TypeError(
                f"the column {name!r} is no metric: expected one of numbers, of which the table "
                f"has {', '.join(map(str, known)) or 'none'}."
            )


def _floats(column: pd.Series) -> pd.Series:
    """Return a column as float64: pd.NA as NaN, and no unsigned number that wraps below 0."""
    return pd.Series(column.to_numpy(dtype=float, na_value=np.nan), column.index)


def _by_seed(table: pd.DataFrame, method: str, metric: Hashable) -> pd.Series:
    rows = table[table["method"] == method]
    if rows.empty:
        names = ", ".join(repr(name) for name in table["method"].unique())
        raise KeyError(f"the table has no method {method!r}: it has {names}.")
    if rows["seed"].duplicated().any():
        raise ValueError(f"{method!r} has a seed twice: give each run its own row and seed.")
    values = _floats(rows.set_index("seed")[metric])
    if not np.isfinite(values).all():
        raise ValueError(
            f"{metric!r} was not measured for every seed of {method!r}, or is infinite: leave such "
            "seeds out of both methods, and say so."
        )
    return values.sort_index()


def summary(table: pd.DataFrame, metrics: Sequence[Hashable] | None = None) -> pd.DataFrame:
    """Return mean ± standard deviation over seeds, a row a method, as text to be shown.

    Methods stay in the order of the table; n is the number of seeds. One decimal for per cent, two
    where all values are below 10.

    Args:
        table: long format, as from :func:`load_results`.
        metrics: columns to show, by default all that hold numbers, but ``seed``.

    Raises:
        KeyError: no such column.
        TypeError: a metric is no column of numbers.
        ValueError: a method has a seed twice.

    Example:
        >>> table = pd.DataFrame({"seed": [0, 1], "method": ["KD", "KD"], "accuracy": [82.0, 84.0]})
        >>> summary(table).loc["KD"].to_dict()
        {'n': 2, 'accuracy': '83.0 ± 1.4'}
    """
    shown = _metrics(table) if metrics is None else metrics
    _check_columns(table, *shown)
    _check_metrics(table, *shown)
    twice = table.loc[table.duplicated(["method", "seed"]), "method"]
    if len(twice):
        raise ValueError(f"{twice.iloc[0]!r} has a seed twice: give each run its own row and seed.")
    groups = table.groupby("method", sort=False)
    result = pd.DataFrame({"n": groups["seed"].nunique()})
    for column in shown:
        values = _floats(table[column])
        digits = 1 if values.abs().max() >= 10 else 2
        each = values.groupby(table["method"], sort=False)
        result[column] = [
            "" if np.isnan(mean) else f"{mean:.{digits}f} ± {std:.{digits}f}"
            for mean, std in zip(each.mean(), each.std(), strict=True)
        ]
    return result


def load_results(name: str) -> pd.DataFrame:
    """Return a table of results that comes with the package or lies in its repository.

    Args:
        name: the experiment, such as ``"warped-digits"``.

    Returns:
        Long format: a row for each seed and method, columns ``seed``, ``method`` and metrics;
        NaN where a metric does not apply.

    Raises:
        FileNotFoundError: there is no such table; says which there are.
    """
    file_name = name.replace("-", "_") + ".csv"
    folder = files("kdlearn") / "results"
    path = folder / file_name
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            return pd.read_csv(lines)
    known = sorted(
        path.name.removesuffix(".csv").replace("_", "-")
        for path in folder.iterdir()
        if path.name.endswith(".csv")
    )
    raise FileNotFoundError(
        f"no results named {name!r}: there are {', '.join(known) or 'none'}. "
        "Make a table with: kdlearn experiment NAME --output FILE"
    )
