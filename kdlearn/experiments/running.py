"""Run an experiment by name, over seeds, into a table or a file."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from kdlearn.experiments import (
    cluttered_digits,
    consistent_copies,
    initialization,
    warped_digits,
)
from kdlearn.experiments.common import Row, check_methods

EXPERIMENTS = {
    "cluttered-digits": cluttered_digits,
    "consistent-copies": consistent_copies,
    "initialization": initialization,
    "warped-digits": warped_digits,
}


def run(
    name: str,
    seeds: Sequence[int],
    *,
    methods: Sequence[str] | None = None,
    on: str = "test",
    progress: bool = True,
) -> pd.DataFrame:
    """Run all methods of an experiment for each seed.

    Args:
        name: one of :data:`EXPERIMENTS`.
        seeds: at least one; 5 or more for a number worth quoting.
        methods: a part of the experiment's methods; by default all.
        on: the split to measure on; ``"validation"`` while choosing hyper-parameters.
        progress: show a bar that counts trained models.

    Returns:
        Long format: a row for each seed and method, columns ``seed``, ``method`` and metrics.

    Raises:
        KeyError: no such experiment or method.
        TypeError: the seeds are one number.
        ValueError: no seed, a seed twice, or another split than validation and test.
    """
    if name not in EXPERIMENTS:
        raise KeyError(f"no experiment {name!r}: choose from {', '.join(EXPERIMENTS)}.")
    if isinstance(seeds, int):
        raise TypeError(f"seeds are {seeds}: expected a list, such as range({seeds}).")
    if on not in ("validation", "test"):
        raise ValueError(f"measure on 'validation' or 'test', got {on!r}.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"give at least one seed, and each once, got {list(seeds)}.")
    experiment = EXPERIMENTS[name]
    chosen = list(experiment.METHODS) if methods is None else list(methods)
    check_methods(chosen, experiment.METHODS)
    rows: list[Row] = []
    with tqdm(total=len(seeds) * (1 + len(chosen)), unit="model", disable=not progress) as bar:
        for seed in seeds:
            bar.set_description(f"seed {seed}")
            for row in experiment.run_seed(seed, methods=chosen, on=on):
                rows.append(row)
                bar.set_postfix_str(f"{row['method']}: {row['accuracy']:.1f} %")
                bar.update()
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, four significant digits and more; whole or not at all.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}: make it first.")
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as lines:
            table.to_csv(lines, index=False, float_format="%.4f", lineterminator="\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Run an experiment from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kdlearn.experiments",
        description="Train teacher and students over paired seeds, and write a table.",
    )
    parser.add_argument("name", choices=EXPERIMENTS, help="the experiment")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="default: 0 1 2 3 4"
    )
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="default: all")
    parser.add_argument(
        "--on",
        choices=["test", "validation"],
        default="test",
        help="split to measure on: validation to choose hyper-parameters, test to report",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="CSV to write")
    options = parser.parse_args(arguments)
    if not options.output.parent.is_dir():
        parser.error(f"there is no folder {options.output.parent}: make it first.")
    if options.output.is_dir():
        parser.error(f"{options.output} is a folder: name a file in it.")
    torch.set_num_threads(1)  # small models run faster so, and numbers repeat
    try:
        table = run(options.name, options.seeds, methods=options.methods, on=options.on)
    except (KeyError, ValueError) as error:
        parser.error(str(error.args[0]))
    write(table, options.output)
    print(f"wrote {len(table)} rows to {options.output}")
