"""The bank: every question of the book has the form, and no two are alike."""

import pytest

from kdlearn.interview.bank import likeness, read_bank, select
from tests.interview.test_question import GOOD, QUESTIONS


def test_the_questions_of_the_book_can_be_selected():
    bank = read_bank(QUESTIONS)
    debug = select(bank, format="debug")
    assert debug and all(question.head.format == "debug" for question in debug)
    assert select(bank, format="debug", level="research") != debug


def test_two_questions_that_ask_the_same_are_found(tmp_path):
    (tmp_path / "batchmean.md").write_text(GOOD, encoding="utf-8")
    twin = GOOD.replace('id = "batchmean"', 'id = "twin"').replace("What is wrong?", "Why?")
    (tmp_path / "twin.md").write_text(twin, encoding="utf-8")
    with pytest.raises(ValueError, match="batchmean and twin ask nearly the same"):
        read_bank(tmp_path)
    first = read_bank(QUESTIONS)[0]
    assert likeness(first, first) == 1
