import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdlearn.measure import holm, load_results, paired_difference, summary
from kdlearn.measure import paired as tables

SCRATCH = [76.1, 74.0, 79.3, 77.7, 75.2]
KD = [83.0, 82.5, 84.4, 85.0, 80.1]


def table(**methods):
    rows = [
        {"seed": seed, "method": name, "accuracy": value}
        for name, values in methods.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_the_interval_is_that_of_the_paired_t_test():
    got = paired_difference(table(scratch=SCRATCH, KD=KD), "KD", "scratch")
    expected = stats.ttest_rel(KD, SCRATCH).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))
    assert got.mean == pytest.approx(np.mean(KD) - np.mean(SCRATCH))
    assert got.std == pytest.approx(np.std(np.subtract(KD, SCRATCH), ddof=1))
    assert got.n == 5
    assert got.values == pytest.approx(np.subtract(KD, SCRATCH))


def test_the_interval_of_two_seeds_by_hand():
    got = paired_difference(table(a=[1.0, 3.0], b=[0.0, 0.0]), "a", "b")
    # mean 2, std sqrt(2), standard error 1, t at 97.5 % with one degree of freedom 12.706
    assert (got.low, got.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_seeds_are_paired_by_number_and_not_by_place():
    rows = table(scratch=SCRATCH, KD=KD)
    mixed = rows.sample(frac=1, random_state=0)
    assert paired_difference(mixed, "KD", "scratch") == paired_difference(rows, "KD", "scratch")


def test_it_reads_as_it_is_quoted():
    got = paired_difference(table(a=[3.0, 1.0], b=[2.0, 2.0]), "a", "b")
    assert str(got) == "+0.0 ± 1.4 points, n = 2 (95 % interval -12.7 to +12.7)"


def test_divergences_are_counted_in_nats():
    rows = table(a=[0.5, 0.7], b=[0.4, 0.5]).rename(columns={"accuracy": "kl_to_teacher"})
    assert "+0.15 ± 0.07 nats" in str(paired_difference(rows, "a", "b", "kl_to_teacher"))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (table(a=[1.0, 2.0], b=[1.0, 2.0, 3.0]), ValueError, "needs the same seeds for both"),
        (table(a=[1.0], b=[2.0]), ValueError, "at least 2 seeds, got 1"),
        (table(a=[1.0, 2.0]), KeyError, "no method 'b': it has 'a'"),
        (table(a=[1.0, float("nan")], b=[1.0, 2.0]), ValueError, "not measured for every seed"),
        (table(a=[1.0, float("inf")], b=[1.0, 2.0]), ValueError, "or is infinite: leave such"),
        (table(a=[1.0, 2.0], b=[1.0, 2.0]).assign(seed=0), ValueError, "has a seed twice"),
        (table(a=[1.0, 2.0]).drop(columns="accuracy"), KeyError, "no column 'accuracy'"),
    ],
)
def test_what_cannot_be_paired_is_refused(rows, error, message):
    with pytest.raises(error, match=message):
        paired_difference(rows, "a", "b")


@pytest.mark.parametrize("metric", ["seed", "method", "note", "passed"])
def test_a_metric_is_a_column_of_numbers(metric):
    rows = table(a=[1.0, 2.0], b=[1.0, 2.0]).assign(note="fine", passed=True)
    message = f"column '{metric}' is no metric: expected one of numbers, .* has accuracy"
    with pytest.raises(TypeError, match=message):
        paired_difference(rows, "a", "b", metric)
    with pytest.raises(TypeError, match=message):
        summary(rows, [metric])
    assert list(summary(rows).columns) == ["n", "accuracy"]


def test_a_summary_has_a_row_a_method_in_the_order_of_the_table():
    rows = table(scratch=SCRATCH, KD=KD)
    rows["kl"] = 0.5
    rows.loc[rows["method"] == "KD", "kl"] = np.nan
    got = summary(rows)
    assert list(got.index) == ["scratch", "KD"]
    assert list(got["n"]) == [5, 5]
    mean, std = np.mean(KD), np.std(KD, ddof=1)
    assert got.loc["KD", "accuracy"] == f"{mean:.1f} ± {std:.1f}"
    assert got.loc["scratch", "kl"] == "0.50 ± 0.00"
    assert got.loc["KD", "kl"] == ""
    assert list(summary(rows, ["kl"]).columns) == ["n", "kl"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([9.0, 9.5], "9.25 ± 0.35"),
        ([9.0, 10.0], "9.5 ± 0.7"),
        ([-12.0, 1.0], "-5.5 ± 9.2"),
        ([2.0, 30.0], "16.0 ± 19.8"),
    ],
)
def test_one_decimal_is_enough_from_ten_on(values, text):
    assert summary(table(a=values)).loc["a", "accuracy"] == text


def test_a_difference_prints_without_its_values():
    got = paired_difference(table(a=[3.0, 1.0], b=[2.0, 2.0]), "a", "b")
    assert got.values == (1.0, -1.0)
    assert "values" not in repr(got)


def test_a_summary_of_an_unknown_column_lists_the_columns():
    with pytest.raises(KeyError, match="it has seed, method, accuracy"):
        summary(table(a=[1.0]), ["speed"])


def test_results_are_found_in_the_package_first(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "some_name.csv").write_text("seed,method,accuracy\n0,KD,81.5\n")
    monkeypatch.setattr(tables, "files", lambda package: tmp_path)
    assert load_results("some-name").to_dict("records") == [
        {"seed": 0, "method": "KD", "accuracy": 81.5}
    ]


def test_missing_results_list_what_there_is_and_how_to_make_more(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "some_name.csv").write_text("seed,method\n")
    monkeypatch.setattr(tables, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"some-name.*kdlearn experiment"):
        load_results("nonsense")


def differences(*offsets):
    """Differences of three seeds, each around its offset with the same scatter."""
    rows = {str(i): [x - 1, x, x + 1] for i, x in enumerate(offsets)}
    whole = table(zero=[0.0, 0.0, 0.0], **rows)
    return {name: paired_difference(whole, name, "zero") for name in rows}


def p_value(mean):
    """The paired t test of three differences around a mean, in closed form."""
    t = mean * 3**0.5
    return 1 - t / (2 + t * t) ** 0.5


def test_holm_names_what_is_told_from_zero_counted_together():
    assert p_value(30) < 0.05 / 3 < p_value(4) < 0.05 / 2 < p_value(3) < 0.05
    assert holm(differences(30, 3, 4)) == ["0", "2", "1"]
    assert holm(differences(30, 3, 4), level=0.01) == ["0"]


def test_holm_stops_at_the_first_that_fails():
    # The third would pass its own limit of 0.05, but the second has failed at 0.025.
    assert 0.05 / 2 < p_value(2.7) < p_value(2.6) < 0.05
    assert holm(differences(30, 2.6, 2.7)) == ["0"]


def test_holm_takes_what_is_the_same_for_every_seed():
    rows = table(
        zero=[0.0, 0.0, 0.0], none=[0.0, 0.0, 0.0], all=[2.0, 2.0, 2.0], big=[29.0, 30, 31]
    )
    names = ["none", "all", "big"]
    same = {name: paired_difference(rows, name, "zero") for name in names}
    for order in (names, names[::-1]):
        assert holm({name: same[name] for name in order}) == ["all", "big"]


def test_holm_of_nothing_names_nothing():
    assert holm({}) == []


@pytest.mark.parametrize("given", [[1.0, 2.0], {"a": 0.01}, None])
def test_holm_asks_for_paired_differences(given):
    with pytest.raises(TypeError, match="expected names and what paired_difference returns"):
        holm(given)


@pytest.mark.parametrize("level", [0, 1, 5, -0.05, float("nan")])
def test_holm_asks_for_a_level_between_0_and_1(level):
    with pytest.raises(ValueError, match="between 0 and 1, such as 0.05; got"):
        holm(differences(30), level)


@pytest.mark.parametrize("kind", ["uint8", "UInt8", "int8", "float32", "Float64"])
def test_numbers_of_any_kind_are_subtracted_as_real_ones(kind):
    rows = table(a=[10, 100, 30], b=[12, 101, 29])
    rows["accuracy"] = rows["accuracy"].astype(kind)
    assert paired_difference(rows, "a", "b").values == (-2.0, -1.0, 1.0)
    assert summary(rows).to_dict() == summary(table(a=[10.0, 100, 30], b=[12, 101, 29.0])).to_dict()


def test_the_lowest_whole_number_is_large_too():
    rows = table(a=[-128, 0])
    assert summary(rows.astype({"accuracy": "int8"})).equals(summary(rows))


def test_what_pandas_calls_missing_is_missing():
    rows = table(a=[1.0, 2.0], b=[1.0, 2.0], c=[None, None])
    rows["accuracy"] = rows["accuracy"].astype("Float64")
    with pytest.raises(ValueError, match="not measured for every seed of 'c'"):
        paired_difference(rows, "c", "b")
    assert list(summary(rows)["accuracy"]) == ["1.50 ± 0.71", "1.50 ± 0.71", ""]


@pytest.mark.parametrize("kind", ["timedelta64[s]", "complex"])
def test_times_and_complex_numbers_are_no_metric(kind):
    rows = table(a=[1, 2], b=[1, 2]).astype({"accuracy": kind})
    with pytest.raises(TypeError, match="no metric: expected one of numbers, .* has none"):
        paired_difference(rows, "a", "b")
    assert list(summary(rows).columns) == ["n"]


def test_a_column_may_be_named_by_a_number():
    rows = table(a=[1.0, 3.0], b=[0.0, 0.0]).rename(columns={"accuracy": 4})
    assert paired_difference(rows, "a", "b", 4).values == (1.0, 3.0)
    assert summary(rows).equals(summary(rows, [4]))
    assert summary(rows).loc["a", 4] == "2.00 ± 1.41"
    with pytest.raises(TypeError, match="of which the table has 4"):
        summary(rows, ["method"])


def test_a_seed_that_occurs_twice_is_no_seed_more():
    table = pd.DataFrame({"seed": [0, 1, 1], "method": ["a"] * 3, "accuracy": [80.0, 82.0, 82.0]})
    with pytest.raises(ValueError, match="'a' has a seed twice"):
        summary(table)
    assert summary(table.assign(method=["a", "a", "b"])).n.tolist() == [2, 1]
