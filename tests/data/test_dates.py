from datetime import datetime

import pytest
import torch

from kdlearn.data.dates import SOURCE, SYMBOLS, TARGET, spell, written_dates

FORMATS = ("%d %b %Y", "%b %d, %Y", "%Y %b %d", "%d of %b, %Y")


def parsed(text):
    for way in FORMATS:
        try:
            return datetime.strptime(text, way)
        except ValueError:
            continue
    raise AssertionError(f"{text!r} is no date")


def test_both_answers_are_the_date_that_the_source_says():
    dates = written_dates(300, seed=1)
    for i in range(300):
        day = parsed(spell(dates.source[i]).strip())
        first, second = (spell(answer) for answer in dates.answers[:, i])
        assert (first, second) == (f"{day:%Y-%m-%d}", f"{day:%d/%m/%Y}")


def test_the_alignment_marks_the_year_the_month_and_the_day_of_the_source():
    dates = written_dates(200, seed=2)
    for kind, fields in enumerate(("YYYY-mm-dd", "dd/mm/YYYY")):
        for i in range(200):
            source = spell(dates.source[i])
            day = parsed(source.strip())
            told = {"Y": f"{day:%Y}", "m": f"{day:%b}".lower(), "d": str(day.day)}
            for place, field in enumerate(fields):
                marked = dates.alignment[kind, i, place].nonzero().flatten().tolist()
                assert "".join(source[j] for j in marked) == told.get(field, "")


def test_the_target_is_one_of_the_answers_in_the_share_that_was_asked_for():
    for share in (0.0, 0.6, 1.0):
        dates = written_dates(2000, dashes=share)
        picked = dates.answers[dates.second.long(), torch.arange(2000)]
        assert torch.equal(dates.target, picked)
        assert 1 - dates.second.float().mean().item() == pytest.approx(share, abs=0.04)


def test_dates_follow_from_the_seed():
    one, same, other = (written_dates(20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.source, same.source) and torch.equal(one.target, same.target)
    assert not torch.equal(one.source, other.source)
    assert one.source.shape == (20, SOURCE) and one.target.shape == (20, TARGET)
    assert len(one) == 20 and one.source.max() < len(SYMBOLS)


def test_no_date_at_all_and_a_share_above_1_are_refused():
    with pytest.raises(ValueError, match="count"):
        written_dates(0)
    with pytest.raises(ValueError, match="dashes is 1.5"):
        written_dates(1, dashes=1.5)
