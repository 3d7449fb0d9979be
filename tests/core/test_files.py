import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdlearn.core.files import digest, locked, read_json, sweep, whole, write_json


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), whole(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    with whole(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_swept(tmp_path):
    (tmp_path / "a.json.partial-77").write_text("half")
    (tmp_path / "a.json").write_text("whole")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("change", ["{", "", '{"rows": 4}\n', None])
def test_a_changed_json_file_is_told(tmp_path, change):
    path = tmp_path / "a.json"
    write_json(path, {"rows": 3})
    assert read_json(path) == {"rows": 3}
    lines = path.read_text()
    path.write_text(lines.replace("3", "4", 1) if change is None else change)
    with pytest.raises(ValueError, match="does not fit its checksum"):
        read_json(path)


def test_a_digest_is_that_of_the_shell(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
@pytest.mark.parametrize("forks", [False, True])
def test_a_lock_keeps_other_processes_out_and_dies_with_its_holder(tmp_path, forks):
    script = (
        "import os, sys, time; from pathlib import Path; from kdlearn.core.files import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    child = {forks} and os.fork()\n"
        "    if {forks} and not child: time.sleep(600)\n"
        "    print(int(child), flush=True); input()\n"
    ).replace("{forks}", str(forks))
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    child = int(holder.stdout.readline())
    with pytest.raises(BlockingIOError), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    try:
        with locked(tmp_path):
            pass
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
