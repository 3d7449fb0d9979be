"""Every page in a real browser: wide and narrow, light and dark.

To look at the pages oneself: KDLEARN_SHOTS=folder makes this file store a screenshot of each view.
"""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import repository

from tests.book.built_site import NO_SITE, SITE, pages
from tests.browser import launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(not pages(), reason=NO_SITE)

PREFIX = f"/{repository.read_address().name}/"
WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}
HEAVIEST = 2_000_000
# The parts of the article that stick out, for the message.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("main *")]
    .filter(e => e.getBoundingClientRect().right > width + 1)
    .slice(0, 5).map(e => e.outerHTML.slice(0, 120));
}"""
AXE = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


class Handler(SimpleHTTPRequestHandler):
    """Serve the site below its prefix, as GitHub Pages does."""

    def translate_path(self, path: str) -> str:
        if not path.startswith(PREFIX):
            return str(SITE / "404-no-such-prefix")
        return super().translate_path("/" + path.removeprefix(PREFIX))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    def handler(*arguments: Any) -> Handler:
        return Handler(*arguments, directory=str(SITE))

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as started:
        yield started


@cache
def packed_size(path: Path) -> int:
    """Return how many bytes a server sends for a file."""
    compressed = path.suffix in (".woff", ".woff2", ".png", ".jpg")
    return len(path.read_bytes()) if compressed else len(gzip.compress(path.read_bytes()))


def watched(page: Page, address: str) -> tuple[list[str], list[str]]:
    """Note faults and the files that were fetched; let nothing leave the site."""
    faults: list[str] = []
    fetched: list[str] = []

    def admit(route: Any) -> None:
        url = route.request.url
        if url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            faults.append(f"asked for {url}")
            route.abort()

    page.route("**/*", admit)
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on(
        "console",
        lambda message: (
            message.type in ("error", "warning") and faults.append(f"console: {message.text}")
        ),
    )

    def arrived(response: Any) -> None:
        if response.status >= 400:
            faults.append(f"{response.status}: {response.url}")
        if response.url.startswith(address):
            fetched.append(response.url.removeprefix(address).split("?")[0].split("#")[0])

    page.on("response", arrived)
    return faults, fetched


def set_theme(page: Page, theme: str) -> None:
    page.evaluate(
        "theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme
    )


def shoot(page: Page, name: str, view: str) -> None:
    folder = os.environ.get("KDLEARN_SHOTS")
    if folder:
        stem = name.removesuffix(".html").replace("/", "-")
        page.screenshot(path=Path(folder) / f"{stem}-{view}.png", full_page=True)


def violations(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options=AXE).response["violations"]
    return [
        f"{fault['id']} ({fault['impact']}): {fault['nodes'][0]['html'][:160]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [page for page in pages() if page != "index.html"])
def test_a_page_is_whole_readable_and_quiet(
    browser: Browser, address: str, name: str, width: str
) -> None:
    size = WIDTHS[width]
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    faults, fetched = watched(page, address)
    page.goto(address + name, wait_until="load")
    page.evaluate("async () => { if (window.MathJax?.startup) await MathJax.startup.promise; }")
    page.wait_for_load_state("networkidle")
    # A color on its way from one theme to the other has any contrast.
    page.add_style_tag(content="* { transition: none !important; }")

    weight = sum(packed_size(SITE / file) for file in set(fetched))
    assert weight < HEAVIEST, f"{weight / 1e6:.2f} MB"
    assert page.locator("mjx-merror").count() == 0, page.locator("mjx-merror").first.inner_text()
    for theme in ("light", "dark"):
        set_theme(page, theme)
        assert page.evaluate(OVERFLOW) == [], f"wider than the window, {theme}"
        shoot(page, name, f"{width}-{theme}")
    assert faults == []

    # Last, since axe itself asks for files that are not there. Colors differ by theme alone,
    # so that one narrow and one wide view see both.
    set_theme(page, "light" if width == "wide" else "dark")
    assert violations(page) == []
    context.close()


def test_the_theme_switch_works(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.goto(f"{address}book/index.html", wait_until="load")
    seen = set()
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}
    context.close()


def test_the_search_finds_a_chapter(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{address}search.html?q=temperature", wait_until="load")
    page.wait_for_selector("ul.search li a")
    assert page.locator("ul.search li a").count() >= 2
    context.close()


def test_a_wrong_address_shows_a_page_with_its_style(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    faults, _ = watched(page, address)
    page.goto(f"{address}404.html", wait_until="networkidle")
    assert faults == []
    assert page.get_by_role("heading", name="Page not found").is_visible()
    context.close()


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ("<script>throw new Error('broken')</script>", "script error: broken"),
        ("<img src='missing.png' alt='x'>", "404:"),
        ("<script src='http://198.51.100.1/x.js'></script>", "asked for http://198.51.100.1/x.js"),
    ],
)
def test_the_watch_notes_a_fault(browser: Browser, address: str, html: str, said: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    faults, _ = watched(page, address)
    page.goto(f"{address}index.html", wait_until="networkidle")
    page.set_content(html, wait_until="networkidle")
    assert any(fault.startswith(said) for fault in faults), faults
    context.close()


def test_the_measure_of_width_notes_a_fault(browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_content("<main><div style='width: 600px'>wide</div></main>")
    assert page.evaluate(OVERFLOW) == ['<div style="width: 600px">wide</div>']
    context.close()
