"""Check the questions of book/interview/questions against the rest of the book.

    python book/tools/interview.py check [FILE ...]

`kdlearn.interview` has the form of a file. What needs the book is checked here: sources stand in
references.bib, chapter, drill and claims exist, an evidence cell exists and was run; the answers of
two minutes say the same in both languages.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import catalogs
import nbformat
import prose

from kdlearn import drills
from kdlearn.interview import Question, alike, questions_folder, read

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
CLAIMS = "evidence/does-it-hold.md"
# Who says so speaks of a run of this book.
OURS = re.compile(r"\b(?:[Ww]e (?:measure|find|found|ran|re-ran|count)|[Oo]urs?\b)")


# Questions share their chapters and the bibliography: each file is read once.
@cache
def cited(bibliography: Path) -> set[str]:
    """Return the keys of a BibTeX file."""
    text = bibliography.read_text(encoding="utf-8")
    return set(re.findall(r"^@\w+\{([^,\s]+),", text, re.MULTILINE))


@cache
def measured(shown: Path) -> prose.Evidence:
    """Return the numbers that a chapter, or the page of the claims, shows."""
    if shown.suffix == ".ipynb":
        return prose.Evidence.of(nbformat.read(shown, as_version=4))
    return prose.Evidence.in_text(shown.read_text(encoding="utf-8"))


@cache
def cells(chapter: Path) -> set[str]:
    """Return the ids of the code cells of a notebook that were run."""
    notebook = json.loads(chapter.read_text(encoding="utf-8"))
    return {
        cell["id"]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and cell["execution_count"]
    }


def faults(question: Question, book: Path = BOOK) -> Iterator[str]:
    """Say what a question names that the book does not have."""
    head = question.head
    known = cited(book / "references.bib")
    text = "\n".join(
        [*question.parts.values(), *(p.body for p in question.follow_ups + question.wrong_answers)]
    )
    used = {key for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", text) for key in keys.split(",")}
    for key in sorted((set(head.sources) | used) - known):
        yield f"source {key} is not in references.bib"
    for key in sorted(used - set(head.sources)):
        yield f"{key} is cited and not listed in sources"
    if not list(book.glob(f"{head.chapter}.*")):
        yield f"chapter {head.chapter} does not exist"
    if head.drill is not None and head.drill not in drills.names():
        yield f"drill {head.drill} does not exist"
    for evidence in head.evidence:
        kind, _, claim = evidence.partition(":")
        if kind == "claim":
            if not (book / "evidence" / "claims" / f"{claim}.toml").exists():
                yield f"claim {claim} does not exist"
            continue
        chapter, _, cell = evidence.partition("#")
        notebook = book / f"{chapter}.ipynb"
        if not notebook.exists() or cell not in cells(notebook):
            yield f"{chapter} has no executed cell {cell}"


def unfounded(question: Question, book: Path = BOOK) -> Iterator[str]:
    """Say which number of a sentence about our own runs stands in none of its evidence.

    Other numbers of an answer are arithmetic, examples, or the sources'.
    """
    chapters = {evidence.partition("#")[0] for evidence in question.head.evidence}
    notebooks = [book / f"{name}.ipynb" for name in {*chapters, question.head.chapter}]
    known = [measured(notebook) for notebook in notebooks if notebook.exists()]
    known.append(measured(book / CLAIMS))
    pairs = question.follow_ups + question.wrong_answers
    for text in [*question.parts.values(), *(pair.body for pair in pairs)]:
        ours = [sentence for sentence in prose.sentences(text) if OURS.search(sentence)]
        yield from prose.unfounded("\n\n".join(ours), book / "interview" / "questions" / "x", known)


def unlike(question: Question) -> Iterator[str]:
    """Say which number, formula, code or source only one of the two-minute answers has."""
    english, chinese = question.parts["2 minutes"], question.parts["两分钟"]
    yield from (f"两分钟: {fault}" for fault in catalogs.differences(english, chinese))


def main(words: list[str]) -> int:
    """Check some files, or the whole bank; return 1 where something is wrong."""
    if words[:1] != ["check"]:
        sys.exit("usage: python book/tools/interview.py check [FILE ...]")
    files = [Path(word) for word in words[1:]] or sorted(questions_folder().glob("*.md"))
    questions, wrong = [], []
    for file in files:
        try:
            questions.append(read(file.read_text(encoding="utf-8"), file.stem))
        except ValueError as error:
            wrong.append(str(error))
    wrong += alike(questions)
    for question in questions:
        found = [*faults(question), *unfounded(question), *unlike(question)]
        wrong += [f"{question.head.id}: {fault}" for fault in found]
    print("\n".join(wrong) or f"{len(questions)} questions, all well")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
