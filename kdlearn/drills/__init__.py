"""Thirty programming tasks of an interview, with a grader that names your mistake.

In a notebook::

    from kdlearn.drills import check, hint, solution, status

    check("kd-loss", my_function)
"""

from kdlearn.drills.desk import check, hint, solution, status
from kdlearn.drills.order import CHAPTERS, find, names

__all__ = ["CHAPTERS", "check", "find", "hint", "names", "solution", "status"]
