"""The interview questions of the book: their form, and the bank that they make."""

from kdlearn.interview.bank import alike, questions_folder, read_bank, select
from kdlearn.interview.question import (
    FORMATS,
    KINDS,
    LEVELS,
    OFTEN,
    TOPICS,
    Head,
    Pair,
    Question,
    read,
    words,
)

__all__ = [
    "FORMATS",
    "KINDS",
    "LEVELS",
    "OFTEN",
    "TOPICS",
    "Head",
    "Pair",
    "Question",
    "alike",
    "questions_folder",
    "read",
    "read_bank",
    "select",
    "words",
]
