"""The interview questions of the book: their form, and the bank that they make."""

from kdlearn.interview.bank import alike, questions_folder, read_bank, select
from kdlearn.interview.question import FORMATS, LEVELS, TOPICS, Question, Wording, read, words

__all__ = [
    "FORMATS",
    "LEVELS",
    "TOPICS",
    "Question",
    "Wording",
    "alike",
    "questions_folder",
    "read",
    "read_bank",
    "select",
    "words",
]
