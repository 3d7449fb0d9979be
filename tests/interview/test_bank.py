"""The bank: every question of the book has the form, and no two are alike."""

import re

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


def test_a_wording_leads_to_one_question(tmp_path):
    asked = 'minutes = 3\nalso = [{ en = "Which, then?", zh = "哪个？" }]'
    (tmp_path / "batchmean.md").write_text(GOOD.replace("minutes = 3", asked), encoding="utf-8")
    other = (QUESTIONS / "by-hand.md").read_text(encoding="utf-8")
    assert 'en = "Compute softened' in other
    twin = re.sub('en = "Compute softened[^"]*"', 'en = "which, then?"', other)
    (tmp_path / "by-hand.md").write_text(twin, encoding="utf-8")
    with pytest.raises(ValueError, match="batchmean and by-hand are both asked as 'which, then"):
        read_bank(tmp_path)
