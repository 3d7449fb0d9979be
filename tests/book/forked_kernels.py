"""Kernels that begin as copies of one process, which has imported what takes seconds to import.

They have no module of kdlearn, and no name of the others: a notebook imports what it uses.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ipykernel.kernelapp import IPKernelApp

ROOT = Path(__file__).resolve().parents[2]
SERVER = get_context("forkserver")
# An optimizer imports torch._dynamo, whatever it is for. Not matplotlib, which reads the settings
# of a process when it is imported.
SERVER.set_forkserver_preload([__name__, "torch._dynamo", "pandas"])


class ForkedKernel:
    """A running kernel, with what jupyter_client asks of a process that it started."""

    stdin = stdout = stderr = None

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: str, **others: Any
    ) -> None:
        arguments = list(command[command.index("ipykernel_launcher") + 1 :])
        self._process = SERVER.Process(target=_run, args=(arguments, dict(env), cwd))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        while os.getpgid(self.pid) != self.pid:  # signals go to its group, which must not be ours
            time.sleep(0.01)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    ours = {ROOT, ROOT / "book" / "tools"}
    others = [path for path in sys.path if path and Path(path).resolve() not in ours]
    sys.path[:] = [*environment["PYTHONPATH"].split(os.pathsep), *others]
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    IPKernelApp.launch_instance(arguments)
