from dataclasses import replace

from kdlearn.data import RandomShift
from kdlearn.experiments import same_crop
from kdlearn.experiments.same_crop import METHODS, RECIPE

SHORT = replace(
    RECIPE, pool=300, images=50, teacher=(8,), student=(8,), teacher_epochs=1, student_steps=5
)


def rows():
    return {row["method"]: row for row in same_crop.run_seed(0, recipe=SHORT)}


def test_without_a_shift_all_teachers_see_the_same_image(monkeypatch):
    monkeypatch.setattr(same_crop, "CROP", RandomShift(0))
    students = rows()
    students.pop("teacher")
    assert len({row["kl_to_teacher"] for row in students.values()}) == 1


def test_with_a_shift_all_three_differ():
    assert len({row["kl_to_teacher"] for row in rows().values()}) == 1 + len(METHODS)
