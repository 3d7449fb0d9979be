"""Run the grader in a process of its own, so that nothing a solution does can hurt the reader's session."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import cloudpickle

from kdlearn.drills.grader.drill import Drill, Solution
from kdlearn.drills.grader.grade import Diagnosis, Report, is_empty

STARTUP_SECONDS = 180
"""How long Python and torch may take to start, on a slow machine."""


def run(
    drill: Drill,
    solution: Solution | Path,
    *,
    seed: int,
    seconds: float = 20,
    megabytes: int = 2000,
) -> Report:
    """Grade a solution with a limit of time and memory, whatever it does.

    Args:
        drill: the drill.
        solution: a function; or a file with a function of the reference's name, which is then run in that process too.
        seed: of the inputs.
        seconds: time for all checks together.
        megabytes: memory beyond what Python and torch take; obeyed on Linux.

    Returns:
        The report; a solution that ends the process, does not end or cannot be sent is a diagnosis too.
    """
    if not isinstance(solution, Path) and is_empty(solution):
        return Report(drill.id)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job = {
            "module": drill.reference.__module__,
            "seed": seed,
            "megabytes": megabytes,
            "path": "",
            "source": "",
        }
        if isinstance(solution, Path):
            job["path"] = str(solution.resolve())
        else:
            job["source"] = _source(solution)
            try:
                (folder / "solution.pkl").write_bytes(cloudpickle.dumps(solution))
            except Exception as error:  # a reader's function can hold anything
                said = f"your function cannot be sent to the grader: {error}. Let it use its arguments alone."
                return Report(drill.id, diagnoses=(Diagnosis("not-loaded", said),))
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        ended = _ended(folder, seconds)
        notes = _notes(folder / "printed.txt")
        answer = folder / "report.json"
        if answer.exists():
            report = Report.from_dict(json.loads(answer.read_text(encoding="utf-8")))
            return Report(report.drill, report.outcomes, report.diagnoses, notes)
    return Report(drill.id, diagnoses=(_no_answer(ended, seconds),), notes=notes)


def _ended(folder: Path, seconds: float) -> int | None:
    """Run the worker; give its exit code, or None if it was stopped because its time was over."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kdlearn.drills.grader.worker", str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        started = time.monotonic()
        while not (folder / "ready").exists() and process.poll() is None:
            if time.monotonic() - started > STARTUP_SECONDS:
                return None
            time.sleep(0.02)
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            # The whole group: the reader's code may have started processes of its own.
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
            process.wait()


def _no_answer(ended: int | None, seconds: float) -> Diagnosis:
    if ended is None:
        return Diagnosis(
            "too-slow",
            f"no answer after {seconds:g} seconds, and the run was stopped: an endless loop, or a loop over what one "
            "tensor operation does at once? Try your function on a small input.",
        )
    how = f"signal {signal.Signals(-ended).name}" if ended < 0 else f"exit code {ended}"
    return Diagnosis(
        "process-ended",
        f"your code ended the process that ran it ({how}): look for os._exit, os.kill, or more memory than there is.",
    )


def _notes(printed: Path) -> tuple[str, ...]:
    text = printed.read_text(encoding="utf-8", errors="replace").strip() if printed.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ()
    return (
        f"your code printed {len(lines)} lines, which do not count; the first: {lines[0][:100]}",
    )


def _source(solution: Solution) -> str:
    try:
        return textwrap.dedent(inspect.getsource(solution))
    except (OSError, TypeError):
        return ""
