"""Reading without a network: a first visit stores what the second needs, and the server is gone."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import offline
import pytest

from tests.book.built_site import NO_SITE, SITE, AtRoot, Handler, pages, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHAPTER, OTHER = "book/foundations/attention.html", "book/foundations/temperature.html"
STORED = """async () => {
  await navigator.serviceWorker.ready;
  const names = (await caches.keys()).filter(name => name.startsWith("kdlearn "));
  return Promise.all(names.map(async name =>
    [name.split(" ").pop(), (await (await caches.open(name)).keys()).map(x => x.url)]));
}"""
built = pytest.mark.skipif(not pages(), reason=NO_SITE)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def visit(page: Page, url: str) -> None:
    """Open a page and wait until it, and the shell, are stored."""
    page.goto(url, wait_until="networkidle")
    page.wait_for_function("navigator.serviceWorker.controller?.state === 'activated'")
    page.wait_for_function("async () => Boolean(await caches.match(location.href))")


@built
@pytest.mark.parametrize("handler", [Handler, AtRoot])
def test_after_a_visit_to_a_chapter_it_and_the_shell_open_without_a_server(
    page: Page, handler: type[Handler]
) -> None:
    with served(handler) as address:
        visit(page, address + CHAPTER)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.wait_for_url(f"{address}book/index.html")
    page.goto(f"{address}{CHAPTER}?from=home#the-question")
    assert "Attention" in page.locator("h1").inner_text()
    assert page.evaluate(
        "document.fonts.ready.then(() => document.fonts.check('16px \"kd text\"'))"
    )
    # The rule of the site's own style.
    assert page.evaluate("getComputedStyle(document.querySelector('.bar')).display") == "flex"
    page.goto(f"{address}book/interview/mock.html")
    page.get_by_role("button", name="Begin").click()
    assert page.locator("[data-mock] h2").inner_text()
    page.goto(f"{address}book/interview/bank.html")
    assert page.locator("h1").is_visible()
    page.goto(f"{address}search.html?q=temperature")
    page.locator(".search-results li").first.wait_for()
    answer = page.goto(address + OTHER)
    assert answer and answer.status == 503
    assert "not stored" in page.locator("h1").inner_text()
    assert faults == []


@built
def test_a_stored_page_opens_while_the_network_says_nothing(page: Page) -> None:
    class Silent(Handler):
        speaks = threading.Event()

        def do_GET(self) -> None:  # noqa: N802
            self.speaks.wait()
            super().do_GET()

    Silent.speaks.set()
    with served(Silent) as address:
        visit(page, address + CHAPTER)
        Silent.speaks.clear()
        try:
            page.goto(f"{address}book/index.html")
            assert page.locator("h1").is_visible()
        finally:
            Silent.speaks.set()


@built
def test_a_new_site_replaces_the_old_one_and_keeps_what_was_opened(page: Page) -> None:
    class Renewed(Handler):
        build = b"first"

        def do_GET(self) -> None:  # noqa: N802
            if not self.path.endswith("/worker.js"):
                super().do_GET()
                return
            text = (SITE / "worker.js").read_bytes()
            text = re.sub(rb'(?<=BUILD = ")\w+', self.build, text)
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    with served(Renewed) as address:
        visit(page, address + CHAPTER)
        ((build, urls),) = page.evaluate(STORED)
        assert build == "first" and address + CHAPTER in urls
        Renewed.build = b"second"
        page.evaluate(
            """async () => {
              const changed = new Promise(done => {
                navigator.serviceWorker.oncontrollerchange = done;
              });
              await (await navigator.serviceWorker.ready).update();
              await changed;
            }"""
        )
        page.wait_for_function("navigator.serviceWorker.controller.state === 'activated'")
        ((build, urls),) = page.evaluate(STORED)
    assert build == "second" and address + CHAPTER in urls


@built
def test_a_page_from_the_disk_begins_no_worker(page: Page) -> None:
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.goto((SITE / CHAPTER).as_uri(), wait_until="networkidle")
    assert [text for text in faults if "orker" in text] == []


@built
def test_the_shell_is_there_and_light() -> None:
    text = (SITE / "worker.js").read_text(encoding="utf-8")
    paths = json.loads(text.partition("SHELL = ")[2].partition(";")[0])
    files = [SITE / (path.partition("?")[0] or "index.html") for path in paths]
    assert [file for file in files if not file.is_file()] == []
    assert sum(file.stat().st_size for file in files) < 5_000_000
    assert {"", "book/index.html", "book/interview/mock.html", "search.json"} <= set(paths)


def test_any_other_file_is_another_build(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("one")
    first = offline.digest(tmp_path)
    # The worker's own file and the other language are no part of it.
    (tmp_path / "worker.js").write_text(first)
    assert offline.digest(tmp_path) == first
    (tmp_path / "a.html").write_text("two")
    second = offline.digest(tmp_path)
    (tmp_path / "a.html").rename(tmp_path / "b.html")
    assert len({first, second, offline.digest(tmp_path)}) == 3
