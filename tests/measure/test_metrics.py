import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdlearn.measure import (
    accuracy,
    agreement,
    count_parameters,
    energy_in_box,
    evaluate,
    expected_calibration_error,
    kl_to_teacher,
    pointing_game,
    predict,
)

BOX = torch.tensor([[0.25, 0.5, 0.75, 1.0]])


def numpy_calibration_error(logits, labels, bins):
    """Written apart from the package: a loop over bins, on numpy arrays."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize("sharpness", [0.1, 1.0, 5.0])
def test_calibration_error_matches_numpy(bins, sharpness):
    rng = np.random.default_rng(3)
    logits, labels = sharpness * rng.normal(size=(500, 10)), rng.integers(10, size=500)
    got = expected_calibration_error(torch.tensor(logits), torch.tensor(labels), bins=bins)
    assert got == pytest.approx(numpy_calibration_error(logits, labels, bins), abs=1e-12)


def test_a_model_that_knows_what_it_knows_has_no_calibration_error():
    logits = torch.tensor([[0.75, 0.25]]).log().repeat(4, 1)
    labels = torch.tensor([0, 0, 0, 1])
    assert expected_calibration_error(logits, labels) == pytest.approx(0, abs=1e-7)


def test_too_little_confidence_in_one_bin_does_not_make_up_for_too_much_in_the_next():
    logits = torch.tensor([[0.4, 0.3, 0.3], [0.9, 0.05, 0.05]], dtype=torch.float64).log()
    found = expected_calibration_error(logits, torch.tensor([0, 1]), bins=2)
    assert found == pytest.approx((0.6 + 0.9) / 2)


def test_certainty_falls_in_the_last_bin():
    logits = torch.tensor([[1000.0, 0.0]])
    assert expected_calibration_error(logits, torch.tensor([1])) == 1.0


def test_accuracy_and_agreement_count_rows():
    student = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [3.0, 0.0, 1.0]])
    teacher = torch.tensor([[5.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 4.0], [0.0, 0.0, 1.0]])
    assert accuracy(student, torch.tensor([0, 1, 2, 2])) == 0.75
    assert agreement(student, teacher) == 0.5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_matches_the_closed_form_of_two_classes(temperature):
    a, b = 0.3, 1.7
    p, q = (1 / (1 + np.exp(-gap / temperature)) for gap in (a, b))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    got = kl_to_teacher(
        torch.tensor([[b, 0.0]], dtype=torch.float64),
        torch.tensor([[a, 0.0]], dtype=torch.float64),
        temperature=temperature,
    )
    assert got == pytest.approx(expected, rel=1e-9)


def test_metrics_are_means_over_rows_and_images():
    student, teacher = torch.randn(2, 4, 3).double()
    rows = [kl_to_teacher(student[i : i + 1], teacher[i : i + 1]) for i in range(4)]
    assert kl_to_teacher(student, teacher) == pytest.approx(np.mean(rows))
    maps, boxes = torch.rand(3, 4, 4), torch.tensor([[0.0, 0.0, 0.5, 1.0]]).expand(3, 4)
    for metric in (pointing_game, energy_in_box):
        images = [metric(maps[i : i + 1], boxes[:1]) for i in range(3)]
        assert metric(maps, boxes) == pytest.approx(np.mean(images))


def test_kl_stays_finite_at_extreme_logits():
    assert np.isfinite(kl_to_teacher(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])))


def test_pointing_takes_the_center_of_the_cell():
    maps = torch.zeros(1, 4, 4)
    maps[0, 2, 1] = 1  # center (0.375, 0.625)
    assert pointing_game(maps, BOX) == 1.0
    assert pointing_game(maps, torch.tensor([[0.4, 0.5, 0.75, 1.0]])) == 0.0
    assert pointing_game(maps, torch.tensor([[0.25, 0.63, 0.75, 1.0]])) == 0.0


def test_the_edge_belongs_to_the_box():
    maps = torch.zeros(1, 2, 2)
    maps[0, 0, 0] = 1  # center (0.25, 0.25)
    assert pointing_game(maps, torch.tensor([[0.25, 0.25, 1.0, 1.0]])) == 1.0
    assert pointing_game(maps, torch.tensor([[0.0, 0.0, 0.25, 0.25]])) == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("cells", [3, 5, 7, 10, 28, 49])
def test_an_edge_at_a_center_belongs_to_the_box_in_every_precision(dtype, cells):
    centers = (np.arange(cells) + 0.5) / cells
    for at in range(cells):
        for box in ([centers[at], 0, 1, 1], [0, centers[at], 1, 1], [0, 0, centers[at], 1]):
            maps = torch.zeros(1, cells, cells)
            maps[0, slice(None) if box[1] == 0 else at, slice(None) if box[1] else at] = 1
            assert pointing_game(maps, torch.tensor([box], dtype=dtype)) == 1.0, (at, box)


@pytest.mark.parametrize("metric", [pointing_game, energy_in_box])
def test_maps_and_boxes_are_tensors_on_one_device(metric):
    maps = torch.ones(1, 4, 4)
    for sides, name, kind in (
        ((maps.numpy(), BOX), "maps", "ndarray"),
        ((maps, BOX.numpy()), "boxes", "ndarray"),
        ((maps, BOX.tolist()), "boxes", "list"),
    ):
        with pytest.raises(TypeError, match=f"{name} must be a torch.Tensor, got {kind}: convert"):
            metric(*sides)
    with pytest.raises(ValueError, match="maps are on cpu and boxes on meta: move one of them"):
        metric(maps, BOX.to("meta"))


def test_x_is_the_column_and_y_the_row():
    maps = torch.zeros(1, 10, 10)
    maps[0, 1, 8] = 1
    assert pointing_game(maps, torch.tensor([[0.8, 0.1, 0.9, 0.2]])) == 1.0
    assert pointing_game(maps, torch.tensor([[0.1, 0.8, 0.2, 0.9]])) == 0.0
    assert energy_in_box(maps, torch.tensor([[0.8, 0.1, 0.9, 0.2]])) == pytest.approx(1.0)
    assert energy_in_box(maps, torch.tensor([[0.1, 0.8, 0.2, 0.9]])) == pytest.approx(0.0, abs=1e-6)


def test_a_tie_counts_its_share():
    maps = torch.zeros(1, 2, 2)
    maps[0, 0, :] = 3
    assert pointing_game(maps, torch.tensor([[0.0, 0.0, 0.5, 0.5]])) == 0.5


def test_a_constant_map_scores_the_area():
    maps = torch.full((1, 40, 40), 0.7)
    box = torch.tensor([[0.1, 0.2, 0.5, 0.6]])
    assert pointing_game(maps, box) == pytest.approx(0.16)
    assert energy_in_box(maps, box) == pytest.approx(0.16, abs=1e-6)


def test_a_box_that_cuts_a_cell_takes_its_share():
    maps = torch.tensor([[[1.0, 3.0]]])
    box = torch.tensor([[0.25, 0.0, 0.75, 0.5]])
    assert energy_in_box(maps, box) == pytest.approx((0.25 * 1 + 0.25 * 3) / 4)


def test_energy_of_images_is_averaged_after_each_is_normalized():
    maps = torch.tensor([[[1.0, 0.0]], [[30.0, 10.0]]])
    boxes = torch.tensor([[0.0, 0.0, 0.5, 1.0]]).repeat(2, 1)
    assert energy_in_box(maps, boxes) == pytest.approx((1 + 0.75) / 2)


def test_a_map_of_zeros_looks_nowhere():
    assert energy_in_box(torch.zeros(1, 3, 3), BOX) == 0.0


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    corner=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    size=st.tuples(st.floats(0.1, 0.5), st.floats(0.1, 0.5)),
    seed=st.integers(0, 100),
)
def test_energy_inside_and_outside_add_up(height, width, corner, size, seed):
    maps = torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed)) + 0.01
    x, y, dx, dy = *corner, *size
    left = torch.tensor([[x, y, x + dx / 2, y + dy]])
    right = torch.tensor([[x + dx / 2, y, x + dx, y + dy]])
    whole = torch.tensor([[x, y, x + dx, y + dy]])
    parts = energy_in_box(maps, left) + energy_in_box(maps, right)
    assert parts == pytest.approx(energy_in_box(maps, whole), abs=1e-5)
    assert energy_in_box(7 * maps, whole) == pytest.approx(energy_in_box(maps, whole), abs=1e-6)


def test_predict_leaves_every_mode_and_statistic_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(0.5))
    model.train()
    model[1].eval()
    before = model[1].running_mean.clone()
    images = torch.rand(5, 1, 4, 4)
    first, second = predict(model, images), predict(model, images, batch_size=2)
    assert torch.allclose(first, second, atol=1e-6)
    assert not first.requires_grad
    assert [m.training for m in model] == [True, False, True, True]
    assert torch.equal(model[1].running_mean, before)


def test_predict_restores_the_mode_after_an_error():
    model = nn.Linear(3, 2).train()
    with pytest.raises(RuntimeError):
        predict(model, torch.rand(2, 4))
    assert model.training


def test_shared_weights_count_once():
    layer = nn.Linear(4, 4)
    assert count_parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 20


LOGITS, LABELS = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)
MAPS, BOXES = torch.ones(2, 3, 3), torch.tensor([[0.0, 0.0, 0.5, 0.5]]).repeat(2, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy(LOGITS, LABELS[:2]), "give one class number for each row"),
        (lambda: accuracy(LOGITS[:0], LABELS[:0]), "logits are empty, shape"),
        (lambda: agreement(LOGITS, LOGITS[:2]), "same images and classes"),
        (
            lambda: kl_to_teacher(LOGITS, LOGITS, temperature=0),
            "temperature is 0, expected a positive",
        ),
        (
            lambda: expected_calibration_error(LOGITS, LABELS, bins=0),
            "bins is 0: expected a whole number",
        ),
        (
            lambda: predict(nn.Flatten(), LOGITS, batch_size=0),
            "batch_size is 0: expected a whole number",
        ),
        (lambda: predict(nn.Flatten(), LOGITS[:0]), "no images"),
        (lambda: pointing_game(MAPS[:, None], BOXES), "activation_map"),
        (lambda: pointing_game(MAPS, BOXES[:1]), r"boxes of shape \(2, 4\), got \(1, 4\)"),
        (lambda: pointing_game(MAPS * float("nan"), BOXES), "NaN"),
        (lambda: pointing_game(MAPS, 40 * BOXES), "divide pixels"),
        (lambda: pointing_game(MAPS, BOXES[:, [2, 1, 0, 3]]), "x0 < x1"),
        (lambda: energy_in_box(-MAPS, BOXES), "must not be below 0"),
    ],
)
def test_a_wrong_argument_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_class_that_both_rule_out_counts_nothing_in_the_divergence():
    minus = -torch.inf
    student, teacher = torch.tensor([[1.0, 0.0, minus]]), torch.tensor([[0.0, 2.0, minus]])
    assert kl_to_teacher(student, teacher) == pytest.approx(
        kl_to_teacher(student[:, :2], teacher[:, :2])
    )
    assert kl_to_teacher(student, torch.tensor([[0.0, 2.0, 0.0]])) == float("inf")


@pytest.mark.parametrize("metric", [accuracy, expected_calibration_error])
def test_a_row_that_rules_out_all_classes_is_told(metric):
    logits = torch.tensor([[-torch.inf, -torch.inf], [1.0, 2.0]])
    with pytest.raises(ValueError, match="a row that is -inf throughout"):
        metric(logits, torch.tensor([0, 1]))
    for compare in (agreement, kl_to_teacher):
        for sides in ((logits, LOGITS[:2, :2]), (LOGITS[:2, :2], logits)):
            with pytest.raises(ValueError, match="a row that is -inf throughout"):
                compare(*sides)


def test_probabilities_have_an_order_and_no_softmax():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    given = logits.softmax(-1)
    assert accuracy(given, labels) == accuracy(logits, labels)
    assert agreement(given, logits.flip(0)) == agreement(logits, logits.flip(0))
    with pytest.raises(ValueError, match="as probabilities do"):
        expected_calibration_error(given, labels)
    with pytest.raises(ValueError, match="as probabilities do"):
        kl_to_teacher(logits, given)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_is_the_definition_bin_by_bin(bins):
    logits = 3 * torch.randn(200, 4)
    logits[0] = torch.tensor([60.0, 0.0, 0.0, 0.0])  # confidence 1 belongs to the last bin
    confidence, predicted = (x.numpy() for x in logits.double().softmax(1).max(1))
    # Too sure in one bin and not sure enough in the next, so that no two of them may mix.
    right = np.ceil(confidence * bins) % 2 == 0
    labels = torch.from_numpy(np.where(right, predicted, (predicted + 1) % 4))
    expected = 0.0
    for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    found = expected_calibration_error(logits, labels, bins=bins)
    assert found == pytest.approx(expected, rel=1e-9)
    if bins == 15:
        assert expected_calibration_error(logits, labels) == found


def test_agreement_is_of_the_largest_logits():
    student = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0], [0.0, 1.0]])
    teacher = torch.tensor([[5.0, 1.0], [9.0, 0.0], [1.0, 2.0], [1.0, 0.0]])
    assert agreement(student, teacher) == 0.75
    assert agreement(student, student) == 1.0


def test_the_divergence_is_at_temperature_one_unless_another_is_asked_for():
    student, teacher = torch.randn(2, 5, 3)
    assert kl_to_teacher(student, teacher) == kl_to_teacher(student, teacher, temperature=1.0)
    assert kl_to_teacher(student, teacher) != kl_to_teacher(student, teacher, temperature=2.0)


WRONG_BOXES = [
    [-0.001, 0.0, 1.0, 1.0],
    [0.0, 0.0, 1.0, 1.001],
    [-0.1, 0.0, 1.0, 1.0],
    [0.0, -0.1, 1.0, 1.0],
    [0.0, 0.0, 1.1, 1.0],
    [0.0, 0.0, 1.0, 1.1],
    [0.5, 0.0, 0.5, 1.0],
    [0.0, 0.5, 1.0, 0.5],
]


@pytest.mark.parametrize("wrong", WRONG_BOXES)
def test_one_wrong_box_among_right_ones_is_told(wrong):
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], wrong, [0.25, 0.25, 0.5, 0.5]])
    for metric in (pointing_game, energy_in_box):
        with pytest.raises(ValueError, match="boxes must be x0, y0, x1, y1"):
            metric(torch.ones(3, 4, 4), boxes)


def test_rounding_does_not_push_a_box_over_the_edge():
    box = torch.tensor([[-5e-6, 0.0, 1.000005, 1.0]])
    assert energy_in_box(torch.rand(1, 4, 4), box) == pytest.approx(1.0)


def test_one_wrong_cell_among_right_ones_is_told():
    maps = torch.ones(2, 4, 4)
    for value, message in ((torch.nan, "NaN or infinity"), (torch.inf, "NaN or infinity")):
        with pytest.raises(ValueError, match=message):
            pointing_game(
                maps.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(value)),
                BOX.expand(2, 4),
            )
    with pytest.raises(ValueError, match="must not be below 0"):
        energy_in_box(
            maps.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(-0.5)), BOX.expand(2, 4)
        )


def test_a_cell_counts_as_far_as_the_box_covers_it():
    maps = torch.tensor([[[1.0, 3.0]]])
    box = torch.tensor([[0.25, 0.0, 0.75, 0.5]])  # half of each cell, in both directions
    assert energy_in_box(maps, box) == pytest.approx(0.25 * (1 + 3) / 4)


def test_a_model_is_evaluated_on_any_data_with_any_metric():
    images, labels = torch.randn(70, 4), torch.arange(70) % 3
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 3))
    expected = accuracy(predict(model, images), labels)
    loader = DataLoader(TensorDataset(images, labels), batch_size=32)
    for data in (
        (images, labels),
        loader,
        [(images[:20], labels[:20]), (images[20:], labels[20:])],
    ):
        assert evaluate(model, data) == expected
    error = evaluate(nn.Linear(4, 4), (images, images), torch.nn.functional.mse_loss)
    assert error > 0
    with pytest.raises(TypeError, match="metric returned .*: expected one number"):
        evaluate(model, (images, labels), lambda logits, labels: logits)
    for number, message in (
        (np.zeros(2), r"numbers of shape \(2,\)"),
        (np.zeros((0, 3)), r"numbers of shape \(0, 3\)"),
        (pd.Series([1.0, 2.0]), r"numbers of shape \(2,\)"),
        ([1.0], r"\[1.0\]"),
        ("0.5", "'0.5'"),
        (None, "None"),
    ):
        with pytest.raises(TypeError, match=f"metric returned {message}: expected one number"):
            evaluate(model, (images, labels), lambda *_, number=number: number)
    for number in (0.5, np.float32(0.5), np.array(0.5), np.array([0.5]), torch.tensor([[0.5]])):
        assert evaluate(model, (images, labels), lambda *_, number=number: number) == 0.5


def test_logits_of_tokens_are_not_measured_as_rows():
    with pytest.raises(ValueError, match=r"got \(2, 3, 4\): make rows of tokens or pixels"):
        accuracy(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long))


def test_boxes_and_maps_that_do_not_fit_are_told():
    maps = torch.ones(2, 4, 4)
    with pytest.raises(ValueError, match=r"expected boxes of shape \(2, 4\), got \(1, 4\)"):
        pointing_game(maps, BOX)
    with pytest.raises(ValueError, match="the maps hold NaN"):
        pointing_game(maps * float("nan"), BOX.expand(2, 4))
    with pytest.raises(ValueError, match="divide pixels by the image's width"):
        pointing_game(maps, 16 * BOX.expand(2, 4))
    with pytest.raises(ValueError, match="features .B, C, H, W. become maps"):
        energy_in_box(torch.ones(2, 3, 4, 4), BOX.expand(2, 4))
