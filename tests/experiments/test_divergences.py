from dataclasses import replace

import pytest
import torch

from kdlearn.data import dyck_language
from kdlearn.experiments.divergences import (
    METHODS,
    RECIPE,
    measures,
    string_log_probs,
    train_student,
)
from kdlearn.models import TableLM

SHORT = replace(RECIPE, length=4, steps=300)
LANGUAGE = dyck_language(4, seed=3)


def trained(name):
    student = train_student(METHODS[name], LANGUAGE, SHORT, seed=0)
    with torch.no_grad():
        return measures(string_log_probs(student, LANGUAGE.strings), LANGUAGE)


def test_the_log_probability_of_a_string_is_the_sum_over_its_tokens():
    teacher = TableLM.exact(LANGUAGE.strings, LANGUAGE.next_log_probs())
    found = string_log_probs(teacher, LANGUAGE.strings)
    torch.testing.assert_close(found, LANGUAGE.log_probs, atol=1e-4, rtol=1e-4)


def test_entropy_and_reverse_kl_add_up_to_what_the_teacher_thinks_of_the_text():
    log_q = torch.randn(256, generator=torch.Generator().manual_seed(0)).log_softmax(0)
    told = measures(log_q, LANGUAGE)
    assert told["entropy"] + told["kl_reverse"] == pytest.approx(told["teacher_nll"], rel=1e-4)


def test_a_student_that_sees_the_whole_string_ends_at_the_teacher_by_either_direction():
    for name in ("forward KL, able", "reverse KL, able"):
        told = trained(name)
        assert told["kl_to_teacher"] < 0.05 and told["kl_reverse"] < 0.05, name


def test_a_student_that_is_too_small_covers_more_by_the_forward_kl_and_errs_less_by_the_reverse():
    forward, reverse = trained("forward KL"), trained("reverse KL")
    assert reverse["valid"] > forward["valid"] + 10
    assert forward["covered"] > reverse["covered"] + 10
    assert forward["kl_to_teacher"] < reverse["kl_to_teacher"]
    assert reverse["kl_reverse"] < forward["kl_reverse"]
