import pytest
import torch

from kdlearn.data import base_digits, cluttered, cluttered_digits

SMALL = {"train": 300, "validation": 60, "test": 80}
DATA = cluttered_digits(**SMALL)


def crop(split, row):
    x0, y0, x1, y1 = (split.boxes[row] * 40).round().long().tolist()
    return split.images[row, 0, y0:y1, x0:x1]


def test_shapes_and_boxes():
    for name, size in SMALL.items():
        split = getattr(DATA, name)
        assert split.images.shape == (size, 1, 40, 40)
        assert split.boxes.shape == (size, 4)
        assert split.boxes.min() >= 0 and split.boxes.max() <= 1 + 1e-6
        sides = split.boxes[:, 2:] - split.boxes[:, :2]
        assert torch.allclose(sides, torch.full_like(sides, 0.4))


def test_the_digit_is_in_its_box(monkeypatch):
    monkeypatch.setattr(cluttered, "NOISE", 0.0)
    monkeypatch.setattr(cluttered, "FRAGMENTS", 0)
    split = cluttered_digits(**SMALL).train
    digits = base_digits("train").images
    for row in range(20):
        patch = crop(split, row)
        small = torch.nn.functional.adaptive_avg_pool2d(patch[None], 8)
        original = digits[split.base[row]]
        correlation = torch.corrcoef(torch.stack([small.flatten(), original.flatten()]))[0, 1]
        assert correlation > 0.95
        assert patch.sum() == pytest.approx(split.images[row].sum().item(), rel=1e-5)


def test_fragments_only_add_light(monkeypatch):
    monkeypatch.setattr(cluttered, "NOISE", 0.0)
    split = cluttered_digits(**SMALL).train
    outside = torch.tensor(
        [split.images[row].sum() - crop(split, row).sum() for row in range(len(split))]
    )
    assert (outside > 0).float().mean() > 0.95
    assert split.images.min() >= 0 and split.images.max() <= 1


def test_no_base_digit_is_in_two_splits_and_labels_fit():
    parts = [base_digits(part) for part in ("train", "validation", "test")]
    splits = (DATA.train, DATA.validation, DATA.test)
    for part, split in zip(parts, splits, strict=True):
        start = part.index[0]
        assert set(split.base.tolist()) <= set(part.index.tolist())
        assert torch.equal(split.labels, part.labels[split.base - start])


def test_the_clutter_of_a_split_comes_from_its_own_digits(monkeypatch):
    def two_tone(part):
        digits = base_digits(part)
        level = 1.0 if part == "train" else 0.5
        return type(digits)(torch.full_like(digits.images, level), digits.labels, digits.index)

    monkeypatch.setattr(cluttered, "NOISE", 0.0)
    monkeypatch.setattr(cluttered, "base_digits", two_tone)
    data = cluttered_digits(**SMALL)
    assert set(data.train.images.unique().tolist()) == {0.0, 1.0}
    assert set(data.test.images.unique().tolist()) == {0.0, 0.5}


def test_the_same_seed_gives_the_same_tensors_and_touches_no_global_state():
    state = torch.get_rng_state()
    again, other = cluttered_digits(**SMALL), cluttered_digits(**SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again.train.images, DATA.train.images)
    assert not torch.equal(other.train.images, DATA.train.images)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="test is -2: expected a whole number >= 1"):
        cluttered_digits(test=-2)
