"""The site without a network: what its service worker stores on the first visit.

The worker itself is book/static/site/worker.js. A worker rules the folder that it comes from, so
that a file at the root of the site begins it; this module writes that file.
"""

import hashlib
import json
import re
from pathlib import Path

# The pages that every reader gets, and beside them the address of the site and what is fetched.
PAGES = ("book/index.html", "book/interview/mock.html", "book/interview/bank.html", "search.html")
DATA = ("", "search.json", "book/interview/bank.json")
LOADED = re.compile(r'(?:href|src)="(?:\.\./)*(_static/[^"]+\.(?:css|js|svg|woff2)(?:\?\w+)?)"')


def shell(site: Path) -> list[str]:
    """Return the addresses of the shell: pages, their data, and the static files that they load."""
    loaded = {
        address
        for page in PAGES
        for address in LOADED.findall((site / page).read_text(encoding="utf-8"))
    }
    # A style loads the typefaces, a script the search.
    loaded |= {x.relative_to(site).as_posix() for x in (site / "_static").rglob("*.woff2")}
    return [*PAGES, *DATA, *sorted(loaded | {"_static/site/search.js"})]


def digest(site: Path) -> str:
    """Return a name for the built site: another one for any other file in it."""
    whole = hashlib.sha256()
    for path in sorted(site.rglob("*")):
        name = path.relative_to(site).as_posix()
        # The Chinese pages are built beside these; they come from the network first.
        if path.is_file() and not name.startswith(("zh/", ".", "worker.js")):
            whole.update(name.encode())
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:12]


def write(site: Path) -> None:
    """Write the file that begins the worker, when all others are there."""
    build = digest(site)
    text = (
        f'"use strict";\nconst BUILD = {json.dumps(build)};\n'
        f"const SHELL = {json.dumps(shell(site), indent=1)};\n"
        f'importScripts("_static/site/worker.js?{build}");\n'
    )
    (site / "worker.js").write_text(text, encoding="utf-8")
