"""The chapters of drills and of bugs, written from the exercises themselves.

python book/tools/drills.py write     write drills-*.ipynb and find-the-bug.ipynb of book/implement,
run them python book/tools/drills.py check     say which of them differ from the drills; exit code 1
if any does

The text of a drill has one home, its file in kdlearn/drills/tasks, and what surrounds the drills
stands in book/implement/drills.toml. Nothing is edited in these notebooks.
"""

import ast
import re
import subprocess
import sys
import textwrap
import tomllib
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import notebooks
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kdlearn.drills import CHAPTERS, find
from kdlearn.drills.bugs import NAMES, find_bug
from kdlearn.drills.bugs.bug import Bug
from kdlearn.drills.grader.drill import CITED, IMPORTS, Drill
from kdlearn.drills.grader.grade import grade
from kdlearn.drills.order import Chapter

WIDTH = notebooks.WIDEST
SOURCE_WIDTH = 100  # of the files of the drills, whose lines are filled up to it
# Makes buttons of the lines of a bug and of the statements; no part of a notebook runs it.
TAPS = '<script defer src="../../_static/figures/tap.js"></script>'
STATEMENTS = "rapid-fire"
PLACEHOLDER = re.compile(r"( = )?\{(\w+)\}")
TEXTS = tomllib.loads((notebooks.BOOK / "implement/drills.toml").read_text(encoding="utf-8"))


def chapter_path(chapter: Chapter) -> Path:
    """Say where a chapter is."""
    return notebooks.BOOK / "implement" / f"drills-{chapter.name}.ipynb"


def narrow(code: str) -> str:
    """Lay code and its docstrings out for a phone."""
    command = [sys.executable, "-m", "ruff", "format", "--line-length", str(WIDTH), "-"]
    code = subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout
    function = ast.parse(code).body[0]
    assert isinstance(function, ast.FunctionDef)
    text = function.body[0]
    lines = code.splitlines()
    docstring = reflowed(lines[text.lineno - 1 : text.end_lineno])
    return "\n".join(lines[: text.lineno - 1] + docstring + lines[text.end_lineno :])


def reflowed(lines: list[str]) -> list[str]:
    """Fill a docstring anew; a line that ends a sentence and was not full stays an end."""
    joined = lines[:1]
    for before, line in pairwise(lines):
        words = line.split(maxsplit=1)
        full = bool(words) and len(before) + 1 + len(words[0]) > SOURCE_WIDTH
        goes_on = bool(words and before.strip()) and not before.endswith((".", ":"))
        if (full or goes_on) and line.strip() != '"""':
            joined[-1] += " " + line.strip()
        else:
            joined.append(line)
    wrapped: list[str] = []
    for line in joined:
        indent = line[: len(line) - len(line.lstrip())]
        wrapped += textwrap.wrap(
            line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return wrapped


def folded(title: str, text: str, attributes: str = "") -> str:
    """Markdown behind a title that opens it; attributes are for the script of the site."""
    return f"<details{attributes}>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def spoken(diagnosis: str) -> str:
    """A diagnosis with the letters of the sizes in place of numbers."""
    text = PLACEHOLDER.sub(lambda found: "" if found[1] else found[2], diagnosis)
    return text.replace("{{", "{").replace("}}", "}")


def attempt(drill: Drill) -> str:
    """A wrong solution with what the grader says of it, recorded."""
    source = TEXTS["attempts"][drill.id]
    space: dict[str, Any] = {}
    exec(f"{IMPORTS}\n{source}", space)
    with warnings.catch_warnings(action="ignore"):  # the attempt may well be warned of
        said = str(grade(drill, space[drill.function], seed=1))
    lines = [
        wrapped
        for line in said.splitlines()
        for wrapped in textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    ]
    answer = "\n".join(lines)
    return f"```python\n{source.rstrip()}\n```\n\n```text\n{answer}\n```"


def known(drill: Drill) -> str:
    """All mistakes that the grader can name, switch by switch."""
    switches = {**drill.knobs, **({"what no number shows": drill.effects} if drill.effects else {})}
    lines = []
    for switch, faults in switches.items():
        lines.append(f"**{switch}**")
        lines += [
            f"- *{fault.id}*: {spoken(fault.text)}" + (f" Seen {fault.seen}." if fault.seen else "")
            for fault in faults
        ]
        lines.append("")
    return "\n".join(lines).strip()


def cells_of(drill: Drill, number: int) -> list[Any]:
    """Task, starter, check, a recorded attempt, and the folded help of one drill."""
    task = f"## {number}. {drill.title}\n\n*{drill.level}, {drill.minutes} minutes*\n\n{drill.task}"
    if drill.id == STATEMENTS:
        task += f"\n\n{TAPS}"
    hints = "\n\n".join(folded(f"Hint {n}", hint) for n, hint in enumerate(drill.hints, 1))
    explanation = CITED.sub(r"{cite:t}`\2`", drill.explanation)
    answer = f"```python\n{narrow(drill.source()).rstrip()}\n```\n\n{explanation}"
    check = new_code_cell(f'check("{drill.id}", {drill.function})')
    check.metadata["tags"] = ["nbval-check-output"]
    folds = [
        folded("A recorded attempt, and what the grader says", attempt(drill)),
        hints,
        folded("Solution, and what an interviewer listens for", answer),
        folded(
            "Mistakes that the grader names",
            known(drill),
            ' class="kd-verdicts"' if drill.id == STATEMENTS else "",
        ),
    ]
    return [
        new_markdown_cell(task),
        new_code_cell(narrow(drill.starter())),
        check,
        new_markdown_cell("\n\n".join(folds)),
    ]


def build(chapter: Chapter, following: Chapter | None) -> Any:
    """Make the notebook of a chapter, without outputs."""
    drills = [find(name) for name in chapter.drills]
    rows = "\n".join(f"| {drill.title} | {drill.level} | {drill.minutes} |" for drill in drills)
    total = sum(drill.minutes for drill in drills)
    texts = TEXTS["drills"]
    how = texts["how"].format(first=drills[0].id, rows=rows, total=total)
    cells = [
        new_markdown_cell(f"# {chapter.title}"),
        new_code_cell(notebooks.install_cell(), metadata=notebooks.INSTALL_METADATA),
        new_markdown_cell(f"{texts['introductions'][chapter.name]}\n\n{how}"),
        new_code_cell(
            f"{IMPORTS.rstrip()}\n\nfrom kdlearn.drills import check, hint, solution, status"
        ),
    ]
    for number, drill in enumerate(drills, 1):
        cells += cells_of(drill, number)
    proof = new_code_cell(texts["proof"].format(names=_listed(chapter.drills)))
    proof.metadata["tags"] = ["nbval-check-output"]
    cells += [
        new_markdown_cell(texts["right"]),
        proof,
        new_markdown_cell(_last(following)),
    ]
    return _notebook(cells)


def _listed(names: tuple[str, ...]) -> str:
    inner = "".join(f'    "{name}",\n' for name in names)
    return f"(\n{inner})"


def _last(following: Chapter | None) -> str:
    texts = TEXTS["drills"]
    if following is None:
        return str(texts["last"])
    return str(texts["next"].format(title=following.title.lower(), name=following.name))


def cells_of_bug(bug: Bug, number: int) -> list[Any]:
    """Symptom, code with numbers, answer, and the folded line."""
    answer = (
        f"Line {bug.line()}: `{bug.faulty}`\n\n{bug.explanation}\n\n"
        f"In its place:\n\n```python\n{bug.mended()}\n```"
        + (f"\n\nSeen {bug.seen}." if bug.seen else "")
    )
    ask = new_code_cell(f'show_bug("{bug.id}")')
    reply = new_code_cell(f'check_line("{bug.id}", line=0)')
    # The site shows the code alone: there the line is clicked.
    ask.metadata["tags"] = ["nbval-check-output", "remove-input"]
    reply.metadata["tags"] = ["nbval-check-output", "remove-cell"]
    return [
        new_markdown_cell(f"## {number}. {bug.title}\n\n{bug.symptom}"),
        ask,
        reply,
        new_markdown_cell(
            folded("The line", answer, f' data-bug="{bug.id}" data-line="{bug.line()}"')
        ),
    ]


def build_bugs() -> Any:
    """Make the notebook of the bugs, without outputs."""
    texts = TEXTS["bugs"]
    cells = [
        new_markdown_cell("# Find the bug"),
        new_code_cell(notebooks.install_cell(), metadata=notebooks.INSTALL_METADATA),
        new_markdown_cell(f"{texts['introduction'].rstrip()}\n\n{TAPS}"),
        new_code_cell("from kdlearn.drills import check_line, show_bug"),
    ]
    for number, name in enumerate(NAMES, 1):
        cells += cells_of_bug(find_bug(name), number)
    proof = new_code_cell(texts["proof"])
    proof.metadata["tags"] = ["nbval-check-output"]
    cells += [
        new_markdown_cell(texts["right"]),
        proof,
        new_markdown_cell(texts["next"]),
    ]
    return _notebook(cells)


def _notebook(cells: list[Any]) -> Any:
    """A notebook whose cells are identified by their place, not by chance."""
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return notebooks.normalize(new_notebook(cells=cells))


def all_chapters() -> list[tuple[Path, Any]]:
    """Every chapter's file and what it should hold."""
    after = [*CHAPTERS[1:], None]
    drills = [
        (chapter_path(one), build(one, next_one))
        for one, next_one in zip(CHAPTERS, after, strict=True)
    ]
    return [*drills, (notebooks.BOOK / "implement/find-the-bug.ipynb", build_bugs())]


def main(arguments: list[str]) -> int:
    """Write or check; return the exit code."""
    if arguments == ["write"]:
        made = all_chapters()
        for path, notebook in made:
            path.write_text(notebooks.serialize(notebook), encoding="utf-8")
        faults = notebooks.run_all([path for path, _ in made])
    elif arguments == ["check"]:
        faults = [
            f"{path} differs from its drills: make drills"
            for path, notebook in all_chapters()
            if not path.exists() or _sources(notebooks.read(path)) != _sources(notebook)
        ]
    else:
        raise SystemExit(__doc__)
    print("\n".join(faults), end="\n" if faults else "")
    return bool(faults)


def _sources(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in nbformat.from_dict(notebook).cells]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
