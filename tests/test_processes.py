import time

import pytest

from tests.processes import run_processes

SUM = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
number = torch.tensor(dist.get_rank() + 1)
dist.all_reduce(number)
print("the sum is", number.item())
dist.destroy_process_group()
"""
# Rank 0 ends by what rank 1 did, and both have ended before anybody looks.
FAIL = """
import os, pathlib, sys, time
done = pathlib.Path(sys.argv[1])
if os.environ["RANK"] == "1":
    print("the cause", file=sys.stderr, flush=True)
    done.touch()
    sys.exit(3)
while not done.exists():
    time.sleep(0.01)
time.sleep(0.1)
sys.exit("connection closed by peer")
"""


def test_processes_find_each_other() -> None:
    outputs = run_processes(["-c", SUM])
    assert all("the sum is 3" in output for output in outputs)


def test_the_rank_that_failed_first_is_quoted(tmp_path, monkeypatch) -> None:
    nap = time.sleep
    done = tmp_path / "done"

    def look_late(seconds: float) -> None:
        nap(seconds)
        if done.exists():
            nap(1)

    monkeypatch.setattr("tests.processes.time.sleep", look_late)
    with pytest.raises(RuntimeError, match="rank 1, exit status 3\nthe cause") as error:
        run_processes(["-c", FAIL, str(done)])
    assert "closed by peer" not in str(error.value)


def test_a_run_that_hangs_is_ended() -> None:
    command = ["-c", "import time\nwhile True: time.sleep(1)"]
    with pytest.raises(RuntimeError, match="2 processes did not end in 2 s\n-- rank 0"):
        run_processes(command, timeout=2)
