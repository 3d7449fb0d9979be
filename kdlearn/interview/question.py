"""The form of an interview question: one Markdown file, its head and its parts."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Level = Literal["junior", "mid", "senior", "research"]
Format = Literal["explain", "design", "debug", "paper-to-code", "your-project"]
Topic = Literal[
    "foundations",
    "process",
    "losses",
    "features",
    "attention-transfer",
    "attention",
    "coding",
    "transformers",
    "language",
    "evaluation",
    "production",
    "safety",
]
Often = Literal["often", "sometimes", "seldom", "not seen"]
Kind = Literal["interview notes", "question list", "book", "course", "exam", "asked online"]
LEVELS, TOPICS, FORMATS = get_args(Level), get_args(Topic), get_args(Format)
OFTEN, KINDS = get_args(Often), get_args(Kind)

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Evidence = Annotated[str, StringConstraints(pattern=r"^(claim:[\w-]+|[\w/-]+#[\w-]+)$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]

# Heading of each part, in order, and whether a question may leave it out.
PARTS = {
    "Scenario": True,
    "Question": False,
    "30 seconds": False,
    "2 minutes": False,
    "Whiteboard": False,
    "Napkin numbers": False,
    "Evidence": False,
    "Follow-ups": False,
    "Wrong answers": False,
    "Rubric": False,
    "30 秒": False,
    "两分钟": False,
}
CHINESE = ("30 秒", "两分钟")
PUNCTUATION = "，。；：！？、（）“”‘’"
# How many words are spoken in that time, a little under and over.
SPOKEN = {"30 seconds": (45, 80), "2 minutes": (180, 320), "两分钟": (280, 540)}
FOLLOW_UPS, SCORES = 3, 4


class Seen(BaseModel):
    """Where a question was asked: a place that a reader can find."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    where: Text
    kind: Kind


class Wording(BaseModel):
    """Other words under which a question is asked, in both languages."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    en: Annotated[Text, StringConstraints(pattern=r"^[^\u4e00-\u9fff]+$")]
    zh: Annotated[Text, StringConstraints(pattern=r"[\u4e00-\u9fff]")]


class Head(BaseModel):
    """What a question says of itself, in TOML between two lines of `+++`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: Name
    title: Text
    title_zh: Text
    also: tuple[Wording, ...] = ()
    level: Level
    topic: Topic
    format: Format
    often: Often
    seen_at: tuple[Seen, ...]
    minutes: int = Field(ge=1, le=60)
    sources: tuple[Text, ...] = Field(min_length=1)
    # CHAPTER#CELL for an executed cell, claim:NAME for a claim of "Does it hold?".
    evidence: tuple[
        Annotated[str, StringConstraints(pattern=r"^(claim:[\w-]+|[\w/-]+#[\w-]+)$")], ...
    ]
    chapter: Text
    drill: Name | None = None
    looked_up: date

    @property
    def wordings(self) -> tuple[str, ...]:
        """All words under which it is asked: its titles, then the others."""
        others = (text for one in self.also for text in (one.en, one.zh))
        return (self.title, self.title_zh, *others)


class Pair(BaseModel):
    """A heading of the third rank and what stands below: a push and its answer, or a mistake."""

    model_config = ConfigDict(frozen=True)
    title: Text
    body: Text


class Question(BaseModel):
    """A question with all its parts, as Markdown."""

    model_config = ConfigDict(frozen=True)
    head: Head
    parts: dict[str, Text]
    follow_ups: tuple[Pair, ...]
    wrong_answers: tuple[Pair, ...]
    rubric: tuple[Text, ...]


def words(markdown: str) -> int:
    """How many words a speaker says: no marks, no addresses; a formula is a word for each symbol.

    A Chinese character is a word.

    Example:
        >>> words("The loss is **small** ([the process](x.ipynb)), about $w T^2$.")
        10
        >>> words("教师的 logits 除以 T。")
        7
    """
    text = re.sub(r"\]\([^)]*\)", "]", markdown)
    text = re.sub(r"\{[\w:]+\}`([^`<]*)(<[^`]*>)?`", r"\1", text)
    text = re.sub(r"([\u4e00-\u9fff])", r" \1 ", text)
    return len(re.findall(r"[\w'’.,%-]*\w[\w'’.,%-]*", re.sub(r"[$*_`\\{}^\[\]]", " ", text)))


def unwrapped(text: str) -> str:
    r"""Join the lines of Chinese paragraphs: a line break there is no space.

    Beside a Latin letter, a digit or a formula it stays one, but beside Chinese punctuation it
    does not.

    Example:
        >>> unwrapped("温度升高，\n概率变平。\n用 T = 4\n和标签。")
        '温度升高，概率变平。用 T = 4 和标签。'
    """
    text = re.sub(r"(?<=[^\x00-\x7f])\n(?=[^\x00-\x7f])", "", text)
    text = re.sub(rf"(?<=[{PUNCTUATION}])\n(?=\S)|(?<=\S)\n(?=[{PUNCTUATION}])", "", text)
    return re.sub(r"(?<=\S)\n(?=[^\s#>*|-])", " ", text)


def read(text: str, name: str) -> Question:
    """Read the Markdown of a question and refuse what does not have its form.

    Args:
        text: the file's content.
        name: what to call it in a message, its file name without ending.

    Raises:
        ValueError: the head or a part is missing, in another order, too short or too long.

    Example:
        >>> read("# Why?", "why")
        Traceback (most recent call last):
        ...
        ValueError: why: begin with a head in TOML between two lines of +++.
    """
    found = re.fullmatch(r"\+\+\+\n(.*?)\n\+\+\+\n(.*)", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{name}: begin with a head in TOML between two lines of +++.")
    try:
        head = Head.model_validate(tomllib.loads(found[1]))
    except ValueError as error:
        raise ValueError(f"{name}: its head does not have the form: {error}") from error
    if head.id != name:
        raise ValueError(f"{name}: its id is {head.id}: give file and id one name.")
    parts = _sections(found[2], "##", name)
    parts |= {part: unwrapped(parts[part]) for part in CHINESE if part in parts}
    expected = [part for part, may_miss in PARTS.items() if part in parts or not may_miss]
    if list(parts) != expected:
        raise ValueError(
            f"{name}: has the parts {list(parts)}, expected {expected}, in this order."
        )
    for part, (low, high) in SPOKEN.items():
        if not low <= words(parts[part]) <= high:
            raise ValueError(
                f"{name}: {part!r} has {words(parts[part])} words, expected {low} to {high}."
            )
    follow_ups = _pairs(parts.pop("Follow-ups"), name)
    wrong_answers = _pairs(parts.pop("Wrong answers"), name)
    if len(follow_ups) < FOLLOW_UPS:
        raise ValueError(f"{name}: has {len(follow_ups)} follow-ups, expected {FOLLOW_UPS}.")
    rubric = re.findall(
        r"^(\d)\. (.+?)(?=^\d\. |\Z)", parts.pop("Rubric"), re.DOTALL | re.MULTILINE
    )
    if [score for score, _ in rubric] != [str(score + 1) for score in range(SCORES)]:
        raise ValueError(f"{name}: its rubric needs the scores 1. to {SCORES}., a line each.")
    return Question(
        head=head,
        parts=parts,
        follow_ups=follow_ups,
        wrong_answers=wrong_answers,
        rubric=tuple(" ".join(line.split()) for _, line in rubric),
    )


def _sections(text: str, mark: str, name: str) -> dict[str, str]:
    before, *pieces = re.split(rf"^{mark} (.+)$", text, flags=re.MULTILINE)
    if before.strip():
        raise ValueError(f"{name}: {before.strip()[:40]!r} stands before the first {mark} heading.")
    titles, bodies = pieces[::2], pieces[1::2]
    if len(set(titles)) < len(titles):
        raise ValueError(f"{name}: a {mark} heading stands there twice, among {titles}.")
    return {title.strip(): body.strip() for title, body in zip(titles, bodies, strict=True)}


def _pairs(text: str, name: str) -> tuple[Pair, ...]:
    sections = _sections(text, "###", name)
    empty = [title for title, body in sections.items() if not body]
    if empty or not sections:
        raise ValueError(f"{name}: give ### headings with an answer below, missing for {empty}.")
    return tuple(Pair(title=title, body=body) for title, body in sections.items())
