"""The catalogs of the translations in book/locale: one .po file a page, and site.po.

python book/tools/catalogs.py update [PAGE ...]   take in what the English pages say now; keep what
                                                  is translated, mark what changed as fuzzy
python book/tools/catalogs.py check [PAGE ...]    say what is missing, stale, or says something else

A page, such as foundations/attention, is in a language when it has a catalog there; every question
must have one. `update` with its name makes one. site.po has what all pages share: known headings,
the words of the theme, of the components and of the scripts.
"""

from __future__ import annotations

import io
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dress
import editions
import messages
import notebooks
import questions
import yaml
from babel.messages import Catalog
from babel.messages.pofile import denormalize, read_po, write_po
from markdown_it import MarkdownIt

from kdlearn.interview import KINDS, LEVELS, OFTEN, questions_folder, read

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
LOCALE = BOOK / "locale"
LANGUAGE = "zh_CN"
SITE = "site"
QUESTIONS = questions.PAGES.removeprefix("book/")
HEADER = """msgid ""
msgstr ""
"Language: zh_CN\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""
# Where the site's own words stand, and how: _("Search").
PRESETS = re.compile(r"^    (?:title|text): \"([^\"]+)\"", re.MULTILINE)
SOURCES = ("theme/*.html", "static/*/*.js", "tools/*.py")
SAID = re.compile(r"""(?<![\w.])_\(\s*(?:"([^"\n]+)"|'([^'\n]+)')""")

ROLE = re.compile(r"\{([a-z:]+)\}`([^`]+)`")
# What a translation has to have in common with its message, in the order in which it is taken out.
KEPT = {
    "role": ROLE,
    "code": re.compile(r"`([^`]+)`"),
    "formula": re.compile(r"\$([^$]+)\$"),
    "link": re.compile(r"\]\(([^)\s]+)\)"),
    "tag": re.compile(r"</?[a-z]+[^>]*>"),
}
PREVIOUS = re.compile(r'msgid (".*")$')
VALUE = re.compile(r"\{[a-z]+\}")
# "8 and 4 billion": the word belongs to both.
SHARED_SCALE = re.compile(r"(\d+) (and|or|to) (\d+) (thousand|million|billion|trillion)\b")
NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)\s*(thousand|million|billion|trillion|万|亿|千|百万)?")
SCALES = {
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
    "千": 1e3,
    "万": 1e4,
    "百万": 1e6,
    "亿": 1e8,
}
NUMERALS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)
HAN = "\u4e00-\u9fff"
HALF_WIDTH = re.compile(f'[{HAN}”）][,;:?!.](?![A-Za-z0-9/])|[{HAN}][("]|[)"][{HAN}]')
MARKDOWN = MarkdownIt("commonmark")


def pages(language: str = LANGUAGE) -> list[str]:
    """Return the pages that have a catalog, or must have one, as every question; by name."""
    folder = LOCALE / language
    names = {x.relative_to(folder).with_suffix("").as_posix() for x in folder.rglob("*.po")}
    return sorted(
        names - {SITE} | {f"{QUESTIONS}{x.stem}" for x in questions_folder().glob("*.md")}
    )


def translated(page: str) -> bool:
    """Say whether a page is in Chinese too."""
    return page in pages()


def is_question(page: str) -> bool:
    """Say whether a page is an interview question."""
    return page.startswith(QUESTIONS)


def source(page: str) -> Path:
    """Return the file of a page.

    Raises:
        ValueError: the book has no such page.
    """
    for ending in (".ipynb", ".md"):
        if (path := BOOK / f"{page}{ending}").exists():
            return path
    raise ValueError(f"the book has no page {page!r}: expected one such as foundations/attention.")


def catalog_file(page: str, language: str = LANGUAGE) -> Path:
    """Return where the catalog of a page is."""
    return LOCALE / language / f"{page}.po"


def spoken(page: str) -> list[str]:
    """Return the messages of a page, in their order, without those that all pages share."""
    found: dict[str, None] = {}

    def note(text: str) -> str:
        found[text] = None
        return text

    path = source(page)
    if path.suffix == ".ipynb":
        messages.translate_notebook(notebooks.read(path), note)
    elif is_question(page):
        questions.in_chinese(read(path.read_text(encoding="utf-8"), path.stem), note)
    else:
        messages.translated(path.read_text(encoding="utf-8"), note)
    return [text for text in found if text not in shared()]


@cache
def shared() -> dict[str, None]:
    """Return what the site itself says: known headings, theme, components and scripts."""
    found = [*dress.PARTS, *dress.TITLES.values(), *questions.HEADINGS.values()]
    found += editions.OPENINGS.values()
    found += [*LEVELS, *questions.TOPIC_NAMES.values(), *questions.FORMAT_NAMES.values()]
    found += [*questions.FURTHER, *OFTEN, *KINDS]
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    found += [config["title"], *(part["caption"] for part in contents["parts"])]
    for pattern in SOURCES:
        for path in sorted(BOOK.glob(pattern)):
            said = SAID.findall(path.read_text(encoding="utf-8"))
            found += [double or single for double, single in said]
    presets = (BOOK / "static/playground/presets.js").read_text(encoding="utf-8")
    return dict.fromkeys([*found, *PRESETS.findall(presets)])


def wanted(page: str) -> list[str]:
    """Return the messages that a catalog has to have."""
    return list(shared()) if page == SITE else spoken(page)


def load(page: str, language: str = LANGUAGE) -> Catalog:
    """Read a catalog; a page without one has an empty one."""
    path = catalog_file(page, language)
    if not path.exists():
        return Catalog(locale=language)
    with path.open("rb") as file:
        catalog = read_po(file, locale=language)
    for message in catalog:
        # Babel writes the old message of a changed one, and reads it as a comment.
        old = PREVIOUS.match(" ".join(line.removeprefix("| ") for line in message.user_comments))
        message.previous_id = [denormalize(old[1])] if old and message.fuzzy else []
        message.user_comments = []
    return catalog


def texts(page: str, language: str = LANGUAGE) -> dict[str, str]:
    """Return the translations of a catalog that are current."""
    return {
        str(message.id): str(message.string)
        for message in load(page, language)
        if message.id and message.string and not message.fuzzy
    }


def updated(catalog: Catalog, current: list[str]) -> str:
    """Return a catalog, as a file, with exactly these messages.

    What was translated stays. Where a message is a changed one, the old translation stands under
    it, marked as fuzzy, with the old message beside it. What nobody says any more is left out.
    """
    template = Catalog()
    for text in current:
        template.add(text)
    before = {message.id: message.previous_id for message in catalog}
    catalog.update(template, no_fuzzy_matching=False)
    for message in catalog:
        message.previous_id = message.previous_id or before.get(message.id, [])
        # Babel takes a role of Markdown for a value to fill in.
        message.flags -= {"python-brace-format", "python-format"}
    file = io.BytesIO()
    write_po(file, catalog, width=0, omit_header=True, ignore_obsolete=True, include_previous=True)
    return HEADER + file.getvalue().decode().strip() + "\n"


def update(names: list[str]) -> None:
    """Bring catalogs up to date with the English pages."""
    for page in names:
        path = catalog_file(page)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(updated(load(page), wanted(page)), encoding="utf-8")


def parts(text: str) -> dict[str, Counter[str]]:
    """Return what a text has that no translation may change."""
    found = {}
    for name, pattern in KEPT.items():
        if name == "role":
            found[name] = Counter(f"{kind} {_target(said)}" for kind, said in ROLE.findall(text))
        else:
            found[name] = Counter(" ".join(x.split()) for x in pattern.findall(text))
        text = pattern.sub("] " if name == "link" else " ", text)
    found["value"] = Counter(VALUE.findall(text))
    found["number"] = Counter(numbers(VALUE.sub(" ", text)))
    return found


def _target(said: str) -> str:
    """Return what a role points to: `soft targets <soft target>` to "soft target"."""
    match = re.fullmatch(r".*<([^<>]+)>", said, re.DOTALL)
    return " ".join((match[1] if match else said).lower().split())


def numbers(text: str) -> list[str]:
    """Return the numbers of a text, 12,000 like 1.2 万.

    Example:
        >>> numbers("12,000 images, 1 million steps") == numbers("1.2 万张图像，100 万步")
        True
    """
    text = SHARED_SCALE.sub(r"\1 \4 \2 \3 \4", text)
    return [
        f"{round(float(number.replace(',', '')) * SCALES.get(scale, 1), 6):g}"
        if scale
        else number.replace(",", "").rstrip(".")
        for number, scale in NUMBER.findall(text)
    ]


def numerals(text: str) -> set[str]:
    """Return the numbers that a text says in words."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return {str(n) for n, word in enumerate(NUMERALS) if words & {word, f"{word}s", f"{word}es"}}


def differences(english: str, chinese: str) -> Iterator[str]:
    """Say what a translation has that its message has not, and the other way round."""
    english = re.sub(r"\bper ?cent\b", "%", english)
    there, here = parts(english), parts(chinese)
    for name in there:
        lost, added = there[name] - here[name], here[name] - there[name]
        if name == "number":
            # A number in words may be written in digits.
            added = Counter({x: n for x, n in added.items() if x not in numerals(english)})
        if lost:
            yield f"lost the {name} {', '.join(lost.elements())}"
        if added:
            yield f"added the {name} {', '.join(added.elements())}"
    for sign, spelled in (("±", "正负"), ("%", "百分之")):
        if (sign in english) != (sign in chinese) and spelled not in chinese:
            yield f"has not the same {sign}"
    (bold, stressed), (shown, _) = _strong(english), _strong(chinese)
    if not bold <= shown <= bold + stressed or "*" in _plain(chinese):
        # Chinese type has no italics: what is stressed may be bold.
        yield (
            "bold is not as in the message, or not closed: ** that follows punctuation needs a "
            "space after it"
        )
    bare = re.sub(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)|<[^>]*>", "x", chinese)
    if match := HALF_WIDTH.search(bare):
        yield f"has half-width punctuation in Chinese: {match[0]}"


def _strong(text: str) -> tuple[int, int]:
    html = MARKDOWN.render(text)
    return html.count("<strong>"), html.count("<em>")


def _plain(text: str) -> str:
    """Return what is read of a text; a mark stands for code and formulas."""
    text = re.sub(r"\$[^$]*\$|`[^`]*`", "$", text)
    return re.sub(r"<[^>]+>", "", MARKDOWN.render(text))


def faults(page: str) -> Iterator[str]:
    """Say what is missing or wrong in a catalog."""
    catalog, said = load(page), wanted(page)
    for text in said:
        message = catalog.get(text)
        start = text if len(text) < 60 else text[:60] + "…"
        if message is None:
            yield f"{page}: not in the catalog, run make catalogs: {start}"
        elif message.fuzzy:
            yield f"{page}: changed since it was translated: {start}"
        elif not message.string:
            yield f"{page}: not translated: {start}"
        else:
            yield from (f"{page}: {x}: {start}" for x in differences(text, str(message.string)))
    stale = {str(message.id) for message in catalog if message.id} - set(said)
    yield from (f"{page}: nobody says this, run make catalogs: {text[:60]}" for text in stale)


def main(words: list[str]) -> int:
    """Update or check some catalogs, or all."""
    if words[:1] not in (["update"], ["check"]):
        sys.exit(__doc__)
    names = words[1:] or [SITE, *pages()]
    if words[0] == "update":
        update(names)
        return 0
    wrong = [fault for page in names for fault in faults(page)]
    print("\n".join(wrong) or f"{len(names)} catalogs, all well")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
