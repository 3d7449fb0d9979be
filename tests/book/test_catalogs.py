"""Catalogs: what `update` keeps and marks, and what `check` finds."""

from __future__ import annotations

import io
from pathlib import Path

import catalogs
import pytest
from babel.messages import Catalog
from babel.messages.pofile import read_po

ENGLISH = (
    "**Why.** With $T^2$ and `fit` the {term}`soft targets <soft target>` gain 3.9 ± 1.0 points on "
    "12,000 images, 40 % ([here](a.md#b)), says {cite:t}`hinton2015distilling`."
)
CHINESE = (
    "**为什么。** 有了 $T^2$ 和 `fit`，{term}`软标签 <soft target>`在 1.2 万张图像上多得 "
    "3.9 ± 1.0 个百分点，即 40%（[这里](a.md#b)），见 {cite:t}`hinton2015distilling`。"
)


def read(text: str) -> Catalog:
    return read_po(io.BytesIO(text.encode()), locale="zh_CN")


def test_a_translation_that_says_the_same_has_no_fault() -> None:
    assert list(catalogs.differences(ENGLISH, CHINESE)) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("$T^2$", "$T$", "lost the formula T^2"),
        ("`fit`", "`train`", "lost the code fit"),
        ("<soft target>", "<soft label>", "lost the role term soft target"),
        ("hinton2015distilling", "gou2021knowledge", "lost the role cite:t hinton2015distilling"),
        ("a.md#b", "a.md", "lost the link a.md#b"),
        ("3.9", "3.8", "lost the number 3.9"),
        ("1.2 万", "1.2 亿", "lost the number 12000"),
        ("±", "加减", "has not the same ±"),
        ("40%", "40", "has not the same %"),
        ("**为什么。** ", "**为什么。**", "bold is not as in the message"),
        ("**为什么。** ", "为什么。", "bold is not as in the message"),
        ("，见", ",见", "half-width punctuation"),
        ("。", "。7", "added the number 7"),
        ("图像上", "图像<br>上", "added the tag <br>"),
    ],
)
def test_a_translation_that_says_something_else_is_told(old: str, new: str, said: str) -> None:
    assert old in CHINESE
    told = list(catalogs.differences(ENGLISH, CHINESE.replace(old, new)))
    assert any(said in fault for fault in told), told


def test_a_number_in_words_may_be_written_in_digits() -> None:
    assert list(catalogs.differences("Three of five.", "5 个里的 3 个。")) == []
    assert list(catalogs.differences("Sevens and sixes.", "7 和 6。")) == []


def test_a_percentage_may_be_said_in_words_in_both_languages() -> None:
    assert list(catalogs.differences("Ninety percent zeros.", "百分之九十是零。")) == []


def test_an_update_keeps_marks_and_drops() -> None:
    before = Catalog(locale="zh_CN")
    before.add("It stays as it is.", "不变。")
    before.add("The student learns from the teacher's soft targets.", "学生学教师的软标签。")
    before.add("Nobody says this.", "没人说。")
    changed = "The student learns from the teacher's softer targets."
    text = catalogs.updated(before, ["It stays as it is.", changed, "Quite new, and unlike."])
    after = read(text)
    assert [str(message.id) for message in after if message.id] == [
        "It stays as it is.",
        changed,
        "Quite new, and unlike.",
    ]
    assert after.get("It stays as it is.").string == "不变。"
    assert after.get(changed).fuzzy and after.get(changed).string == "学生学教师的软标签。"
    assert '#| msgid "The student learns from the teacher\'s soft targets."' in text
    assert not after.get("Quite new, and unlike.").string


def test_a_second_update_keeps_the_old_message_until_the_new_one_is_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogs, "LOCALE", tmp_path)
    monkeypatch.setattr(catalogs, "wanted", lambda _: said)
    file = catalogs.catalog_file("x")
    file.parent.mkdir()
    old = 'The student learns \\"softly\\" from the soft targets of the teacher that it was given.'
    file.write_text(f'msgid "{old}"\nmsgstr "学生。"\n', encoding="utf-8")
    said = [old.replace("\\", "").replace("was", "is")]
    catalogs.update(["x"])
    once = file.read_text(encoding="utf-8")
    assert "#, fuzzy" in once and "was" in once
    catalogs.update(["x"])
    assert file.read_text(encoding="utf-8") == once
    file.write_text(once.replace("#, fuzzy\n", ""), encoding="utf-8")
    catalogs.update(["x"])
    assert "#" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [catalogs.SITE, *catalogs.pages()])
def test_an_update_of_a_current_catalog_changes_no_byte(page: str) -> None:
    stored = catalogs.catalog_file(page).read_text(encoding="utf-8")
    assert catalogs.updated(catalogs.load(page), catalogs.wanted(page)) == stored


def test_a_check_names_what_is_missing_stale_and_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogs, "LOCALE", tmp_path)
    monkeypatch.setattr(catalogs, "wanted", lambda _: ["New.", "Empty.", "Changed.", "Good."])
    file = catalogs.catalog_file("x")
    file.parent.mkdir()
    file.write_text(
        'msgid "Empty."\nmsgstr ""\n\n#, fuzzy\nmsgid "Changed."\nmsgstr "改了。"\n\n'
        'msgid "Good."\nmsgstr "好。"\n\nmsgid "Gone."\nmsgstr "没了。"\n',
        encoding="utf-8",
    )
    assert list(catalogs.faults("x")) == [
        "x: not in the catalog, run make catalogs: New.",
        "x: not translated: Empty.",
        "x: changed since it was translated: Changed.",
        "x: nobody says this, run make catalogs: Gone.",
    ]
    # What is not current is shown in English.
    assert catalogs.texts("x") == {"Good.": "好。", "Gone.": "没了。"}


def test_a_question_without_a_catalog_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogs, "LOCALE", tmp_path)
    assert "interview/questions/batchmean" in catalogs.pages()
    told = list(catalogs.faults("interview/questions/batchmean"))
    assert len(told) > 10 and all("not in the catalog, run make catalogs" in x for x in told)


def test_a_page_that_is_not_in_the_book_is_refused() -> None:
    with pytest.raises(ValueError, match="the book has no page 'foundations/nothing'"):
        catalogs.source("foundations/nothing")


def test_the_words_of_theme_scripts_and_components_are_in_the_catalog_of_the_site() -> None:
    said = catalogs.shared()
    # One of each: known heading, template, script, script of a part, preset, component, contents.
    for text in (
        "In 30 seconds",
        "Skip to the text",
        "Nothing found.",
        "Uncover: {layer}",
        "A student too small",
        "{n} claims checked",
        "Language models",
    ):
        assert text in said
