"""The Chinese pages of the built site beside the English ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import catalogs
import chinese
import pytest
import repository
from bs4 import BeautifulSoup, Tag

from kdlearn.interview import questions_folder, read_bank
from tests.book.built_site import DESK, NO_SITE, SITE, Watch, pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(not (SITE / "zh").exists(), reason=NO_SITE)
BANK = read_bank(questions_folder())
HAN = "[\u4e00-\u9fff]"
CHAPTERS = [page for page in catalogs.pages() if not catalogs.is_question(page)]
CHAPTER = "book/foundations/what-is-distillation.html"


def article(name: str) -> Tag:
    found = BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser").article
    assert found is not None
    return found


def both(page: str) -> tuple[Tag, Tag]:
    return article(f"book/{page}.html"), article(f"zh/book/{page}.html")


def texts(page: Tag, selector: str) -> list[str]:
    return [" ".join(part.get_text().split()) for part in page.select(selector)]


def check_places(english: Tag, chinese_one: Tag) -> None:
    selector = "section[id], dt[id]"
    assert [x["id"] for x in chinese_one.select(selector)] == [
        x["id"] for x in english.select(selector)
    ]
    sources = {str(x["id"]) for x in english.select("div.citation")}
    assert {str(x["id"]) for x in chinese_one.select("div.citation")} <= sources


def check_content(english: Tag, chinese_one: Tag) -> None:
    for selector in (".cell_input pre", ".cell_output pre", "math"):
        assert sorted(texts(chinese_one, selector)) == sorted(texts(english, selector)), selector
    for selector in (".bet", "[data-answers]", "figure, .kdfig", "details", ".wrong-answer"):
        assert len(chinese_one.select(selector)) == len(english.select(selector)), selector


def check_links(name: str, chinese_one: Tag) -> None:
    for link in chinese_one.select("a[href*='book/']"):
        target = urljoin(f"/{name}", str(link["href"]))
        if target.startswith("/book/") and ".html" in target:
            assert link.get("hreflang") == "en" and "英文" in link.get_text(), link


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_has_the_same_places_and_content_in_both_languages(page: str) -> None:
    english, chinese_one = both(page)
    # The list of questions has Chinese titles alone, in a part for each topic.
    if page != "interview/bank":
        check_places(english, chinese_one)
    check_content(english, chinese_one)
    check_links(f"zh/book/{page}.html", chinese_one)


@pytest.mark.parametrize("question", BANK, ids=lambda question: question.head.id)
def test_a_question_has_the_same_parts_and_content_in_both_languages(question: Any) -> None:
    english, chinese_one = both(f"interview/questions/{question.head.id}")
    # The English page has the spoken answers in Chinese as well.
    for own in english.select("section:has(> div[lang=zh])"):
        own.decompose()
    check_places(english, chinese_one)
    check_content(english, chinese_one)
    check_links(f"zh/book/interview/questions/{question.head.id}.html", chinese_one)
    assert chinese_one.h1 is not None
    title = chinese_one.h1.get_text().rstrip("#")
    assert title == question.head.title_zh.replace("`", "").replace("$", "")
    assert all(re.search(HAN, heading) for heading in texts(chinese_one, "h2"))
    spoken = chinese_one.select_one("#in-30-seconds > p")
    assert spoken is not None and spoken.get_text().startswith("“")


@pytest.mark.parametrize("page", [*CHAPTERS, "interview/questions/batchmean"])
def test_each_page_names_the_other_and_says_its_own_language(page: str) -> None:
    address = repository.read_address().pages
    for folder, language in (("", "en"), ("zh/", "zh-CN")):
        name = f"{folder}book/{page}.html"
        soup = BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser")
        assert soup.html is not None and soup.html["lang"] == language
        named = {
            str(link["hreflang"]): str(link["href"])
            for link in soup.find_all("link", rel="alternate")
        }
        assert named == {
            "en": f"{address}book/{page}.html",
            "zh-CN": f"{address}zh/book/{page}.html",
        }
        switch = soup.select_one("a.bar-language")
        assert switch is not None
        other = {"en": "zh/", "zh-CN": ""}[language]
        assert urljoin(f"/{name}", str(switch["href"])) == f"/{other}book/{page}.html"


def test_a_page_without_a_translation_offers_none() -> None:
    name = next(
        name
        for name in pages()
        if name.startswith("book/reference/api/") and name.endswith("data.html")
    )
    text = (SITE / name).read_text(encoding="utf-8")
    assert "bar-language" not in text and "hreflang" not in text


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("[a](b.md)", "[a](b.md)"),
        ("[a](b.md#c)", "[a](b.md#c)"),
        ("[a](https://x.org/b.md)", "[a](https://x.org/b.md)"),
        ("[a](../y/c.ipynb#d)", '<a href="../../../book/y/c.html#d"'),
        ("[a](../x/b.md)", "[a](../x/b.md)"),
        ('<img src="../_static/a.jpg">', '<img src="../../_static/a.jpg">'),
        ('<a href="bank.json">', '<a href="../../../book/x/bank.json">'),
        ('<a href="b.html">', '<a href="b.html">'),
    ],
)
def test_a_link_leads_to_what_there_is(written: str, read: str) -> None:
    assert chinese.links(written, "x/a", {"x/a", "x/b"}).startswith(read)


@pytest.fixture
def reader(browser: Browser, address: str) -> Iterator[tuple[Page, Watch]]:
    context = browser.new_context(viewport=DESK)
    page = context.new_page()
    yield page, Watch(page, address)
    context.close()


def switch_language(page: Page) -> None:
    """Press the switch where it is; Playwright's own click scrolls before."""
    box = page.locator(".bar-language").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_the_switch_keeps_the_place_there_and_back(
    reader: tuple[Page, Watch], address: str
) -> None:
    page, watch = reader
    page.emulate_media(reduced_motion="reduce")
    page.goto(address + CHAPTER)
    page.evaluate("document.getElementById('what-goes-wrong').scrollIntoView()")
    switch_language(page)
    page.wait_for_url(f"{address}zh/{CHAPTER}#what-goes-wrong")
    assert page.locator("#what-goes-wrong h2").inner_text().startswith("哪里会出错")
    top = "document.getElementById('what-goes-wrong').getBoundingClientRect().top"
    assert 0 <= page.evaluate(top) < DESK["height"] / 3
    switch_language(page)
    page.wait_for_url(f"{address}{CHAPTER}#what-goes-wrong")
    assert watch.faults == []


def test_from_the_top_the_switch_leads_to_the_top(reader: tuple[Page, Watch], address: str) -> None:
    page, _ = reader
    page.goto(f"{address}zh/book/index.html")
    switch_language(page)
    page.wait_for_url(f"{address}book/index.html")
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize(
    ("folder", "question"), [("", "蒸馏"), ("zh/", "教师"), ("zh/", "知识 蒸馏"), ("", "温度")]
)
def test_chinese_words_find_chapters_in_both_languages(
    reader: tuple[Page, Watch], address: str, folder: str, question: str
) -> None:
    page, watch = reader
    page.goto(f"{address}{folder}search.html?q={question}")
    results = page.locator(".search-results")
    results.locator("a").first.wait_for()
    found = [
        urljoin(page.url, link.get_attribute("href") or "") for link in results.locator("a").all()
    ]
    chapters = [x.removeprefix(address) for x in found if "/interview/" not in x]
    assert any(x.startswith("zh/book/") for x in chapters), found
    assert any(x.startswith("book/") for x in chapters), found
    marked = "".join(results.locator("mark").all_inner_texts())
    assert set(question.replace(" ", "")) <= set(marked)
    assert watch.faults == []


def test_english_words_find_the_readers_language_first(
    reader: tuple[Page, Watch], address: str
) -> None:
    page, _ = reader
    for folder in ("", "zh/"):
        page.goto(f"{address}{folder}search.html?q=softmax KL")
        first = page.locator(".search-results li a").first
        first.wait_for()
        target = urljoin(page.url, first.get_attribute("href") or "").removeprefix(address)
        assert target.startswith(f"{folder}book/")


def test_scripts_speak_the_language_of_the_page(reader: tuple[Page, Watch], address: str) -> None:
    page, watch = reader
    page.goto(f"{address}zh/{CHAPTER}")
    bet = page.locator(".bet").first
    bet.locator("input").fill("3")
    bet.get_by_role("button", name="下注").click()
    assert "你写的是 3" in bet.inner_text()
    assert page.get_by_role("button", name="复制").count() > 0
    assert "30 秒" in page.locator(".clock button").first.inner_text()
    assert watch.faults == []


def test_the_mock_interview_is_chinese_to_its_end(reader: tuple[Page, Watch], address: str) -> None:
    page, watch = reader
    page.goto(f"{address}zh/book/interview/mock.html", wait_until="networkidle")
    page.get_by_role("button", name="开始", exact=True).click()
    title = page.locator("[data-mock] h2").inner_text()
    (question,) = [q for q in BANK if q.head.title_zh.replace("`", "").replace("$", "") == title]
    while not page.locator(".mock-rubric").count():
        page.locator("[data-mock] > button").click()
    page.locator(".mock-rubric button").nth(3).click()
    page.get_by_role("button", name="揭开答案").click()
    said = page.locator(".mock-question, .mock-layer, .mock-wrong, .mock-rubric li")
    texts = [text for text in said.all_text_contents() if len(text) > 20]
    assert len(texts) >= 8
    assert [text for text in texts if not re.search(HAN, text)] == []
    chapter = page.get_by_role("link", name="去读这一章").get_attribute("href") or ""
    assert urljoin(page.url, chapter).endswith(f"/book/{question.head.chapter}.html")
    assert page.request.get(urljoin(page.url, chapter)).ok
    assert watch.faults == []


def test_the_playground_trains_in_chinese(reader: tuple[Page, Watch], address: str) -> None:
    page, watch = reader
    page.goto(f"{address}zh/book/playground.html")
    page.locator(".pg-play").first.scroll_into_view_if_needed()
    page.get_by_text("步之后，蒸馏的学生答对").first.wait_for()
    assert watch.faults == []


def test_the_chinese_search_knows_every_chinese_page() -> None:
    index = json.loads((SITE / "zh/search.json").read_text(encoding="utf-8"))
    there = {Path(name).relative_to("zh").as_posix() for name in pages() if name.startswith("zh/")}
    assert {entry["p"] for entry in index} == {x for x in there if x.startswith("book/")}
