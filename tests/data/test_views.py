import pytest
import torch
from torch import Generator
from torch.utils.data import TensorDataset

from kdlearn.data import Batch, FixedCopies, RandomShift, Samples
from kdlearn.data.views import LiveViews, PlainViews, as_views

IMAGES = torch.rand(6, 1, 8, 8, generator=Generator().manual_seed(0))


def test_nothing_a_function_and_copies_are_views():
    copies = FixedCopies(RandomShift(1), (0, 1))
    assert as_views(None) == PlainViews() and as_views(copies) is copies
    assert as_views(RandomShift(1)) == LiveViews(RandomShift(1))
    with pytest.raises(TypeError, match="augment is 3: expected a function"):
        as_views(3)


def test_live_views_change_the_inputs_alone():
    batch = Batch(IMAGES, torch.arange(6), rows=torch.arange(6))
    seen = LiveViews(RandomShift(2)).of_batch(batch, Generator().manual_seed(1))
    expected = RandomShift(2)(IMAGES, Generator().manual_seed(1))
    assert torch.equal(seen.inputs, expected) and seen.labels is batch.labels


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        (lambda images, generator: None, "returned NoneType for 6 samples"),
        (lambda images, generator: images[:5], "returned 5 inputs for 6 samples"),
    ],
)
def test_an_augmentation_that_loses_samples_is_told(augment, said):
    with pytest.raises(ValueError, match=said):
        LiveViews(augment).of_batch(Batch(IMAGES), Generator())


def test_each_epoch_shows_the_next_copy_with_rows_of_its_own():
    copies = FixedCopies(RandomShift(2), seeds=(3, 5))
    samples = Samples.of((IMAGES, torch.arange(6)))
    for epoch, number in ((1, 0), (2, 1), (3, 0)):
        shown = copies.of_epoch(samples, epoch)
        batch = next(shown.in_order())
        assert torch.equal(batch.inputs, copies.copy(IMAGES, number))
        assert batch.rows.tolist() == [number * 6 + row for row in range(6)]
    assert not torch.equal(copies.copy(IMAGES, 0), copies.copy(IMAGES, 1))


def test_copies_leave_the_data_as_they_are_whatever_the_augmentation_does():
    images = torch.ones(5, 2)
    copies = FixedCopies(lambda images, generator: images.mul_(2), seeds=(0, 1))
    assert [copies.copy(images, number).max().item() for number in (0, 1)] == [2.0, 2.0]
    assert torch.equal(images, torch.ones(5, 2))


def test_copies_are_made_of_one_tensor_in_memory():
    copies = FixedCopies(RandomShift(1), (0,))
    with pytest.raises(ValueError, match="train is loaded: pass .* a teacher that runs live"):
        copies.of_epoch(Samples.of(TensorDataset(IMAGES, torch.arange(6)), "train"), 1)
    with pytest.raises(ValueError, match="one tensor of images, and named inputs"):
        copies.copy({"pixel_values": IMAGES}, 0)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: FixedCopies(RandomShift(1), ()), ValueError, "expected at least one"),
        (lambda: FixedCopies(RandomShift(1), (1, 1)), ValueError, "all different"),
        (lambda: FixedCopies(RandomShift(1), 3), TypeError, "seeds is 3: expected one per copy"),
        (lambda: FixedCopies("shift", (0,)), TypeError, "augment is 'shift': expected a function"),
    ],
)
def test_copies_out_of_range_are_told(make, error, said):
    with pytest.raises(error, match=said):
        make()
