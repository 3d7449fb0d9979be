"""Right solutions that are written otherwise than the references."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def right_solutions():
    """From a drill's name to the functions of its file in ``right/``."""

    def load(drill):
        file = Path(__file__).parent / "right" / f"{drill.replace('-', '_')}.py"
        spec = importlib.util.spec_from_file_location(f"right_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.RIGHT

    return load


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No test touches the reader's own progress."""
    monkeypatch.setenv("KDLEARN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
