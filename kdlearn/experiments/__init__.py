"""Experiments over paired seeds: run them, load their tables, compare two methods.

A table has one row for each seed and method. Make one with::

    python -m kdlearn.experiments warped-digits --seeds 0 1 2 3 4 --output warped_digits.csv
"""

from kdlearn.experiments.running import EXPERIMENTS, run
from kdlearn.experiments.tables import (
    PairedDifference,
    load_results,
    paired_difference,
    summary,
)

__all__ = [
    "EXPERIMENTS",
    "PairedDifference",
    "load_results",
    "paired_difference",
    "run",
    "summary",
]
