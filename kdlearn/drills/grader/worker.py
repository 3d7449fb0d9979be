"""Grades one solution in a process of its own: ``python -m kdlearn.drills.grader.worker FOLDER``.

The folder holds ``job.json`` and, for a pickled function, ``solution.pkl``. Files go out: ``ready`` when the reader's
code is about to be loaded, ``report.json`` at the end, ``printed.txt`` with what the reader's code printed.
"""

from __future__ import annotations

import json
import os
import pickle
import runpy
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from kdlearn.drills.grader.drill import Drill, Solution
from kdlearn.drills.grader.grade import Diagnosis, Report, grade


def main(folder: Path) -> None:
    """Do the job of a folder."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    drill: Drill = import_module(job["module"]).drill
    torch.set_num_threads(1)
    printed = os.open(folder / "printed.txt", os.O_WRONLY | os.O_CREAT, 0o600)
    (folder / "ready").touch()
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    limit(job["megabytes"])
    try:
        solution = load(folder, job, drill.function)
    except (Exception, SystemExit) as error:
        report = Report(drill.id, diagnoses=(Diagnosis("not-loaded", not_loaded(error, job)),))
    else:
        report = grade(drill, solution, seed=job["seed"], source=job["source"])
    sys.stdout.flush()
    partial = folder / "report.partial"
    partial.write_text(json.dumps(report.as_dict()), encoding="utf-8")
    partial.replace(folder / "report.json")


def load(folder: Path, job: dict[str, Any], function: str) -> Solution:
    """Give the reader's function, from a pickle that the parent made or by running a file."""
    if not job["path"]:
        solution: Solution = pickle.loads((folder / "solution.pkl").read_bytes())
        return solution
    known = runpy.run_path(job["path"])
    if function not in known:
        raise NameError(f"there is no function {function} in it")
    found: Solution = known[function]
    return found


def not_loaded(error: BaseException, job: dict[str, Any]) -> str:
    """Say why there is no function to grade."""
    what = Path(job["path"]).name if job["path"] else "your function"
    line = next(
        (
            frame.lineno
            for frame in reversed(traceback.extract_tb(error.__traceback__))
            if job["path"] and frame.filename == job["path"]
        ),
        getattr(error, "lineno", None),
    )
    where = f" (line {line})" if line else ""
    return f"{what} cannot be loaded{where}: {type(error).__name__}: {error}."


def limit(megabytes: int) -> None:
    """Let this process have so much memory beyond what it has now, and write no file beyond 50 MB."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))
    status = Path("/proc/self/statm")
    if status.exists():  # macOS does not say, and does not obey
        used = int(status.read_text().split()[0]) * resource.getpagesize()
        most = used + megabytes * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
