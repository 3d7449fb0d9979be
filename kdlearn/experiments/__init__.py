"""Experiments over paired seeds: run them by name, into a table with a row per seed and method.

``kdlearn experiment --list`` names them, and this makes a table::

    kdlearn experiment warped-digits --seeds 0,1,2,3,4 --output warped_digits.csv
"""

from kdlearn.experiments.common import Experiment, Recipe
from kdlearn.experiments.running import EXPERIMENTS, run, split_methods

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Recipe",
    "run",
    "split_methods",
]
