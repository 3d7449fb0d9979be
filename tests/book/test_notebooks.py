"""Each notebook alone in an empty folder, against a wheel, compared with its outputs."""

import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from zipfile import ZipFile

import contents
import nbformat
import pytest
from jupyter_client.provisioning import local_provisioner

from tests.book.forked_kernels import ForkedKernel

ROOT = Path(__file__).resolve().parents[2]
# make check says which notebook is not in _toc.yml.
NOTEBOOKS = [page for page in contents.pages(ROOT) if page.suffix == ".ipynb"]
NBVAL = [
    "-q",
    "--disable-plugin-autoload",
    "-p",
    "nbval.plugin",
    "-p",
    "no:cacheprovider",
    "--nbval-lax",
    "--nbval-current-env",
    # For a cell that hangs; the slowest takes half a minute on an idle core.
    "--nbval-cell-timeout=1800",
    "--nbval-sanitize-with=sanitize.cfg",
]
# The explorers' styles and scripts may change; the data that they show may not.
SANITIZE = r"""[style]
regex: (?s)<style>.*?</style>
replace: STYLE
[script]
regex: (?s)<script>\(function.*?</script>
replace: SCRIPT
"""


@pytest.fixture(scope="session")
def wheel_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is in the package's wheel, as pip unpacks it, without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, *options, str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    ZipFile(wheel).extractall(site)
    return site


def run_alone(
    notebook: nbformat.NotebookNode, folder: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str]:
    """Run a notebook under nbval in a folder with nothing else, and return code and output.

    The kernel has a process of its own. Started anew, it would import for four seconds, and nbval
    for two.
    """
    nbformat.write(notebook, folder / "chapter.ipynb")
    (folder / "sanitize.cfg").write_text(SANITIZE)
    monkeypatch.setattr(local_provisioner, "launch_kernel", ForkedKernel)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = pytest.main([*NBVAL, "--rootdir", ".", "chapter.ipynb"])
    return status, said.getvalue()


def code(source: str, **metadata: object) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell(source)
    cell.metadata.update(metadata)
    return cell


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_runs_alone_and_gives_its_stored_outputs(
    path: Path, wheel_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(path, as_version=4)
    origin = f"import kdlearn\nassert kdlearn.__file__.startswith({str(wheel_site)!r})"
    notebook.cells.append(code(origin))
    status, output = run_alone(notebook, tmp_path, wheel_site, monkeypatch)
    assert status == 0, output[-6000:]
    shutil.rmtree(tmp_path)


def test_a_changed_output_and_a_failed_claim_are_found(
    wheel_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = code("print(1 + 1)", tags=["nbval-check-output"])
    stored.execution_count = 1
    stored.outputs = [nbformat.v4.new_output("stream", name="stdout", text="3\n")]
    notebook = nbformat.v4.new_notebook(cells=[stored, code("assert 1 > 2")])
    status, output = run_alone(notebook, tmp_path, wheel_site, monkeypatch)
    assert status == 1
    assert "2 failed" in output
