import ast

import pytest

from kdlearn.data import stdlib_text as module
from kdlearn.data.stdlib_text import python_docstrings


@pytest.fixture(scope="module")
def text() -> module.StdlibText:
    return python_docstrings()


def test_it_holds_docstrings_that_python_itself_shows(text):
    for node in (ast.get_docstring, ast.dump):
        assert " ".join((node.__doc__ or "").split()[:8]) in " ".join(text.train.split())
    assert "return _bootstrap" not in text.train  # code


def test_held_out_modules_are_others_and_nothing_is_long_in_both(text):
    assert not set(module.TRAIN.split()) & set(module.HELD_OUT.split())
    paragraphs = {part for part in text.train.split("\n\n") if len(part) > 200}
    shared = [part for part in text.held_out.split("\n\n") if part in paragraphs]
    assert len(shared) <= 2  # such as a license


def test_two_readings_are_equal_and_all_characters_can_be_printed(text):
    assert text == python_docstrings()
    assert all(letter == "\n" or letter.isprintable() and letter.isascii() for letter in text.train)
    assert len(text.held_out) > 50_000


def test_a_python_without_sources_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(FileNotFoundError, match="use a Python that comes with them"):
        python_docstrings()
