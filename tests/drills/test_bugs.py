"""Each exercise shows its symptom, has one wrong line, and does not give it away."""

import ast
import difflib
import inspect
import re

import pytest
import torch

from kdlearn.drills.bugs import NAMES, check_line, find_bug, show_bug
from kdlearn.drills.grader.compare import same

BUGS = [find_bug(name) for name in NAMES]
each = pytest.mark.parametrize("bug", BUGS, ids=NAMES)


def body(function):
    return inspect.getsource(function).splitlines()[1:]


@each
def test_the_broken_code_shows_the_symptom_and_the_fixed_code_does_not(bug):
    assert bug.wrong(bug.measure(bug.broken))
    assert not bug.wrong(bug.measure(bug.fixed))


@each
def test_a_measurement_does_not_depend_on_chance(bug):
    numbers = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        numbers.append([bug.measure(bug.broken), bug.measure(bug.fixed)])
    assert same(*numbers)


@each
def test_one_line_is_wrong(bug):
    removed = [
        line[2:].strip()
        for line in difflib.ndiff(body(bug.broken), body(bug.fixed))
        if line.startswith("- ")
    ]
    assert bug.faulty in removed
    assert len(removed) <= 3  # the line, and what hangs on it
    lines = [line.strip() for line in bug.source().splitlines()]
    assert lines.count(bug.faulty) == 1
    assert lines[bug.line() - 1] == bug.faulty


@each
def test_what_stands_in_its_place_is_python(bug):
    assert ast.parse(bug.mended()).body


@each
def test_the_text_does_not_give_the_line_away(bug, capsys):
    show_bug(bug.id)
    shown = capsys.readouterr().out
    assert bug.explanation not in shown
    assert bug.numbered() in shown
    assert f"{bug.line():2d}  " in shown
    assert "#" not in bug.source()


@each
def test_only_the_right_line_is_accepted(bug, capsys):
    last = len(bug.source().splitlines())
    for line in range(1, last + 1):
        check_line(bug.id, line)
        said = capsys.readouterr().out
        assert (bug.explanation in said) == (line == bug.line())
    check_line(bug.id, 0)
    assert "not answered yet" in capsys.readouterr().out


@pytest.mark.parametrize("line", [-1, 99, 1.5, "3", None, True])
def test_a_line_that_is_not_there_is_refused(line):
    with pytest.raises(ValueError, match="expected a number from 1 to"):
        check_line("stuck-loss", line)


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError, match="stuck-loss"):
        show_bug("nothing")


def test_there_are_twelve_and_a_source_says_what_it_was_and_where_to_find_it():
    assert len(BUGS) == 12
    seen = [bug.seen for bug in BUGS if bug.seen]
    assert len(set(seen)) == len(seen) == 11
    assert all(source.startswith(("in code: ", "proposed: ", "asked: ")) for source in seen)
    assert all(re.search(r"[\w-]+/[\w-]+ .*\d", source) for source in seen)
