"""Questions of an interview with answers in layers, a rubric, and what to say to the next push."""

from kdlearn.interview.bank import read_bank, select
from kdlearn.interview.question import FORMATS, LEVELS, TOPICS, Question, read

__all__ = ["FORMATS", "LEVELS", "TOPICS", "Question", "read", "read_bank", "select"]
