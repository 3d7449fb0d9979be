"""Run the notebook editions as Colab does: its versions of packages, an empty folder, nothing else.

python book/tools/colab.py [NAME ...]    all editions, or those whose path has one of the names

The environment is made in _build/colab. The set-up cell installs kdlearn itself, from this
repository, to whose place git's address is led. What cannot be tried here is Colab's own front end.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import editions
import install
import notebooks
import repository

ROOT = repository.ROOT
FOLDER = ROOT / "_build/colab"
PYTHON = str(FOLDER / "bin/python")
RUN = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
"""


def pip(*arguments: str) -> None:
    """Run pip in Colab's environment, and end if it fails."""
    subprocess.run([PYTHON, "-m", "pip", "install", "-q", *arguments], check=True)


def prepare() -> None:
    """Make the environment, if it is not there."""
    if Path(PYTHON).exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
    index = os.environ.get("TORCH_INDEX", "")
    pip(*(["--extra-index-url", index] if index else []), install.torch_pin())
    pip("-r", str(ROOT / "book/tools/colab.txt"), "tqdm", "safetensors", "pydantic", "typer")
    pip("cloudpickle", "setuptools")


def run(path: Path) -> str:
    """Run one edition in a folder of its own, without kdlearn, and return what went wrong."""
    uninstall = [PYTHON, "-m", "pip", "uninstall", "-q", "-y", "kdlearn"]
    subprocess.run(uninstall, check=True, capture_output=True)
    folder = Path(tempfile.mkdtemp())
    notebook = folder / path.name
    notebook.write_text(notebooks.serialize(editions.edition(path)), encoding="utf-8")
    environment = os.environ | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": repository.read_address().url,
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYTHONPATH", None)
    command = [PYTHON, "-c", RUN, notebook.name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    shutil.rmtree(folder)
    return "" if done.returncode == 0 else done.stderr[-2000:]


def main(names: list[str]) -> int:
    """Run the editions one after the other."""
    prepare()
    faults = 0
    for path in notebooks.find([]):
        if not names or any(name in path.as_posix() for name in names):
            fault = run(path)
            faults += bool(fault)
            print(f"{'failed' if fault else 'ran':6}  {path.relative_to(ROOT)}", flush=True)
            print(fault, end="")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
