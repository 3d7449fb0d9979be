from collections import UserDict
from types import SimpleNamespace

import pytest
import torch

from kdlearn.data import Batch
from kdlearn.data.batch import as_batch

X, Y = torch.arange(6.0).view(3, 2), torch.tensor([0, 2, 1])


@pytest.mark.parametrize(
    "value",
    [
        (X, Y),
        [X, Y],
        Batch(X, Y),
        SimpleNamespace(images=X, labels=Y),
    ],
)
def test_what_people_call_data_becomes_a_batch(value):
    batch = as_batch(value, "train")
    assert torch.equal(batch.inputs, X) and torch.equal(batch.labels, Y)


@pytest.mark.parametrize("kind", [dict, UserDict])
@pytest.mark.parametrize("key", ["labels", "label"])
def test_a_dict_has_named_inputs_and_maybe_labels(kind, key):
    batch = as_batch(kind({"input_ids": X, "mask": X > 1, key: Y}), "train")
    assert list(batch.inputs) == ["input_ids", "mask"] and torch.equal(batch.labels, Y)
    assert as_batch(kind({"input_ids": X}), "train").labels is None


def test_labels_may_be_missing_or_several():
    assert as_batch(X, "train").labels is None and as_batch((X, None), "train").labels is None
    both = as_batch((X, {"class": Y, "box": X}), "train")
    assert torch.equal(both.take(slice(1, 2)).labels["box"], X[1:2])


def test_every_part_is_cut_alike():
    batch = Batch(X, Y, rows=torch.arange(3), mask=X > 1, weight=torch.ones(3))
    part = batch.take(torch.tensor([2, 0]))
    assert part.rows.tolist() == [2, 0] and part.labels.tolist() == [1, 0]
    assert part.mask.tolist() == [[True, True], [False, False]] and len(part.weight) == 2
    assert Batch(X).to(torch.device("meta")).inputs.is_meta


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        ((X, Y, Y), TypeError, r"train is a tuple of 3 parts: expected \(inputs, labels\)"),
        (([1, 2], Y), TypeError, "holds a list of 2 parts as inputs"),
        ((X, [0, 2, 1]), TypeError, "holds a list of 3 parts as labels"),
        ((X, Y.int()), TypeError, "labels of train are torch.int32.*call .long"),
        ((X, Y[:2]), ValueError, r"train: 3 samples and labels of shape \(2,\)"),
        ((X, torch.tensor(3)), ValueError, r"labels of shape \(\)"),
        ({"a": X, "b": X[:2]}, ValueError, "lengths {'a': 3, 'b': 2}"),
    ],
)
def test_what_is_no_data_is_told(value, error, said):
    with pytest.raises(error, match=said):
        as_batch(value, "train")
