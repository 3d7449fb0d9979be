"""One thread for all tests, since several small models train at a time; one seed each; an order.

Ctrl-C does what Python makes of it, also in tests that run in the background, where it is ignored.
Tests that open a page have a browser for each file.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
import torch

from tests.browser import launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same numbers in each run, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as started:
        yield started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that all processes, each with a part, end together."""
    long = [item for item in items if item.get_closest_marker("long")]
    short = [item for item in items if not item.get_closest_marker("long")]
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ends = [len(short) * number // parts for number in range(parts + 1)]
    items[:] = [
        item
        for number in range(parts)
        for item in long[number::parts] + short[ends[number] : ends[number + 1]]
    ]
