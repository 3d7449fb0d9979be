"""The bank at a terminal: a mock interview and cards, as somebody types them."""

import re

from typer.testing import CliRunner

from kdlearn.cli import app


def typed(words, *lines):
    return CliRunner().invoke(app, words, input="".join(f"{line}\n" for line in lines))


def test_an_interview_uncovers_a_question_and_pushes():
    # Enter for the four layers, a score (7 is none), Enter for the push; then the input ends.
    done = typed(["interview", "--topic", "losses", "--seed", "1"], "", "", "", "", "7", "2", "")
    assert done.output.index("Enter: 30 seconds") < done.output.index("Enter: 2 minutes")
    assert done.output.count("The interviewer pushes") == 1
    assert re.search(r"\n  4\. \w", done.output)


def test_an_interview_ends_when_its_time_is_over_and_tells_the_mean(monkeypatch):
    clock = iter([0.0, 1.0, 61.0])
    monkeypatch.setattr("kdlearn.interview.commands.time.monotonic", lambda: next(clock))
    done = typed(["interview", "--minutes", "1"], "", "", "", "", "3", "")
    assert done.exit_code == 0, done.output
    assert "1 questions, 3.0 of 4." in done.output


def test_a_quiz_counts_what_was_known():
    done = typed(["quiz", "--number", "2", "--seed", "0"], "", "y", "", "n")
    assert done.exit_code == 0
    assert "1 of 2 known." in done.output


def test_what_fits_no_question_is_said():
    done = typed(["quiz", "--topic", "cooking"])
    assert done.exit_code == 2
    assert "no question has topic=cooking" in done.output
