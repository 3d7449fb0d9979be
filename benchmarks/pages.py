"""How long each page's scripts take on a slow phone: ``python benchmarks/pages.py [NAME ...]``.

Chromium opens every page of ``make book`` with its processor slowed down four times, until the
network is quiet, and scrolls to its end, so that what waits to be seen starts too. Told are the
seconds in scripts when the page has come and one second after it was scrolled through, median of
three visits, longest first, and the seconds of layout and style. On the first page and in the
playground students train for some seconds as soon as they are seen, a few milliseconds a frame:
that is the difference of the two columns there.
"""

import os
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book/tools"))

import chromium  # noqa: E402  a tool of the book, no package

SITE = ROOT / "_build/html"
SLOWER, VISITS = 4, 3
TOLD = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
SCROLL = "scrollTo({ top: document.body.scrollHeight, behavior: 'smooth' })"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def visit(browser: Browser, address: str) -> list[float]:
    """What Chromium counted on a first visit of a page: scripts when it came, then all of TOLD."""

    def told() -> list[float]:
        metrics = session.send("Performance.getMetrics")["metrics"]
        found = {metric["name"]: metric["value"] for metric in metrics}
        return [found[name] for name in TOLD]

    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    page.goto(address, wait_until="networkidle")
    came = told()
    page.evaluate(SCROLL)
    page.wait_for_timeout(1000)
    scrolled = told()
    context.close()
    return [came[0], *scrolled]


def main(names: list[str]) -> None:
    """Print the table."""
    if not SITE.exists():
        raise SystemExit("there is no site: make book")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=os.fspath(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = sorted(path.relative_to(SITE).as_posix() for path in (SITE / "book").rglob("*.html"))
    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.find(), args=list(chromium.FLAGS)
        )
        for page in pages:
            if not names or any(name in page for name in names):
                address = f"http://127.0.0.1:{server.server_port}/{page}"
                visits = [visit(browser, address) for _ in range(VISITS)]
                rows.append((page, [median(column) for column in zip(*visits, strict=True)]))
        browser.close()
    server.shutdown()
    print(f"{'page':44}{'come':>9}{'scrolled':>9}{'layout':>9}{'style':>9}")
    for page, numbers in sorted(rows, key=lambda row: -row[1][1]):
        print(f"{page:44}" + "".join(f"{number:9.2f}" for number in numbers))


if __name__ == "__main__":
    main(sys.argv[1:])
