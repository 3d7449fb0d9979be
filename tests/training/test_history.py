from kdlearn.training import History


def test_it_prints_a_row_per_epoch_with_every_part():
    rows = [
        {"epoch": n, "loss": 1.5 / n, "parts": {"labels": 1 / n, "soft_targets": 0.5 / n}}
        for n in (1, 2)
    ]
    head, first, second = str(History(rows)).splitlines()
    assert head.split() == ["epoch", "loss", "labels", "soft_targets"]
    assert first.split() == ["1", "1.500", "1.000", "0.500"]
    assert len(first) == len(second) == len(head)
    assert str(History()) == "no epoch yet"


def test_accuracy_is_shown_in_per_cent_and_another_metric_as_it_is():
    row = {"epoch": 1, "loss": 1.0, "parts": {"labels": 1.0}}
    assert "50.0 %" in str(History([row | {"validation_accuracy": 0.5}]))
    assert "12.5000" in str(History([row | {"validation_error": 12.5}]))


def test_an_epoch_that_was_measured_otherwise_has_a_dash():
    row = {"epoch": 1, "loss": 1.0, "parts": {"labels": 1.0}}
    rows = [row | {"validation_accuracy": 0.5}, row, row | {"validation_error": 12.5}]
    shown = [line.split()[3:] for line in str(History(rows)).splitlines()]
    assert shown == [["validation"] * 2, ["50.0", "%", "-"], ["-", "-"], ["-", "12.5000"]]
