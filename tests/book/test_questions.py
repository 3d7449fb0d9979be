"""What the tools make of a question, and which of its names the book must know."""

from __future__ import annotations

import re

import interview
import pytest
import questions

from kdlearn.interview import Question, questions_folder, read, read_bank

GOOD = (questions_folder() / "batchmean.md").read_text(encoding="utf-8")


def changed(old: str, new: str) -> Question:
    assert GOOD.count(old) == 1, old
    return read(GOOD.replace(old, new), "batchmean")


def test_a_page_has_every_part_once_in_the_order_of_the_file() -> None:
    page = questions.page(read(GOOD, "batchmean"))
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings[:4] == [
        "## The scenario",
        "## The question",
        "## In 30 seconds",
        "## In two minutes",
    ]
    assert headings[-5:-2] == [
        "## Rubric",
        '## <span lang="zh">30 秒</span>',
        '## <span lang="zh">两分钟</span>',
    ]
    assert headings[-2:] == ["## Read and practice", "## Sources"]
    assert page.count("<details>") == 3 and page.count(":::{wrong-answer}") == 2
    assert ":::{drill} kd-loss" in page and "{cite:t}`deitissue61`" in page


def test_a_page_in_chinese_has_its_spoken_answers_and_the_rest_from_the_catalog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    question = read(GOOD, "batchmean")
    chinese = questions.in_chinese(question, lambda text: f"译：{text}")
    assert list(chinese.parts) == [x for x in questions.HEADINGS if x in question.parts]
    assert chinese.parts["30 seconds"] == question.parts["30 秒"]
    assert chinese.parts["2 minutes"] == question.parts["两分钟"]
    assert chinese.rubric == tuple(f"译：{line}" for line in question.rubric)
    monkeypatch.setattr(questions, "english", lambda: False)
    page = questions.page(chinese)
    assert f"}}\n# {question.head.title_zh}\n" in page
    assert page.count("译：") >= 4 + 2 * len(question.follow_ups + question.wrong_answers)
    assert "{.anchor--follow-ups}\n## " in page and "## 30 秒" not in page


def test_a_title_is_safe_as_html() -> None:
    assert questions.plain("`a<b` and $x$") == "<code>a&lt;b</code> and <i>x</i>"


def test_the_index_lists_every_question_under_its_topic_and_the_ledger_in_a_row() -> None:
    bank = read_bank(questions_folder())
    listed, rows = questions.index(bank), questions.ledger(bank)
    for question in bank:
        assert f"[{question.head.title}](questions/{question.head.id}.md)" in listed
        assert rows.count(f"\n| [{question.head.id}](questions/") == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"pytorchkldiv", ', '"nobody2099", ', "source nobody2099 is not in references.bib"),
        (', "deitissue61"]', "]", "deitissue61 is cited and not listed in sources"),
        ('chapter = "foundations/', 'chapter = "nowhere/', "chapter nowhere/what-is-distillation"),
        ('drill = "kd-loss"', 'drill = "kd-lost"', "drill kd-lost does not exist"),
        ("#5d5462d2", "#12345678", "has no executed cell 12345678"),
        (
            '"foundations/what-is-distillation#5d5462d2"',
            '"claim:none"',
            "claim none does not exist",
        ),
    ],
)
def test_what_the_book_does_not_have_is_named(old: str, new: str, said: str) -> None:
    found = list(interview.faults(changed(old, new)))
    assert len(found) == 1 and said in found[0], found


def test_a_whole_question_has_no_fault() -> None:
    assert list(interview.faults(read(GOOD, "batchmean"))) == []


def test_what_one_language_alone_says_is_named() -> None:
    assert list(interview.unlike(read(GOOD, "batchmean"))) == []
    (number,) = re.findall(r"默认的 reduction (\d+\.\d)%", GOOD)
    told = changed(f"默认的 reduction {number}%", "默认的 reduction 12.3%")
    assert list(interview.unlike(told)) == [
        f"两分钟: lost the number {number}",
        "两分钟: added the number 12.3",
    ]


def test_a_number_of_our_own_run_that_no_evidence_shows_is_named() -> None:
    told = changed(
        "With a thousand classes the teacher is\nsilent.", "We measured a loss of 12.3456."
    )
    assert "12.3456 stands in no output" in "".join(interview.unfounded(told))
    assert list(interview.unfounded(read(GOOD, "batchmean"))) == []
    cited = changed("With a thousand classes the teacher is\nsilent.", "They report 12.3456.")
    assert list(interview.unfounded(cited)) == []


def test_the_drills_of_the_puzzles_lead_to_the_questions_that_ask_for_them() -> None:
    bank = [read(GOOD, "batchmean")]
    (chapter,) = questions.with_questions(
        [{"drills": [{"id": "kd-loss"}, {"id": "at-loss"}]}], bank
    )
    asked, not_asked = chapter["drills"]
    assert [one["id"] for one in asked["asked"]] == ["batchmean"]
    assert asked["taught"] == f"{bank[0].head.chapter}.html"
    assert not_asked == {"id": "at-loss", "asked": []}
