"""Processes that begin as copies of one, which has imported what takes seconds to import.

They have no module of kdlearn, and no name of the others.
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

SERVER = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
# An optimizer imports torch._dynamo, whatever it is for. Not matplotlib, which reads the settings
# of a process when it is imported.
SERVER.set_forkserver_preload([__name__, "torch._dynamo", "pandas", "ipykernel.kernelapp"])


class Forked:
    """A running process, with the methods of `subprocess.Popen`."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._process = SERVER.Process(target=work, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

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


def python(
    words: Sequence[str], log: Path, *, folder: Path | None = None, **environment: str
) -> Forked:
    """Start what ``python`` would with these words: ``-c CODE``, ``-m MODULE`` or a file.

    All that it prints goes to the log. Python's own settings, such as PYTHONHASHSEED, are those of
    the tests.
    """
    settings = {**os.environ, **environment}
    return Forked(_as_python, list(words), str(log), str(folder or Path.cwd()), settings)


def enter(folder: str, environment: Mapping[str, str], output: str) -> None:
    """Be a process of one's own: with this folder, environment and place for what is printed."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    place = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(place, 1)
    os.dup2(place, 2)


def _as_python(words: list[str], log: str, folder: str, environment: dict[str, str]) -> None:
    enter(folder, environment, log)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTHONFAULTHANDLER" in environment:
        faulthandler.enable()
    start, *rest = words
    if start == "-m":
        sys.argv, sys.path[0] = rest, folder
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif start == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], folder
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = words, str(Path(start).parent)
        runpy.run_path(start, run_name="__main__")
