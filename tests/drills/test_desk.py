"""What a reader calls."""

import pytest

from kdlearn.drills import check, find, hint, names, solution, status


def test_a_check_is_printed_and_counted(capsys):
    check("kd-loss", find("kd-loss").reference)
    assert capsys.readouterr().out.startswith("kd-loss: 9 of 9 checks passed.")
    status()
    out = capsys.readouterr().out
    assert "solved on" in out and f"1 of {len(names())} solved." in out


def test_a_wrong_solution_is_named_and_counted(capsys):
    def kd_loss(student_logits, teacher_logits, *, temperature):
        return student_logits.sum()

    check("kd-loss", kd_loss)
    assert "Diagnosis: " in capsys.readouterr().out
    status()
    out = capsys.readouterr().out
    assert "1 attempts" in out and f"0 of {len(names())} solved." in out


def test_hints_come_one_by_one(capsys):
    for _ in range(3):
        hint("kd-loss")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines[:3]] == ["Hint 1", "Hint 2", "Hint 3"]
    assert lines[3].startswith("That was the last one")


def test_a_solution_is_shown_with_its_explanation(capsys):
    solution("kd-loss")
    out = capsys.readouterr().out
    assert "def kd_loss(" in out and find("kd-loss").explanation in out
    status()
    assert "solution seen" in capsys.readouterr().out


def test_a_source_is_told_in_words_without_its_key(capsys):
    solution("rkd-angle")
    said = capsys.readouterr().out
    assert "Source: Park et al., CVPR 2019, section 3.2.2." in said and "cite:" not in said


@pytest.mark.parametrize(
    ("name", "given", "error", "words"),
    [
        ("kd", print, KeyError, "kd-loss"),
        ("nothing", print, KeyError, "there is no drill 'nothing'"),
        ("kd-loss", 0.5, TypeError, "pass the function itself"),
        ("kd-loss", "nowhere.py", FileNotFoundError, "nowhere.py is no file"),
    ],
)
def test_bad_calls_say_what_to_do(name, given, error, words):
    with pytest.raises(error) as raised:
        check(name, given)
    assert words in str(raised.value)
