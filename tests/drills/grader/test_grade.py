"""What the grader says of solutions that are in no family."""

import pytest
import torch
from torch.nn import functional as F

from kdlearn.drills import find
from kdlearn.drills.grader.grade import grade, is_empty
from kdlearn.drills.grader.report import Report

KD = find("kd-loss")


def soft(s, t, temperature):
    return (s / temperature).log_softmax(1), (t.detach() / temperature).softmax(1)


def said(solution, drill=KD, seed=5):
    return [(one.id, one.message) for one in grade(drill, solution, seed=seed).diagnoses]


def ids(solution, drill=KD, seed=5):
    return [name for name, _ in said(solution, drill, seed)]


def right(s, t, *, temperature):
    q, p = soft(s, t, temperature)
    return temperature**2 * (torch.xlogy(p, p) - p * q).sum(1).mean()


def test_the_default_reduction_is_named_however_it_is_written():
    def by_torch(s, t, *, temperature):
        q, p = soft(s, t, temperature)
        return temperature**2 * F.kl_div(q, p, reduction="none").mean()

    def by_hand(s, t, *, temperature):
        rows = [(p * (p.log() - q)).mean() for q, p in zip(*soft(s, t, temperature), strict=True)]
        return sum(rows) / len(s) * temperature**2

    ((name, message),) = said(by_torch)
    assert name == "mean-reduction"
    assert message.startswith("your loss is C = 3 times too small")
    assert ids(by_hand)[0] == "mean-reduction"


def test_two_mistakes_at_once_are_both_named():
    def both(s, t, *, temperature):
        q = (s / temperature).log_softmax(1)
        return temperature**2 * F.kl_div(q, (t / temperature).softmax(1), reduction="sum")

    assert ids(both) == ["teacher-gradient", "sum-reduction"]

    def maps(student, teacher):
        energies = [side.square().mean(1) for side in (student, teacher)]
        return (energies[0] - energies[1]).square().sum((1, 2)).mean()

    named = ["teacher-gradient", "mean-not-normalized", "sum-over-positions"]
    assert ids(maps, find("at-loss")) == named


def test_a_known_mistake_with_a_factor_is_told_once():
    def reversed_and_tripled(s, t, *, temperature):
        q, p = soft(s, t, temperature)
        return 3 * temperature**2 * F.kl_div(p.log(), q, reduction="batchmean", log_target=True)

    name, message = said(reversed_and_tripled)[0]
    assert name == "reversed" and message.endswith("Besides, it is times 3.")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda loss, s, T: 3 * loss, "times 3:"),
        (lambda loss, s, T: loss / T**0.5, "times 1/√T:"),
        (lambda loss, s, T: loss / (len(s) * T**2), "times 1/B · 1/T²:"),
        (lambda loss, s, T: loss * s.shape[1] ** 0.5, "times √C:"),
    ],
)
def test_an_unknown_factor_is_told_as_a_product_of_sizes(wrong, words):
    def solution(s, t, *, temperature):
        return wrong(right(s, t, temperature=temperature), s, temperature)

    ((name, message),) = said(solution)
    assert name == "scale"
    assert words in message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda s, t, T: right(s, t, temperature=4.0), "of temperature = 4, whatever"),
        (lambda s, t, T: right(s.relu(), t.relu(), temperature=T), "went through a ReLU first"),
        (lambda s, t, T: right(s, t, temperature=T).sqrt(), "the root of the right one"),
        (
            lambda s, t, T: torch.stack(
                [right(a[None], b[None], temperature=T) for a, b in zip(s, t, strict=True)]
            ).max(),
            "the largest of the rows'",
        ),
        (lambda s, t, T: right(s, t, temperature=T) + 1e-4 * s.mean(), "are off by"),
        (
            lambda s, t, T: right(s, s.flip(0), temperature=T),
            "did not change when teacher_logits was",
        ),
    ],
)
def test_what_no_setting_explains_is_narrowed_down(wrong, words):
    found = said(lambda s, t, *, temperature: wrong(s, t, temperature))
    assert found[0][0] == "narrowed-down"
    assert words in found[0][1]


def test_the_smallest_case_shows_input_and_both_results():
    def solution(s, t, *, temperature):
        return 2 * right(s, t, temperature=temperature)

    report = grade(KD, solution, seed=1)
    assert report.smallest[0].startswith("a batch of one row: student_logits = [[1, 0, 2]]")
    assert report.smallest[1] == "value: yours 2.658, right 1.329"


def test_a_number_instead_of_a_tensor_is_told_as_that():
    def solution(s, t, *, temperature):
        return right(s, t, temperature=temperature).item()

    assert ids(solution) == ["no-tensor"]


def test_a_detached_result_has_no_gradient():
    def solution(s, t, *, temperature):
        return right(s.detach(), t, temperature=temperature)

    assert ids(solution) == ["no-gradient"]


def test_exchanged_parameters_are_told_as_that():
    def kd_loss(teacher_logits, student_logits, *, temperature):
        return right(student_logits, teacher_logits, temperature=temperature)

    ((name, message),) = said(kd_loss)
    assert name == "parameters-exchanged"
    assert "(teacher_logits, student_logits, temperature)" in message


@pytest.mark.parametrize(
    ("solution", "name", "words"),
    [
        (lambda s, t: s, "signature", "takes (s, t); expected kd_loss(student_logits"),
        (lambda s, t, *, temperature: s @ t, "raises", "RuntimeError"),
        (lambda s, t, *, temperature: exit(), "raises", "sys.exit"),
        (lambda s, t, *, temperature: "0.5", "no-tensor", "'0.5' (a str)"),
        (lambda s, t, *, temperature: torch.ones(10**13), "raises", "more memory"),
        (
            lambda s, t, *, temperature: None if len(s) else s,
            "nothing-returned",
            "is a return missing",
        ),
        (
            lambda s, t, *, temperature: (s - t.detach()).mean(0),
            "wrong-shape",
            "(3,), expected ()",
        ),
        (lambda s, t, *, temperature: s.mean() * float("nan"), "not-finite", "mul gives NaN"),
        (3, "wrong-kind", "no function: expected kd_loss"),
    ],
)
def test_causes_come_first_and_end_the_diagnosis(solution, name, words):
    ((first, message),) = said(solution)
    assert first == name
    assert words in message


def test_the_line_that_fails_is_shown():
    def helper(wide, t):
        return wide + t[:, :1].T.expand(7, 7)

    def solution(s, t, *, temperature):
        return helper(s.T, t)

    assert "in the line: return wide + t" in said(solution)[0][1]


def test_another_exception_than_the_one_asked_for_is_told():
    drill = find("at-layers")

    def solution(student, teacher):
        assert len(student) == len(teacher)
        return drill.reference(student, teacher)

    (name, message), _ = said(solution, drill)
    assert name == "edge"
    assert "AssertionError" in message and "expected a ValueError" in message


def test_an_edge_that_fails_alone_is_told_with_its_input():
    def squeezed(z, p):
        return -(p.detach().squeeze() * z.squeeze().log_softmax(-1)).sum(-1).mean(0)

    assert grade(find("soft-cross-entropy"), squeezed, seed=1).passed

    def by_column(z, p):
        logs = z.log_softmax(1) if len(z) > 1 else z.log_softmax(0)
        return -(p.detach() * logs).sum(1).mean()

    ((name, message),) = said(by_column, find("soft-cross-entropy"))
    assert name == "edge" and message.startswith("for a batch of one row")


def test_a_solution_that_calls_the_package_is_right_and_borrowed():
    from kdlearn.losses import soft_target_loss

    def solution(s, t, *, temperature):
        return soft_target_loss(s, t, temperature=temperature)

    report = grade(KD, solution, seed=0)
    assert report.passed and report.borrowed
    assert not grade(KD, right, seed=0).borrowed


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
    assert "FAILED  gives the right value" in text and "passed  does nothing besides" in text


def test_a_function_of_an_argument_is_told_with_its_factor():
    def squared(s, t, *, temperature):
        q, p = soft(s, t, temperature**2)
        return temperature**2 * F.kl_div(q, p, reduction="batchmean")

    ((_, message),) = said(squared)
    assert "of the square of temperature in place of temperature, times 1/T²." in message


def test_where_a_term_plays_no_part_the_other_is_what_is_wrong():
    def smoothed(s, t, labels, *, temperature, weight):
        hard = F.cross_entropy(s, labels, label_smoothing=0.1)
        return (1 - weight) * hard + weight * right(s, t, temperature=temperature)

    ((name, message),) = said(smoothed, find("kd-total"))
    assert name == "narrowed-down" and "look at the labels' term" in message


def test_the_one_edge_that_is_wrong_is_told():
    def square(student, teacher):
        total = 0
        for s, t in zip(student, teacher, strict=True):
            size = min(s.shape[2], t.shape[2])
            pooled = [F.adaptive_avg_pool2d(x, size) for x in (s, t.detach())]
            maps = [F.normalize(x.square().sum(1).flatten(1), dim=1) for x in pooled]
            total = total + (maps[0] - maps[1]).square().mean()
        return total

    message = said(square, find("at-layers"))[0][1]
    assert "wrong for a side that is higher and one that is wider alone" in message


def test_parts_that_are_scaled_by_themselves_are_told():
    def between_0_and_1(features, *, p):
        energy = features.abs().pow(p).sum(1)
        low, high = energy.amin((1, 2), keepdim=True), energy.amax((1, 2), keepdim=True)
        return (energy - low) / (high - low)

    message = said(between_0_and_1, find("activation-map"))[0][1]
    assert "along dimension 0, each part of your value is the right one times a number" in message


def test_a_list_of_numbers_that_no_setting_explains_is_refused_without_an_error():
    def nothing(target, draft, tokens, uniforms):
        kept = find("speculative-acceptance").reference(target, draft, tokens, uniforms)[0]
        return kept, torch.zeros_like(target[0])

    (said,) = grade(find("speculative-acceptance"), nothing, seed=1).diagnoses
    assert said.id == "narrowed-down" and "right on all inputs: kept" in said.message


def test_the_modes_of_networks_are_free_where_nothing_forbids_them():
    drill = find("whole-process")

    def in_evaluation_mode(teacher, student, images, labels, **numbers):
        answer = drill.reference(teacher, student, images, labels, **numbers)
        teacher.eval()
        student.eval()
        return answer

    assert grade(drill, in_evaluation_mode, seed=5).passed
