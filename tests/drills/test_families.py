"""Each family covers its faults, alone and in pairs: what is named gives the same numbers."""

import random

import pytest

from kdlearn.drills import find, names
from kdlearn.drills.grader.grade import grade
from kdlearn.drills.grader.search import Inputs, Runs

DRILLS = [find(name) for name in names()]
SEED, OTHER_SEED = 11, 12
each = pytest.mark.parametrize("drill", DRILLS, ids=names())


@pytest.mark.parametrize("seed", [SEED, OTHER_SEED])
@each
def test_a_family_without_faults_does_what_the_reference_does(drill, seed):
    assert grade(drill, drill.member(()), seed=seed).passed


@each
def test_a_fault_is_named(drill):
    for wrong in drill.settings(1):
        report = grade(drill, drill.member(wrong), seed=SEED)
        said = [diagnosis.id for diagnosis in report.diagnoses]
        (fault,) = wrong
        told = drill.faults[fault].text.split("{")[0]
        assert said == [fault] or (len(said) == 1 and told in str(report)), report


@each
def test_two_faults_at_once_are_named_or_what_cannot_be_told_from_them(drill):
    wrong = random.Random(OTHER_SEED).choice(drill.settings(2))
    report = grade(drill, drill.member(wrong), seed=OTHER_SEED)
    named = {diagnosis.id for diagnosis in report.diagnoses} & set(drill.faults)
    if named == wrong:
        return
    fresh = Inputs.of(drill, OTHER_SEED + 1000)
    right = Runs(drill, drill.reference, fresh)
    mine = Runs(drill, drill.member(wrong), fresh, right)
    alike = mine.agrees(Runs(drill, drill.member(named), fresh, right), "ordinary", "fresh")
    broken = any(not one.numbers for one in mine.all("ordinary") + mine.all("fresh"))
    assert alike or broken, f"{sorted(wrong)} was told as {sorted(named)}\n{report}"


@each
def test_a_fault_has_one_sentence_that_ends(drill):
    assert len(drill.faults) == sum(map(len, drill.knobs.values())) + len(drill.effects)
    for fault in drill.faults.values():
        assert len(fault.text) > 20 and fault.text.endswith((".", ")", "?")), fault


@each
def test_a_source_says_what_it_was(drill):
    kinds = tuple(
        ["in code: ", "proposed: ", "asked: ", "claimed: ", "claimed otherwise: ", "withdrawn: "]
    )
    for fault in drill.faults.values():
        assert not fault.seen or fault.seen.startswith(kinds), fault
