"""How long a check of a drill takes: ``python benchmarks/drills.py``.

For each drill the seconds of a check of the reference, of one mistake and of two at once, each the
median of three, in the warm process that readers use; the first check of all, which starts that
process, is told apart.
"""

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from kdlearn.drills import find, names
from kdlearn.drills.grader.drill import IMPORTS, Drill
from kdlearn.drills.grader.run import run

REPEATS = 3


def seconds(drill: Drill, source: str) -> float:
    """The median time of a check of a solution."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "solution.py"
        file.write_text(f"{IMPORTS}\n\n{source}\n", encoding="utf-8")
        taken = []
        for seed in range(REPEATS):
            start = time.perf_counter()
            run(drill, file, seed=seed)
            taken.append(time.perf_counter() - start)
    return median(taken)


def member(drill: Drill, wrong: list[str]) -> str:
    """A solution that is the family's member, as text."""
    return (
        "from kdlearn.drills import find\n\n"
        f"def {drill.function}(*arguments, **named):\n"
        f"    return find({drill.id!r}).member({wrong!r})(*arguments, **named)"
    )


def main() -> None:
    """Print the table."""
    start = time.perf_counter()
    run(find("rapid-fire"), lambda letters: [True for _ in letters], seed=0)
    print(f"first check, with the start of the process: {time.perf_counter() - start:.2f} s\n")
    print(f"{'drill':22}{'right':>8}{'one':>8}{'two':>8}   seconds, median of {REPEATS}")
    every: list[list[float]] = []
    for name in names():
        drill = find(name)
        one = sorted(drill.settings(1)[len(drill.settings(1)) // 2])
        two = sorted(drill.settings(2)[len(drill.settings(2)) // 2])
        row = [seconds(drill, member(drill, wrong)) for wrong in ([], one, two)]
        every.append(row)
        print(f"{name:22}" + "".join(f"{value:8.2f}" for value in row), flush=True)
    columns = zip(*every, strict=True)
    print(f"{'median':22}" + "".join(f"{median(column):8.2f}" for column in columns))


if __name__ == "__main__":
    main()
