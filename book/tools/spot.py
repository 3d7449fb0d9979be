"""The puzzles of *Spot the bug*, from the mistakes that the drills know.

    python book/tools/spot.py write [DRILL ...]
    python book/tools/spot.py check [DRILL ...]

Each mistake is written out as a program (written_out.py), is run beside the right one on the inputs
of the grader, and keeps what is seen there. The page book/interview/spot-the-bug.md shows them.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import math
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from drill_links import drill_link
from drills import spoken
from torch import Tensor
from torch.optim import SGD, Adam
from written_out import written_out

from kdlearn.drills import CHAPTERS, find
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.compare import numbers_of, same, shown
from kdlearn.drills.grader.drill import IMPORTS, Drill, Solution
from kdlearn.drills.grader.grade import effects_of
from kdlearn.drills.grader.observe import Observation
from kdlearn.drills.grader.search import Inputs, Runs

STORED = Path(__file__).resolve().parents[1] / "static" / "interview" / "spot.json"
WIDTH = 56  # columns, which fit a phone
LONGEST = 40  # lines that one reads before one chooses
SHORT = 150  # letters of a diagnosis among four
SEED = 1
WRITERS = ("written_out", "tidied", "spot")
# Statements to judge are no program, and two programs are too long to be read before one chooses.
LEFT_OUT = ("rapid-fire", "whole-process", "loss-grader")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|-?inf|nan")


def names() -> list[str]:
    """Return the drills whose mistakes are puzzles, in the order of the book."""
    return [name for chapter in CHAPTERS for name in chapter.drills if name not in LEFT_OUT]


def puzzles(drill: Drill) -> dict[str, Any]:
    """Return a drill with its mistakes: their programs, and what is seen of each.

    Raises:
        ValueError: a program does not do what the drill's own function does.
    """
    return {"made_of": digest(drill)} | shown_by(drill, laid_out(written_out(drill)))


def digest(drill: Drill) -> str:
    """Return a text that changes with the drill's file and with the files that write programs."""
    drills_own = Path(inspect.getsourcefile(drill.reference) or "")
    files = (drills_own, *(Path(__file__).with_name(f"{x}.py") for x in WRITERS))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def programs(stored: dict[str, Any]) -> dict[str, str]:
    """Return the programs of a stored drill by mistake; the right one has no name."""
    code = {mistake["id"]: mistake["code"] for mistake in stored["mistakes"]}
    first = stored["mistakes"][0]
    lines = first["code"].splitlines()
    for begin, end, better in reversed(first["mended"]):
        lines[begin:end] = better
    return {"": "\n".join(lines)} | code


def shown_by(drill: Drill, code: dict[str, str]) -> dict[str, Any]:
    """Run programs, the right one without a name, and return what is told of each.

    Raises:
        ValueError: a program does not do what the drill's own function does.
    """
    inputs = Inputs.of(drill, SEED)
    right = Runs(drill, drill.reference, inputs)
    seen = {name: Runs(drill, made(drill, code[name]), inputs, right) for name in code}
    for name in code:
        wrong = frozenset({name}) - {""}
        # Quickly; and by itself, where a run leaves something behind for the next.
        if not seen[name].does(wrong, *GROUPS) and not seen[name].agrees(
            Runs(drill, drill.member(wrong), inputs, right), *GROUPS
        ):
            raise ValueError(
                f"{drill.id}: with {name or 'no mistake'} the program that was written out gives "
                f"other numbers than the family: mend written_out.py.\n{code[name]}"
            )
    says = diagnoses(drill)
    # Some effects are of ways to write it that the family does not have.
    written = [name for name in drill.faults if code.get(name, code[""]) != code[""]]
    kept = [name for name in written if len(code[name].splitlines()) <= LONGEST]
    return {
        "id": drill.id,
        "title": drill.title,
        "about": " ".join((drill.reference.__doc__ or "").split()),
        "address": drill_link(drill.id).address,
        "given": _given(inputs.ordinary[0]),
        "right": {part: shown(value) for part, value in right.on(*EXAMPLE).numbers.items()},
        "mistakes": [
            {
                "id": name,
                "says": says[name],
                "text": spoken(drill.faults[name].text),
                **({"seen": drill.faults[name].seen} if drill.faults[name].seen else {}),
                "code": code[name],
                "mended": mended(code[name], code[""]),
                **symptom(seen[name], right),
                "alike": [
                    other
                    for other in kept
                    if other != name and seen[name].agrees(seen[other], *GROUPS)
                ],
            }
            for name in kept
        ],
    }


GROUPS = ("ordinary", "edges")
EXAMPLE = ("ordinary", 0)


def laid_out(programs: dict[str, str]) -> dict[str, str]:
    """Return programs in the width of a phone."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name or 'right'}.py" for name in programs}
        for name, path in paths.items():
            path.write_text(programs[name], encoding="utf-8")
        command = [sys.executable, "-m", "ruff", "format", "--isolated", "--quiet"]
        subprocess.run([*command, "--line-length", str(WIDTH), folder], check=True)
        texts = {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
    return {name: re.sub(r"\n{2,}", "\n\n", text).strip() for name, text in texts.items()}


def made(drill: Drill, program: str) -> Solution:
    """Return the function of a program."""
    space: dict[str, Any] = {"draws": draws, "SGD": SGD, "Adam": Adam}
    exec(f"{IMPORTS}\n{program}", space)
    function: Solution = space[drill.function]
    return function


def diagnoses(drill: Drill) -> dict[str, str]:
    """Return one line for each mistake, no two alike: the first clause of its sentence."""
    whole = {name: spoken(fault.text) for name, fault in drill.faults.items()}
    first = {name: text.split(": ")[0].rstrip(".") for name, text in whole.items()}
    counts = list(first.values())
    return {
        name: _sentence(
            f"{clause}." if counts.count(clause) == 1 and len(clause) <= SHORT else whole[name]
        )
        for name, clause in first.items()
    }


def _sentence(text: str) -> str:
    """Return a text that begins with a large letter, but for the name of a function."""
    first = text.split()[0]
    return text if re.search(r"[(._=]", first) else text[0].upper() + text[1:]


def mended(wrong: str, right: str) -> list[list[Any]]:
    """Return what to change: from which line, to which line, and the lines that belong there."""
    before, after = wrong.splitlines(), right.splitlines()
    steps = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return [[i, j, after[k:m]] for tag, i, j, k, m in steps if tag != "equal"]


def symptom(mine: Runs, right: Runs) -> dict[str, Any]:
    """Return where a mistake is seen: in numbers of the example, at another input, or besides."""
    one, other = mine.on(*EXAMPLE), right.on(*EXAMPLE)
    found: dict[str, Any] = {}
    parts = _parts(one, other)
    if parts:
        found["shown"] = {name: yours for name, yours, _ in parts}
    else:
        for group, number in mine.inputs.keys("edges", "ordinary"):
            parts = _parts(mine.on(group, number), right.on(group, number))
            if parts and "elsewhere" not in found:
                edge = mine.inputs.edges[number].title if group == "edges" else ""
                title = f"For {edge}" if edge else "On another input"
                given = _given(mine.inputs.case(group, number))
                found["elsewhere"] = {"title": title, "given": given, "parts": parts}
    besides = effects_of(mine, right)
    return found | ({"besides": list(besides.values())} if besides else {})


def _parts(one: Observation, other: Observation) -> list[list[str]]:
    """Return what differs: its name, what came, what is right."""
    names = list(dict.fromkeys([*other.numbers, *one.numbers]))
    differ = [x for x in names if not same(one.numbers.get(x), other.numbers.get(x))]
    return [[x, *_both(one.numbers.get(x), other.numbers.get(x))] for x in differ]


def _both(one: Any, other: Any) -> tuple[str, str]:
    """Show two values; where that hides the difference, the entry where it is largest."""
    texts = shown(one), shown(other)
    mine, right = numbers_of(one), numbers_of(other)
    if texts[0] != texts[1] or mine is None or right is None or mine.shape != right.shape:
        return texts
    entry = int(((mine - right).abs() / right.abs().clamp(min=1e-300)).argmax())
    return f"{mine[entry]:.6g} (entry {entry})", f"{right[entry]:.6g} (entry {entry})"


def _given(case: dict[str, Any]) -> str:
    simple = {k: v for k, v in case.items() if isinstance(v, Tensor | float | int | list | str)}
    return ", ".join(f"{name} = {shown(value)}" for name, value in simple.items())


def differences(fresh: Any, stored: Any, place: str) -> list[str]:
    """Say where two contents differ by more than another processor explains."""
    if isinstance(fresh, dict) and isinstance(stored, dict) and fresh.keys() == stored.keys():
        return [x for k in fresh for x in differences(fresh[k], stored[k], f"{place}.{k}")]
    if isinstance(fresh, list) and isinstance(stored, list) and len(fresh) == len(stored):
        pairs = enumerate(zip(fresh, stored, strict=True))
        return [x for n, (one, other) in pairs for x in differences(one, other, f"{place}[{n}]")]
    if isinstance(fresh, str) and isinstance(stored, str):
        numbers = list(zip(NUMBER.findall(fresh), NUMBER.findall(stored), strict=False))
        near = all(
            math.isclose(float(x), float(y), rel_tol=0.02, abs_tol=1e-3) or x == y
            for x, y in numbers
        )
        if near and NUMBER.sub("#", fresh) == NUMBER.sub("#", stored):
            return []
    return [] if fresh == stored else [f"{place}: {fresh!r}, stored {stored!r}"]


def read() -> dict[str, Any]:
    """Return what is stored, by the drill's name."""
    drills = json.loads(STORED.read_text(encoding="utf-8"))
    return {drill["id"]: drill for chapter in drills for drill in chapter["drills"]}


def write(found: dict[str, Any]) -> None:
    """Store puzzles, a line a drill."""
    chapters = []
    for chapter in CHAPTERS:
        drills = [found[name] for name in chapter.drills if name in found]
        lines = ",\n".join(
            json.dumps(drill, ensure_ascii=False, separators=(",", ":")) for drill in drills
        )
        title = json.dumps(chapter.title.removeprefix("Drills: ").capitalize(), ensure_ascii=False)
        chapters.append(f'{{"name":"{chapter.name}","title":{title},"drills":[\n{lines}\n]}}')
    STORED.write_text("[" + ",\n".join(chapters) + "]\n", encoding="utf-8")


def main(arguments: Iterable[str]) -> int:
    """Write or check; return the exit code."""
    task, *only = [*arguments, ""]
    wanted = [name for name in only if name] or names()
    if task not in ("write", "check") or not set(wanted) <= set(names()):
        raise SystemExit(__doc__)
    stored = read()
    torch.set_num_threads(1)
    faults = []
    for name in wanted:
        with warnings.catch_warnings(action="ignore"):  # mistakes may well be warned of
            fresh = puzzles(find(name))
        if task == "write":
            stored[name] = fresh
            write(stored)
        else:
            faults += differences(fresh, stored.get(name), name)
    print("\n".join(faults), end="\n" if faults else "")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
