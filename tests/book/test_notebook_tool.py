from pathlib import Path

import nbformat
import notebooks
import pytest
from jupyter_client.provisioning import local_provisioner

from tests.book.forked_kernels import ForkedKernel

v4 = nbformat.v4


RUN: list[bytes] = []  # once for all tests


@pytest.fixture
def chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(local_provisioner, "launch_kernel", ForkedKernel)
    monkeypatch.setenv("PYTHONPATH", str(notebooks.ROOT))
    path = tmp_path / "chapter.ipynb"
    if not RUN:
        cells = [
            v4.new_markdown_cell("# A chapter"),
            v4.new_code_cell(notebooks.install_cell()),
            v4.new_code_cell("print('a\\rb')\nassert 1 + 1 == 2"),
        ]
        path.write_text(notebooks.serialize(notebooks.normalize(v4.new_notebook(cells=cells))))
        assert notebooks.run(path) == ""
        RUN.append(path.read_bytes())
    path.write_bytes(RUN[0])
    return path


def changed(path: Path, change) -> list[str]:
    notebook = notebooks.read(path)
    change(notebook)
    path.write_text(notebooks.serialize(notebooks.normalize(notebook)))
    return notebooks.check(path)


def test_a_run_notebook_is_well_and_a_second_run_changes_no_byte(chapter: Path) -> None:
    assert notebooks.check(chapter) == []
    stored = chapter.read_bytes()
    assert notebooks.run(chapter) == ""
    assert chapter.read_bytes() == stored


def test_a_cell_that_fails_is_reported_and_the_file_left_as_it_was(chapter: Path) -> None:
    notebook = notebooks.read(chapter)
    notebook.cells[2].source = "raise ValueError('no such thing')"
    chapter.write_text(notebooks.serialize(notebook))
    stored = chapter.read_bytes()
    assert "no such thing" in notebooks.run(chapter)
    assert chapter.read_bytes() == stored


def edit_code(notebook) -> None:
    notebook.cells[2].source += "\nassert True"


def drop_asserts(notebook) -> None:
    notebook.cells[2].source = "print(1)"


def drop_install(notebook) -> None:
    del notebook.cells[1]


def add_figure(notebook) -> None:
    notebook.cells[2].outputs = [v4.new_output("display_data", data={"image/png": "aGk="})]


def forget_a_run(notebook) -> None:
    notebook.cells[2].execution_count = None


def store_stderr(notebook) -> None:
    notebook.cells[2].outputs = [v4.new_output("stream", name="stderr", text="careful")]


def widen(notebook) -> None:
    notebook.cells[2].source += "\nnumbers = [" + "1, " * 20 + "]"


def plant_a_number(notebook) -> None:
    notebook.cells.append(v4.new_markdown_cell("It gains 9.9 ± 0.1 points."))


def plant_a_number_in_a_text(notebook) -> None:
    notebook.cells[2].metadata["mystnb"] = {"image": {"alt": "A bar at 12.5 per cent."}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edit_code, "code was changed after the run"),
        (drop_asserts, "no cell asserts anything"),
        (drop_install, "not the install cell"),
        (add_figure, "a figure without text"),
        (forget_a_run, "not every code cell was run once"),
        (store_stderr, "wrote to stderr"),
        (widen, "has lines of more than 56 columns, such as 'numbers = [1"),
        (plant_a_number, "9.9 ± 0.1 stands in no output"),
        (plant_a_number_in_a_text, "12.5 stands in no output"),
    ],
)
def test_each_fault_is_found(chapter: Path, change, says: str) -> None:
    assert any(says in fault for fault in changed(chapter, change))


@pytest.mark.parametrize("tag", ["claims", "hide-input"])
def test_what_is_folded_may_be_wide(chapter: Path, tag: str) -> None:
    def widen_and_fold(notebook) -> None:
        widen(notebook)
        notebook.cells[2].metadata["tags"] = [tag]

    assert not any("columns" in fault for fault in changed(chapter, widen_and_fold))


def test_a_chapter_that_needs_more_packages_installs_them_first(chapter: Path) -> None:
    notebook = notebooks.read(chapter)
    notebook.metadata["kdlearn"]["packages"] = ["math", "json"]
    chapter.write_text(notebooks.serialize(notebook))
    assert any("not the install cell" in fault for fault in notebooks.check(chapter))
    assert notebooks.run(chapter) == ""
    assert notebooks.check(chapter) == []
    source = notebooks.read(chapter).cells[1].source
    assert source.startswith(notebooks.install_cell()) and "['math', 'json']" in source


def test_what_a_chapter_says_of_itself_outlives_a_run(chapter: Path) -> None:
    notebook = notebooks.read(chapter)
    notebook.metadata["kdlearn"]["minutes"] = 25
    chapter.write_text(notebooks.serialize(notebook))
    assert notebooks.run(chapter) == ""
    assert notebooks.read(chapter).metadata["kdlearn"]["minutes"] == 25


def test_a_figure_is_stored_as_svg_that_a_second_run_does_not_change(
    chapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # run_all has processes of its own, and copies are made for ours alone
    notebook = notebooks.read(chapter)
    lines = ["from kdlearn.show.style import drawing"]
    lines += ["with drawing(height=2) as (figure, _):", "    pass", "figure"]
    cell = v4.new_code_cell("\n".join(lines))
    cell.metadata["mystnb"] = {"image": {"alt": "An empty panel."}}
    notebook.cells.append(cell)
    chapter.write_text(notebooks.serialize(notebook))
    assert notebooks.run_all([chapter]) == []
    stored = chapter.read_bytes()
    data = notebooks.read(chapter).cells[-1].outputs[0].data
    assert data["image/svg+xml"].startswith("<svg") and "image/png" not in data
    assert notebooks.run_all([chapter]) == []
    assert chapter.read_bytes() == stored


def test_a_notebook_that_was_not_cleaned_is_found(chapter: Path) -> None:
    notebook = notebooks.read(chapter)
    notebook.cells[0].metadata["collapsed"] = True
    chapter.write_text(notebooks.serialize(notebook))
    assert any("not normalized" in fault for fault in notebooks.check(chapter))


def test_the_other_pages_of_the_book_are_read_too(chapter: Path) -> None:
    root = chapter.parent
    (root / "book").mkdir()
    (root / "book/index.md").write_text("A student gains 9.9 ± 0.1 points.\n")
    (root / "_toc.yml").write_text("root: book/index\nparts: []\n")
    (fault,) = notebooks.check_book(root)
    assert "index.md: 9.9 ± 0.1 stands in no output" in fault
