"""What the grader says of solutions that are in no list."""

import pytest
import torch
from torch.nn import functional as F

from kdlearn.drills import find
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Drill
from kdlearn.drills.grader.grade import Report, grade, is_empty

KD = find("kd-loss")


def soft(student_logits, teacher_logits, temperature):
    return (
        (student_logits / temperature).log_softmax(1),
        (teacher_logits.detach() / temperature).softmax(1),
    )


def said(solution, drill=KD, seed=5):
    return [(one.id, one.message) for one in grade(drill, solution, seed=seed).diagnoses]


def ids(solution, drill=KD, seed=5):
    return [name for name, _ in said(solution, drill, seed)]


def test_the_default_reduction_is_named_however_it_is_written():
    def by_torch(s, t, *, temperature):
        q, p = soft(s, t, temperature)
        return temperature**2 * F.kl_div(q, p, reduction="none").mean()

    def by_hand(s, t, *, temperature):
        q, p = soft(s, t, temperature)
        total = 0
        for row in range(len(s)):
            total = total + (p[row] * (p[row].log() - q[row])).mean()
        return total / len(s) * temperature**2

    ((name, message),) = said(by_torch)
    assert name == "mean-reduction"
    assert message.startswith("your loss is C = 10 times too small")
    assert "mean-reduction" in ids(by_hand)


def test_a_wrong_factor_is_not_taken_for_what_it_looks_like_at_the_edge():
    def factor(s, t, *, temperature):
        return KD.reference(s, t, temperature=temperature) / temperature

    assert ids(factor) == ["scale"]


def test_a_property_that_a_second_fault_breaks_is_told_beside_the_first():
    def both(student, teacher):
        maps = [side.square().mean(1) for side in (student, teacher)]
        return (maps[0] - maps[1]).square().mean()

    assert sorted(ids(both, find("at-loss"))) == ["not-normalized", "teacher-gradient"]


def test_two_mistakes_at_once_are_both_named():
    def both(s, t, *, temperature):
        q = (s / temperature).log_softmax(1)
        return temperature**2 * F.kl_div(q, (t / temperature).softmax(1), reduction="sum")

    assert sorted(ids(both)) == ["sum-reduction", "teacher-gradient"]


def test_a_known_mistake_with_a_factor_is_told_once():
    def reversed_and_tripled(s, t, *, temperature):
        q, p = soft(s, t, temperature)
        return 3 * temperature**2 * F.kl_div(p.log(), q, reduction="batchmean", log_target=True)

    ((name, message),) = [one for one in said(reversed_and_tripled) if one[0] == "reversed"]
    assert message.endswith("Besides, it is times 3.")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda loss, s, T: 3 * loss, "times 3:"),
        (lambda loss, s, T: loss / T, "times 1/T:"),
        (lambda loss, s, T: loss / (len(s) * T**2), "times 1/B · 1/T²:"),
        (lambda loss, s, T: loss * s.shape[1] ** 0.5, "times √C:"),
    ],
)
def test_an_unknown_factor_is_told_as_a_product_of_sizes(wrong, words):
    def solution(s, t, *, temperature):
        return wrong(KD.reference(s, t, temperature=temperature), s, temperature)

    ((name, message),) = said(solution)
    assert name == "scale"
    assert words in message


def test_a_wrong_number_without_a_law_is_shown():
    ((name, message),) = said(lambda s, t, *, temperature: F.mse_loss(s, t.detach()))
    assert name == "different"
    assert "no known mistake gives these numbers" in message


def test_a_number_instead_of_a_tensor_has_no_gradient():
    def solution(s, t, *, temperature):
        return KD.reference(s, t, temperature=temperature).item()

    assert ids(solution) == ["no-gradient"]


def test_work_in_place_is_seen():
    def solution(s, t, *, temperature):
        loss = KD.reference(s, t, temperature=temperature)
        t.zero_()
        return loss

    ((name, message),) = said(solution)
    assert name == "inputs-changed"
    assert "teacher_logits" in message


@pytest.mark.parametrize(
    ("solution", "name", "words"),
    [
        (lambda s, t: s, "signature", "takes (s, t); expected kd_loss(student_logits"),
        (lambda s, t, *, temperature: s @ t, "raises", "RuntimeError"),
        (lambda s, t, *, temperature: exit(), "exits", "sys.exit"),
        (lambda s, t, *, temperature: "0.5", "wrong-kind", "returns a str"),
        (lambda s, t, *, temperature: torch.ones(10**13), "memory", "more memory"),
        (
            lambda s, t, *, temperature: (s - t.detach()).mean(0),
            "wrong-shape",
            "(10,), expected ()",
        ),
        (lambda s, t, *, temperature: s.mean() * float("nan"), "not-finite", "NaN"),
        (3, "wrong-kind", "expected a function"),
    ],
)
def test_general_findings(solution, name, words):
    first = said(solution)[0]
    assert first[0] == name
    assert words in first[1]


def test_the_line_that_fails_is_shown():
    def solution(s, t, *, temperature):
        wide = s.T
        return wide + t

    source = "def solution(s, t, *, temperature):\n    wide = s.T\n    return wide + t\n"
    report = grade(KD, solution, seed=0, source=source)
    assert report.diagnoses[0].message.endswith("That line is: return wide + t")


def test_a_property_speaks_where_no_mistake_fits():
    def doubled(x):
        return 2 * x

    drill = Drill(
        id="toy",
        title="",
        task="",
        minutes=1,
        level="core",
        hints=("", "", ""),
        explanation="",
        reference=doubled,
        cases=lambda generator: [{"x": draws.real(generator, 1, 2)} for _ in range(3)],
    )

    @drill.must("is additive", "not-additive", "f(1) + f(2) is not f(3).")
    def additive(solution, generator):
        return solution(1) + solution(2) == solution(3)

    @drill.mistake("square", "squared.")
    def square(x):
        return x * x

    assert ids(doubled, drill) == []
    assert ids(lambda x: x * x, drill) == ["square"]
    assert ids(lambda x: x * x + 1, drill) == ["not-additive"]
    report = grade(drill, lambda x: 1 / 0, seed=0)
    assert report.diagnoses[0].id == "raises"


def empty_one(x):
    "Nothing."


def empty_two(x):
    pass


def empty_three(x):
    "Text."
    ...


def returns_none(x):
    return None if x else 0


@pytest.mark.parametrize("function", [empty_one, empty_two, empty_three])
def test_an_empty_function_is_not_written(function):
    assert is_empty(function)
    assert not grade(KD, function, seed=0).written


@pytest.mark.parametrize("function", [returns_none, print, lambda x: x, lambda x: 3])
def test_other_functions_are_written(function):
    assert not is_empty(function)


def test_a_starter_that_says_not_implemented_is_not_written():
    def solution(s, t, *, temperature):
        raise NotImplementedError

    assert str(grade(KD, solution, seed=0)) == "kd-loss: not written yet."


def test_a_report_can_be_sent():
    report = grade(KD, lambda s, t, *, temperature: s.sum(), seed=0)
    assert Report.from_dict(report.as_dict()) == report
    text = str(report)
    assert "FAILED  gives the right value" in text and "passed  leaves its inputs" in text
