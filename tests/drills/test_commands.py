"""The drills in a terminal."""

import json
import threading

import pytest
from typer.testing import CliRunner

from kdlearn.cli import app
from kdlearn.drills import find, names


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
    assert right.exit_code == 0 and "9 of 9" in right.output
    assert f"1 of {len(names())} solved" in drill("list").output


def test_help_is_on_the_way():
    assert "Hint 1 of 3" in drill("hint", "kd-loss").output
    assert "Hint 2 of 3" in drill("hint", "kd_loss").output
    assert "kdlearn drill solution kd-loss shows the whole" in drill("hint", "kd-loss").output
    assert "def kd_loss" in drill("solution", "kd-loss").output


def test_a_report_can_be_read_by_a_program(tmp_path):
    drill("start", "rapid-fire", "--folder", tmp_path)
    file = tmp_path / "rapid_fire.py"
    file.write_text(file.read_text() + "    return [True for letter in letters]\n")
    result = drill("check", file, "--json")
    report = json.loads(result.output)
    assert result.exit_code == 1 and not report["passed"]
    assert "attention-copied" in [one["id"] for one in report["diagnoses"]]


def test_a_file_is_watched_until_it_is_right(tmp_path):
    file = tmp_path / "rapid_fire.py"
    file.write_text("def judge(letters):\n    return [True for letter in letters]\n")
    assert drill("watch", file, "--checks", 1).exit_code == 1
    later = threading.Timer(
        3, file.write_text, [find("rapid-fire").source().replace("list[str]", "list")]
    )
    later.start()
    result = drill("watch", file)
    later.join()
    assert result.exit_code == 0 and result.output.count("checks passed") == 2


def test_a_file_is_never_overwritten(tmp_path):
    (tmp_path / "kd_loss.py").write_text("mine")
    result = drill("start", "kd-loss", "--folder", tmp_path)
    assert result.exit_code == 2 and "is there already" in result.output
    assert (tmp_path / "kd_loss.py").read_text() == "mine"


def test_a_drill_in_place_of_its_file_is_answered_with_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drill("start", "kd-loss")
    result = drill("check", "kd-loss")
    assert result.exit_code == 2 and "kdlearn drill check kd_loss.py" in result.output


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
