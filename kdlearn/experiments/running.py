"""Run an experiment by name, over seeds, into a table or a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from kdlearn.core.files import whole
from kdlearn.experiments import (
    backdoor,
    bert_losses,
    capacity_gap,
    cluttered_digits,
    consistent_copies,
    date_translation,
    divergences,
    drafts,
    dropped_term,
    extraction,
    feature_losses,
    fidelity,
    four_heads,
    initialization,
    kl_estimators,
    linear_recall,
    rare_classes,
    real_digits,
    relu_on_logits,
    retrieval,
    same_crop,
    same_data,
    several_teachers,
    shortcut,
    silent_failures,
    smooth_teachers,
    sparse_parity,
    specialists,
    subclasses,
    subliminal,
    text_drafts,
    transfer_sets,
    truncated_kl,
    two_tokenizers,
    unlabeled,
    vit_attention,
    warped_digits,
    which_teacher,
    who_writes,
    why_it_works,
    wrong_labels,
)
from kdlearn.experiments.common import Experiment, Row, check

EXPERIMENTS: dict[str, Experiment] = {
    "backdoor": backdoor,
    "bert-losses": bert_losses,
    "capacity-gap": capacity_gap,
    "cluttered-digits": cluttered_digits,
    "consistent-copies": consistent_copies,
    "date-translation": date_translation,
    "divergences": divergences,
    "drafts": drafts,
    "dropped-term": dropped_term,
    "extraction": extraction,
    "feature-losses": feature_losses,
    "fidelity": fidelity,
    "four-heads": four_heads,
    "initialization": initialization,
    "kl-estimators": kl_estimators,
    "linear-recall": linear_recall,
    "rare-classes": rare_classes,
    "real-digits": real_digits,
    "relu-on-logits": relu_on_logits,
    "retrieval": retrieval,
    "same-crop": same_crop,
    "same-data": same_data,
    "several-teachers": several_teachers,
    "shortcut": shortcut,
    "silent-failures": silent_failures,
    "smooth-teachers": smooth_teachers,
    "sparse-parity": sparse_parity,
    "specialists": specialists,
    "subclasses": subclasses,
    "subliminal": subliminal,
    "text-drafts": text_drafts,
    "transfer-sets": transfer_sets,
    "truncated-kl": truncated_kl,
    "two-tokenizers": two_tokenizers,
    "unlabeled": unlabeled,
    "vit-attention": vit_attention,
    "warped-digits": warped_digits,
    "which-teacher": which_teacher,
    "who-writes": who_writes,
    "why-it-works": why_it_works,
    "wrong-labels": wrong_labels,
}


def run(
    name: str,
    seeds: Sequence[int],
    *,
    methods: Sequence[str] | None = None,
    on: str = "test",
    output: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run all methods of an experiment for each seed.

    Args:
        name: one of :data:`EXPERIMENTS`.
        seeds: at least one; 5 or more for a number worth quoting.
        methods: a part of the experiment's methods; by default all.
        on: the split to measure on; ``"validation"`` while choosing hyper-parameters.
        output: a CSV file that has each row as soon as it is there, and is whole at any moment.
            Rows that it has stay, and seeds that it has with all methods are not run again, so that
            a run that was killed goes on, to the table that it would have made.
        progress: show a bar that counts trained models.

    Returns:
        Long format: a row for each seed and method, columns ``seed``, ``method`` and metrics, and
        ``split`` where that is not the test split. With ``output``, all rows of the file.

    Raises:
        KeyError: no such experiment or method.
        TypeError: the seeds are one number.
        ValueError: no seed, a seed twice, another split than validation and test, or a file of
            another experiment or split.
        FileNotFoundError: the folder of the file does not exist.
        IsADirectoryError: the file is a folder.
    """
    experiment = _found(name)
    if isinstance(seeds, int):
        raise TypeError(f"seeds are {seeds}: expected a list, such as range({seeds}).")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"give at least one seed, and each once, got {list(seeds)}.")
    chosen = list(experiment.METHODS) if methods is None else list(methods)
    check(experiment.METHODS, chosen, on)
    path = None if output is None else Path(output)
    rows = [] if path is None else _rows_of(path, name, on)
    done = {(row["seed"], row["method"]) for row in rows}
    table = _table(rows, experiment)
    with tqdm(total=len(seeds) * (1 + len(chosen)), unit="model", disable=not progress) as bar:
        for seed in seeds:
            bar.set_description(f"seed {seed}")
            if done.issuperset((seed, method) for method in ("teacher", *chosen)):
                bar.update(1 + len(chosen))
                continue
            # All of them: students that are trained side by side, or draw from one generator, come
            # out otherwise without the others.
            for row in experiment.run_seed(seed, methods=chosen, on=on):
                if (seed, row["method"]) not in done:
                    rows.append(row if on == "test" else {**row, "split": on})
                    table = _table(rows, experiment)
                    if path is not None:
                        write(table, path)
                bar.set_postfix_str(f"{row['method']}: {row[experiment.COLUMNS[0]]:.1f}")
                bar.update()
    return table


def split_methods(experiment: str, text: str) -> list[str]:
    """Cut ``"A,B"`` into methods of an experiment; a name that has a comma itself stays whole.

    Of several ways to cut, the longest name is taken that was not taken before.

    Example:
        >>> split_methods("cluttered-digits", "KD,AT, shuffled maps,AT")
        ['KD', 'AT, shuffled maps', 'AT']
    """
    known = {name.replace(", ", ","): name for name in _found(experiment).METHODS}
    words = [word.strip() for word in text.split(",")]
    methods: list[str] = []
    while words:
        named = ((n, known.get(",".join(words[:n]), "")) for n in range(len(words), 0, -1))
        fresh = ((n, name) for n, name in named if name and name not in methods)
        length, method = next(fresh, (1, words[0]))
        methods.append(method)
        words = words[length:]
    return methods


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, four decimals; whole or not at all."""
    with whole(path) as partial:
        table.to_csv(partial, index=False, float_format="%.4f", lineterminator="\n")


def _found(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise KeyError(f"no experiment {name!r}: choose from {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]


def _table(rows: list[Row], experiment: Experiment) -> pd.DataFrame:
    """Sort the rows by seed and method: a table does not tell in how many goes it was made."""
    order = ["teacher", *experiment.METHODS]
    rows = sorted(rows, key=lambda row: (row["seed"], order.index(str(row["method"]))))
    columns = ("seed", "method", "split", *experiment.COLUMNS)
    return pd.DataFrame(rows, columns=[c for c in columns if any(c in row for row in rows)])


def _rows_of(path: Path, name: str, on: str) -> list[Row]:
    """Read what a file has already; it must be of this experiment and this split."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}: make it first.")
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder: name a file in it, such as {path / f'{name}.csv'}."
        )
    if not path.exists():
        return []
    try:
        table = pd.read_csv(path)
        methods = set(table["method"])
        rows: list[Row] = [
            {name: value for name, value in zip(table.columns, row, strict=True) if value == value}
            for row in table.astype({"seed": int}).astype(object).itertuples(index=False)
        ]
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is no table of an experiment ({error}): name another file."
        ) from error
    experiment = EXPERIMENTS[name]
    foreign = set(table) - {"seed", "method", "split", *experiment.COLUMNS}
    foreign |= methods - {"teacher", *experiment.METHODS}
    splits = {str(row.get("split", "test")) for row in rows}
    if foreign:
        raise ValueError(
            f"{path} has {min(map(str, foreign))!r}, which {name} has not: it is a table of "
            "something else, name another file."
        )
    if splits - {on}:
        raise ValueError(
            f"{path} was measured on the {min(splits - {on})} split and this run is on {on}: "
            "name another file."
        )
    return rows
