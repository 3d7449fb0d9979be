import pytest
import torch
from sklearn.datasets import load_digits

from kdlearn.data import base_digits


def test_parts_are_scikit_learns_digits_in_order():
    pixels, labels = load_digits(return_X_y=True)
    parts = [base_digits(part) for part in ("train", "validation", "test")]
    assert [len(part.labels) for part in parts] == [1000, 297, 500]
    together = torch.cat([part.images for part in parts]).flatten(1) * 16
    assert torch.equal(together, torch.tensor(pixels, dtype=torch.float32))
    assert torch.equal(torch.cat([part.labels for part in parts]), torch.tensor(labels))
    assert torch.equal(torch.cat([part.index for part in parts]), torch.arange(1797))


def test_writing_into_a_part_does_not_change_the_next_call():
    base_digits("test").images.zero_()
    assert base_digits("test").images.sum() > 0


def test_an_unknown_part_lists_the_parts():
    with pytest.raises(KeyError, match="choose one of train, validation, test"):
        base_digits("val")
