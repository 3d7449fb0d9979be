"""The grader graded: mistakes are caught and named, right solutions pass, for any seed."""

import ast
import inspect
import pkgutil

import pytest
import torch

from kdlearn.drills import find, names, tasks
from kdlearn.drills.commands import IMPORTS
from kdlearn.drills.grader.compare import same
from kdlearn.drills.grader.grade import grade

DRILLS = [find(name) for name in names()]
SEEDS = (11, 12)
MISTAKES = [(drill, mistake) for drill in DRILLS for mistake in drill.mistakes]
RIGHT = [(drill, right) for drill in DRILLS for right in (drill.reference, *drill.alternatives)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("drill", "mistake"), MISTAKES, ids=[f"{drill.id}: {wrong.id}" for drill, wrong in MISTAKES]
)
def test_a_mistake_is_caught_and_named(drill, mistake, seed):
    report = grade(drill, mistake.solution, seed=seed)
    assert [diagnosis.id for diagnosis in report.diagnoses] == [mistake.id], report


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("drill", "right"), RIGHT, ids=[f"{drill.id}: {right.__name__}" for drill, right in RIGHT]
)
def test_a_right_solution_passes_however_it_is_written(drill, right, seed):
    report = grade(drill, right, seed=seed)
    assert report.passed, report


@pytest.mark.parametrize("drill", DRILLS, ids=names())
def test_a_starter_holds_no_solution_and_is_not_graded(drill):
    space = {}
    exec(IMPORTS + drill.starter(), space)
    starter = space[drill.function]
    function = ast.parse(drill.starter()).body[0]
    assert len(function.body) == 1 and ast.get_docstring(function)
    assert str(grade(drill, starter, seed=0)) == f"{drill.id}: not written yet."


@pytest.mark.parametrize("drill", DRILLS, ids=names())
def test_the_solution_needs_no_more_than_the_reader_has(drill):
    space = {}
    exec(IMPORTS + drill.source(), space)
    assert grade(drill, space[drill.function], seed=1).passed


@pytest.mark.parametrize("drill", DRILLS, ids=names())
def test_a_drill_is_complete(drill):
    assert drill.id == inspect.getmodule(drill.reference).__name__.split(".")[-1].replace("_", "-")
    assert drill.task and drill.title and drill.explanation
    assert 1 <= drill.minutes <= 30 and drill.level in ("warm-up", "core", "hard")
    assert len(drill.hints) == 3 and len(set(drill.hints)) == 3
    assert len(drill.mistakes) >= 4
    assert len(drill.alternatives) >= 2
    assert len({mistake.id for mistake in drill.mistakes}) == len(drill.mistakes)
    for mistake in drill.mistakes:
        assert len(mistake.diagnosis) > 40, mistake.id
        assert mistake.diagnosis.endswith((".", ")")), mistake.diagnosis


def test_every_file_of_tasks_is_in_the_order_once():
    files = {module.name.replace("_", "-") for module in pkgutil.iter_modules(tasks.__path__)}
    outside = files - set(names())
    assert not outside, (
        f"put {', '.join(sorted(outside))} into a chapter of kdlearn/drills/order.py"
    )
    assert len(names()) == len(set(names()))


@pytest.mark.parametrize("drill", DRILLS, ids=names())
def test_inputs_cannot_be_foreseen(drill):
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    one, other = (list(drill.cases(generator)) for generator in generators)
    assert not same(one, other)
