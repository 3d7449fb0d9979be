"""The rates of the grader over a folder."""

import pytest

from kdlearn.drills.grader.rates import main

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


def test_without_a_folder_it_says_how_it_is_used(tmp_path):
    for arguments in ([], [str(tmp_path / "none")]):
        with pytest.raises(SystemExit, match="rates"):
            main(arguments)
