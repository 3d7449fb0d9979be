"""What the site makes of the questions: a page each, their index, and the bank as JSON.

A file of book/interview/questions has a head in TOML and parts with fixed names. When Sphinx reads
it, it sees the page that `page` writes: the same text in the dress of a chapter. The page with the
mark INDEX gets lists of all questions. When the site is finished, `write` stores bank.json, whose
parts are HTML, for the mock interview, and llms.txt, which tells a reader's assistant where it is.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any

import cards
import messages
from bs4 import Tag
from interface import _, english
from pages import article_of
from sphinx.application import Sphinx

from kdlearn.interview import (
    FORMATS,
    LEVELS,
    TOPICS,
    Head,
    Pair,
    Question,
    questions_folder,
    read,
    read_bank,
)

BOOK = Path(__file__).resolve().parents[1]
PAGES = "book/interview/questions/"
INDEX = "<!-- every question, by topic, level, format and place -->"
LEDGER = "<!-- every question with its sources and its evidence -->"
TOPICS_MARK = "data-topics"
# The part of a file, the heading on its page.
HEADINGS = {
    "Scenario": "The scenario",
    "Question": "The question",
    "30 seconds": "In 30 seconds",
    "2 minutes": "In two minutes",
    "Whiteboard": "On the whiteboard",
    "Napkin numbers": "Napkin numbers",
    "Evidence": "Evidence",
}
# What stands below them on each page.
FURTHER = ("Follow-ups", "Wrong answers", "Rubric", "Read and practice", "Sources")
# What a file has in Chinese itself, since it is spoken and no translation: the part in English.
SPOKEN = {"30 秒": "30 seconds", "两分钟": "2 minutes"}
TOPIC_NAMES = {
    "foundations": "Foundations",
    "process": "The process",
    "losses": "Losses",
    "features": "Features and relations",
    "attention-transfer": "Attention transfer",
    "attention": "Attention",
    "coding": "Code",
    "transformers": "Transformers",
    "language": "Language models",
    "evaluation": "Evaluation",
    "production": "Production and design",
    "safety": "Safety, law, your project",
}
FORMAT_NAMES = {
    "explain": "Explain",
    "design": "Design",
    "debug": "Debug",
    "paper-to-code": "Paper to code",
    "your-project": "Your project",
}


def in_chinese(question: Question, translate: messages.Translate) -> Question:
    """Return a question whose parts are Chinese: its spoken answers, the rest from a catalog."""

    def said(text: str) -> str:
        return messages.translated(text, translate)

    def pairs(given: tuple[Pair, ...]) -> tuple[Pair, ...]:
        return tuple(Pair(title=said(pair.title), body=said(pair.body)) for pair in given)

    own = {english: question.parts[part] for part, english in SPOKEN.items()}
    parts = {part: own.get(part) or said(question.parts[part]) for part in _shown(question)}
    return question.model_copy(
        update={
            "parts": parts,
            "follow_ups": pairs(question.follow_ups),
            "wrong_answers": pairs(question.wrong_answers),
            "rubric": tuple(map(said, question.rubric)),
        }
    )


def page(question: Question) -> str:
    """Return the page of a question as Markdown of the book, in the language of this build."""
    lines = [_heading(question.head.title, _title(question.head), "#"), _facts(question.head)]
    for part in _shown(question):
        lines += [_heading(HEADINGS[part]), question.parts[part]]
    follow_ups, wrong_answers, rubric, practice, sources = map(_heading, FURTHER)
    lines.append(follow_ups)
    for push in question.follow_ups:
        lines += ["<details>", f"<summary>{plain(push.title)}</summary>", push.body, "</details>"]
    lines.append(wrong_answers)
    for mistake in question.wrong_answers:
        lines.append(f":::{{wrong-answer}}\n**{mistake.title}**\n\n{mistake.body}\n:::")
    lines.append(rubric)
    lines.append("\n".join(f"{n}. {text}" for n, text in enumerate(question.rubric, 1)))
    for part in SPOKEN if english() else ():
        lines += [
            f'## <span lang="zh">{part}</span>',
            '<div lang="zh">',
            question.parts[part],
            "</div>",
        ]
    lines += [practice, f"- [](../../{chapter_file(question.head.chapter)})"]
    if question.head.drill:
        lines.append(f":::{{drill}} {question.head.drill}\n:::")
    lines.append(f"- [{_('All questions')}](../bank.md)")
    lines.append(sources)
    lines.append("\n".join(f"- {{cite:t}}`{key}`" for key in question.head.sources))
    return "\n\n".join(lines) + "\n"


def _shown(question: Question) -> list[str]:
    return [part for part in HEADINGS if part in question.parts]


def _title(head: Head) -> str:
    return head.title if english() else head.title_zh


def _heading(text: str, said: str = "", mark: str = "##") -> str:
    """Return a heading in the language of this build, under the address of the English one."""
    line = f"{mark} {said or _(text)}"
    return line if english() else f"{messages.anchored(text)}\n{line}"


def _facts(head: Head) -> str:
    """Return what a question says of itself, below its title."""
    if english():
        title, language = head.title_zh, "zh"
        wordings = "".join(
            f'<br><q>{plain(other.en)}</q> <q lang="zh">{escape(other.zh)}</q>'
            for other in head.also
        )
    else:
        title, language = head.title, "en"
        wordings = "".join(f"<br><q>{escape(other.zh)}</q>" for other in head.also)
    about = _(
        "{topic}, {level}, {format}, {n} minutes. Asked: {often}. Facts looked up on {day}.",
        topic=_(TOPIC_NAMES[head.topic]),
        level=_(head.level),
        format=_(FORMAT_NAMES[head.format]).lower(),
        n=head.minutes,
        often=_(head.often),
        day=head.looked_up.isoformat(),
    )
    seen = "; ".join(
        _(
            "{where} ({kind})",
            where=f'<span lang="en">{escape(place.where)}</span>',
            kind=_(place.kind),
        )
        for place in head.seen_at
    )
    facts = [
        f'<p lang="{language}">{escape(title)}</p>',
        f"<p><b>{_('Also asked as')}</b> {wordings}</p>" if wordings else "",
        f"<p>{about}</p>",
        f"<p><b>{_('Seen in')}</b> {seen}{_('.')}</p>" if seen else "",
    ]
    return '<div class="chapter-head">' + "".join(facts) + "</div>"


def chapter_file(name: str) -> str:
    """Return a chapter with its ending, below book/."""
    notebook = BOOK / f"{name}.ipynb"
    return f"{name}.ipynb" if notebook.exists() else f"{name}.md"


def plain(markdown: str) -> str:
    """Return a line of Markdown as HTML, for where Markdown is not read: code and emphasis only."""
    text = escape(markdown, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\$([^$]+)\$", r"<i>\1</i>", text)


def index(questions: list[Question]) -> str:
    """Return lists of all questions: by topic with their Chinese titles, and three shorter ones."""
    lines = [f"There are {len(questions)} questions.", "## By topic"]
    for topic, found in _by(questions, lambda question: [question.head.topic], TOPICS).items():
        lines.append(f"### {TOPIC_NAMES[topic]}")
        entries = [
            f"- [{q.head.title}](questions/{q.head.id}.md)\n"
            f'  <span lang="zh">{escape(q.head.title_zh)}</span>\n'
            f"  *{q.head.level}, {FORMAT_NAMES[q.head.format].lower()}, {q.head.minutes} min*"
            for q in found
        ]
        lines.append("{.questions}\n" + "\n".join(entries))
    lines.append("## By level")
    for level, found in _by(questions, lambda question: [question.head.level], LEVELS).items():
        lines.append(f"**{level.capitalize()}:** {_links(found)}")
    lines.append("## By format")
    for kind, found in _by(questions, lambda question: [question.head.format], FORMATS).items():
        lines.append(f"**{FORMAT_NAMES[kind]}:** {_links(found)}")
    lines.append("## Where they were asked")
    places = _by(questions, lambda question: [place.where for place in question.head.seen_at])
    for place, found in places.items():
        lines.append(f"**{place}:** {_links(found)}")
    return "\n\n".join(lines)


def chinese_index(questions: list[Question]) -> str:
    """Return the list of all questions by topic, with their Chinese titles."""
    lines = []
    for topic, found in _by(questions, lambda question: [question.head.topic], TOPICS).items():
        entries = [
            f"- [{q.head.title_zh}](questions/{q.head.id}.md)\n"
            f'  <span lang="en">{escape(q.head.title)}</span>'
            for q in found
        ]
        lines += [f"## {_(TOPIC_NAMES[topic])}", "{.questions}\n" + "\n".join(entries)]
    return "\n\n".join(lines)


def ledger(questions: list[Question]) -> str:
    """Return a table of what each answer rests on: its sources, its cells and claims."""
    lines = ["| question | sources | evidence run here |", "| --- | --- | --- |"]
    for question in questions:
        head = question.head
        sources = ", ".join(f"{{cite:t}}`{key}`" for key in head.sources)
        evidence = ", ".join(map(_evidence, head.evidence)) or "none: told from the sources"
        lines.append(f"| [{head.id}](questions/{head.id}.md) | {sources} | {evidence} |")
    return "\n".join(lines)


def _evidence(name: str) -> str:
    kind, _, claim = name.partition(":")
    if kind == "claim":
        return f"[claim {claim}](../evidence/does-it-hold.md)"
    chapter = name.partition("#")[0]
    return f"[{chapter.rpartition('/')[2]}](../{chapter_file(chapter)})"


def _by(
    questions: list[Question],
    keys: Callable[[Question], Iterable[str]],
    order: Iterable[str] | None = None,
) -> dict[str, list[Question]]:
    found = defaultdict(list)
    for question in questions:
        for key in keys(question):
            found[key].append(question)
    return {key: found[key] for key in order or sorted(found) if key in found}


def _links(questions: list[Question]) -> str:
    return ", ".join(f"[{q.head.id}](questions/{q.head.id}.md)" for q in questions) + "."


def source_read(app: Sphinx, name: str, source: list[str]) -> None:
    """Have Sphinx read a question as its page, and the mark INDEX as the lists."""
    if name.startswith(PAGES):
        # A Chinese book has its pages from chinese.py.
        if english():
            source[0] = page(read(source[0], name.removeprefix(PAGES)))
    elif INDEX in source[0]:
        source[0] = source[0].replace(INDEX, index(read_bank(questions_folder())))
    elif TOPICS_MARK in source[0]:
        names = escape(json.dumps({key: _(name) for key, name in TOPIC_NAMES.items()}))
        source[0] = source[0].replace(TOPICS_MARK, f'data-topics="{names}"')
    elif LEDGER in source[0]:
        source[0] = source[0].replace(LEDGER, ledger(read_bank(questions_folder())))


def entry(question: Question, html: str) -> dict[str, Any]:
    """Return a question as the mock interview takes it: its head, its parts as HTML.

    Args:
        question: as its file has it.
        html: its built page, from which everything but the head is taken.
    """
    article = article_of(html)
    assert article is not None
    for left_out in article.select(".headerlink, .clock, .callout-title"):
        left_out.decompose()
    for link in article.select("a[href]"):
        link["href"] = _moved(str(link["href"]))
    head, title = question.head, _title(question.head)
    chapter = article.select_one(f'li a[href$="{head.chapter}.html"]')
    assert chapter is not None
    parts = {part.lower(): _inside(article, _(heading)) for part, heading in HEADINGS.items()}
    pushes = [_apart(fold, "summary") for fold in article.select("details")]
    mistakes = [_apart(box, "strong") for box in article.select(".wrong-answer")]
    rubric = article.select("#rubric li")
    return {
        "id": head.id,
        "title": title,
        "heading": plain(title),
        "title_zh": head.title_zh,
        "level": head.level,
        "topic": head.topic,
        "format": head.format,
        "minutes": head.minutes,
        "chapter": chapter["href"],
        "parts": {part: text for part, text in parts.items() if text},
        "follow_ups": [{"question": push, "answer": answer} for push, answer in pushes],
        "wrong_answers": [{"answer": mistake, "why": why} for mistake, why in mistakes],
        "rubric": [line.decode_contents().strip() for line in rubric],
    }


def _moved(address: str) -> str:
    """Return a link of a question's page as it reads from the folder above.

    Example:
        >>> _moved("../../references.html#cite-a"), _moved("batchmean.html"), _moved("#id1")
        ('../references.html#cite-a', 'questions/batchmean.html', '#id1')
    """
    if address.startswith("../"):
        return address.removeprefix("../")
    return address if address.startswith(("#", "http")) else f"questions/{address}"


def _inside(article: Tag, heading: str) -> str:
    for title in article.find_all("h2"):
        if title.get_text(strip=True) == heading and title.parent is not None:
            return _apart(title.parent, "h2")[1]
    return ""


def _apart(element: Tag, first: str) -> tuple[str, str]:
    """Return the HTML inside the first such tag of an element, and what follows its block."""
    title = element.find(first)
    assert isinstance(title, Tag)
    said = title.decode_contents()
    block = title if title.parent is element else title.parent
    assert block is not None
    block.extract()
    return said, element.decode_contents().strip()


def with_questions(chapters: Any, questions: list[Question]) -> Any:
    """Return the puzzles of Spot the bug whose drills know what asks for them and teaches them."""
    for drill in (drill for chapter in chapters for drill in chapter["drills"]):
        asked = [q.head for q in questions if q.head.drill == drill["id"]]
        drill["asked"] = [{"id": head.id, "title": head.title} for head in asked]
        if asked:
            drill["taught"] = f"{asked[0].chapter}.html"
    return chapters


def write_bank(site: Path) -> list[dict[str, Any]]:
    """Write bank.json of a built site, in the language of this build, and return what it holds."""
    folder = site / "book" / "interview"
    bank = [
        entry(q, (folder / "questions" / f"{q.head.id}.html").read_text(encoding="utf-8"))
        for q in read_bank(questions_folder())
    ]
    text = json.dumps(bank, ensure_ascii=False, separators=(",", ":"))
    (folder / "bank.json").write_text(text, encoding="utf-8")
    return bank


def write(site: Path, pages_address: str) -> None:
    """Write bank.json, the cards and llms.txt of a built site."""
    questions = read_bank(questions_folder())
    cards.write(write_bank(site), site / "book" / "interview", pages_address)
    puzzles = site / "_static" / "interview" / "spot.json"
    linked = with_questions(json.loads(puzzles.read_text(encoding="utf-8")), questions)
    text = json.dumps(linked, ensure_ascii=False, separators=(",", ":"))
    puzzles.write_text(text, encoding="utf-8")
    lines = [
        "# kdlearn: knowledge distillation and attention transfer",
        "",
        "> A book that answers interview questions on distillation and trains each answer.",
        "",
        "To play the interviewer: take a question of the bank below, hold back everything but "
        "scenario and question, listen, push with its follow-ups, then score with its rubric "
        "(1 to 4) and say which of its wrong answers came.",
        "",
        "## Bank",
        "",
        f"- [All questions as JSON]({pages_address}book/interview/bank.json): "
        f"{len(questions)} questions with answers, follow-ups, wrong answers, rubric",
        "",
        "## Questions",
        "",
        *(f"- [{q.head.title}]({pages_address}{PAGES}{q.head.id}.html)" for q in questions),
    ]
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Have Sphinx read the questions as pages."""
    app.connect("source-read", source_read)
