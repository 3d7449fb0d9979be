"""Every page in a real browser, visited once: narrow and wide, light and dark.

To look at the pages oneself: KDLEARN_SHOTS=folder makes this file store a screenshot of each view.
"""

from __future__ import annotations

import gzip
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import contents
import notebooks
import pdf
import pytest
from pypdf import PdfReader

from tests.book.built_site import (
    DESK,
    NO_SITE,
    PHONE,
    ROOT,
    SITE,
    AtRoot,
    Handler,
    Watch,
    opened,
    pages,
    served,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.skipif(not pages(), reason=NO_SITE)

LIGHT, WITH_FORMULAS = 350_000, 650_000  # bytes on their way, packed
# They hold the whole bank, so that they need no network later.
WITH_THE_BANK = {"book/interview/mock.html", "zh/book/interview/mock.html"}
MOST_REQUESTS, MOST_NODES = 15, 5_000
ENOUGH = 3  # pages on which axe looks at a kind of text that it cannot judge
CHAPTER = "book/foundations/what-is-distillation.html"
# The parts of the article that stick out, for the message.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("main *")]
    .filter(e => e.getBoundingClientRect().right > width + 1)
    .slice(0, 5).map(e => e.outerHTML.slice(0, 120));
}"""


# Two rules take most of axe's time. Text of the same color, size and ground has the same contrast,
# and links of the same look in the same kind of block can be told from its text alike: of each kind
# the smallest element is looked at, until one of its kind is well on any page, or axe could not
# judge it on several. A link that is underlined can be told anyhow. All other rules look at
# everything, if asked.
AXE = """async ([everything, known]) => {
  const kinds = new Map();
  for (const element of document.body.querySelectorAll("*")) {
    const { color, fontSize, fontWeight, textDecorationLine } = getComputedStyle(element);
    const plain = element.matches("a[href]") && !textDecorationLine.includes("underline");
    const text = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!(text || plain) || !element.checkVisibility({ visibilityProperty: true })) continue;
    const kind = [color, fontSize, fontWeight];
    if (plain) {
      const block = element.parentElement.closest("p, li, td, th, dt, dd, h1, h2, h3, h4, div");
      const words = node => node.textContent.replace(/\\s+/g, "");
      const alone = [...(block?.querySelectorAll("a") ?? [])].map(words).join("").length ===
        (block ? words(block).length : 0);
      kind.push(block?.tagName, block?.className, block && getComputedStyle(block).color, alone);
    }
    for (let at = element, ground = false; at; at = at.parentElement) {
      const { backgroundColor, backgroundImage, opacity } = getComputedStyle(at);
      const clear = /^(transparent|.*[, /]0\\))$/.test(backgroundColor);
      if (opacity !== "1") kind.push("opacity", opacity);
      if (backgroundImage !== "none") kind.push(backgroundImage);
      if (ground || clear) continue;
      kind.push(backgroundColor);
      ground = !/[/,] 0?\\./.test(backgroundColor);
    }
    const size = element.getElementsByTagName("*").length;
    const other = kinds.get(kind.join());
    if (!other || size < other.size) kinds.set(kind.join(), { element, size });
  }
  const slow = ["color-contrast", "link-in-text-block"], found = [];
  const fresh = [...kinds].filter(([kind]) => !known.includes(kind));
  if (fresh.length) found.push(await axe.run(
    { include: fresh.map(([, { element }]) => element) },
    { runOnly: slow, elementRef: true, resultTypes: ["violations", "incomplete", "passes"] },
  ));
  const told = type => found.flatMap(each => each[type])
    .flatMap(({ nodes }) => nodes.map(({ element }) => element));
  const right = new Set(told("passes")), open = new Set(told("incomplete"));
  const looked = fresh.map(([kind, { element }]) =>
    [kind, right.has(element) && !open.has(element)]);
  const rules = Object.fromEntries(slow.map(rule => [rule, { enabled: false }]));
  if (everything) found.push(await axe.run(document, { rules, resultTypes: ["violations"] }));
  return [looked, found.flatMap(({ violations }) => violations)
    .map(({ id, impact, nodes }) => `${id} (${impact}): ${nodes[0].html.slice(0, 160)}`)];
}"""


@cache
def packed_size(path: Path) -> int:
    """Return how many bytes a server sends for a file."""
    compressed = path.suffix in (".woff2", ".png", ".jpg")
    return len(path.read_bytes()) if compressed else len(gzip.compress(path.read_bytes()))


@pytest.fixture(scope="module")
def visit(browser: Browser, address: str) -> Iterator[tuple[Page, Watch]]:
    """One page object for all pages, on a phone that nothing leaves.

    Its browser draws in one thread, which takes a quarter less; such a one answers no click.
    """
    options = [*chromium.FLAGS, "--disable-threaded-compositing"]
    quick = browser.browser_type.launch(executable_path=chromium.find(), args=options)
    page = quick.new_context(viewport=PHONE, color_scheme="light").new_page()
    yield page, Watch(page, address)
    quick.close()


@pytest.fixture
def reader(browser: Browser, address: str) -> Iterator[Page]:
    """A reader at a desk, who was never here before."""
    context = browser.new_context(viewport=DESK, color_scheme="light")
    yield context.new_page()
    context.close()


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    """A reader with a phone."""
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def known() -> Counter[str]:
    """The kinds of text and links that axe has looked at."""
    return Counter()


def set_theme(page: Page, theme: str) -> None:
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)


def shoot(page: Page, name: str, view: str) -> None:
    folder = os.environ.get("KDLEARN_SHOTS")
    for theme in ("light", "dark") if folder else ():
        set_theme(page, theme)
        stem = name.removesuffix(".html").replace("/", "-")
        page.screenshot(path=Path(folder) / f"{stem}-{view}-{theme}.png", full_page=True)


def violations(page: Page, known: Counter[str], everything: bool = True) -> list[str]:
    """Return whatever axe finds, of any severity; of its slow rules alone, if so asked.

    `known` counts how often each kind was looked at in vain, and `ENOUGH` for one that is well.
    """
    from axe_playwright_python.sync_playwright import Axe

    if page.evaluate("!window.axe"):
        page.evaluate(Axe().axe_script)
    settled = [kind for kind, looks in known.items() if looks >= ENOUGH]
    looked, found = page.evaluate(AXE, [everything, settled])
    if not found:
        for kind, well in looked:
            known[kind] += ENOUGH if well else 1
    return found


@pytest.mark.parametrize(
    "name", [page for page in opened() if page not in ("index.html", "zh/index.html")]
)
def test_a_page_is_whole_light_readable_and_quiet(
    visit: tuple[Page, Watch], known: Counter[str], name: str
) -> None:
    page, watch = visit
    watch.clear()
    page.set_viewport_size(PHONE)
    page.goto(watch.address + name)
    # A color on its way from one theme to the other has any contrast.
    page.add_style_tag(
        content="* { transition: none !important; scroll-behavior: auto !important }"
    )
    page.evaluate("document.querySelectorAll('details').forEach(x => { x.open = true; })")
    # Themes differ by colors alone, so that one narrow and one wide view see all places and colors.
    for view, size, theme in (("narrow", PHONE, "light"), ("wide", DESK, "dark")):
        page.set_viewport_size(size)
        shoot(page, name, view)
        set_theme(page, theme)
        assert page.evaluate(OVERFLOW) == [], f"wider than the window, {view}, {theme}"
        # What only a wide view shows besides is the furniture, the same on every page.
        assert violations(page, known, everything=view == "narrow" or name == CHAPTER) == []
    page.wait_for_load_state("networkidle")
    assert watch.faults == []
    nodes = page.evaluate("document.querySelectorAll('*').length")
    assert nodes <= MOST_NODES, f"{nodes} nodes"
    weight = sum(packed_size(SITE / file) for file in set(watch.fetched))
    heavy = page.locator("math").count() or name in WITH_THE_BANK
    limit = WITH_FORMULAS if heavy else LIGHT
    assert weight < limit, f"{weight:,} bytes: {watch.fetched}"
    assert len(watch.fetched) <= MOST_REQUESTS, watch.fetched


@pytest.mark.parametrize("width", [390, 768])
@pytest.mark.parametrize("way", ["tap", "click", "key"])
def test_the_list_of_chapters_opens_and_closes(
    browser: Browser, address: str, width: int, way: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(address + CHAPTER)
    chapters = page.locator("#chapters")
    button = page.get_by_role("button", name="Chapters", exact=True)
    assert not chapters.is_visible()
    if way == "key":
        button.focus()
        page.keyboard.press("Enter")
    else:
        getattr(button, way)()
    listed = [link.get_attribute("href") for link in chapters.get_by_role("link").all()]
    assert chapters.is_visible()
    # The questions are listed on a page of their own.
    written = [file for file in contents.pages(ROOT) if file.parent.name != "questions"]
    assert len(listed) == len(written) - 1
    page.keyboard.press("Escape")
    assert not chapters.is_visible()
    on_page = page.get_by_role("button", name="On this page")
    getattr(on_page, "tap" if way == "tap" else "click")()
    page.locator("#contents").get_by_role("link", name="What goes wrong").click()
    assert not page.locator("#contents").is_visible()
    assert page.url.endswith("#what-goes-wrong")
    context.close()


def test_the_list_of_chapters_opens_where_the_reader_is(phone: Page, address: str) -> None:
    phone.goto(f"{address}book/training/ship-it.html")
    phone.get_by_role("button", name="Chapters", exact=True).tap()
    here = phone.locator("#chapters a.current")
    assert here.get_attribute("aria-current") == "page"
    phone.wait_for_function(
        """() => {
          const here = document.querySelector("#chapters a.current").getBoundingClientRect();
          return here.top >= 0 && here.bottom <= innerHeight;
        }"""
    )
    assert phone.evaluate("scrollY") == 0


def test_the_theme_switch_goes_round_and_is_remembered(reader: Page, address: str) -> None:
    reader.goto(f"{address}book/index.html")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = reader.evaluate(paper)
    switch = reader.locator(".bar-theme")
    seen = []
    for _ in range(3):
        switch.click()
        seen.append(reader.evaluate("document.documentElement.dataset.theme"))
    assert seen == ["light", "dark", "auto"]
    switch.click()
    switch.click()
    reader.goto(address + CHAPTER)
    assert reader.evaluate("document.documentElement.dataset.theme") == "dark"
    assert reader.evaluate(paper) != light


# What people type, and the pages one of which must come first.
QUERIES = {
    "temperature": "temperature|dark-knowledge|what-is-distillation",
    "why T squared": "what-is-distillation|distillation.html|dark-knowledge",
    "dark knowledge": "dark-knowledge|what-is-distillation|glossary",
    "what is distillation": "what-is-distillation|glossary",
    "KLDivLoss batchmean": "what-is-distillation|implement/distillation",
    "forward hook": "implement/attention-transfer|glossary|your-own-model",
    "label smoothing": "what-is-distillation|glossary|loss-atlas",
    "quantization": "ship-it|glossary",
    "quantisation": "ship-it|glossary",
    "student initialization": "the-process",
    "initialise the student": "the-process",
    "on-policy distillation": "language/on-policy|glossary",
    "RKD angle": "loss-atlas|conventions|drills-attention",
    "freeze teacher eval": "implement/distillation|the-process|find-the-bug|drills-training",
    "NaN loss": "find-the-bug|implement/distillation|conventions",
    "MiniLM": "tinybert-minilm|loss-atlas|glossary",
    "cache teacher logits": "caching|drills-training",
    "attention transfer": "foundations/attention-transfer|implement/attention-transfer",
    "attention transfer beta": "attention-transfer|conventions|loss-atlas",
    "multi-head attention": "foundations/attention|glossary",
    "export to ONNX": "ship-it",
    "capacity gap": "glossary|loss-atlas|the-process",
    "pointing game": "where-to-look|glossary",
    "hidden states of a transformer": "tinybert|does-it-hold|your-own-model|loss-atlas",
    "知识蒸馏": "glossary",
    "温度": "glossary",
}


@pytest.fixture(scope="module")
def searched(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(f"{address}search.html")
    page.evaluate(
        """async address => {
      const { prepare, find } = await import(address + "_static/site/search.js");
      const index = prepare(await (await fetch(address + "search.json")).json());
      window.ask = question => find(index, question).map(({ p, a }) => `${p}#${a}`);
    }""",
        address,
    )
    yield page
    page.close()


@pytest.mark.parametrize("question", QUERIES)
def test_the_search_finds_the_right_page_first(searched: Page, question: str) -> None:
    found = searched.evaluate("question => window.ask(question)", question)
    assert found, "nothing"
    assert any(part in found[0] for part in QUERIES[question].split("|")), found[:4]


def test_the_search_shows_places_as_one_types_and_none_of_the_furniture(
    reader: Page, address: str
) -> None:
    reader.goto(address + CHAPTER)
    late: list[Route] = []
    reader.route("**/search.js", lambda route: late.append(route))
    with reader.expect_request("**/search.js"):
        reader.keyboard.press("/")
    reader.keyboard.type("dark knowl")
    dialog = reader.get_by_role("dialog", name="Search")
    assert dialog.get_by_role("searchbox").input_value() == "dark knowl"
    late[0].continue_()
    dialog.locator("li a").first.wait_for()
    shown = dialog.locator(".search-results").inner_text()
    for furniture in ("Colab", "Download", "Copy", "Set-up", "\\", "Say it aloud"):
        assert furniture not in shown
    reader.keyboard.press("ArrowDown")
    reader.keyboard.press("Enter")
    reader.wait_for_url(lambda url: CHAPTER not in url or "#" in url)


def test_a_bet_is_kept_and_stands_beside_the_answer(reader: Page, address: str) -> None:
    reader.goto(address + CHAPTER)
    bet = reader.locator(".bet").first
    bet.get_by_role("spinbutton").fill("3")
    bet.get_by_role("button", name="Bet").click()
    reader.reload()
    assert reader.locator(".bet").first.get_by_role("spinbutton").input_value() == "3"
    source = notebooks.read(ROOT / "book/foundations/what-is-distillation.ipynb")
    (value, *_) = re.findall(r"^:value: (.+)$", "\n".join(c.source for c in source.cells), re.M)
    said = f"You said 3, it is {value} points."
    assert reader.locator(".bet-result").first.inner_text() == said


def test_a_term_and_a_source_show_themselves_where_they_are_named(
    reader: Page, address: str
) -> None:
    reader.goto(address + CHAPTER)
    preview = reader.locator(".preview")
    reader.locator("main a[href*='term-dark-knowledge']").first.hover()
    preview.wait_for(state="visible")
    assert "dark knowledge" in preview.inner_text()
    reader.keyboard.press("Escape")
    reader.locator("main a[href*='cite-hinton2015distilling']").first.focus()
    reader.keyboard.press("Shift+Tab")
    reader.keyboard.press("Tab")
    preview.wait_for(state="visible")
    reader.locator(".preview", has_text="Distilling the knowledge").wait_for()


def test_a_chapter_read_to_its_end_has_a_mark(reader: Page, address: str) -> None:
    reader.goto(address + CHAPTER)
    assert reader.locator("#chapters a.read").count() == 0
    reader.locator(".turn").scroll_into_view_if_needed()
    reader.locator("#chapters a.read").wait_for()
    reader.goto(f"{address}book/index.html")
    assert reader.locator(".route li.read").count() == 1


def test_a_phone_sees_the_copy_buttons_and_turns_pages_with_a_thumb(
    phone: Page, address: str
) -> None:
    phone.goto(address + CHAPTER)
    assert phone.locator(".copy").first.evaluate("x => getComputedStyle(x).opacity") == "1"
    for link in phone.locator(".turn a").all():
        box = link.bounding_box()
        assert box and box["width"] > 300 and 44 <= box["height"] < 120


def test_the_clock_of_an_answer_runs_and_stops(reader: Page, address: str) -> None:
    reader.goto(address + CHAPTER)
    button = reader.locator(".thirty-seconds .clock button")
    button.click()
    reader.locator(".thirty-seconds progress").wait_for()
    reader.get_by_role("button", name="left)").click()
    assert "start 30 seconds" in button.inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_paper_is_white_and_has_what_was_folded(reader: Page, address: str, theme: str) -> None:
    reader.goto(address + CHAPTER)
    set_theme(reader, theme)
    reader.emulate_media(media="print")
    color = "(x, name) => getComputedStyle(document.querySelector(x))[name]"
    assert (
        reader.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    for part in ("body", "pre", "h2"):
        shade = reader.evaluate(
            f"getComputedStyle(document.querySelector('main {part}, {part}')).color"
        )
        assert max(int(x) for x in shade.removeprefix("rgb(").rstrip(")").split(",")) < 90, color
    assert not reader.locator(".bar").is_visible()
    assert not reader.locator("#chapters").is_visible()
    reader.evaluate("dispatchEvent(new Event('beforeprint'))")
    answer = reader.locator(".follow-ups details p").first
    assert answer.is_visible()
    reader.evaluate("dispatchEvent(new Event('afterprint'))")
    reader.emulate_media(media="screen")
    assert not answer.is_visible()


@pytest.mark.parametrize(
    "name", [CHAPTER, "book/index.html", "book/reference/conventions.html", "search.html"]
)
def test_without_scripts_everything_can_be_read_and_reached(
    browser: Browser, address: str, name: str
) -> None:
    context = browser.new_context(viewport=PHONE, java_script_enabled=False)
    page = context.new_page()
    page.goto(address + name)
    text = page.locator("main").inner_text()
    assert "\\(" not in text and "\\frac" not in text
    for formula in page.locator("math").all()[:5]:
        assert formula.bounding_box()
    assert not page.locator(".needs-script").first.is_visible()
    page.get_by_role("button", name="Chapters", exact=True).click()
    assert page.locator("#chapters").is_visible()
    context.close()


@pytest.mark.parametrize("name", ["book/index.html", "book/playground.html"])
def test_without_scripts_the_playground_is_a_picture(
    browser: Browser, address: str, name: str
) -> None:
    context = browser.new_context(viewport=PHONE, java_script_enabled=False)
    page = context.new_page()
    page.goto(address + name)
    picture = page.locator("[data-playground] img")
    picture.scroll_into_view_if_needed()
    picture.evaluate("image => image.decode()")
    assert picture.evaluate("image => image.naturalWidth") > 0
    assert picture.bounding_box()["width"] <= PHONE["width"]
    context.close()


@pytest.mark.parametrize("handler", [Handler, AtRoot])
def test_a_wrong_address_shows_a_page_with_its_style_on_any_host(
    browser: Browser, handler: type[Handler]
) -> None:
    with served(handler) as root:
        page = browser.new_page()
        watch = Watch(page, root)
        page.goto(f"{root}no/such/page.html", wait_until="networkidle")
        assert [
            fault for fault in watch.faults if "no/such/page" not in fault and "404" not in fault
        ] == []
        assert len([fault for fault in watch.faults if fault.startswith("404")]) == 1
        assert page.get_by_role("heading", name="Page not found").is_visible()
        page.get_by_role("link", name="first page").click()
        page.wait_for_url(f"{root}book/index.html")
        page.close()


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ("<script>throw new Error('broken')</script>", "script error: broken"),
        ("<img src='missing.png' alt='x'>", "404:"),
        ("<script src='http://198.51.100.1/x.js'></script>", "asked for http://198.51.100.1/x.js"),
    ],
)
def test_the_watch_notes_a_fault(reader: Page, address: str, html: str, said: str) -> None:
    watch = Watch(reader, address)
    reader.route("http://198.51.100.1/**", lambda route: route.abort())
    reader.goto(f"{address}search.html", wait_until="networkidle")
    reader.set_content(html, wait_until="networkidle")
    assert any(fault.startswith(said) for fault in watch.faults), watch.faults


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ("<p style='color: #bbb'>pale</p>", "color-contrast"),
        ("<p><span style='opacity: 0.3'>pale</span></p>", "color-contrast"),
        ("<div style='background: #555'><p>on dark ground</p></div>", "color-contrast"),
        (
            "<p>read <a href='#' style='text-decoration: none'>this</a> now</p>",
            "link-in-text-block",
        ),
        ("<img src='data:,'>", "image-alt"),
    ],
)
def test_axe_notes_a_fault_among_what_is_well(reader: Page, html: str, said: str) -> None:
    well = "<p>dark enough</p>" * 3
    page = f"<html lang='en'><title>Try</title><main><h1>Try</h1>{well}{{}}{well}</main></html>"
    known: Counter[str] = Counter()
    reader.set_content(page.format(""))
    assert violations(reader, known) == [] and list(known.values()) == [ENOUGH, ENOUGH]
    reader.set_content(page.format(html))
    assert [fault.partition(" ")[0] for fault in violations(reader, known)] == [said]


def test_the_measure_of_width_notes_a_fault(reader: Page) -> None:
    reader.set_viewport_size(PHONE)
    reader.set_content("<main><div style='width: 600px'>wide</div></main>")
    assert reader.evaluate(OVERFLOW) == ['<div style="width: 600px">wide</div>']


def test_the_cheat_sheet_prints_on_two_pages(reader: Page, address: str) -> None:
    reader.goto(f"{address}book/interview/cheat-sheet.html")
    assert len(PdfReader(io.BytesIO(reader.pdf(format="A4", margin=pdf.MARGIN))).pages) == 2
