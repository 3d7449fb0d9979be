"""Make .venv with everything that the book needs: `python book/tools/install.py`, called by make.

Runs on any Python 3 without packages, so that a wrong version gets a sentence instead of a
traceback. The stamp `.venv/.installed` is written last: what an interrupted installation left is
thrown away by the next one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / ".installed"
OLDEST, NEWEST = (3, 11), (3, 13)


def stop(step: str, advice: str) -> None:
    """End with one line that says which step failed and what to do."""
    sys.exit(f"\nFAILED: set-up, {step}. {advice}")


def check_python() -> None:
    """Refuse a Python that the pinned packages do not support."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        stop(
            f"this is Python {version[0]}.{version[1]}",
            "Needed: 3.11, 3.12 or 3.13. Name one: make PYTHON=python3.11 ...",
        )


def check_disk() -> None:
    """Refuse a disk on which PyTorch would not fit."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < 3 and not STAMP.exists():
        stop(
            f"only {free:.1f} GB are free",
            "About 3 GB are needed (more with a CUDA build of PyTorch).",
        )


def pip(step: str, *arguments: str) -> None:
    """Run pip in the environment."""
    print(f"-- {step}", flush=True)
    python = VENV / "bin" / "python"
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        stop(
            step,
            "pip says why above. No network? Behind a proxy set HTTPS_PROXY, with an index of "
            "your own PIP_INDEX_URL, and for PyTorch TORCH_INDEX=https://...; then run make again.",
        )


def install(what: str, *arguments: str) -> None:
    """Install something in the version that constraints.txt has of it."""
    # Of 20,000 modules few are ever imported, and those are compiled then.
    options = ["--quiet", "--no-compile", "--constraint", "constraints.txt"]
    pip(f"installing {what}", "install", *options, *arguments)


def torch_pin() -> str:
    """Return the line of requirements.txt that pins PyTorch."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def freeze() -> None:
    """Write constraints.txt from .venv: what requirements.txt does not name itself."""
    path = ROOT / "constraints.txt"
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    command = [str(VENV / "bin" / "pip"), "freeze", "--exclude-editable"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    named = {_name(line) for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()}
    # Which build of a package (+cpu, +cu130) is chosen by TORCH_INDEX.
    rest = [line.partition("+")[0] for line in listed if line and _name(line) not in named]
    path.write_text("\n".join([*head, *rest]) + "\n", encoding="utf-8")


def _name(line: str) -> str:
    return line.partition("==")[0].strip().lower().replace("_", "-").replace(".", "-")


def main() -> None:
    """Install, or bring an older environment up to date."""
    check_python()
    check_disk()
    fresh = not STAMP.exists()
    STAMP.unlink(missing_ok=True)
    if fresh:
        print("-- making .venv", flush=True)
        command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
        if subprocess.run(command).returncode != 0:
            stop("making .venv", "On Debian and Ubuntu: apt-get install python3-venv.")
    index = os.environ.get("TORCH_INDEX", "")
    chosen = ["--extra-index-url", index] if index else []
    # First and alone, so that TORCH_INDEX chooses its build and no other package's.
    install("PyTorch", *chosen, torch_pin())
    install("requirements.txt", "--requirement", "requirements.txt")
    install("kdlearn", "--no-deps", "--no-build-isolation", "--editable", ".")
    pip("checking the environment", "check")
    STAMP.touch()


if __name__ == "__main__":
    freeze() if sys.argv[1:] == ["freeze"] else main()
