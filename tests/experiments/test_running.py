import os

import pandas as pd
import pytest

from kdlearn.experiments import EXPERIMENTS, run, split_methods
from kdlearn.experiments.running import write
from tests.experiments.quick import Quick


@pytest.fixture
def quick(monkeypatch):
    experiment = Quick()
    monkeypatch.setitem(EXPERIMENTS, "quick", experiment)
    return experiment


def test_a_run_has_a_row_for_each_seed_and_model(quick):
    table = run("quick", [3, 5], progress=False)
    assert list(table["seed"]) == [3] * 4 + [5] * 4
    assert list(table["method"]) == ["teacher", "KD", "KD, twice", "scratch"] * 2
    few = run("quick", [0], methods=["KD"], progress=False)
    assert list(few["method"]) == ["teacher", "KD"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("no-such", [0]), KeyError, "no experiment 'no-such': choose from backdoor"),
        (("quick", []), ValueError, "at least one seed"),
        (("quick", [1, 1]), ValueError, r"each once, got \[1, 1\]"),
        (("quick", 5), TypeError, r"seeds are 5: expected a list, such as range\(5\)"),
    ],
)
def test_a_wrong_argument_is_told(quick, arguments, error, message):
    with pytest.raises(error, match=message):
        run(*arguments)
    assert not quick.trained


def test_an_unknown_method_or_split_is_told_before_anything_is_trained(quick):
    with pytest.raises(KeyError, match="no method 'magic': choose from 'KD', 'KD, twice'"):
        run("quick", [0], methods=["magic"])
    with pytest.raises(ValueError, match="on 'validation' or 'test', got 'train'"):
        run("quick", [0], on="train")
    assert not quick.trained


@pytest.mark.parametrize("stop_after", range(8))
def test_a_run_that_was_stopped_goes_on_to_the_same_file(stop_after, monkeypatch, tmp_path):
    monkeypatch.setitem(EXPERIMENTS, "quick", Quick())
    run("quick", [0, 1], output=tmp_path / "whole.csv", progress=False)
    stopped = Quick(stop_after)
    monkeypatch.setitem(EXPERIMENTS, "quick", stopped)
    path = tmp_path / "stopped.csv"
    with pytest.raises(KeyboardInterrupt):
        run("quick", [0, 1], output=path, progress=False)
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["seed", "method"])
    assert list(zip(done["seed"], done["method"], strict=True)) == stopped.trained
    again = Quick()
    monkeypatch.setitem(EXPERIMENTS, "quick", again)
    table = run("quick", [0, 1], output=path, progress=False)
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(table) == 8
    # A seed that is whole is not trained again; one that is not is, with all its students.
    finished = {0} if stop_after >= 4 else set()
    assert {seed for seed, _ in again.trained} == {0, 1} - finished


def test_a_finished_table_is_not_run_again(quick, tmp_path):
    path = tmp_path / "table.csv"
    first = run("quick", [0, 1], output=path, progress=False)
    quick.trained.clear()
    second = run("quick", [1], methods=["KD"], output=path, progress=False)
    assert not quick.trained
    assert list(second["method"]) == list(first["method"])


def test_a_table_says_so_when_it_is_not_of_the_test_split(quick, tmp_path):
    table = run("quick", [0], on="validation", output=tmp_path / "table.csv", progress=False)
    assert set(table["split"]) == {"validation"}
    assert "split" not in run("quick", [0], progress=False)
    with pytest.raises(
        ValueError, match="measured on the validation split and this run is on test"
    ):
        run("quick", [1], output=tmp_path / "table.csv", progress=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed,method,energy\n0,KD,1.0\n", "has 'energy', which quick has not"),
        ("seed,method,accuracy\n0,AT,1.0\n", "has 'AT', which quick has not"),
        ("a,b\n1,2\n", "is no table of an experiment"),
        ("seed,method\nx,KD\n", "is no table of an experiment"),
        ("", "is no table of an experiment"),
    ],
)
def test_a_file_of_something_else_is_left_alone(quick, tmp_path, content, said):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=said):
        run("quick", [0], output=path, progress=False)
    assert path.read_text() == content and not quick.trained


def test_a_place_that_cannot_hold_a_table_is_told_before_anything_is_trained(quick, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*missing: make it first"):
        run("quick", [0], output=tmp_path / "missing" / "table.csv")
    with pytest.raises(IsADirectoryError, match=r"is a folder: name a file .*quick\.csv"):
        run("quick", [0], output=tmp_path)
    assert not quick.trained


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("before")

    class Broken(pd.DataFrame):
        def to_csv(self, lines, **options):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(Broken(), path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["table.csv"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_methods_with_commas_in_their_names_are_read_back(name):
    known = list(EXPERIMENTS[name].METHODS)
    assert split_methods(name, ",".join(known)) == known
    assert split_methods(name, ", ".join(reversed(known))) == known[::-1]
    assert split_methods(name, "magic,teacher") == ["magic", "teacher"]
