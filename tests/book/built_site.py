"""The built site as the tests of this folder see it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import repository

from kdlearn.interview import questions_folder, read_bank

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
NO_SITE = "there is no site to look at: make book"
PREFIX = f"/{repository.read_address().name}/"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@cache
def pages() -> list[str]:
    """Return every page of the site, but not the templates among its static files."""
    found = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    return [name for name in found if not name.startswith("_static/")]


def opened() -> list[str]:
    """Return the pages to open in a browser: of the questions, which are alike, one a format."""
    first = {question.head.format: question.head.id for question in read_bank(questions_folder())}
    return [
        page for page in pages() if "/questions/" not in page or Path(page).stem in first.values()
    ]


class Handler(SimpleHTTPRequestHandler):
    """Serve the site below a prefix, as GitHub Pages does, and 404.html for what is not there."""

    prefix = PREFIX

    def translate_path(self, path: str) -> str:
        if not path.startswith(self.prefix):
            return str(SITE / "no-such-prefix")
        return super().translate_path("/" + path.removeprefix(self.prefix))

    def send_error(self, code: int, *arguments: Any, **options: Any) -> None:
        page = (SITE / "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def end_headers(self) -> None:
        # So that each visit fetches, and counts, all that a first visit needs.
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class AtRoot(Handler):
    """The same site on a host of its own."""

    prefix = "/"


@contextmanager
def served(handler: type[Handler]) -> Iterator[str]:
    """Serve the site on this machine, and stop."""

    def made(*arguments: Any) -> Handler:
        return handler(*arguments, directory=str(SITE))

    server = ThreadingHTTPServer(("127.0.0.1", 0), made)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{handler.prefix}"
    finally:
        server.shutdown()
        server.server_close()


class Watch:
    """What a page does that it should not, and the files that it fetches."""

    def __init__(self, page: Page, address: str) -> None:
        self.faults: list[str] = []
        self.fetched: list[str] = []
        self.address = address
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.faults.append(f"script error: {error}"))
        page.on("console", self._said)
        page.on("response", self._answered)

    def clear(self) -> None:
        self.faults.clear()
        self.fetched.clear()

    def _asked(self, request: Any) -> None:
        if request.url.startswith(self.address):
            self.fetched.append(request.url.removeprefix(self.address).split("?")[0].split("#")[0])
        elif not request.url.startswith(("data:", "blob:")):
            self.faults.append(f"asked for {request.url}")

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status}: {response.url}")
