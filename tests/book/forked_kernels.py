"""Kernels that need not import PyTorch: a notebook imports what it uses, and finds that loaded."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ipykernel.kernelapp import IPKernelApp

from tests.forked import Forked, enter

ROOT = Path(__file__).resolve().parents[2]


class ForkedKernel(Forked):
    """A running kernel, with what jupyter_client asks of a process that it started."""

    stdin = stdout = stderr = None

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: str, **others: Any
    ) -> None:
        arguments = list(command[command.index("ipykernel_launcher") + 1 :])
        super().__init__(_run, arguments, dict(env), cwd)
        while os.getpgid(self.pid) != self.pid:  # signals go to its group, which must not be ours
            time.sleep(0.01)


def _run(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    os.setsid()
    enter(folder, environment, os.devnull)
    ours = {ROOT, ROOT / "book" / "tools"}
    others = [path for path in sys.path if path and Path(path).resolve() not in ours]
    sys.path[:] = [*environment["PYTHONPATH"].split(os.pathsep), *others]
    IPKernelApp.launch_instance(arguments)
