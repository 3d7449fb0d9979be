"""Programming tasks of an interview, with a grader that names your mistake.

In a notebook::

    from kdlearn.drills import check, hint, solution, status

    check("kd-loss", my_function)

Twelve exercises in finding a bug are shown by `show_bug`, and answered by `check_line`.
"""

from kdlearn.drills.bugs import check_line, show_bug
from kdlearn.drills.desk import check, hint, solution, status
from kdlearn.drills.order import CHAPTERS, find, names

__all__ = [
    "CHAPTERS",
    "check",
    "check_line",
    "find",
    "hint",
    "names",
    "show_bug",
    "solution",
    "status",
]
