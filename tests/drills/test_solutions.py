"""The drills themselves: complete, in order, and right however they are solved."""

import ast
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch

from kdlearn.drills import find, names, tasks
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.compare import Raised, numbers_of, same
from kdlearn.drills.grader.drill import CITED, IMPORTS
from kdlearn.drills.grader.grade import grade
from kdlearn.drills.grader.observe import observe

DRILLS = [find(name) for name in names()]
each = pytest.mark.parametrize("drill", DRILLS, ids=names())


@each
def test_a_right_solution_passes_however_it_is_written(drill, right_solutions):
    solutions = right_solutions(drill.id)
    assert len(solutions) >= 2
    for seed in (11, 12):
        for right in (drill.reference, *solutions):
            report = grade(drill, right, seed=seed)
            assert report.passed, f"{right.__name__}\n{report}"


@each
def test_a_starter_holds_no_solution_and_is_not_graded(drill):
    space = {}
    exec(IMPORTS + drill.starter(), space)
    starter = space[drill.function]
    function = ast.parse(drill.starter()).body[0]
    assert len(function.body) == 1 and ast.get_docstring(function)
    assert str(grade(drill, starter, seed=0)) == f"{drill.id}: not written yet."


@each
def test_the_solution_needs_no_more_than_the_reader_has(drill):
    space = {}
    exec(IMPORTS + drill.source(), space)
    assert grade(drill, space[drill.function], seed=1).passed


@each
def test_a_drill_is_complete(drill):
    assert drill.id == inspect.getmodule(drill.reference).__name__.split(".")[-1].replace("_", "-")
    assert drill.task and drill.title and drill.explanation
    assert 1 <= drill.minutes <= 30 and drill.level in ("warm-up", "core", "hard")
    assert len(drill.hints) == 3 and len(set(drill.hints)) == 3


@each
def test_a_sentence_ends_before_the_next_one_begins(drill):
    faults = [one.text for knob in drill.knobs.values() for one in knob]
    for text in (drill.task, *drill.hints, drill.explanation, *faults):
        plain = re.sub(r"`[^`]*`|\(\S*\)|\b(torch|nn|F)\.\w+", "", text)
        assert not re.findall(r"[a-z]{2}[.?!][A-Z]\w* ", plain)


@each
def test_no_hint_holds_a_line_of_the_solution(drill):
    function = ast.parse(drill.source()).body[0]
    values = [getattr(part, "value", None) for part in ast.walk(function)]
    lines = {
        re.sub(r"\W", "", ast.unparse(value)) for value in values if isinstance(value, ast.expr)
    }
    for hint in drill.hints:
        bare = re.sub(r"\W", "", hint)
        assert not any(len(line) > 20 and line in bare for line in lines), hint


@each
def test_a_source_stands_in_the_bibliography(drill):
    entries = (Path(__file__).parents[2] / "book/references.bib").read_text(encoding="utf-8")
    keys = [key for _, key in CITED.findall(drill.explanation)]
    assert "cite:" not in CITED.sub("", drill.explanation)
    assert all(f"{{{key}," in entries for key in keys), keys
    assert keys or "Source" not in drill.explanation


def test_every_file_of_tasks_is_in_the_order_once():
    files = {module.name.replace("_", "-") for module in pkgutil.iter_modules(tasks.__path__)}
    outside = files - set(names())
    assert not outside, (
        f"put {', '.join(sorted(outside))} into a chapter of kdlearn/drills/order.py"
    )
    assert len(names()) == len(set(names()))


@each
def test_an_edge_without_a_derivative_says_so(drill):
    for edge in drill.edges() if drill.gradients else ():
        right = observe(drill, drill.reference, edge.case)
        if isinstance(right.result, Raised):
            continue

        def moved(step, edge=edge):
            generator, case = torch.Generator().manual_seed(0), dict(edge.case)
            for name in drill.gradients + drill.detached:
                sides = case[name] if isinstance(case[name], list) else [case[name]]
                sides = [side.double() for side in sides]
                if name in drill.gradients:
                    size = max(side.nan_to_num(0, 0, 0).abs().max() for side in sides)
                    sides = [
                        side + step * size * draws.normal(generator, *side.shape) for side in sides
                    ]
                case[name] = sides if isinstance(case[name], list) else sides[0]
            numbers = numbers_of(drill.observe(case, drill.call(drill.reference, case)))
            return numbers @ torch.linspace(0.5, 1.5, len(numbers), dtype=torch.float64)

        # At a bend the slopes on both sides stay apart however near one comes; else they meet.
        here = moved(0.0)
        far, near = ((moved(step) + moved(-step) - 2 * here).abs() / step for step in (1e-5, 1e-7))
        assert edge.kink == bool(near > max(0.5 * far, 1e-3)), edge.title


@each
def test_inputs_cannot_be_foreseen(drill):
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    one, other = (list(drill.cases(generator)) for generator in generators)
    assert not same(one, other)


@each
def test_edges_are_always_the_same(drill):
    one, other = (list(drill.edges()) for _ in range(2))
    assert [edge.title for edge in one] == [edge.title for edge in other]
    assert drill.id == "trainable-parameters" or same(
        [edge.case for edge in one], [edge.case for edge in other]
    )
