"""The checks at the border: what they let through, and what they say when they do not."""

import re

import pytest
import torch

from kdlearn.core import checks

ONES = torch.ones(2, 3)


@pytest.mark.parametrize("values", [[1e38, 1e38], [torch.inf, 1.0], [-torch.inf, torch.inf]])
def test_great_and_infinite_numbers_are_no_nan(values):
    checks.check_tensor(torch.tensor(values), "logits")


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
            "student features have 3 channels and teacher features 5: bring the student's to 5 with "
            "projectors.ConvProjector(3, 5).",
        ),
        (
            (2, 3, 4),
            (2, 3, 8),
            {"same_size": True},
            "features have different spatial sizes, (2, 3, 4) and (2, 3, 8): pick layers of one "
            "resolution or pool the larger.",
        ),
    ],
)
def test_features_that_do_not_fit_are_refused(student, teacher, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checks.check_features(torch.ones(student), torch.ones(teacher), **options)


def test_features_may_differ_where_nothing_was_asked():
    checks.check_features(torch.ones(2, 3, 4), torch.ones(2, 5, 8))
    checks.check_features(torch.ones(2, 3, 4), torch.ones(2, 3, 8), same_channels=True)
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


def test_choices_are_listed():
    checks.check_choice("b", "letter", ("a", "b"))
    with pytest.raises(ValueError, match="^letter is 'c', expected one of 'a', 'b'.$"):
        checks.check_choice("c", "letter", ("a", "b"))


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "2", None])
def test_what_counts_nothing_is_no_whole_number(value):
    message = re.escape(f"epochs is {value!r}: expected a whole number >= 1.")
    with pytest.raises(ValueError, match=message):
        checks.check_whole(value, "epochs")


def test_one_is_a_whole_number():
    checks.check_whole(1, "epochs")
