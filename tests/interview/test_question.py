"""The form of a question: what is read, and which faults are named."""

import pytest

from kdlearn.interview.bank import questions_folder
from kdlearn.interview.question import read, words

QUESTIONS = questions_folder()
GOOD = (QUESTIONS / "batchmean.md").read_text(encoding="utf-8")


def test_every_layer_of_a_question_is_read():
    question = read(GOOD, "batchmean")
    assert question.head.title.startswith("Your distillation term")
    assert "Scenario" in question.parts and "Follow-ups" not in question.parts
    assert [pair.title[:2] for pair in question.follow_ups] == ["Is", "Wh", "Th"]
    assert len(question.wrong_answers) == 2 and len(question.rubric) == 4
    assert question.rubric[1] == "Knows that the reduction is wrong, not by how much."


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('id = "batchmean"', 'id = "other"', "its id is other"),
        ("minutes = 3", "minutes = 0", "greater than or equal to 1"),
        ('level = "junior"', 'level = "wizard"', "'junior', 'mid', 'senior' or 'research'"),
        ("minutes = 3", "minute = 3", "Extra inputs are not permitted"),
        ("minutes = 3", 'minutes = 3\nalso = [{ en = "Why?", zh = "Why?" }]', "also.0.zh"),
        ("minutes = 3", 'minutes = 3\nalso = [{ en = "何?", zh = "为什么？" }]', "also.0.en"),
        ("## Whiteboard", "## Board", "in this order"),
        ("## 2 minutes", "## Question", "stands there twice"),
        ("+++\n\n## Scenario", "+++\nA word.\n\n## Scenario", "'A word.' stands before"),
        ("### Is the default ever harmless?", "### Is it?\n\n### Harmless?", r"for \['Is it\?'\]"),
        ("### What does `batchmean`", "What does `batchmean`", "has 2 follow-ups, expected 3"),
        ("4. Also tells", "5. Also tells", "needs the scores 1. to 4."),
        ("The KL divergence is a sum over classes", "KL " * 60, "words, expected 45 to 80"),
        ("后果不是报错", "后果" * 150, "words, expected 280 to 540"),
        ("## 两分钟", "## 2 分钟", "in this order"),
    ],
)
def test_a_fault_of_form_is_named(old, new, said):
    assert GOOD.count(old) == 1
    with pytest.raises(ValueError, match=f"(?s)^batchmean: .*{said}"):
        read(GOOD.replace(old, new), "batchmean")


def test_its_wordings_are_its_titles_and_those_it_is_also_asked_in():
    also = 'minutes = 3\nalso = [{ en = "Too weak?", zh = "太弱？" }]'
    head = read(GOOD.replace("minutes = 3", also), "batchmean").head
    assert head.wordings == (head.title, head.title_zh, "Too weak?", "太弱？")


def test_formulas_and_links_are_counted_as_they_are_spoken():
    assert words("See [the loss](https://example.org/a/b), {term}`soft target <x>`.") == 5


def test_each_chinese_character_is_counted_and_no_mark() -> None:
    assert words("“一批 64 个样本，$T = 4$。”") == 8
