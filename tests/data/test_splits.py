import pytest
import torch

from kdlearn.data import Split, balanced_subset

SPLIT = Split(
    torch.arange(12.0).view(12, 1, 1, 1),
    torch.arange(12) % 3,
    torch.arange(100, 112),
    torch.rand(12, 4),
)


@pytest.mark.parametrize(
    "indices", [slice(2, 7), [3, 1], torch.tensor([5, 0]), torch.arange(12) % 2 == 0]
)
def test_a_subset_keeps_the_rows_together(indices):
    part = SPLIT.subset(indices)
    rows = part.images.flatten().long()
    assert len(part) == len(rows) > 1
    assert torch.equal(part.labels, SPLIT.labels[rows])
    assert torch.equal(part.base, SPLIT.base[rows])
    assert torch.equal(part.boxes, SPLIT.boxes[rows])


def test_a_slice_is_a_subset():
    assert torch.equal(SPLIT[3:5].base, torch.tensor([103, 104]))


def test_an_integer_index_says_what_to_do():
    with pytest.raises(TypeError, match=r"got int: for chosen rows use split.subset"):
        SPLIT[3]


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="images 12, labels 11, base 12"):
        Split(SPLIT.images, SPLIT.labels[:11], SPLIT.base)


@pytest.mark.parametrize(("size", "counts"), [(6, [2, 2, 2]), (8, [3, 3, 2]), (12, [4, 4, 4])])
def test_a_balanced_subset_has_equal_classes_and_no_row_twice(size, counts):
    part = balanced_subset(SPLIT, size, seed=4)
    assert part.labels.bincount().tolist() == counts
    assert len(part.base.unique()) == size


def test_the_seed_decides_the_subset():
    first, again, other = (balanced_subset(SPLIT, 6, seed=seed).base for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_too_few_images_of_a_class_are_told():
    with pytest.raises(ValueError, match="class 0 has 4 images, but 5 are needed"):
        balanced_subset(SPLIT, 13)
    with pytest.raises(ValueError, match="size is 0: expected a whole number >= 1"):
        balanced_subset(SPLIT, 0)
