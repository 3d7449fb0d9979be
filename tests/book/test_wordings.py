"""However a question is asked, in English or in Chinese: the searches lead to its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kdlearn.interview import questions_folder, read_bank
from tests.book.built_site import NO_SITE, Watch, pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(not pages(), reason=NO_SITE)
HEADS = [question.head for question in read_bank(questions_folder())]
WORDINGS = [(wording, head.id) for head in HEADS for wording in head.wordings]
# The functions of the page, on the index that it loads.
ASK = """async ([base, only, wordings]) => {
  const { prepare, find } = await import(base + "_static/site/search.js");
  const sections = await (await fetch(base + "search.json")).json();
  const index = prepare(sections.filter(({ p }) => p.startsWith(only)));
  return wordings.map(wording => find(index, wording).map(({ p }) => p));
}"""


@pytest.fixture(scope="module")
def bank(browser: Browser, address: str) -> tuple[Page, Watch]:
    """The page of all questions."""
    page = browser.new_page()
    watch = Watch(page, address)
    page.goto(f"{address}book/interview/bank.html", wait_until="networkidle")
    return page, watch


@pytest.mark.parametrize(("only", "first"), [("book/interview/questions/", 1), ("", 1)])
def test_every_wording_leads_to_its_question(
    bank: tuple[Page, Watch], address: str, only: str, first: int
) -> None:
    wordings = [wording for wording, _ in WORDINGS]
    found = bank[0].evaluate(ASK, [address, only, wordings])
    lost = [
        (wording, owner, pages[:3])
        for (wording, owner), pages in zip(WORDINGS, found, strict=True)
        if f"book/interview/questions/{owner}.html" not in pages[:first]
    ]
    assert lost == []


def test_the_list_of_questions_is_searched_in_the_reader_s_words(bank: tuple[Page, Watch]) -> None:
    page, watch = bank
    watch.clear()
    page.reload(wait_until="networkidle")
    field = page.get_by_label("Find a question")
    assert "search.json" not in watch.fetched
    for wording, owner in (("why T squared", "t-squared"), ("怎么选教师", "choose-the-teacher")):
        field.fill(wording)
        place = page.locator(".search-results a").first
        page.locator(f'.search-results a[href$="/{owner}.html"]').first.wait_for()
        assert str(place.get_attribute("href")).endswith(f"/questions/{owner}.html")
    field.fill("")
    assert page.locator(".search-results a").count() == 0
    assert watch.faults == []
