"""Find the browser that checks the site, or install one: `python book/tools/chromium.py`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# Without these Chromium looks for its makers' servers at every start.
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
MISSING = (
    "no browser: $CHROMIUM is not set, none of " + ", ".join(NAMES) + " is on the PATH, and "
    "Playwright has none. Install Chromium or Chrome, or name one: CHROMIUM=/path make test"
)


def find() -> str | None:
    """Return the path of Chromium or Chrome, or None."""
    named = os.environ.get("CHROMIUM")
    installed = [shutil.which(name) for name in NAMES]
    from playwright.sync_api import sync_playwright

    for path in [named, *installed, MAC]:
        if path and Path(path).exists():
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def install() -> None:
    """Try the ways to get a browser, the system's own first."""
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=environment, stdout=subprocess.DEVNULL)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
        if done.returncode == 0 and find():
            return
    subprocess.run(
        [sys.executable, "-m", "playwright", "install", "chromium"], stdout=subprocess.DEVNULL
    )


def main() -> int:
    """Make sure that there is a browser; without one only CI fails."""
    if find() is None:
        print("no browser found, installing Chromium ...", flush=True)
        install()
    path = find()
    print(path or MISSING)
    return 1 if path is None and os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
