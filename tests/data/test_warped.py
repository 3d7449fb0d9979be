import pytest
import torch

from kdlearn.data import base_digits, warped_digits

SMALL = {"train": 300, "validation": 60, "test": 80}
DATA = warped_digits(**SMALL)


def test_shapes_and_ranges():
    for name, size in SMALL.items():
        split = getattr(DATA, name)
        assert split.images.shape == (size, 1, 16, 16)
        assert split.images.dtype == torch.float32
        assert split.labels.dtype == split.base.dtype == torch.int64
        assert split.boxes is None


def test_labels_are_those_of_the_base_digit():
    parts = [base_digits(part) for part in ("train", "validation", "test")]
    labels = torch.cat([part.labels for part in parts])
    for split in (DATA.train, DATA.validation, DATA.test):
        assert torch.equal(split.labels, labels[split.base])


def test_no_base_digit_is_in_two_splits():
    train, validation, test = (
        set(split.base.tolist()) for split in (DATA.train, DATA.validation, DATA.test)
    )
    assert not train & validation and not train & test and not validation & test
    assert max(train) < 1000 <= min(validation) and max(validation) < 1297 <= min(test)


def test_the_same_seed_gives_the_same_tensors_and_touches_no_global_state():
    state = torch.get_rng_state()
    again, other = warped_digits(**SMALL), warped_digits(**SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again.train.images, DATA.train.images)
    assert not torch.equal(other.train.images, DATA.train.images)


def test_the_size_of_one_split_does_not_change_another():
    assert torch.equal(warped_digits(**{**SMALL, "train": 5}).test.images, DATA.test.images)


def test_the_noise_has_standard_deviation_a_tenth():
    corner = warped_digits(train=4000, validation=1, test=1).train.images[:, 0, 0, 0]
    assert corner.median().abs() < 0.01
    assert corner.sort().values[:2000].square().mean().sqrt() == pytest.approx(0.1, abs=0.01)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="validation is 0: expected a whole number >= 1"):
        warped_digits(validation=0)
