"""The figures on paper: what is drawn in them, not how many pixels it takes."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb

from kdlearn.measure import PairedDifference
from kdlearn.show import plots
from kdlearn.training.fit import History


def a_history(*accuracies: float) -> History:
    return History(
        [
            {
                "epoch": epoch,
                "loss": 3.0 / epoch,
                "parts": {"labels": 1.0 / epoch, "soft_targets": 2.0 / epoch},
                "validation_accuracy": accuracy,
            }
            for epoch, accuracy in enumerate(accuracies, start=1)
        ]
    )


def lines(axes: Any) -> dict[str, list[tuple[float, float]]]:
    return {
        line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in axes.get_lines()
    }


def test_bars_are_as_high_as_softmax() -> None:
    logits = torch.tensor([3.0, -1.0, 0.5, 7.0])
    figure = plots.probabilities(logits, temperatures=(0.5, 1, 6))
    assert len(figure.axes) == 3
    for axes, temperature in zip(figure.axes, (0.5, 1, 6), strict=True):
        powers = [math.exp(z / temperature) for z in logits.tolist()]
        expected = [power / sum(powers) for power in powers]
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == pytest.approx(expected, rel=1e-6)
        nats = -sum(p * math.log(p) for p in expected)
        assert axes.get_title() == f"T = {temperature:g}: entropy {nats:.2f} nats"


def test_classes_are_named_under_the_last_row() -> None:
    figure = plots.probabilities(torch.zeros(3), class_names=["cat", "dog", "car"])
    ticks = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert ticks == ["cat", "dog", "car"]


def test_a_small_probability_is_not_called_zero() -> None:
    figure = plots.probabilities(torch.tensor([0.0, 20.0]), temperatures=(1,))
    assert [text.get_text() for text in figure.axes[0].texts] == ["<0.01", "1.00"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": torch.zeros(2, 3)}, r"\(2, 3\): take one row"),
        ({"logits": torch.zeros(1)}, "C at least 2"),
        ({"logits": torch.tensor([0.0, float("nan")])}, "NaN"),
        ({"logits": torch.zeros(3), "temperatures": (1, 0)}, "above 0"),
        ({"logits": torch.zeros(3), "temperatures": ()}, "at least one"),
        ({"logits": torch.zeros(3), "class_names": ["a", "b"]}, "2 class names for 3 classes"),
    ],
)
def test_probabilities_say_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.probabilities(**arguments)


def test_learning_curves_draw_each_training_in_per_cent() -> None:
    figure = plots.learning_curves({"scratch": a_history(0.2, 0.5), "KD": a_history(0.3, 0.75)})
    assert lines(figure.axes[0]) == {
        "scratch": [(1, 20), (2, 50)],
        "KD": [(1, 30), (2, 75)],
    }
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["scratch", "KD"]


def test_learning_curves_draw_the_loss_as_it_is() -> None:
    figure = plots.learning_curves({"KD": a_history(0.3, 0.75)}, metric="loss")
    assert lines(figure.axes[0]) == {"KD": [(1, 3.0), (2, 1.5)]}
    assert figure.axes[0].get_ylabel() == "loss"


def test_learning_curves_say_what_is_missing() -> None:
    with pytest.raises(ValueError, match="histories are empty"):
        plots.learning_curves({})
    with pytest.raises(ValueError, match="KD has no epoch yet"):
        plots.learning_curves({"KD": History([])})
    unvalidated = History([{"epoch": 1, "loss": 1.0, "parts": {"labels": 1.0}}])
    with pytest.raises(KeyError, match="KD has no 'validation_accuracy'.*epoch, loss, parts"):
        plots.learning_curves({"KD": unvalidated})


def test_a_history_shows_its_parts_and_its_accuracy() -> None:
    loss, accuracy = plots.history(a_history(0.2, 0.5)).axes
    assert lines(loss) == {
        "total": [(1, 3.0), (2, 1.5)],
        "labels": [(1, 1.0), (2, 0.5)],
        "soft_targets": [(1, 2.0), (2, 1.0)],
    }
    assert list(lines(accuracy).values()) == [[(1, 20), (2, 50)]]


def test_a_history_of_labels_alone_has_one_curve() -> None:
    run = History([{"epoch": 1, "loss": 1.5, "parts": {"labels": 1.5}}])
    (loss,) = plots.history(run).axes
    assert lines(loss) == {"labels": [(1, 1.5)]}


def test_overlays_lay_each_map_on_its_image() -> None:
    images = torch.rand(2, 1, 8, 6, generator=torch.Generator().manual_seed(0))
    maps = {"teacher": torch.eye(4).repeat(2, 1, 1) * 7, "student": torch.rand(2, 2, 2)}
    boxes = torch.tensor([[0.0, 0.25, 0.5, 0.75], [0.5, 0.5, 1.0, 1.0]])
    figure = plots.overlays(images, maps, boxes=boxes, titles=["a 3", "a 5"])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "teacher", "student"]
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["a 3", "a 5"]
    for n in range(2):
        plain, teacher, student = figure.axes[3 * n : 3 * n + 3]
        assert len(plain.images) == 1
        torch.testing.assert_close(
            torch.tensor(teacher.images[0].get_array()), images[n, 0].double()
        )
        torch.testing.assert_close(
            torch.tensor(teacher.images[1].get_array()).float(), torch.eye(4)
        )
        assert torch.tensor(student.images[1].get_array()).max() == 1
        assert student.images[1].get_extent() == [0, 6, 8, 0]
        x0, y0, x1, y1 = boxes[n].tolist()
        for axes in (plain, teacher, student):
            frame = axes.patches[-1]
            assert (frame.get_x(), frame.get_y()) == (6 * x0, 8 * y0)
            assert (frame.get_width(), frame.get_height()) == (6 * (x1 - x0), 8 * (y1 - y0))


def test_overlays_keep_colors_and_take_a_map_of_zeros() -> None:
    images = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    figure = plots.overlays(images, {"dead": torch.zeros(1, 2, 2)})
    assert figure.axes[0].images[0].get_array().shape == (4, 4, 3)
    assert not figure.axes[1].images[1].get_array().any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(8, 8)}, r"images\[None\]"),
        ({"maps": {}}, "maps are empty"),
        ({"maps": {"KD": torch.ones(1, 4, 4)}}, r"maps of KD of shape \(2, h, w\)"),
        ({"maps": {"KD": -torch.ones(2, 4, 4)}}, "maps of KD must not be below 0"),
        ({"boxes": torch.tensor([[0.0, 0.0, 0.0, 1.0]] * 2)}, "boxes must be x0, y0, x1, y1"),
        ({"titles": ["one"]}, "1 titles for 2 images"),
    ],
)
def test_overlays_say_what_is_wrong(change: dict[str, Any], message: str) -> None:
    good = {"images": torch.zeros(2, 8, 8), "maps": {"teacher": torch.ones(2, 4, 4)}}
    with pytest.raises(ValueError, match=message):
        plots.overlays(**{**good, **change})


def test_paired_differences_draw_every_seed_and_the_interval() -> None:
    gains = {
        "KD - scratch": PairedDifference(6.0, 1.0, 3.5, 8.5, 3, (5.0, 6.0, 7.0)),
        "AT - KD": PairedDifference(-0.5, 1.0, -3.0, 2.0, 2, (-1.0, 0.0)),
    }
    (axes,) = plots.paired_differences(gains).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(gains)
    drawn = [list(line.get_xdata()) for line in axes.get_lines()]
    for row, gain in enumerate(gains.values()):
        assert list(gain.values) in drawn
        assert [gain.mean] in drawn
        (bar,) = axes.containers[row].lines[2]
        ends = bar.get_segments()[0][:, 0].tolist()
        assert ends == pytest.approx([gain.low, gain.high])


def test_differences_in_different_units_do_not_share_an_axis() -> None:
    points = PairedDifference(1.0, 1.0, 0.0, 2.0, 2, (0.5, 1.5))
    nats = PairedDifference(1.0, 1.0, 0.0, 2.0, 2, (0.5, 1.5), unit="nats")
    with pytest.raises(ValueError, match="nats and points: draw a figure for each unit"):
        plots.paired_differences({"accuracy": points, "KL": nats})
    with pytest.raises(ValueError, match="differences are empty"):
        plots.paired_differences({})


def test_every_figure_is_white_readable_and_closed() -> None:
    before = plt.get_fignums()
    figures = [
        plots.probabilities(torch.zeros(10)),
        plots.learning_curves({"KD": a_history(0.3, 0.75)}),
        plots.history(a_history(0.3, 0.75)),
        plots.overlays(torch.zeros(1, 8, 8), {"teacher": torch.ones(1, 4, 4)}),
        plots.paired_differences({"d": PairedDifference(1.0, 1.0, 0.0, 2.0, 2, (0.5, 1.5))}),
    ]
    assert plt.get_fignums() == before  # or a notebook would show each of them twice
    for figure in figures:
        assert to_rgb(figure.get_facecolor()) == (1, 1, 1)
        assert figure.axes[0].title.get_fontsize() >= 10
        assert figure.axes[0].xaxis.label.get_fontsize() >= 10


def test_a_dark_style_of_the_reader_does_not_leak_in_nor_ours_out() -> None:
    with plt.style.context("dark_background"):
        figure = plots.learning_curves({"KD": a_history(0.3, 0.75)})
        assert to_rgb(figure.axes[0].get_facecolor()) == (1, 1, 1)
        assert to_rgb(figure.axes[0].xaxis.label.get_color()) == (0, 0, 0)
        assert to_rgb(plt.rcParams["figure.facecolor"]) == (0, 0, 0)
