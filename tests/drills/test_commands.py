"""The drills in a terminal."""

import pytest
from typer.testing import CliRunner

from kdlearn.cli import app
from kdlearn.drills import find, names


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLEARN_HOME", str(tmp_path / "home"))


def drill(*words):
    return CliRunner().invoke(app, ["drill", *map(str, words)])


def test_from_start_to_solved(tmp_path):
    made = drill("start", "kd-loss", "--folder", tmp_path)
    file = tmp_path / "kd_loss.py"
    assert made.exit_code == 0 and str(file) in made.output

    empty = drill("check", file)
    assert empty.exit_code == 1 and "not written yet" in empty.output

    file.write_text(file.read_text() + "    return student_logits.sum() * 0\n")
    wrong = drill("check", file)
    assert wrong.exit_code == 1 and "Diagnosis" in wrong.output

    task = file.read_text().split("def ")[0]
    file.write_text(task + find("kd-loss").source())
    right = drill("check", file)
    assert right.exit_code == 0 and "6 of 6" in right.output
    assert f"1 of {len(names())} solved" in drill("list").output


def test_help_is_on_the_way():
    assert "Hint 1 of 3" in drill("hint", "kd-loss").output
    assert "def kd_loss" in drill("solution", "kd-loss").output


def test_a_file_is_never_overwritten(tmp_path):
    (tmp_path / "kd_loss.py").write_text("mine")
    result = drill("start", "kd-loss", "--folder", tmp_path)
    assert result.exit_code == 2 and "is there already" in result.output
    assert (tmp_path / "kd_loss.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("start", "kd-los"), "there is no drill 'kd-los'"),
        (("start", "kd-loss", "--folder", "nowhere"), "there is no folder nowhere"),
        (("check", "other.py"), "named after no drill"),
        (("check", "kd_loss.py"), "kdlearn drill start kd-loss"),
        (("hint", "x"), "there is no drill 'x'"),
    ],
)
def test_bad_words_are_answered(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = drill(*words)
    assert result.exit_code == 2
    assert message in result.output
