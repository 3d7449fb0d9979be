import heapq

import pytest

from kdlearn.data import stdlib_functions as module


@pytest.fixture(scope="module")
def functions():
    return module.stdlib_functions()


def test_a_function_of_python_is_found_with_the_words_of_its_docstring(functions):
    assert len(functions) == 1500
    every = [
        f for f in module._functions_of(module.Path(heapq.__file__)) if f.name == ("nsmallest",)
    ]
    assert every[0].question[:3] == ("find", "smallest", "elements")


def test_the_question_is_not_part_of_the_document(functions):
    copied = [f for f in functions if " ".join(f.question) in " ".join(f.body)]
    assert len(copied) < 15
    assert all(len(f.question) >= 3 and 8 <= len(f.body) <= 60 for f in functions)


def test_a_python_without_sources_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(FileNotFoundError, match="has 0 functions with docstrings, and 1500"):
        module.stdlib_functions()


@pytest.mark.parametrize(("count", "error"), [(-5, ValueError), (0, ValueError), (2.5, TypeError)])
def test_fewer_than_one_are_refused(count, error):
    with pytest.raises(error, match="count is .*: expected a whole number >= 1"):
        module.stdlib_functions(count)


def test_what_a_caller_does_with_the_list_is_its_own(functions):
    before = list(functions)
    module.stdlib_functions().clear()
    assert module.stdlib_functions() == before
    hash(before[0])  # no part of it can be changed in place
