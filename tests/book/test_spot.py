"""Spot the bug: what the drills' mistakes become, and the page that asks, on a phone, offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import spot

from kdlearn.drills import find
from tests.book.built_site import NO_SITE, PHONE, Watch, pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STORED = spot.read()
MISTAKES = {
    (drill["id"], mistake["id"]): mistake
    for drill in STORED.values()
    for mistake in drill["mistakes"]
}


@pytest.mark.parametrize("name", spot.names())
def test_the_programs_do_what_the_drill_calls_that_mistake(name: str) -> None:
    # Each runs beside the family's member; what is stored is what they show.
    stored = STORED[name]
    assert stored["made_of"] == spot.digest(find(name)), f"spot.py write {name}"
    shown = spot.shown_by(find(name), spot.programs(stored))
    assert spot.differences({"made_of": stored["made_of"]} | shown, stored, name) == []


def test_a_program_is_written_out_of_its_drill() -> None:
    drill = find("kd-loss")
    assert spot.differences(spot.puzzles(drill), STORED["kd-loss"], "kd-loss") == []
    right = spot.programs(STORED["kd-loss"])[""]
    with pytest.raises(ValueError, match="gives other numbers than the family"):
        spot.shown_by(drill, {"": right.replace("temperature**2", "temperature")})


def test_a_program_says_nothing_of_switches_and_fits_a_phone() -> None:
    for (drill, mistake), puzzle in MISTAKES.items():
        lines = puzzle["code"].splitlines()
        assert len(lines) <= spot.LONGEST, mistake
        assert "wrong" not in puzzle["code"] and f'"{mistake}"' not in puzzle["code"].replace(
            'mode="nearest"', ""
        ), puzzle["code"]
        assert lines[0].startswith("def ") and f"def {find(drill).function}(" in puzzle["code"]


def test_the_changes_make_the_right_program_of_each_wrong_one() -> None:
    for name, drill in STORED.items():
        mended = {spot.programs({"mistakes": [mistake]})[""] for mistake in drill["mistakes"]}
        assert all(mistake["mended"] for mistake in drill["mistakes"]) and len(mended) == 1, name


def test_every_mistake_is_seen_somewhere_and_has_three_others_to_be_told_from() -> None:
    for name, drill in STORED.items():
        ids = {mistake["id"] for mistake in drill["mistakes"]}
        for mistake in drill["mistakes"]:
            assert {"shown", "elsewhere", "besides"} & set(mistake), (name, mistake["id"])
            assert len(ids - {mistake["id"], *mistake["alike"]}) >= 3, (name, mistake["id"])
        says = [mistake["says"] for mistake in drill["mistakes"]]
        assert len(set(says)) == len(says), name


def test_nearly_all_mistakes_of_the_drills_are_puzzles() -> None:
    known = sum(len(find(name).faults) for name in spot.names())
    assert 0.95 * known <= len(MISTAKES) <= known


def test_another_number_is_told_and_rounding_is_not() -> None:
    assert spot.differences("value is 0.7813", "value is 0.7814", "x") == []
    assert spot.differences("value is 0.7813", "value is 0.9", "x") != []
    (said,) = spot.differences({"a": ["1", "b"]}, {"a": ["1", "c"]}, "x")
    assert said == "x.a[1]: 'b', stored 'c'"


@pytest.fixture
def sat(browser: Browser, address: str) -> Iterator[tuple[Page, Watch]]:
    """The page on a phone in the dark, loaded and then cut off from the network."""
    if "book/interview/spot-the-bug.html" not in pages():
        pytest.skip(NO_SITE)
    context = browser.new_context(
        viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    page = context.new_page()
    watch = Watch(page, address)
    page.goto(f"{address}book/interview/spot-the-bug.html", wait_until="networkidle")
    context.set_offline(True)
    yield page, watch
    context.close()


def asked(page: Page) -> dict[str, Any]:
    """Return the puzzle that the page shows, found by its program."""
    title = page.locator("[data-spot] h2").inner_text()
    code = "\n".join(page.locator(".spot-code .spot-line").all_inner_texts())
    shown = code.split()
    return next(
        mistake | {"drill": drill}
        for (drill, _), mistake in MISTAKES.items()
        if STORED[drill]["title"] == title and mistake["code"].split() == shown
    )


def test_a_program_is_read_and_answered_on_a_phone_offline(sat: tuple[Page, Watch]) -> None:
    page, watch = sat
    assert f"{len(MISTAKES)} programs, 0 of them found" in page.locator(".mock-count").inner_text()
    page.get_by_label("From").select_option("kd-loss")
    page.get_by_role("button", name="Begin").tap()
    puzzle = asked(page)
    assert page.locator(".spot-mark").count() == 0
    choices = page.locator(".spot-choices button")
    texts = [text[2:] for text in choices.all_inner_texts()]
    says = {mistake["says"] for (drill, _), mistake in MISTAKES.items() if drill == "kd-loss"}
    assert len(set(texts)) == 4 and set(texts) <= says and puzzle["says"] in texts
    wrong = next(n for n, text in enumerate(texts) if text != puzzle["says"])
    choices.nth(wrong).tap()
    told = page.locator(".spot-told").inner_text()
    assert "Not that." in told and puzzle["text"] in told
    marked = sum(end - begin for begin, end, _ in puzzle["mended"])
    assert page.locator(".spot-mark").count() == marked
    for text in puzzle.get("shown", {}).values():
        assert text in told
    page.get_by_role("button", name="Next program").tap()
    assert asked(page)["id"] != puzzle["id"]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert watch.faults == []


def test_what_was_found_stays_in_the_browser_and_keys_do_it_all(sat: tuple[Page, Watch]) -> None:
    page, watch = sat
    page.get_by_label("From").select_option("at-loss")
    page.get_by_role("button", name="Begin").tap()
    puzzle = asked(page)
    texts = [text[2:] for text in page.locator(".spot-choices button").all_inner_texts()]
    page.keyboard.press(str(texts.index(puzzle["says"]) + 1))
    assert "Found." in page.locator(".spot-told").inner_text()
    kept = json.loads(page.evaluate("localStorage.getItem('kdlearn:spot')"))
    assert kept["found"] == {f"at-loss/{puzzle['id']}": True} and kept["from"] == "at-loss"
    page.keyboard.press("Enter")
    assert asked(page)["id"] != puzzle["id"]
    page.keyboard.press("Escape")
    assert "1 of them found" in page.locator(".mock-count").inner_text()
    page.get_by_role("button", name="Forget what was found").tap()
    assert "0 of them found" in page.locator(".mock-count").inner_text()
    assert watch.faults == []


def test_the_same_number_gives_the_same_order(sat: tuple[Page, Watch]) -> None:
    page, _ = sat
    first = []
    for seed in ("3", "3", "4"):
        page.get_by_label("Order").fill(seed)
        page.get_by_role("button", name="Begin").tap()
        first.append(asked(page)["code"])
        page.keyboard.press("Escape")
    assert first[0] == first[1] != first[2]


def test_a_wrong_choice_is_told_what_it_would_show_instead(sat: tuple[Page, Watch]) -> None:
    page, _ = sat
    page.get_by_label("From").select_option("kd-loss")
    page.get_by_role("button", name="Begin").tap()
    compared = 0
    for _ in range(8):
        puzzle = asked(page)
        texts = [text[2:] for text in page.locator(".spot-choices button").all_inner_texts()]
        place = next(n for n, text in enumerate(texts) if text != puzzle["says"])
        chosen = next(m for m in STORED["kd-loss"]["mistakes"] if m["says"] == texts[place])
        page.keyboard.press(str(place + 1))
        told = page.locator(".spot-told").inner_text()
        mine, its = (one.get("shown", {}).get("value") for one in (puzzle, chosen))
        if mine and its and mine != its:
            assert f"That would give {its} for value" in told
            assert f"this program gives {mine}" in told
            compared += 1
        page.keyboard.press("n")
    assert compared
