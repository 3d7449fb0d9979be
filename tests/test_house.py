"""The house as a whole: which way imports run, what mirrors what, what lists promise."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath

import pytest

import kdlearn
from kdlearn import losses

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kdlearn"
TESTS = ROOT / "tests"

# Lowest first. A module imports from its own room and from lower levels, not from a neighbor on its
# level. "kdlearn" is the front door, `kdlearn/__init__.py`; only the command asks there, its
# version.
LEVELS = (
    ("core",),
    ("losses", "data", "models"),
    ("measure",),
    ("distill",),
    ("store",),
    ("training",),
    ("show",),
    ("recipes",),
    ("experiments",),
    ("drills", "interview"),
    ("kdlearn",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# What a function may import, since not everybody has it. Any other import stands on top of its
# file.
OPTIONAL = {
    "datasets": "comes with the extra cifar",
    "fcntl": "exists on POSIX only",
    "mcp": "comes with the extra mcp",
    "resource": "exists on POSIX only",
}

# Files, or folders of files, that another test than their mirror covers.
TESTED_BY = {
    "drills/bugs": "drills/test_bugs.py",  # one table: every bug keeps the same promises
    "drills/grader/probes.py": "drills/test_families.py",  # what no family explains
    "drills/grader/report.py": "drills/test_families.py",  # the words of every diagnosis
    "drills/grader/search.py": "drills/test_families.py",  # every switch and many pairs are found
    "drills/grader/drill.py": "drills/test_solutions.py",  # the form that every drill fills in
    "drills/grader/worker.py": "drills/grader/test_run.py",  # the other end of run.py's pipe
    "drills/order.py": "drills/test_solutions.py",  # every file of tasks is in the order once
    "drills/tasks": "drills/test_solutions.py",  # one table: every drill keeps the same promises
    "experiments": "experiments/test_running.py",  # one function runs all
    "show/widgets": "show/test_widgets.py",  # one browser, one page with all figures
}
# Tests of something else than one file of the package.
MIRRORS_NOTHING = {
    "training/test_label_kinds.py": "the table of kinds of labels",
    "drills/test_in_a_notebook.py": "a drill as a reader meets it",
    "drills/test_losses.py": "reference solutions against the package's losses",
    "drills/test_wrong_solutions.py": "what readers would write wrongly, and what they are told",
    "experiments/test_results.py": "the stored tables come out again",
    "losses/test_finite.py": "all losses, finite or refused at every width",
    "losses/test_oracle.py": "all losses against the authors' own code",
    "losses/test_properties.py": "all losses, one test a promise",
    "test_cuda.py": "what only a GPU can show",
    "test_house.py": "the tree",
    "test_kills.py": "runs that are killed",
    "test_processes.py": "the launcher that other tests use",
}


@dataclass(frozen=True)
class Import:
    """One module that a module imports.

    Attributes:
        by: who imports, with dots.
        target: what is imported, with dots; a name that is no module of ours is cut off.
        line: where.
        inside: the function that the import stands in, or None.
    """

    by: str
    target: str
    line: int
    inside: str | None

    def __str__(self) -> str:
        return f"{self.by}, line {self.line}: imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


FILES = {module_name(path): path for path in package_files()}


def room(module: str) -> str:
    """The package or module directly below kdlearn that a module belongs to, or kdlearn itself."""
    return module.split(".")[1] if "." in module else module


def targets(node: ast.Import | ast.ImportFrom, by: str, known: Iterable[str]) -> list[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parts = by.split(".")
        package = parts if FILES[by].name == "__init__.py" else parts[:-1]
        package = package[: len(package) - node.level + 1]
        base = ".".join([*package, *([base] if base else [])])
    named = [f"{base}.{alias.name}" for alias in node.names]
    return sorted({name if name in known else base for name in named})


def imports_of(
    tree: ast.AST, by: str, known: Iterable[str], inside: str | None = None
) -> Iterator[Import]:
    """Every import of a module, also inside functions and under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in targets(node, by, known):
                yield Import(by, target, node.lineno, inside)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from imports_of(node, by, known, node.name if is_function else inside)


@cache
def all_imports() -> list[Import]:
    return [
        found
        for by, path in FILES.items()
        for found in imports_of(ast.parse(path.read_text(encoding="utf-8")), by, FILES)
    ]


def our_imports() -> list[Import]:
    return [found for found in all_imports() if found.target.split(".")[0] == "kdlearn"]


def upward(found: Import) -> str | None:
    """Why an import runs against the order of the house, or None."""
    importer, target = room(found.by), room(found.target)
    if importer == target or LEVEL[target] < LEVEL[importer]:
        return None
    return f"{found}, but {target} does not lie below {importer}"


def lines(faults: Iterable[object]) -> str:
    return "\n".join(str(fault) for fault in faults)


def test_every_room_has_a_level() -> None:
    rooms = {room(module) for module in FILES}
    assert rooms <= set(LEVEL), f"place in LEVELS: {sorted(rooms - set(LEVEL))}"


def test_imports_run_down() -> None:
    faults = [fault for found in our_imports() if (fault := upward(found))]
    assert not faults, lines(faults)


@pytest.mark.parametrize(
    ("by", "target"),
    [
        ("kdlearn.distill.distiller", "kdlearn.store.cache"),
        ("kdlearn.losses.logits", "kdlearn.models"),
        ("kdlearn.recipes.build", "kdlearn.cli"),
        ("kdlearn.measure.cost", "kdlearn"),
    ],
)
def test_an_import_that_runs_up_is_named(by: str, target: str) -> None:
    fault = upward(Import(by, target, 7, None))
    assert fault is not None and fault.startswith(f"{by}, line 7: imports {target}")


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
if TYPE_CHECKING:
    from kdlearn.show import plots
class A:
    def f(self):
        import os
        from ..store.cache import open_cache
try:
    from . import engine
except ImportError:
    pass
"""
    found = imports_of(ast.parse(source), "kdlearn.training.fit", {"kdlearn.show.plots"})
    assert [(each.target, each.inside) for each in found] == [
        ("kdlearn.show.plots", None),
        ("os", "f"),
        ("kdlearn.store.cache", "f"),
        ("kdlearn.training", None),
    ]


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in FILES}
    for found in our_imports():
        graph[found.by].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle: " + " <- ".join(error.args[1]))


def test_a_function_imports_only_what_not_everybody_has() -> None:
    inside = [found for found in all_imports() if found.inside]
    faults = [found for found in inside if found.target.split(".")[0] not in OPTIONAL]
    assert not faults, lines(f"{found} in {found.inside}" for found in faults)
    unused = set(OPTIONAL) - {found.target.split(".")[0] for found in inside}
    assert not unused, f"strike from OPTIONAL: {sorted(unused)}"


def test_what_is_imported_is_declared_and_the_reverse() -> None:
    by_import_name = {"sklearn": "scikit-learn"}
    tops = {found.target.split(".")[0] for found in all_imports()}
    foreign = tops - {"kdlearn", *OPTIONAL, *sys.stdlib_module_names}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {split(requirement)[0] for requirement in project["dependencies"]}
    assert {by_import_name.get(name, name) for name in foreign} == declared


def test_the_tables_of_results_have_no_code() -> None:
    assert not list((PACKAGE / "results").rglob("*.py"))


def public_losses(source: str) -> set[str]:
    """The public functions whose first argument is the student's, which is what makes a loss."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {
        function.name
        for function in functions
        if not function.name.startswith("_")
        and function.args.args
        and function.args.args[0].arg.startswith("student")
    }


def test_every_loss_is_exported() -> None:
    families = (PACKAGE / "losses").glob("*.py")
    defined = {
        (path.name, name) for path in families for name in public_losses(path.read_text("utf-8"))
    }
    assert len(defined) > 20
    missing = {(file, name) for file, name in defined if name not in losses.__all__}
    assert not missing, f"export from kdlearn/losses/__init__.py: {sorted(missing)}"


def defines_something(path: Path) -> bool:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return any(isinstance(node, kinds) for node in ast.parse(path.read_text("utf-8")).body)


def mirror(source: PurePosixPath) -> str:
    """The test file of a source file, both from the root of their tree."""
    if source == PurePosixPath("__init__.py"):
        return "test_kdlearn.py"
    if source.name == "__init__.py":
        source = source.parent.with_suffix(".py")
    return str(source.with_name(f"test_{source.name}"))


SOURCES = [PurePosixPath(path.relative_to(PACKAGE).as_posix()) for path in package_files()]
TEST_FILES = {
    path.relative_to(TESTS).as_posix()
    for path in TESTS.rglob("test_*.py")
    if path.parent != TESTS / "book"
}


def exception(source: PurePosixPath) -> str | None:
    """The entry of TESTED_BY that excuses a file without a mirror."""
    return next((str(at) for at in (source, *source.parents) if str(at) in TESTED_BY), None)


def test_every_file_that_defines_something_has_its_tests() -> None:
    defining = [source for source in SOURCES if defines_something(PACKAGE / source)]
    alone = [source for source in defining if mirror(source) not in TEST_FILES]
    faults = [source for source in alone if exception(source) is None]
    assert not faults, lines(f"kdlearn/{s} has no tests/{mirror(s)}" for s in faults)
    unused = set(TESTED_BY) - {exception(source) for source in alone}
    assert not unused, f"strike from TESTED_BY: {sorted(unused)}"
    assert set(TESTED_BY.values()) <= TEST_FILES


def test_every_test_file_mirrors_a_file() -> None:
    mirrors = {mirror(source) for source in SOURCES} | set(TESTED_BY.values())
    faults = sorted(TEST_FILES - mirrors - set(MIRRORS_NOTHING))
    assert not faults, lines(f"tests/{name} mirrors no file of kdlearn/" for name in faults)
    unused = set(MIRRORS_NOTHING) - (TEST_FILES - mirrors)
    assert not unused, f"strike from MIRRORS_NOTHING: {sorted(unused)}"


def planned() -> set[str]:
    """The paths in the picture of the tree in CONTRIBUTING.md, by the indentation of its lines."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert picture is not None, "CONTRIBUTING.md has no picture of the tree"
    paths: set[str] = set()
    folders: list[str] = []
    for line in picture[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        paths.add("".join(folders))
    return paths


def committed() -> list[str]:
    command = ["git", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name]


def test_the_plan_shows_every_folder_of_the_top_level_and_every_room() -> None:
    files = [PurePosixPath(name) for name in committed()]
    tops = {f"{file.parts[0]}/" for file in files if len(file.parts) > 1}
    rooms = {
        f"kdlearn/{file.parts[1]}/"
        for file in files
        if len(file.parts) > 2 and file.parts[0] == "kdlearn"
    }
    missing = (tops | rooms) - planned()
    assert not missing, f"draw in the plan of CONTRIBUTING.md: {sorted(missing)}"


def test_the_plan_shows_nothing_that_is_not_there() -> None:
    faults = [name for name in sorted(planned()) if not (ROOT / name).exists()]
    assert not faults, f"strike from the plan of CONTRIBUTING.md: {faults}"


def test_one_version_everywhere() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert cited is not None and cited[1] == kdlearn.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{kdlearn.__version__}]" in changes


def requirements() -> list[str]:
    """Every requirement of pyproject.toml: of the package and of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(each for extra in extras for each in extra)]


def pins(file: str) -> list[str]:
    """The names that a file pins, each in one version and none in a build such as +cpu."""
    rows = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pinned = [row for row in rows if row and not row.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", pin) for pin in pinned)
    return [split(pin)[0] for pin in pinned]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def split(requirement: str) -> tuple[str, str]:
    """Name and version specifier of a requirement."""
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[.*\])?\s*(.*)", requirement)
    assert match is not None, requirement
    return normalized(match[1]), match[2]


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_a_readers_torch_and_numpy_are_never_replaced(name: str) -> None:
    ranges = [found for each, found in map(split, requirements()) if each == name]
    assert ranges, f"pyproject.toml does not name {name}"
    assert all(re.fullmatch(r"(>=[0-9.]+)?", found) for found in ranges), ranges


def test_every_version_stands_in_one_place() -> None:
    direct, transitive = pins("requirements.txt"), pins("constraints.txt")
    assert len({*direct, *transitive}) == len(direct) + len(transitive)
    missing = {name for name, _ in map(split, requirements())} - set(direct)
    assert not missing, f"pin in requirements.txt: {sorted(missing)}"


def test_a_source_that_goes_on_is_indented() -> None:
    faults = []
    for path in package_files():
        rows = path.read_text(encoding="utf-8").splitlines()
        for number, (row, following) in enumerate(zip(rows, rows[1:], strict=False), start=2):
            depth = len(row) - len(row.lstrip())
            goes_on = following.strip() and not following.strip().startswith('"""')
            if row.lstrip().startswith("Source: ") and goes_on and following[depth] != " ":
                faults.append(f"{path.relative_to(ROOT)}:{number}: {following.strip()}")
    assert not faults, lines(faults)  # the page would begin a new paragraph there


@cache
def brought() -> set[str]:
    """Programs that the environment brings."""
    files = (file for distribution in distributions() for file in distribution.files or ())
    return {file.name for file in files if file.parent.name == "bin"} | {"python", "python3"}


def called_by_name(source: str) -> list[str]:
    """Return the commands of a file that begin with a program that the environment brings."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.List)
        and node.elts
        and isinstance(node.elts[0], ast.Constant)
        and node.elts[0].value in brought()
    ]


def test_no_program_of_the_environment_is_sought_on_a_path_that_may_lack_it() -> None:
    assert called_by_name('run(["ruff", "check"])') and not called_by_name('run(["git", "log"])')
    files = [ROOT / name for name in committed() if name.endswith(".py")]
    faults = [
        f"{path.relative_to(ROOT)}: {command}: begin with sys.executable, or a path beside it"
        for path in files
        for command in called_by_name(path.read_text(encoding="utf-8"))
    ]
    assert not faults, lines(faults)


CLOCKS = {
    *("time", "monotonic", "perf_counter", "process_time", "thread_time"),
    *("time_ns", "monotonic_ns", "perf_counter_ns", "process_time_ns", "thread_time_ns"),
}


def times_asserted(source: str) -> list[str]:
    """Return the assertions on what a clock said, or on what was computed from that."""
    read: set[str] = set()

    def is_time(tree: ast.AST) -> bool:
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in CLOCKS:
                return isinstance(called.value, ast.Name) and called.value.id == "time"
            if isinstance(called, ast.Name) and called.id in CLOCKS:
                return True
            if isinstance(node, ast.Name) and node.id in read:
                return True
        return False

    found = []
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    for node in sorted(statements, key=lambda one: one.lineno):
        if isinstance(node, ast.Assign | ast.AugAssign) and is_time(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            read |= {one.id for one in targets if isinstance(one, ast.Name)}
        if isinstance(node, ast.Assert) and is_time(node.test):
            found.append(ast.unparse(node))
    return found


def test_nothing_asserts_a_time() -> None:
    late = "start = time.monotonic()\nrun()\ntook = time.monotonic() - start\nassert took < 5"
    assert times_asserted(late) == ["assert took < 5"]
    assert times_asserted("assert time.time() < 9") and not times_asserted("assert clock() < 9")
    sources = {}
    for name in committed():
        text = (ROOT / name).read_text(encoding="utf-8") if name.endswith((".py", ".ipynb")) else ""
        if name.endswith(".ipynb"):
            cells = [one for one in json.loads(text)["cells"] if one["cell_type"] == "code"]
            text = "\n".join("".join(one["source"]) for one in cells)
        sources[name] = text
    faults = [
        f"{name}: {said}: a busy machine takes longer"
        for name, text in sources.items()
        for said in times_asserted(text)
    ]
    assert not faults, lines(faults)
