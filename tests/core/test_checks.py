"""The checks at the border: what they let through, and what they say when they do not."""

import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from kdlearn.core import checks

ONES = torch.ones(2, 3)


def test_great_numbers_are_finite_also_where_their_sum_is_not():
    checks.check_tensor(torch.full((9,), 3e38), "features")


def test_infinities_are_no_features_and_minus_infinity_is_a_logit():
    mixed = torch.tensor([[-torch.inf, 1.0]])
    checks.check_tensor(mixed, "logits", "logits")
    with pytest.raises(ValueError, match="^features contain -inf, which has a place only"):
        checks.check_tensor(mixed, "features")
    for values in ("finite", "logits"):
        with pytest.raises(ValueError, match="^logits contain inf: float16 ends at 65,504"):
            checks.check_tensor(-mixed, "logits", values)
    checks.check_tensor(-mixed, "logits", "any")


def test_a_row_needs_something_to_choose_from():
    rows = torch.zeros(2, 3)
    rows[1] = -torch.inf
    with pytest.raises(ValueError, match="^teacher logits have a row that is -inf throughout"):
        checks.check_logits(torch.zeros(2, 3), rows)
    checks.check_logits(torch.zeros(3, 2), rows.T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_probabilities_are_no_logits(dtype):
    logits = 3 * torch.randn(4, 50)
    probabilities = logits.softmax(-1).to(dtype)
    with pytest.raises(ValueError, match="^student logits sum to 1 in each row, as probabilities"):
        checks.check_logits(probabilities, logits.to(dtype))
    checks.check_logits(logits.to(dtype), probabilities.log())


def test_a_few_logits_that_sum_nearly_to_one_by_chance_are_logits():
    checks.check_logit_values(torch.tensor([[0.0906, 0.9126]]), "logits")


def test_maps_with_rows_of_padding_and_hidden_keys_are_probabilities_too():
    maps = torch.tensor([[[1.0, 0.0], [0.25, 0.75]], [[1.0, 0.0], [0.0, 0.0]]])
    with pytest.raises(ValueError, match="^scores sum to 1 in each row"):
        checks.check_no_probabilities(maps, "scores")
    for scores in (0 * maps, maps - 0.01, 2 * maps, maps[..., :1]):
        checks.check_no_probabilities(scores, "scores")


@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (2, 4, 1, 6), (2, 4, 6, 1), (2, 4, 5, 6, 7)])
def test_maps_of_logits_are_rows_or_show_by_their_strides_that_they_were_moved(shape):
    images = torch.randn(shape)
    moved = images.movedim(1, -1)
    wrong = [images, moved.contiguous(), moved.movedim(1, -1)]
    if len(shape) == 4:
        other = images.to(memory_format=torch.channels_last)
        wrong += [other, other.movedim(1, -1)]
    if 1 in shape:
        wrong.append(moved)
    else:
        checks.check_class_dimension(moved)
    for logits in wrong:
        with pytest.raises(ValueError, match=r"by logits.movedim\(1, -1\).flatten\(0, -2\) where"):
            checks.check_class_dimension(logits)
    checks.check_class_dimension(moved.flatten(0, -2))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((2, 8, 8, 64), (2, 32, 8, 8)),  # (B, H, W, C) on one side
        ((2, 8, 8, 16), (2, 8, 8, 32)),  # on both
        ((2, 8, 4, 6), (2, 8, 6, 4)),  # turned
        ((2, 50, 192), (2, 50, 384)),  # tokens
    ],
)
def test_channels_that_are_not_second_are_seen(student, teacher):
    with pytest.raises(ValueError, match="do not show one picture in two sizes"):
        checks.check_features(torch.ones(student), torch.ones(teacher))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((2, 8, 29, 38), (2, 8, 15, 19)),
        ((2, 8, 7, 7), (2, 4, 14, 13)),
        ((2, 8, 3, 5), (2, 8, 2, 3)),
        ((2, 8, 1, 2), (2, 8, 1, 1)),
        ((2, 8, 8, 6, 4), (2, 8, 4, 3, 2)),
        ((2, 192, 50), (2, 384, 50)),
        ((2, 64, 100), (2, 32, 50)),
        ((2, 50, 192), (2, 50, 192)),
    ],
)
def test_one_picture_in_two_sizes_is_welcome(student, teacher):
    checks.check_features(torch.ones(student), torch.ones(teacher))


def test_a_value_that_is_not_finite_is_refused_with_its_cause():
    def loss(student, teacher):
        return (student * teacher).sum()

    checked = checks.finite_or_refused(loss)
    assert checked(ONES, ONES) == 6
    with pytest.raises(ValueError, match="loss is inf: numbers are too large for torch.float32"):
        checked(1e30 * ONES, teacher=1e30 * ONES)
    with pytest.raises(ValueError, match="loss is -inf: what one side rules out by -inf"):
        checked(ONES, teacher=-torch.inf * ONES)
    with pytest.raises(RuntimeError, match="must match the size"):  # of another cause: handed on
        checked(ONES, torch.ones(2, 5))


def test_values_can_be_let_through_unseen_and_shapes_cannot(monkeypatch):
    monkeypatch.setattr(checks, "CHECKS", False)
    nan = torch.full((2, 3), torch.nan)
    checks.check_logits(nan, nan)
    checks.check_labels(torch.tensor([0, 7]), ONES)
    checks.check_mask(torch.zeros(2, 3).bool(), ONES.shape)
    checks.check_overflow(torch.inf * ONES, "features")
    assert checks.finite_or_refused(lambda x: x.sum())(nan).isnan()
    with pytest.raises(ValueError, match="call|keep only the rows and classes"):
        checks.check_logits(ONES, ONES[:1])
    with pytest.raises(TypeError, match="must be floating point"):
        checks.check_logits(ONES.long(), ONES)


READ_ANEW = """
import importlib, os
from kdlearn.core import checks
for setting in ("0", "1", ""):
    os.environ["KDLEARN_CHECKS"] = setting
    print(importlib.reload(checks).checks_values())
"""


def test_the_environment_switches_checks_of_values():
    told = subprocess.run([sys.executable, "-c", READ_ANEW], capture_output=True)
    assert told.stdout.decode().split() == ["False", "True", "True"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_every_floating_point_width_is_welcome(dtype):
    checks.check_tensor(torch.full((9,), 6e4, dtype=dtype), "logits")


@pytest.mark.parametrize(
    ("tensor", "error", "message"),
    [
        (
            None,
            TypeError,
            "student logits must be a torch.Tensor, got NoneType: convert with torch.as_tensor.",
        ),
        (
            torch.ones(2).bool(),
            TypeError,
            "student logits must be floating point, got torch.bool: call .float() on them.",
        ),
        (
            torch.ones(2, 0),
            ValueError,
            "student logits are empty, shape (2, 0): skip empty batches, they have no mean.",
        ),
        (
            torch.tensor([1.0, torch.nan]),
            ValueError,
            "student logits contain NaN: look for a diverged model or a division by zero before "
            "the loss.",
        ),
    ],
)
def test_what_is_no_tensor_of_numbers_is_refused(tensor, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        checks.check_tensor(tensor, "student logits")


def test_nan_among_infinities_is_found():
    with pytest.raises(ValueError, match="contain NaN"):
        checks.check_tensor(torch.tensor([torch.inf, torch.nan]), "logits")


def test_both_sides_are_checked_and_named():
    with pytest.raises(TypeError, match="^teacher states must be a torch.Tensor, got list"):
        checks.check_pair(ONES, [1.0], "states")
    with pytest.raises(TypeError, match="^student states must be a torch.Tensor, got list"):
        checks.check_pair([1.0], ONES, "states")
    with pytest.raises(ValueError, match="^teacher states are empty"):
        checks.check_pair(ONES, ONES[:0], "states")


def test_devices_must_agree():
    message = "^student logits are on cpu and teacher logits on meta: move one of them.$"
    with pytest.raises(ValueError, match=message):
        checks.check_logits(ONES, ONES.to("meta"))


def test_labels_must_be_where_the_logits_are():
    labels = torch.zeros(2, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match="^labels are on meta and logits on cpu"):
        checks.check_labels(labels, ONES)


def test_shapes_say_what_they_are_and_what_to_do():
    message = "student tensors have shape (2, 3) and teacher tensors (3, 2): make them equal."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checks.check_same_shape(ONES, ONES.T)
    with pytest.raises(ValueError, match="states .*: use a projector.$"):
        checks.check_same_shape(ONES, ONES.T, "states", "use a projector")
    checks.check_same_shape(ONES, ONES)


def test_logits_need_rows_and_classes():
    checks.check_logits(torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"^logits need shape \(batch, ..., classes\), got \(3,\)"):
        checks.check_logits(ONES[0], ONES[0])
    with pytest.raises(ValueError, match="^logits have 1 class: .* use binary_distillation_loss.$"):
        checks.check_logits(ONES[:, :1], ONES[:, :1])


@pytest.mark.parametrize("labels", [[0, 0], [2, 2], [0, 2]])
def test_the_first_and_the_last_class_are_labels(labels):
    checks.check_labels(torch.tensor(labels), ONES)


def test_labels_have_the_shape_of_the_rows():
    checks.check_labels(torch.zeros(2, 4, dtype=torch.int64), torch.ones(2, 4, 3))
    message = "labels have shape (2, 4) and logits (2, 3): give one class number for each row"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        checks.check_labels(torch.zeros(2, 4, dtype=torch.int64), ONES)


@pytest.mark.parametrize(
    ("student", "teacher", "options", "message"),
    [
        ((2, 3), (2, 3), {}, "features need shape (batch, channels, *spatial) on both sides"),
        ((2, 3, 4), (2, 3, 4, 4), {}, "got (2, 3, 4) and (2, 3, 4, 4): take a layer before"),
        ((2, 3, 4), (3, 3, 4), {}, "features come from different batches, (2, 3, 4) and (3, 3, 4)"),
        (
            (2, 3, 4),
            (2, 5, 4),
            {"same_channels": True},
            "student features have 3 channels and teacher features 5: bring the student's to 5 "
            "with "
            "projectors.ConvProjector(3, 5).",
        ),
        (
            (2, 5, 4),
            (2, 3, 8),
            {"same_size": True},
            "features have different spatial sizes, (2, 5, 4) and (2, 3, 8): pick layers of one "
            "resolution or pool the larger.",
        ),
    ],
)
def test_features_that_do_not_fit_are_refused(student, teacher, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checks.check_features(torch.ones(student), torch.ones(teacher), **options)


def test_features_may_differ_where_nothing_was_asked():
    checks.check_features(torch.ones(2, 3, 4), torch.ones(2, 5, 8))
    checks.check_features(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 8, 8), same_channels=True)
    checks.check_features(torch.ones(2, 3, 4), torch.ones(2, 5, 4), same_size=True)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(2, 3), TypeError, "mask must be a tensor of torch.bool, got torch.float32"),
        ([[True]], TypeError, "mask must be a tensor of torch.bool, got list: call .bool() on it."),
        (torch.ones(3, 2).bool(), ValueError, "mask has shape (3, 2), expected (2, 3): give one"),
        (torch.zeros(2, 3).bool(), ValueError, "the mask keeps no token: it must be True where"),
    ],
)
def test_masks_that_are_none_are_refused(mask, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        checks.check_mask(mask, ONES.shape)


def test_a_mask_may_keep_a_single_token():
    checks.check_mask(torch.eye(3).bool() & torch.tensor([True, False, False]), torch.Size([3, 3]))


@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_fractions_reach_from_zero_to_one(value):
    checks.check_fraction(value, "weight")


def test_temperatures_are_positive_and_finite():
    checks.check_temperature(1e-3)
    checks.check_temperature(1e6)
    with pytest.raises(ValueError, match="^temperature is -2, expected a positive finite number"):
        checks.check_temperature(-2)


def test_probabilities_that_have_become_zero_are_probabilities_still():
    sure = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match="^logits sum to 1 in each row, as probabilities do"):
        checks.check_logit_values(sure, "logits")
    checks.check_logit_values(sure, "logits", probabilities=True)
    checks.check_logit_values(torch.eye(3), "logits")
    checks.check_logit_values(2 * sure, "logits")


def test_choices_are_listed():
    checks.check_choice("b", "letter", ("a", "b"))
    with pytest.raises(ValueError, match="^letter is 'c', expected one of 'a', 'b'.$"):
        checks.check_choice("c", "letter", ("a", "b"))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (np.int64(-1), ValueError),
        (True, TypeError),
        (np.True_, TypeError),
        (2.0, TypeError),
        ("2", TypeError),
        (None, TypeError),
    ],
)
def test_what_counts_nothing_is_no_whole_number(value, error):
    message = re.escape(f"epochs is {value!r}: expected a whole number >= 1.")
    with pytest.raises(error, match=message):
        checks.check_whole(value, "epochs")


@pytest.mark.parametrize("value", [1, np.int64(1), np.uint8(1), torch.tensor(1)])
def test_whole_numbers_of_every_library_come_back_as_pythons(value):
    assert type(checks.check_whole(value, "epochs")) is int
    assert checks.check_sizes(width=value, classes=10) == [1, 10]


def test_the_least_whole_number_is_the_callers():
    assert checks.check_whole(0, "seed", 0) == 0
    with pytest.raises(ValueError, match="^runs is 19: expected a whole number >= 20.$"):
        checks.check_whole(19, "runs", 20)


@pytest.mark.parametrize("value", ["4", None, True, np.True_, torch.ones(1), torch.tensor(True)])
def test_a_temperature_is_one_number(value):
    with pytest.raises(TypeError, match="^temperature is .*: expected one number.$"):
        checks.check_temperature(value)


def test_a_temperature_is_not_learned():
    message = "expected one number. It is not learned: take .item()."
    for learned in (torch.tensor(4.0, requires_grad=True), torch.ones(1, requires_grad=True)):
        with pytest.raises(TypeError, match=re.escape(message)):
            checks.check_temperature(learned)


@pytest.mark.parametrize("value", [4, Fraction(4), np.float32(4), np.int8(4), torch.tensor(4.0)])
def test_numbers_of_every_library_are_temperatures(value):
    found = checks.check_temperature(value)
    assert type(found) is float
    assert found == 4
