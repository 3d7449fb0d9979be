"""Experiments over paired seeds: run them by name, into a table.

A table has one row for each seed and method. Make one with::

    python -m kdlearn.experiments warped-digits --seeds 0 1 2 3 4 --output warped_digits.csv
"""

from kdlearn.experiments.running import EXPERIMENTS, run

__all__ = [
    "EXPERIMENTS",
    "run",
]
