"""The deck is opened by Anki's own importer, which keeps one card of each name."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import cards
import pytest
from anki.collection import Collection, ImportAnkiPackageOptions, ImportAnkiPackageRequest

from tests.book.built_site import NO_SITE, SITE, pages

pytestmark = pytest.mark.skipif(not pages(), reason=NO_SITE)
FOLDER = SITE / "book" / "interview"


def bank() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((FOLDER / "bank.json").read_text(encoding="utf-8"))
    return found


def imported(collection: Collection, deck: Path) -> int:
    """Import a deck and return how many notes were new."""
    request = ImportAnkiPackageRequest(
        package_path=str(deck), options=ImportAnkiPackageOptions(with_scheduling=False)
    )
    return len(collection.import_anki_package(request).log.new)


def test_anki_imports_every_card_once_and_a_newer_deck_adds_none(tmp_path: Path) -> None:
    collection = Collection(str(tmp_path / "reader.anki2"))
    made = cards.cards(bank(), "https://example.org/")
    assert imported(collection, FOLDER / "kdlearn.apkg") == len(made)
    changed = [entry | {"title_zh": "新的标题"} for entry in bank()]
    cards.write(changed, tmp_path, "https://example.org/")
    assert imported(collection, tmp_path / "kdlearn.apkg") == 0
    assert collection.note_count() == len(made)
    tags = Counter(
        tag for note in collection.find_notes("") for tag in collection.get_note(note).tags
    )
    assert set(tags) >= {str(entry["topic"]) for entry in bank()}
    collection.close()


def test_a_card_shows_its_formulas_as_pictures_that_the_deck_brings_along(tmp_path: Path) -> None:
    collection = Collection(str(tmp_path / "reader.anki2"))
    imported(collection, FOLDER / "kdlearn.apkg")
    notes = [collection.get_note(note) for note in collection.find_notes("")]
    fields = " ".join(field for note in notes for field in note.fields)
    shown = set(re.findall(r'<img class="formula" src="([^"]+)" alt="[^"]+"', fields))
    media = {path.name: path for path in Path(collection.media.dir()).iterdir()}
    assert shown == set(media) and len(shown) > 100
    assert "<math" not in fields
    for path in media.values():
        assert ElementTree.fromstring(path.read_text(encoding="utf-8")).tag.endswith("svg")
    collection.close()


def test_the_table_has_the_cards_of_the_deck() -> None:
    with (FOLDER / "kdlearn-cards.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["kind"] for row in rows).keys() == set(cards.KINDS)
    assert len({row["name"] for row in rows}) == len(rows)
    assert all(row["front"].strip() and row["back"].strip() for row in rows)
    assert any("<math" in row["back"] for row in rows)
