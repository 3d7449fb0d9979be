"""Grades solutions where they can do no harm: ``python -m kdlearn.drills.grader.worker``.

Reads one job a line from its input and answers each with a line of its output, both JSON. On Linux
the reader's code runs in a fork of this process, which has imported torch once for all, with limits
of time, computing time, memory, file size and processes; whatever it started is ended with it, and
all of it ends with this process, which ends with its parent. Elsewhere the code runs in this
process itself, which its parent uses for one job only.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import linecache
import os
import pickle
import runpy
import secrets
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from kdlearn.drills.grader.drill import Drill, Solution
from kdlearn.drills.grader.grade import grade
from kdlearn.drills.grader.report import Diagnosis, Report
from kdlearn.drills.grader.search import prepared

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    """Answer jobs until the input ends."""
    torch.set_num_threads(1)
    warm_up()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print(json.dumps({"ready": os.getpid()}), file=out, flush=True)
    buffered = b""
    while True:
        piece = os.read(0, 1 << 16)
        if not piece:
            return
        buffered += piece
        while b"\n" in buffered:
            line, buffered = buffered.split(b"\n", 1)
            job = json.loads(line)
            answer = forked(job, out.fileno()) if LINUX else done(job)
            print(json.dumps(answer), file=out, flush=True)
            if LINUX:
                _ahead(import_module(job["module"]).drill)


def _ahead(drill: Drill) -> None:
    """Use the time until the next job for what a search of the same drill begins with."""
    for _ in prepared(drill):
        if select.select([0], [], [], 0)[0]:
            return


def warm_up() -> None:
    """Import what torch imports late: an optimizer's first step takes seconds."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()


def forked(job: dict[str, Any], out: int) -> dict[str, Any]:
    """Do a job in a fork, which cannot write to ``out``: its answer, or how the fork ended."""
    reading, writing = os.pipe()
    token = secrets.token_hex(16)
    child = os.fork()
    if not child:
        os.close(reading)
        os.close(out)
        try:
            answer = done(job, limited=True)
        except BaseException as error:  # not the reader's: those are part of the report
            answer = {"failed": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BaseException), os.fdopen(writing, "w", encoding="utf-8") as pipe:
            pipe.write(json.dumps({"token": token} | answer))
        os._exit(0)  # a thread of the reader's may still be running
    os.close(writing)
    text, ended = _awaited(child, reading, job["seconds"])
    with contextlib.suppress(ValueError):
        answer = json.loads(text)
        if answer.pop("token", "") == token:
            return dict(answer)
    return {"ended": ended}


def _awaited(child: int, reading: int, seconds: float) -> tuple[bytes, int | None]:
    """What a fork writes until it closes its pipe, and how it ended; None if it was stopped."""
    text, status, closed = b"", None, False
    ends = time.monotonic() + seconds
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(0, 0)  # hangs up when nobody waits for the answer any more
    while not closed:
        ready = dict(poll.poll(max(0.0, 1000 * (ends - time.monotonic()))))
        if reading not in ready:
            break
        piece = os.read(reading, 1 << 16)
        text, closed = text + piece, not piece
    os.close(reading)
    for _ in range(200 if closed else 0):
        # It closed its pipe: it has ended, or is about to.
        done, found = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(found)
            break
        time.sleep(0.002)
    _end_all(child, status)
    return text, status


def _end_all(child: int, status: int | None) -> None:
    """End a fork and everything that it started, also what left its group."""
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    me = os.getpid()
    while True:
        listed = Path(f"/proc/{me}/task/{me}/children")
        orphans = [int(one) for one in listed.read_text().split()] if listed.exists() else []
        if not orphans:
            return
        for orphan in orphans:
            with contextlib.suppress(OSError):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)


def done(job: dict[str, Any], *, limited: bool = False) -> dict[str, Any]:
    """Do a job in this process: the report, and what the reader's code printed."""
    if limited:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    drill: Drill = import_module(job["module"]).drill
    with tempfile.TemporaryFile() as printed:
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        for stream in (1, 2):
            os.dup2(printed.fileno(), stream)
        if limited:
            limit(job["megabytes"], job["seconds"])
        try:
            solution = load(job, drill.function)
        except (Exception, SystemExit) as error:
            said = Diagnosis("not-loaded", not_loaded(error, job))
            report = Report(drill.id, diagnoses=(said,))
        else:
            report = grade(drill, solution, seed=job["seed"])
        sys.stdout.flush()
        printed.seek(0)
        text = printed.read(100_000).decode("utf-8", errors="replace")
    return {"report": report.as_dict(), "printed": text}


def load(job: dict[str, Any], function: str) -> Solution:
    """Return the reader's function, from a pickle that the parent made or by running a file."""
    sys.path[:] = dict.fromkeys([*job["path"], *sys.path])
    for name, text in job["sources"].items():
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    if job["script"]:
        compiled: Solution = torch.jit.load(BytesIO(base64.b64decode(job["script"])))
        return compiled
    if job["pickle"]:
        solution: Solution = pickle.loads(base64.b64decode(job["pickle"]))
        return solution
    known = runpy.run_path(job["file"])
    if function not in known:
        raise NameError(f"there is no function {function} in it")
    found: Solution = known[function]
    return found


def not_loaded(error: BaseException, job: dict[str, Any]) -> str:
    """Say why there is no function to grade."""
    what = Path(job["file"]).name if job["file"] else "your function"
    line = next(
        (
            frame.lineno
            for frame in reversed(traceback.extract_tb(error.__traceback__))
            if job["file"] and frame.filename == job["file"]
        ),
        getattr(error, "lineno", None),
    )
    where = f" (line {line})" if line else ""
    return f"{what} cannot be loaded{where}: {type(error).__name__}: {error}."


def limit(megabytes: int, seconds: float) -> None:
    """Bound this process beyond what it has now: memory, computing time, file size, processes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 1_000_000,) * 2)
    computing = int(seconds) + 1 + int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (computing, computing + 1))
    mine = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            mine += path.stat().st_uid == os.getuid()
    most = mine + threading.active_count() + 64
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_NPROC, (most, hard))


if __name__ == "__main__":
    main()
