"""Have solutions graded in a process of their own, where they cannot hurt the session."""

from __future__ import annotations

import atexit
import base64
import contextlib
import inspect
import json
import linecache
import os
import queue
import signal
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from kdlearn.drills.grader.drill import Drill, Solution
from kdlearn.drills.grader.grade import is_empty
from kdlearn.drills.grader.report import Diagnosis, Report

STARTUP_SECONDS = 180
"""How long Python and torch may take to start, on a slow machine."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
"""Inputs are small and on the CPU; where autograd sees a GPU, a fork cannot use autograd."""


class Worker:
    """A process that grades; on Linux it stays for the next solution."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Send a job and return the answer; after anything odd the process is made anew."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            # On Linux the worker itself keeps the time.
            answer = self._line(job["seconds"] + (30 if sys.platform == "linux" else 0))
        except BaseException:
            self.end()
            raise
        if answer is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)  # its pipe closes a moment before it has ended
            ended = process.poll()
            self.end()
            return {"ended": ended}
        if sys.platform != "linux":
            self.end()
        return answer

    def end(self) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        if process.poll() is None:
            if os.name == "posix":
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # a fork of the session has no worker yet
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kdlearn.drills.grader.worker"],
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if self._line(STARTUP_SECONDS) is None:
                self.end()
                raise RuntimeError("the grader's process did not start: is torch installed there?")
            assert self._process is not None
        return self._process

    def _line(self, seconds: float) -> dict[str, Any] | None:
        """One line of the process; None if it ended or took too long."""
        assert self._process is not None and self._process.stdout is not None
        stream = self._process.stdout
        box: queue.Queue[bytes] = queue.Queue()
        # A thread, as not every system can wait for a pipe with a limit of time.
        threading.Thread(target=lambda: box.put(stream.readline()), daemon=True).start()
        try:
            text = box.get(timeout=seconds)
        except queue.Empty:
            return None
        return dict(json.loads(text)) if text else None


WORKER = Worker()
atexit.register(WORKER.end)


def run(
    drill: Drill,
    solution: Solution | Path,
    *,
    seed: int,
    seconds: float = 20,
    megabytes: int = 2000,
) -> Report:
    """Grade a solution with limits of time, memory, file size and processes, whatever it does.

    Args:
        drill: the drill.
        solution: a function; or a file with a function of the reference's name, which is then run
            in that process too.
        seed: of the inputs.
        seconds: time for all checks together.
        megabytes: memory beyond what Python and torch take; obeyed on Linux.

    Returns:
        The report; a solution that ends the process, does not end or cannot be sent is a diagnosis
        too.
    """
    solution = solution if isinstance(solution, Path) else unwrapped(solution)
    if not isinstance(solution, Path) and is_empty(solution):
        return Report(drill.id)
    job = {
        "module": drill.reference.__module__,
        "seed": seed,
        "seconds": seconds,
        "megabytes": megabytes,
        "path": [entry or os.getcwd() for entry in sys.path],
        "file": "",
        "pickle": "",
        "script": "",
        "sources": {},
    }
    try:
        job |= _sent(solution)
    except Exception as error:  # a reader's function can hold anything
        said = (
            f"your function cannot be sent to the grader: {error}. Let it use its arguments alone."
        )
        return Report(drill.id, diagnoses=(Diagnosis("not-loaded", said),))
    try:
        answer = WORKER.ask(job)
    except KeyboardInterrupt:
        said = "the check was interrupted."
        return Report(drill.id, diagnoses=(Diagnosis("interrupted", said),))
    if "report" in answer:
        report = Report.from_dict(answer["report"])
        notes = _notes(answer["printed"], borrowed=report.borrowed)
        return Report(
            report.drill,
            report.outcomes,
            report.diagnoses,
            report.smallest,
            notes,
            report.borrowed,
        )
    if "failed" in answer:
        said = (
            f"the grader itself failed: {answer['failed']}. Your function may be right; please "
            "report it."
        )
        return Report(drill.id, diagnoses=(Diagnosis("grader-failed", said),))
    return Report(drill.id, diagnoses=(_no_answer(answer["ended"], seconds),))


def unwrapped(solution: Solution) -> Solution:
    """Return the function under `functools.lru_cache` and `torch.compile`.

    Example:
        >>> import functools
        >>> unwrapped(functools.lru_cache(len)) is len
        True
    """
    solution = getattr(solution, "_torchdynamo_orig_callable", solution)
    return inspect.unwrap(solution) if callable(solution) else solution


def _sent(solution: Solution | Path) -> dict[str, Any]:
    """What the worker needs to have the solution."""
    if isinstance(solution, Path):
        file = str(solution.resolve())
        return {"file": file, "path": [str(Path(file).parent), *sys.path]}
    if isinstance(solution, torch.jit.ScriptFunction):
        buffer = BytesIO()
        torch.jit.save(solution, buffer)
        return {"script": base64.b64encode(buffer.getvalue()).decode()}
    name = getattr(getattr(solution, "__code__", None), "co_filename", "")
    sources = {name: "".join(linecache.getlines(name))} if name else {}
    pickled = base64.b64encode(cloudpickle.dumps(solution)).decode()
    return {"pickle": pickled, "sources": sources}


def _no_answer(ended: int | None, seconds: float) -> Diagnosis:
    if ended is None or -ended == getattr(signal, "SIGXCPU", 0):
        return Diagnosis(
            "too-slow",
            f"no answer after {seconds:g} seconds, and the run was stopped: an endless loop, or a "
            "loop over what one tensor operation does at once? Try your function on a small "
            "input.",
        )
    how = f"signal {signal.Signals(-ended).name}" if ended < 0 else f"exit code {ended}"
    return Diagnosis(
        "process-ended",
        f"your code ended the process that ran it ({how}): look for os._exit, os.kill, or more "
        "memory than there is.",
    )


def _notes(printed: str, *, borrowed: bool) -> tuple[str, ...]:
    lines = [line for line in printed.splitlines() if line.strip()]
    notes = []
    if lines:
        first = lines[0][:100]
        notes.append(
            f"your code printed {len(lines)} lines, which do not count; the first: {first}"
        )
    if borrowed:
        notes.append(
            "it is right, and it calls kdlearn's own function: good to know that it is there. Now "
            "write it out, as an interviewer would ask you to; until then it does not count as "
            "solved."
        )
    return tuple(notes)
