"""The deck for Anki and its table, from the bank of a built site.

Three kinds of card: a question and its answer of thirty seconds with the whiteboard, a push and its
answer, a wrong answer and why it is wrong. Formulas are pictures in the deck (pictures.py) and
MathML in the table. A card's number comes from its question, so that a new deck changes the cards
that a reader has and keeps what they know of them.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import genanki
from pictures import Picture, with_pictures

STYLE = """.card { font: 18px/1.5 sans-serif; max-width: 40rem; margin: auto; text-align: left; }
.front { font-weight: 600; } .zh { color: #666; }
.formula { max-width: 100%; object-fit: contain; object-position: left; }
.nightMode .formula, .night_mode .formula { filter: invert(1); }"""
FIELDS = ("front", "back", "chinese", "link")
KINDS = ("question", "push", "wrong answer")
FRONTS = {
    "question": '<p class="front">{{front}}</p>',
    "push": '<p class="zh">The interviewer pushes.</p><p class="front">{{front}}</p>',
    "wrong answer": '<p class="zh">Why is it wrong?</p><p class="front">{{front}}</p>',
}
BACK = '{{FrontSide}}<hr>{{back}}<p class="zh">{{chinese}}</p><p><a href="{{link}}">Read on</a></p>'


def number(*words: str) -> int:
    """Return a stable number for a name: the same in each build, and different for other names.

    Example:
        >>> number("kdlearn") == number("kdlearn"), number("a") == number("b")
        (True, False)
    """
    return int.from_bytes(hashlib.sha256("/".join(words).encode()).digest()[:4]) + (1 << 30)


def cards(bank: list[dict[str, Any]], pages: str) -> list[dict[str, str]]:
    """Return the cards of all questions; `pages` is where the site lives."""
    found = []
    for q in bank:
        link = f"{pages}book/interview/questions/{q['id']}.html"
        common = {"tags": f"{q['topic']} {q['level']} {q['format']}", "link": link}
        back = q["parts"]["30 seconds"] + q["parts"].get("whiteboard", "")
        whole = {"front": q["heading"], "back": back, "chinese": q["title_zh"]}
        found.append({"name": q["id"], "kind": "question", **whole, **common})
        for count, push in enumerate(q["follow_ups"]):
            texts = {"front": f"{q['heading']}<br>{push['question']}", "back": push["answer"]}
            name = f"{q['id']}-push-{count}"
            found.append({"name": name, "kind": "push", "chinese": "", **texts, **common})
        for count, mistake in enumerate(q["wrong_answers"]):
            texts = {"front": f"{q['heading']}<br>{mistake['answer']}", "back": mistake["why"]}
            name = f"{q['id']}-wrong-{count}"
            found.append({"name": name, "kind": "wrong answer", "chinese": "", **texts, **common})
    return found


def write(bank: list[dict[str, Any]], folder: Path, pages: str) -> None:
    """Write kdlearn.apkg and kdlearn-cards.csv into a folder."""
    models = {
        kind: genanki.Model(
            number("model", kind),
            f"kdlearn {kind}",
            fields=[{"name": name} for name in FIELDS],
            templates=[{"name": kind, "qfmt": FRONTS[kind], "afmt": BACK}],
            css=STYLE,
        )
        for kind in KINDS
    }
    deck = genanki.Deck(number("deck"), "Knowledge distillation and attention transfer")
    made = cards(bank, pages)
    pictures: dict[str, Picture] = {}
    for card in made:
        deck.add_note(
            genanki.Note(
                model=models[card["kind"]],
                fields=[with_pictures(card[name], pictures) for name in FIELDS],
                tags=card["tags"].split(),
                guid=genanki.guid_for("kdlearn", card["name"]),
            )
        )
    with TemporaryDirectory() as made_in:
        files = [Path(made_in) / one.name for one in pictures.values()]
        for path, one in zip(files, pictures.values(), strict=True):
            path.write_text(one.svg, encoding="utf-8")
        package = genanki.Package(deck, media_files=[str(path) for path in sorted(files)])
        package.write_to_file(folder / "kdlearn.apkg")
    with (folder / "kdlearn-cards.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["name", "kind", *FIELDS, "tags"])
        table.writeheader()
        table.writerows(made)
