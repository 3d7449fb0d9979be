"""Notebooks as they are stored: run, cleaned, checked.

python book/tools/notebooks.py run [PATH ...]         run from the top, store the outputs, normalize
python book/tools/notebooks.py normalize [PATH ...]   clean without running; twice changes nothing
python book/tools/notebooks.py check [PATH ...]       say what is wrong; exit code 1 if anything is

A path is a notebook or a folder; without one it is the whole book, whose check also reads the
pages that are no notebooks, and the contents (contents.py).

Normalized means: what a second run of the same code would store, and nothing of when and where it
ran. So a re-run changes no byte but those of results that changed.
"""

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import contents
import nbformat
import prose
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from repository import read_address

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
TIMEOUT = 1800  # seconds for a cell: one that hangs, not one on a busy machine
# A cell that teaches fits a phone: its lines one by one, all of them on two screens.
WIDEST, LONGEST_CELL = 56, 56
FOLDED = {"claims", "hide-input", "hide-cell", "remove-input", "remove-cell"}
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MORE_PACKAGES = """
missing = [x for x in {packages!r} if importlib.util.find_spec(x) is None]
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *missing], check=True)
    importlib.invalidate_caches()"""
# Hidden on the site, in JupyterLab and on Colab, one key each.
INSTALL_METADATA = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
    "tags": ["hide-cell"],
}
CELL_METADATA = ("cellView", "jupyter", "mystnb", "tags")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
# What a figure stores beside its lines: when and with what it was made.
SVG_HEAD = re.compile(r"<\?xml.*?(?=<svg)|\s*<metadata>.*?</metadata>", re.DOTALL)
# Figures as SVG with text as text, the same bytes each time.
SVG_ARGUMENTS = ["--InlineBackend.figure_formats=svg"]
MATPLOTLIBRC = "svg.fonttype: none\nsvg.hashsalt: kdlearn\n"
IDENTIFIER = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def install_cell(root: Path = ROOT, packages: Sequence[str] = ()) -> str:
    """Return the source of the second cell of a notebook.

    Args:
        root: of the repository.
        packages: what the chapter needs beside kdlearn, as its metadata says:
            ``"kdlearn": {"packages": ["onnx"]}``; the cell installs what is missing of it.
    """
    template = (root / "book/tools/install_cell.txt").read_text(encoding="utf-8")
    cell = template.replace("{repository}", read_address(root).url).rstrip("\n")
    return cell + MORE_PACKAGES.format(packages=list(packages)) if packages else cell


def packages_of(notebook: Any) -> list[str]:
    """Return what a chapter needs beside kdlearn."""
    return list(notebook.metadata.get("kdlearn", {}).get("packages", []))


def find(paths: list[str]) -> list[Path]:
    """Return the notebooks at the paths and below them."""
    found: list[Path] = []
    for path in [Path(name) for name in paths] or [BOOK]:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        found += sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def tags(cell: Any) -> list[str]:
    """Return the tags of a cell."""
    return list(cell.metadata.get("tags", []))


def code_cells(notebook: Any) -> list[Any]:
    """Return the cells that are code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def fingerprint(notebook: Any) -> str:
    """Return a short hash of all code, stored by a run to tell whether outputs are current."""
    code = "\n\f".join(cell.source for cell in code_cells(notebook))
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def is_install(cell: Any) -> bool:
    """Tell whether a cell is meant to be the install cell."""
    return cell.cell_type == "code" and cell.source.startswith("# Set-up.")


def last_states(text: str) -> str:
    """Return text as a terminal shows it at the end: no colors, rewritten lines once."""
    lines = ANSI.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)


def clean_outputs(cell: Any) -> list[Any]:
    """Return the outputs of a cell that are worth storing."""
    if "remove-output" in tags(cell):
        return []
    kept: list[Any] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
            else:
                kept.append(output)
        elif output.output_type == "error":
            output.traceback = [ANSI.sub("", line) for line in output.traceback]
            kept.append(output)
        elif not any("widget-view" in kind for kind in output.data):
            output.metadata = {}
            for kind, value in output.data.items():
                if kind == "image/svg+xml":
                    output.data[kind] = SVG_HEAD.sub("", "".join(value)).strip() + "\n"
                elif kind.startswith("image/") and isinstance(value, str):
                    output.data[kind] = value.rstrip("\n")
                elif kind == "text/plain":
                    output.data[kind] = ANSI.sub("", value)
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = last_states(output.text)
    return [output for output in kept if output.get("text") != ""]


def normalize(notebook: Any, root: Path = ROOT) -> Any:
    """Clean a notebook in place and return it."""
    ran = notebook.metadata.get("kdlearn")
    notebook.metadata = nbformat.from_dict(KERNEL | ({"kdlearn": ran} if ran else {}))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: set[str] = set()
    for cell in notebook.cells:
        cell.source = cell.source.rstrip("\n")
        if is_install(cell):
            cell.source = install_cell(root, packages_of(notebook))
            cell.metadata = nbformat.from_dict(INSTALL_METADATA)
        else:
            kept = {name: cell.metadata[name] for name in CELL_METADATA if name in cell.metadata}
            if not kept.get("tags", True):
                del kept["tags"]
            cell.metadata = nbformat.from_dict(kept)
        identifier = cell.get("id", "")
        if not IDENTIFIER.fullmatch(identifier) or identifier in seen:
            stem = hashlib.sha256(f"{cell.cell_type}{cell.source}".encode()).hexdigest()[:8]
            identifier, twin = stem, 1
            while identifier in seen:
                twin += 1
                identifier = f"{stem}-{twin}"
        cell.id = identifier
        seen.add(identifier)
        if cell.cell_type == "code":
            cell.outputs = clean_outputs(cell)
    return notebook


def serialize(notebook: Any) -> str:
    """Return a notebook as it stands in its file."""
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


def read(path: Path) -> Any:
    """Return a notebook, converted to version 4.5 of the format."""
    return nbformat.read(path, as_version=4)


def run(path: Path) -> str:
    """Run a notebook in its folder and store it; return what went wrong, or nothing."""
    notebook = read(path)
    client = NotebookClient(
        normalize(notebook),
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=SVG_ARGUMENTS,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return f"{path}: {ANSI.sub('', str(error)).strip()}"
    about = notebook.metadata.get("kdlearn", {})
    notebook.metadata["kdlearn"] = dict(about) | {"code": fingerprint(notebook)}
    path.write_text(serialize(normalize(notebook)), encoding="utf-8")
    return ""


def run_all(paths: list[Path]) -> list[str]:
    """Run notebooks, as many at a time as there are processors."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    faults = []
    settings = Path(tempfile.mkdtemp()) / "matplotlibrc"
    settings.write_text(MATPLOTLIBRC, encoding="utf-8")
    os.environ["MATPLOTLIBRC"] = str(settings)
    with ProcessPoolExecutor(max_workers=min(len(paths), os.cpu_count() or 1) or 1) as pool:
        for path, fault in zip(paths, pool.map(run, paths), strict=True):
            print(f"{'failed' if fault else 'ran':6}  {path}", flush=True)
            faults += [fault] if fault else []
    return faults


def text_of_figure(cell: Any) -> str:
    """Return the text that stands for the figure of a cell, or nothing."""
    return str(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", ""))


def caption(cell: Any) -> str:
    """Return the caption under the figure of a cell, or nothing."""
    return str(cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", ""))


def faults_of_cell(cell: Any) -> list[str]:
    """Return what is wrong with one code cell."""
    faults = []
    lines = cell.source.count("\n") + 1
    if lines > LONGEST_CELL and not is_install(cell):
        faults.append(f"has {lines} lines, at most {LONGEST_CELL}: move what does not teach")
    wide = [line for line in cell.source.split("\n") if len(line) > WIDEST]
    if wide and not FOLDED & {*tags(cell)} and not is_install(cell):
        faults.append(f"has lines of more than {WIDEST} columns, such as {wide[0].strip()!r}")
    for output in cell.outputs:
        if output.output_type == "error":
            faults.append(f"stored an error: {output.ename}: {output.evalue}")
        if output.output_type == "stream" and output.name == "stderr":
            faults.append(f"wrote to stderr: {output.text.strip()[:80]!r}")
        shown = output.get("data", {})
        texts = [output.get("text", ""), shown.get("text/plain", ""), shown.get("text/html", "")]
        if any(ADDRESS.search(text) for text in texts):
            faults.append("shows the address of an object, which differs on each run")
        if any(kind.startswith("image/") for kind in shown) and not text_of_figure(cell).strip():
            faults.append('has a figure without text: metadata {"mystnb": {"image": {"alt": …')
    return faults


def check(path: Path, root: Path = ROOT) -> list[str]:
    """Return what is wrong with a stored notebook."""
    stored = path.read_text(encoding="utf-8")
    notebook = read(path)
    faults = []
    cells, code = notebook.cells, code_cells(notebook)
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        faults.append("the first cell is no Markdown title (# ...)")
    install = install_cell(root, packages_of(notebook))
    if len(cells) < 2 or cells[1].cell_type != "code" or cells[1].source != install:
        faults.append("the second cell is not the install cell of book/tools/install_cell.txt")
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        faults.append("not every code cell was run once, from top to bottom: make notebooks")
    elif notebook.metadata.get("kdlearn", {}).get("code") != fingerprint(notebook):
        faults.append("code was changed after the run whose outputs are stored: make notebooks")
    if not any(re.search(r"^\s*assert\b", cell.source, re.MULTILINE) for cell in code):
        faults.append("no cell asserts anything")
    for number, cell in enumerate(code, 1):
        faults += [f"code cell {number} {fault}" for fault in faults_of_cell(cell)]
    evidence = [prose.Evidence.of(notebook)]
    for cell in cells:
        prose_cell = cell.cell_type == "markdown"
        for text in [cell.source] if prose_cell else [text_of_figure(cell), caption(cell)]:
            faults += prose.unfounded(text, path, evidence)
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    faults += prose.unfounded_bets(text, evidence[0])
    if serialize(normalize(notebook, root)) != stored:
        faults.append("not normalized: python book/tools/notebooks.py normalize")
    return [f"{path}: {fault}" for fault in faults]


def check_book(root: Path = ROOT) -> list[str]:
    """Return what is wrong with the book beside its notebooks: contents, numbers of other pages."""
    # An interview question has its own rule, in interview.py.
    pages = [x for x in contents.pages(root) if x.suffix == ".md" and x.parent.name != "questions"]
    return contents.faults(root) + [
        f"{page}: {fault}"
        for page in pages
        for fault in prose.unfounded(page.read_text(encoding="utf-8"), page, [])
    ]


def main(arguments: list[str]) -> int:
    """Run one of the three commands."""
    if not arguments or arguments[0] not in ("run", "normalize", "check"):
        print(__doc__)
        return 2
    command = arguments[0]
    try:
        paths = find(arguments[1:])
    except FileNotFoundError as error:
        print(error)
        return 2
    faults: list[str] = []
    if command == "run":
        faults = run_all(paths)
    elif command == "check":
        faults = [fault for path in paths for fault in check(path)]
        faults += check_book() if not arguments[1:] else []
    else:
        for path in paths:
            path.write_text(serialize(normalize(read(path))), encoding="utf-8")
    print("\n".join(faults) if faults else f"{command}: {len(paths)} notebooks, all well")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
