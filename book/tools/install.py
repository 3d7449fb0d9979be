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
EXTRAS = "cifar,hf,deploy"
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
    pip(f"installing {what}", "install", "--quiet", "--constraint", "constraints.txt", *arguments)


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
    install("pip, which learned to read groups in 25.1", "pip")
    # First and alone, so that TORCH_INDEX chooses its build and no other package's.
    install("PyTorch", *chosen, "torch")
    install("the tools", "--group", "dev")
    install("kdlearn", "--no-build-isolation", "--editable", f".[{EXTRAS}]")
    pip("checking the environment", "check")
    STAMP.touch()


if __name__ == "__main__":
    main()
