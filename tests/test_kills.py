"""Runs that are killed, a few; tests/kills.py says how, and does more by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("runs are forked", allow_module_level=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "kills", "processes"), [("fit", 6, 1), ("fit", 2, 2), ("cache", 6, 1), ("cache", 3, 2)]
)
def test_a_killed_run_keeps_what_was_saved_and_ends_as_one_that_never_stopped(
    what, kills, processes
):
    words = [what, "--kills", str(kills), "--processes", str(processes)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", *words],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills" in done.stdout.splitlines()[-1]
