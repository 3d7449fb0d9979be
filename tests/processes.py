"""Start several processes of one command, as torchrun does, and say which of them failed first.

Each process finds RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in its environment, so
that `torch.distributed.init_process_group("gloo")` needs nothing else. The port is that of a store
that lives in the process of the tests until the last rank has ended: the system hands it out bound,
so that no other test can take it between the choice of a number and its use.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore

from tests.forked import python

HOST = "127.0.0.1"
LAST_LINES = 30


class Rank:
    """One process of several, with a file for what it prints."""

    def __init__(self, number: int, command: Sequence[str], shared: dict[str, str], folder: str):
        self.number = number
        self.log = Path(folder) / f"rank{number}.log"
        # A file, since nobody reads a pipe while it fills.
        self.log.touch()
        self.process = python(command, self.log, **shared, RANK=str(number), LOCAL_RANK=str(number))

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def last_words(self) -> str:
        """The end of the output, under a heading with the number and the exit status."""
        lines = "\n".join(self.output().splitlines()[-LAST_LINES:])
        return f"-- rank {self.number}, exit status {self.process.poll()}\n{lines}"

    def end(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()


def run_processes(
    command: Sequence[str], *, count: int = 2, timeout: float = 300, **environment: str
) -> list[str]:
    """Run `count` processes of a command together and return what each of them printed.

    Args:
        command: of Python, such as ``["train.py", "--resume"]``, the same for each process.
        count: number of processes, WORLD_SIZE.
        timeout: seconds after which a run is ended. It only guards against a hang: 300 is some
            hundred times what a small run takes on an idle machine.
        environment: variables to set beside the launcher's own.

    Raises:
        RuntimeError: a process failed, or the time was up. For a failure the text has the last
            words of the rank that failed first; the others only lost their connection to it.
    """
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=5))
    shared = {
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash and a hang, which is aborted, say where they were
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 joins the store, too
        "CUDA_VISIBLE_DEVICES": "",  # several processes would need as many GPUs
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        **environment,
    }
    ranks: list[Rank] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number in range(count):
                ranks.append(Rank(number, command, shared, folder))
            _wait(ranks, timeout)
            return [rank.output() for rank in ranks]
        finally:
            for rank in ranks:
                rank.end(signal.SIGKILL)


def _wait(ranks: list[Rank], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        states = [rank.process.poll() for rank in ranks]
        if any(states):
            # Others fail because the first one's connection broke, thus print later: its file is
            # the older one, even if all had ended before anybody looked.
            failed = [rank for rank, state in zip(ranks, states, strict=True) if state]
            first = min(failed, key=lambda rank: rank.log.stat().st_mtime_ns)
            raise RuntimeError(f"one of {len(ranks)} processes failed\n{first.last_words()}")
        if None not in states:
            return
        if time.monotonic() > deadline:
            for rank in ranks:
                rank.end(signal.SIGABRT)
            words = "\n".join(rank.last_words() for rank in ranks)
            raise RuntimeError(f"{len(ranks)} processes did not end in {timeout:g} s\n{words}")
        time.sleep(0.02)
