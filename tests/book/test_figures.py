"""The line of a bug and the statements of an interview, answered by a click on the built site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kdlearn.drills.bugs import NAMES, find_bug
from kdlearn.drills.tasks.rapid_fire import STATEMENTS, judge
from tests.book.built_site import NO_SITE, SITE, pages

pytestmark = pytest.mark.skipif(not pages(), reason=NO_SITE)

BUGS, STATEMENTS_PAGE = "find-the-bug", "drills-training"


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page of the site; two pages of one test share what the browser keeps."""
    contexts = dict[Any, Any]()

    def open_page(name: str, width: int = 1280, scripts: bool = True) -> Any:
        key = width, scripts
        if key not in contexts:
            contexts[key] = browser.new_context(
                viewport={"width": width, "height": 900},
                has_touch=width < 500,
                java_script_enabled=scripts,
            )
        page = contexts[key].new_page()
        page.goto((SITE / "book/implement" / f"{name}.html").as_uri())
        return page

    yield open_page
    for context in contexts.values():
        context.close()


def code_of(page: Any, name: str) -> Any:
    return page.locator(f"section:has(> details[data-bug='{name}']) .kd-tap[role=group]")


def test_every_line_of_every_bug_can_be_clicked(opened: Any) -> None:
    page = opened(BUGS)
    for name in NAMES:
        lines = code_of(page, name).get_by_role("button").all_text_contents()
        source = find_bug(name).source().rstrip().splitlines()
        assert lines == [f"{number}{line}" for number, line in enumerate(source, 1)]


def test_a_click_on_the_wrong_line_opens_the_answer_and_counts(opened: Any) -> None:
    page = opened(BUGS)
    bug = find_bug(NAMES[0])
    code, fold = code_of(page, bug.id), page.locator(f"details[data-bug='{bug.id}']")
    assert page.locator(".kd-tap-score").text_content().startswith("0 of 12 found")
    code.get_by_role("button").first.click()
    assert "Line 1 is fine" in code.get_by_role("status").text_content()
    assert fold.get_attribute("open") is None
    right = code.get_by_role("button").nth(bug.line() - 1)
    right.focus()
    page.keyboard.press("Enter")
    assert f"Yes, line {bug.line()}" in code.get_by_role("status").text_content()
    assert fold.get_attribute("open") is not None and bug.explanation[:40] in fold.text_content()
    assert page.locator(".kd-tap-score").text_content() == "1 of 12 found, 0 at the first try."


def test_the_score_is_there_on_the_next_visit_until_the_reader_starts_again(opened: Any) -> None:
    page = opened(BUGS, width=390)
    bug = find_bug(NAMES[1])
    code_of(page, bug.id).get_by_role("button").nth(bug.line() - 1).tap()
    again = opened(BUGS, width=390)
    assert again.locator(".kd-tap-score").text_content() == "1 of 12 found, 1 at the first try."
    assert again.locator("[data-answer=right]").count() == 1
    again.get_by_role("button", name="Start again").tap()
    again.wait_for_function("document.querySelectorAll('[data-answer]').length === 0")
    assert again.locator(".kd-tap-score").text_content().startswith("0 of 12")


def test_every_statement_is_judged_as_the_drill_judges_it(opened: Any) -> None:
    page = opened(STATEMENTS_PAGE)
    letters = sorted(STATEMENTS)
    for letter, verdict in zip(letters, judge(letters), strict=True):
        box = page.get_by_role("group", name=f"Statement {letter}", exact=True)
        box.get_by_role("button", name=str(verdict).lower()).click()
        told = box.get_by_role("status").text_content()
        assert told.startswith(f"Right, it is {str(verdict).lower()}: ")
        assert STATEMENTS[letter][2].partition(": ")[2][:30] in told
    assert page.locator(".kd-tap-score").text_content() == "12 of 12 right, 12 at the first try."


def test_a_second_thought_on_a_statement_does_not_count(opened: Any) -> None:
    page = opened(STATEMENTS_PAGE, width=390)
    box = page.get_by_role("group", name="Statement a", exact=True)
    box.get_by_role("button", name="true").tap()
    assert box.get_by_role("status").text_content().startswith("No, it is false: ")
    box.get_by_role("button", name="false").tap()
    assert box.get_by_role("status").text_content().startswith("Right")
    assert page.locator(".kd-tap-score").text_content().startswith("0 of 12")


@pytest.mark.parametrize("name", [BUGS, STATEMENTS_PAGE])
def test_a_finger_finds_every_line_and_nothing_sticks_out(opened: Any, name: str) -> None:
    page = opened(name, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator(".kd-tap button:visible").all():
        box = button.bounding_box()
        assert box["height"] >= 44 and box["width"] >= 44 and box["x"] + box["width"] <= 390


def test_without_scripts_code_answers_and_verdicts_are_text(opened: Any) -> None:
    page = opened(BUGS, scripts=False)
    for name in NAMES:
        section = page.locator(f"section:has(> details[data-bug='{name}'])")
        assert find_bug(name).numbered() in section.locator(".cell_output pre").text_content()
        assert section.locator("details summary").is_visible()
    page = opened(STATEMENTS_PAGE, scripts=False)
    assert page.locator("details.kd-verdicts li").count() == len(STATEMENTS)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", [BUGS, STATEMENTS_PAGE])
def test_axe_finds_nothing_in_what_is_tapped(opened: Any, name: str, theme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(name)
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    page.add_style_tag(content="* { transition: none !important; }")
    page.locator(".kd-tap button:visible").nth(1).click()
    found = Axe().run(page, context=".kd-tap").response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:120]) for rule in found] == []
