import os
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from kdlearn.experiments import EXPERIMENTS, run
from kdlearn.experiments.running import main, write


def pretend(seed, *, methods, on):
    """An experiment that takes no time."""
    for method in ("teacher", *methods):
        yield {"seed": seed, "method": method, "accuracy": 50.0 + seed + (on == "validation")}


@pytest.fixture
def quick(monkeypatch):
    experiment = SimpleNamespace(METHODS={"KD": None, "scratch": None}, run_seed=pretend)
    monkeypatch.setitem(EXPERIMENTS, "warped-digits", experiment)


def test_a_run_has_a_row_for_each_seed_and_model(quick):
    table = run("warped-digits", [3, 5], progress=False)
    assert list(table["seed"]) == [3, 3, 3, 5, 5, 5]
    assert list(table["method"]) == ["teacher", "KD", "scratch"] * 2
    assert list(run("warped-digits", [0], methods=["KD"], progress=False)["method"]) == [
        "teacher",
        "KD",
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("no-such", [0]), KeyError, "choose from cluttered-digits"),
        (("warped-digits", []), ValueError, "at least one seed"),
        (("warped-digits", [1, 1]), ValueError, "each once"),
    ],
)
def test_a_wrong_argument_is_told(arguments, error, message):
    with pytest.raises(error, match=message):
        run(*arguments)


def test_an_unknown_method_is_told_before_anything_is_trained(quick):
    with pytest.raises(KeyError, match="no method 'magic': choose from 'KD', 'scratch'"):
        run("warped-digits", [0], methods=["magic"])


def test_the_command_writes_the_table(quick, tmp_path, capsys):
    output = tmp_path / "table.csv"
    main(["warped-digits", "--seeds", "0", "1", "--on", "validation", "--output", str(output)])
    table = pd.read_csv(output)
    assert list(table["accuracy"]) == [51.0] * 3 + [52.0] * 3
    assert "wrote 6 rows" in capsys.readouterr().out


def test_a_missing_folder_is_told_before_anything_is_trained(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["warped-digits", "--output", str(tmp_path / "missing" / "table.csv")])
    assert "make it first" in capsys.readouterr().err


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("before")

    class Broken(pd.DataFrame):
        def to_csv(self, lines, **options):
            lines.write("half a ta")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(Broken(), path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_the_module_has_a_help_text():
    command = [sys.executable, "-m", "kdlearn.experiments", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cluttered-digits" in done.stdout and "--seeds" in done.stdout
