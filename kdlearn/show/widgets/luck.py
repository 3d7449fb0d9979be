"""Luck with seeds: how often the worse of two methods wins when few were run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

import pandas as pd

from kdlearn.show.widgets.figure import HTMLFigure, static_table


def luck_machine(
    table: pd.DataFrame,
    methods: Sequence[str],
    *,
    metric: str = "accuracy",
) -> HTMLFigure:
    r"""Let the reader draw seeds from a table of results, and count how often the wrong method wins.

    .. math:: \text{wins} = \#\bigl\{(S_a, S_b) : \bar a_{S_a} < \bar b_{S_b}\bigr\}, \qquad
        |S_a| = |S_b| = n

    where a is the better method over all seeds. Paired, both have the same seeds, :math:`S_a = S_b`;
    unpaired, each has its own. All choices of n seeds out of those of the table are counted once,
    so nothing is simulated. It starts unpaired with n = 1 and the first two methods.

    Args:
        table: long format, as from :func:`kdlearn.measure.load_results`.
        methods: which of the table's methods can be chosen, at least 2.
        metric: a column of numbers, where more is better.

    Returns:
        A figure that Jupyter, Colab and the book show; its ``text`` tells how often the first two
        methods are confused with one seed.

    Raises:
        KeyError: no such method or column.
        ValueError: fewer than 2 methods, or their seeds differ.

    Example:
        >>> table = pd.DataFrame(
        ...     {
        ...         "seed": [0, 1, 0, 1],
        ...         "method": ["KD", "KD", "scratch", "scratch"],
        ...         "accuracy": [82.0, 84.0, 76.0, 83.0],
        ...     }
        ... )
        >>> luck_machine(table, ["KD", "scratch"])
        Seeds to draw from 2 for KD and scratch, with controls for their number and for pairing. With one seed of each, unpaired, the worse of KD and scratch wins in 1 of 4 draws; paired, in 0 of 2.
    """  # noqa: E501
    if metric not in table:
        raise KeyError(f"the table has no column {metric!r}: it has {', '.join(map(str, table))}.")
    if len(methods) < 2:
        raise ValueError(f"got {len(methods)} methods: give at least two to compare.")
    values: dict[str, pd.Series] = {}
    for method in methods:
        rows = table[table["method"] == method].set_index("seed")[metric].sort_index()
        if rows.empty:
            known = ", ".join(repr(name) for name in table["method"].unique())
            raise KeyError(f"the table has no method {method!r}: it has {known}.")
        if rows.isna().any() or list(rows.index) != list(next(iter(values.values()), rows).index):
            raise ValueError(
                f"{method!r} has {metric!r} for seeds {list(rows.dropna().index)}, other methods "
                "for others: give methods that were run with the same seeds."
            )
        values[method] = rows
    seeds = [int(seed) for seed in values[methods[0]].index]
    columns = {method: [float(value) for value in each] for method, each in values.items()}
    counts = [
        [lost(columns[methods[0]], columns[methods[1]], n, paired) for paired in (False, True)]
        for n in range(1, len(seeds) + 1)
    ]
    unpaired, paired = (f"{wins} of {ways}" for wins, ways in counts[0])
    text = (
        f"Seeds to draw from {len(seeds)} for {' and '.join(methods)}, with controls for their "
        f"number and for pairing. With one seed of each, unpaired, the worse of {methods[0]} and "
        f"{methods[1]} wins in {unpaired} draws; paired, in {paired}."
    )
    fallback = static_table(
        f"How often the worse of {methods[0]} and {methods[1]} has the higher mean {metric}. With "
        "scripts on (in a notebook: run this cell), methods and seeds can be changed.",
        ["seeds of each", "unpaired", "paired"],
        [[str(n), *(f"{wins} of {ways}" for wins, ways in row)] for n, row in enumerate(counts, 1)],
    )
    data = {
        "methods": list(columns),
        "seeds": seeds,
        "values": list(columns.values()),
        "metric": metric,
        "start": [0, 1],
    }
    return HTMLFigure("luck", data, fallback, text)


def lost(first: Sequence[float], second: Sequence[float], n: int, paired: bool) -> tuple[int, int]:
    """Count the draws of n seeds in which the method that is worse over all seeds wins.

    Args:
        first: results of one method, one a seed.
        second: those of the other, in the order of the same seeds.
        n: seeds in a draw.
        paired: whether both are drawn with the same seeds.

    Returns:
        The number of such draws, and of all draws.

    Example:
        >>> lost([82.0, 84.0], [76.0, 83.0], 1, paired=False)
        (1, 4)
    """
    sign = 1 if sum(first) >= sum(second) else -1
    sets = list(combinations(range(len(first)), n))
    pairs = [(each, each) for each in sets] if paired else list(product(sets, sets))
    gaps = [sign * (sum(first[i] for i in a) - sum(second[i] for i in b)) / n for a, b in pairs]
    return sum(gap < -1e-6 for gap in gaps), len(gaps)
