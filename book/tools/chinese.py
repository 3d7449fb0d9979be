"""The Chinese edition: a second, small book, made from the English pages and their catalogs.

python book/tools/chinese.py build [SITE]      build it, into SITE/zh, without a name _build/html/zh
python book/tools/chinese.py editions FOLDER   write its notebooks, as Jupyter and Colab show them

`write` makes the folder that Jupyter Book builds: the translated pages, under their English names.
A page has the same parts and anchors in both languages, so a switch keeps the
place. What is not translated stays in English: a link to it says so. Static files, notebooks and
the data of the figures are those of the English site, which stands one folder above.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

import catalogs
import editions
import interface
import messages
import notebooks
import questions
import yaml

from kdlearn.interview import questions_folder, read, read_bank

ROOT = catalogs.ROOT
BOOK = catalogs.BOOK
LANGUAGE = catalogs.LANGUAGE
TREE = ROOT / "_build/zh"
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")
# Files of the finished English site, beside its pages.
BESIDE = re.compile(r'((?:href|src)=")((?:\.\./)+(?:_static|notebooks)/|[\w-]+\.(?!html")\w+")')
IN_ENGLISH = '<a href="{address}" hreflang="en">{text}<span class="in-english">英文</span></a>'


def links(text: str, page: str, translated: set[str]) -> str:
    """Return Markdown whose links lead to Chinese pages, or to English ones and say so.

    Args:
        text: Markdown of a page.
        page: the page, such as foundations/attention.
        translated: the pages that are there in Chinese.

    Example:
        >>> links("[a](b.ipynb#c)", "x/a", {"x/a"})
        '<a href="../../../book/x/b.html#c" hreflang="en">a<span class="in-english">英文</span></a>'
    """
    folder = PurePosixPath(page).parent

    def lead(match: re.Match[str]) -> str:
        path, _, anchor = match[2].partition("#")
        name = normpath(folder / path).rpartition(".")[0]
        if name in translated:
            return match[0]
        # /zh/book/x/a.html to /book/x/b.html.
        up = relpath(f"book/{name}.html", f"zh/book/{folder.as_posix()}")
        address = f"{up}#{anchor}" if anchor else up
        return IN_ENGLISH.format(address=address, text=match[1] or title(name))

    here = relpath(f"book/{folder.as_posix()}", f"zh/book/{folder.as_posix()}")

    def stay(match: re.Match[str]) -> str:
        return match[1] + ("../" if match[2].startswith("../") else f"{here}/") + match[2]

    return BESIDE.sub(stay, LINK.sub(lead, text))


def title(page: str) -> str:
    """Return the title of an English page."""
    path = catalogs.source(page)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = notebooks.read(path).cells[0].source
    found = re.search(r"^# (.*)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


def contents(translated: set[str]) -> dict[str, Any]:
    """Return the list of contents with the translated pages."""
    whole = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = {"format": whole["format"], "root": whole["root"], "parts": list[Any]()}
    for part in whole["parts"]:
        kept = [x for x in part["chapters"] if x["file"].removeprefix("book/") in translated]
        if kept:
            english = part["caption"]
            found["parts"].append({**part, "caption": interface._(english), "chapters": kept})
    return found


def configuration() -> dict[str, Any]:
    """Return the configuration of the English book with what is different here."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    english = config["title"]
    config["title"] = interface._(english)
    config["sphinx"]["local_extensions"] = {"sphinx_book": str(BOOK / "tools")}
    config["sphinx"]["config"] |= {"language": LANGUAGE, "html_static_path": []}
    return dict(config)


def write(tree: Path = TREE) -> None:
    """Write the Chinese book as a folder that Jupyter Book can build."""
    shutil.rmtree(tree, ignore_errors=True)
    names = set(catalogs.pages())
    general = catalogs.texts(catalogs.SITE)
    interface.speak(LANGUAGE, general)
    bank = read_bank(questions_folder())
    for page in sorted(names):
        source = catalogs.source(page)
        known = general | catalogs.texts(page)
        target = tree / "book" / source.relative_to(BOOK)
        target.parent.mkdir(parents=True, exist_ok=True)

        def translate(text: str, known: dict[str, str] = known) -> str:
            return known.get(text, text)

        text = source.read_text(encoding="utf-8")
        if source.suffix == ".ipynb":
            notebook = notebooks.read(source)
            messages.translate_notebook(notebook, translate)
            for cell in notebook.cells:
                if cell.cell_type == "markdown":
                    cell.source = links(cell.source, page, names)
            text = notebooks.serialize(notebook)
        elif catalogs.is_question(page):
            question = questions.in_chinese(read(text, source.stem), translate)
            text = links(questions.page(question), page, names)
        else:
            text = messages.translated(text, translate)
            text = links(text.replace(questions.INDEX, questions.chinese_index(bank)), page, names)
        target.write_text(text, encoding="utf-8")
    shutil.copy(BOOK / "references.bib", tree / "book")
    for name, data in (("_config.yml", configuration()), ("_toc.yml", contents(names))):
        text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
        (tree / name).write_text(text, encoding="utf-8")


def write_editions(folder: Path, tree: Path = TREE) -> None:
    """Write the notebooks of a Chinese book that is there."""
    for path in sorted(tree.glob("book/**/*.ipynb")):
        target = folder / path.relative_to(tree / "book")
        target.parent.mkdir(parents=True, exist_ok=True)
        text = notebooks.serialize(editions.edition(path, tree))
        target.write_text(text, encoding="utf-8")


def build(site: Path) -> int:
    """Build the Chinese pages and put them into the English site; return an exit status."""
    write()
    write_editions(site / "notebooks/zh")
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", "--quiet", "-W", "--keep-going", "--all", str(TREE)]
    status = subprocess.run(command).returncode
    built = TREE / "_build/html"
    if built.exists():
        shutil.rmtree(site / "zh", ignore_errors=True)
        site.mkdir(parents=True, exist_ok=True)
        shutil.move(built, site / "zh")
    return status


def main(words: list[str]) -> int:
    """Build the site or write the notebooks."""
    if words[:1] == ["build"] and len(words) <= 2:
        return build(Path(words[1]) if words[1:] else ROOT / "_build/html")
    if words[:1] == ["editions"] and len(words) == 2:
        write()
        write_editions(Path(words[1]))
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
