"""Pages for the figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.show.opened import Pages


@pytest.fixture
def pages(browser: Any, tmp_path: Path) -> Iterator[Pages]:
    opened = Pages(browser, tmp_path / "figures")
    yield opened
    for context in browser.contexts:
        context.close()
    assert opened.problems == []
