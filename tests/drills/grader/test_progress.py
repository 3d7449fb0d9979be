"""The small file with what a reader has done."""

import json

import pytest

from kdlearn.drills.grader import progress
from kdlearn.drills.grader.progress import Record


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLEARN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_nothing_was_done_at_first():
    assert progress.read() == {}


def test_attempts_are_counted_and_the_first_day_is_kept():
    progress.checked("a", passed=False)
    progress.checked("a", passed=True)
    day = progress.read()["a"].solved
    assert len(day) == len("2026-01-01")
    progress.checked("a", passed=False)
    assert progress.read() == {"a": Record(attempts=3, solved=day)}


def test_hints_stop_at_the_last_one():
    assert [progress.next_hint("a", 3) for _ in range(5)] == [1, 2, 3, 3, 3]
    assert progress.read()["a"].hints == 3


def test_a_solution_seen_counts_only_before_it_is_solved():
    progress.checked("done", passed=True)
    progress.saw_solution("done")
    progress.saw_solution("open")
    assert not progress.read()["done"].seen
    assert progress.read()["open"].seen


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 3}', '{"a": {"other": 1}}'])
def test_a_damaged_file_is_kept_aside(home, text):
    home.mkdir()
    (home / "drills.json").write_text(text)
    with pytest.warns(UserWarning, match="cannot be read"):
        progress.checked("b", passed=False)
    assert (home / "drills.damaged.json").read_text() == text
    assert progress.read() == {"b": Record(attempts=1)}


def test_a_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KDLEARN_HOME", str(tmp_path / "file" / "home"))
    with pytest.warns(UserWarning, match="set KDLEARN_HOME"):
        progress.checked("a", passed=True)


def test_the_file_is_plain_json(home):
    progress.checked("a", passed=False)
    values = json.loads((home / "drills.json").read_text())
    assert values == {"a": {"attempts": 1, "hints": 0, "seen": False, "solved": ""}}
    assert [path.name for path in home.iterdir()] == ["drills.json"]
