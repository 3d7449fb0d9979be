"""The rates of the grader over a folder."""

import pytest

from kdlearn.drills import find
from kdlearn.drills.grader.rates import gives, main
from kdlearn.drills.grader.report import FACTOR, Diagnosis

RIGHT = "def judge(letters):\n    return [letter in 'bcgikl' for letter in letters]"
WRONG = "def judge(letters):\n    return [letter in 'bcgik' for letter in letters]"


def test_a_folder_is_summed_up(tmp_path, capsys):
    wrong = [
        ("one turned", WRONG, ["high-t-for-language"]),
        ("told as another", WRONG, ["bigger-is-better"]),
        ("right after all", RIGHT),
    ]
    file = tmp_path / "rapid_fire.py"
    file.write_text(f"RIGHT = {[('table', RIGHT)]!r}\nWRONG = {wrong!r}\n")
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "rapid-fire: told as another: misleads" in said
    assert "rapid-fire: right after all: accepted" in said
    assert "right accepted   1 of 1\nwrong refused    2 of 3\n  helps          1" in said


KD = """
def kd_loss(student_logits, teacher_logits, *, temperature):
    q = (student_logits / temperature).log_softmax(1)
    p = (teacher_logits.detach() / temperature).softmax(1)
    return {} * F.kl_div(q, p, reduction="batchmean")
"""


def test_a_name_that_does_not_give_the_numbers_is_found():
    drill, source = find("kd-loss"), KD.format("1")
    assert gives(drill, source, [Diagnosis("t-squared-missing", "")], seed=5)
    assert not gives(drill, source, [Diagnosis("t-not-squared", "")], seed=5)
    assert gives(drill, source, [Diagnosis("narrowed-down", "")], seed=5)


def test_a_multiple_of_the_numbers_counts_where_its_factor_is_told():
    drill, source = find("kd-loss"), KD.format("3")
    assert not gives(drill, source, [Diagnosis("t-squared-missing", "")], seed=5)
    assert gives(drill, source, [Diagnosis("t-squared-missing", f"{FACTOR} 3.")], seed=5)


def test_without_a_folder_it_says_how_it_is_used(tmp_path):
    for arguments in ([], [str(tmp_path / "none")]):
        with pytest.raises(SystemExit, match="rates"):
            main(arguments)
