"""Runs that are killed, a few; tests/kills.py says how, and does more by hand."""

import sys
from pathlib import Path

import pytest

from tests.forked import python

if sys.platform == "win32":
    pytest.skip("runs are forked", allow_module_level=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "kills", "processes"), [("fit", 6, 1), ("fit", 2, 2), ("cache", 6, 1), ("cache", 3, 2)]
)
def test_a_killed_run_keeps_what_was_saved_and_ends_as_one_that_never_stopped(
    what, kills, processes, tmp_path
):
    words = [what, "--kills", str(kills), "--processes", str(processes)]
    log = tmp_path / "log"
    status = python(["-m", "tests.kills", *words], log, folder=Path(__file__).parents[1]).wait()
    assert status == 0, log.read_text()
    assert f"{kills} kills" in log.read_text().splitlines()[-1]
