"""The mock interview, sat on a phone without a network, and its memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.book.built_site import NO_SITE, PHONE, SITE, Watch, pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(not pages(), reason=NO_SITE)
BANK = (
    json.loads((SITE / "book/interview/bank.json").read_text(encoding="utf-8")) if pages() else []
)


@pytest.fixture
def sat(browser: Browser, address: str) -> Iterator[tuple[Page, Watch]]:
    """The page on a phone, loaded and then cut off from the network."""
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    watch = Watch(page, address)
    page.goto(f"{address}book/interview/mock.html", wait_until="networkidle")
    context.set_offline(True)
    yield page, watch
    context.close()


def uncover_all(page: Page) -> None:
    """Uncover layer after layer, until the rubric stands there."""
    while not page.locator(".mock-rubric").count():
        page.locator("[data-mock] > button").tap()


def test_an_interview_is_sat_offline_on_a_phone(sat: tuple[Page, Watch]) -> None:
    page, watch = sat
    assert f"{len(BANK)} questions" in page.locator(".mock-count").inner_text()
    page.get_by_label("Topic").select_option("losses")
    page.get_by_role("button", name="Begin").tap()
    for score in (2, 4):
        title = page.locator("[data-mock] h2").inner_text()
        question = next(q for q in BANK if q["title"].replace("`", "")[:20] == title[:20])
        assert question["topic"] == "losses"
        assert page.locator(".mock-layer").count() == 0
        uncover_all(page)
        assert page.locator(".mock-layer").count() >= 3
        page.locator(".mock-rubric button").nth(score - 1).tap()
        push = question["follow_ups"][max(score - 2, 0)]
        assert push["question"][:12] in page.locator(".mock-question").last.inner_html()
        assert not page.get_by_role("button", name="Next question").is_visible()
        page.get_by_role("button", name="Uncover the answer").tap()
        page.get_by_role("button", name="Next question").tap()
    page.keyboard.press("Escape")
    assert "2 questions, 3.0 of 4" in page.locator("[data-mock] h2").inner_text()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    assert watch.faults == []


def test_an_interview_goes_on_after_the_page_was_left(
    sat: tuple[Page, Watch], address: str
) -> None:
    page, watch = sat
    page.get_by_role("button", name="Begin").tap()
    uncover_all(page)
    page.locator(".mock-rubric button").nth(2).tap()
    page.get_by_role("button", name="Uncover the answer").tap()
    page.get_by_role("button", name="Next question").tap()
    asked = page.locator("[data-mock] h2").inner_text()
    page.context.set_offline(False)
    page.goto(f"{address}book/interview/bank.html")
    page.goto(f"{address}book/interview/mock.html", wait_until="networkidle")
    page.get_by_role("button", name="Go on").tap()
    assert page.locator("[data-mock] h2").inner_text() == asked
    assert page.locator(".mock-head").inner_text().startswith("Question 2.")
    page.keyboard.press("Escape")
    assert "1 question, 3.0 of 4" in page.locator("[data-mock] h2").inner_text()
    page.reload(wait_until="networkidle")
    page.get_by_role("button", name="Begin").wait_for()
    assert not page.get_by_role("button", name="Go on").count()
    assert watch.faults == []


def test_scores_come_back_after_days_and_travel_in_a_file(
    sat: tuple[Page, Watch], tmp_path: Path
) -> None:
    page, watch = sat
    page.get_by_role("button", name="Begin").tap()
    for key in ("Enter",) * 5:
        page.keyboard.press(key)
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    kept = json.loads(page.evaluate("localStorage.getItem('kdlearn:mock')"))
    (entry,) = kept.values()
    assert entry["scores"] == [1] and entry["interval"] == 1
    page.get_by_role("button", name="Another interview").tap()
    assert page.get_by_role("button", name="Repeat what is due (0)").is_disabled()
    page.get_by_text("Take your scores with you").tap()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").tap()
    file = tmp_path / "scores.json"
    download.value.save_as(file)
    assert json.loads(file.read_text()) == kept
    # The same scores, of two days ago, in a browser that has none.
    old = {name: {**one, "due": one["due"] - 2 * 86_400_000} for name, one in kept.items()}
    file.write_text(json.dumps(old))
    page.evaluate("localStorage.clear()")
    page.get_by_label("Import").set_input_files(file)
    page.get_by_role("button", name="Repeat what is due (1)").tap()
    assert page.locator(".mock-head").inner_text().startswith("Question 1.")
    assert watch.faults == []


def test_a_file_that_holds_no_scores_is_refused(sat: tuple[Page, Watch], tmp_path: Path) -> None:
    page, _ = sat
    (tmp_path / "other.json").write_text('{"a": 1}')
    page.get_by_text("Take your scores with you").tap()
    page.get_by_label("Import").set_input_files(tmp_path / "other.json")
    # The file is read while the page goes on.
    page.get_by_text("holds no scores").wait_for()
