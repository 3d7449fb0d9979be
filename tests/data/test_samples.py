import random
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from torch import Generator
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
    WeightedRandomSampler,
)

from kdlearn.data import Batch, Samples

X, Y = torch.arange(20.0).view(10, 2), torch.arange(10) % 3


def orders(samples: Samples, seed: int = 0) -> list[list[int]]:
    return [rows.tolist() for rows in samples.order(4, Generator().manual_seed(seed))]


def shown(samples: Samples, share=(0, 1), seed=(0, 1)) -> list[list[float]]:
    order = samples.order(4, Generator().manual_seed(0))
    return [batch.inputs[:, 0].tolist() for batch in samples.load(order, share, seed)]


class Drawing(Dataset):
    """Draws from all three generators while it loads a sample."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int):
        noise = random.random() + float(np.random.rand()) + torch.rand(())
        return X[row] + noise, Y[row]


@pytest.mark.parametrize(
    "data",
    [(X, Y), TensorDataset(X, Y), DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True)],
)
def test_an_epoch_shows_every_sample_once_and_the_seed_gives_the_order(data):
    samples = Samples.of(data, "train")
    order = orders(samples)
    assert sorted(sum(order, [])) == list(range(10)) and order != orders(samples, seed=1)
    assert order == orders(samples) and len(order) == samples.steps(4) == 3
    assert sorted(sum(shown(samples), [])) == X[:, 0].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_shares_of_several_processes_are_the_batch(workers):
    loader = DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True, num_workers=workers)
    whole = shown(Samples.of(loader, "train"))
    parts = [shown(Samples.of(loader, "train"), share=(rank, 2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_is_drawn_while_loading_follows_from_the_seed_alone(workers):
    loader = DataLoader(Drawing(), batch_size=4, num_workers=workers)
    samples = Samples.of(loader, "train")
    torch.manual_seed(workers)
    before = torch.get_rng_state()
    first = shown(samples)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == shown(Samples.of(DataLoader(Drawing(), batch_size=4), "train"))
    assert first != shown(samples, seed=(0, 2))


def test_an_epoch_can_be_entered_at_any_step():
    samples = Samples.of(DataLoader(Drawing(), batch_size=4, shuffle=True), "train")
    order = samples.order(4, Generator().manual_seed(0))
    whole = [batch.inputs for batch in samples.load(order, (0, 1), (3, 1))]
    rest = [batch.inputs for batch in samples.load(order[1:], (0, 1), (3, 1))]
    assert all(map(torch.equal, whole[1:], rest))


def test_a_loader_keeps_its_own_sampler_and_last_batch():
    sampler = WeightedRandomSampler([1.0] + [0.0] * 9, num_samples=6)
    loader = DataLoader(TensorDataset(X, Y), batch_size=4, sampler=sampler, drop_last=True)
    samples = Samples.of(loader, "train")
    assert orders(samples) == [[0, 0, 0, 0]] and samples.steps(99) == 1


def test_a_generator_of_the_loader_does_not_repeat_its_order():
    own = Generator().manual_seed(5)
    samples = Samples.of(DataLoader(TensorDataset(X, Y), 4, shuffle=True, generator=own), "train")
    generator = Generator().manual_seed(0)
    first, second = ([rows.tolist() for rows in samples.order(4, generator)] for _ in range(2))
    assert first != second and orders(samples) == first


def test_dicts_and_data_sets_of_hugging_face_are_read():
    table = datasets.Dataset.from_dict({"x": X.tolist(), "labels": Y.tolist()}).with_format("torch")
    samples = Samples.of(table, "train")
    batch = samples.few(2)
    assert torch.equal(batch.inputs["x"], X[[0, 9]]) and batch.labels.tolist() == [0, 0]
    whole = [batch.labels for batch in samples.in_order()]
    assert torch.equal(torch.cat(whole), Y)


class Streamed(IterableDataset):
    def __init__(self, length: int, real: int) -> None:
        self.length, self.real = length, real

    def __len__(self) -> int:
        return self.length

    def __iter__(self):
        return ((X[:2], Y[:2]) for _ in range(self.real))


def test_a_stream_is_taken_as_it_comes_and_held_to_its_length():
    assert len(shown(Samples.of(Streamed(3, 3), "train"))) == 3
    for real, said in ((2, "gave 2"), (4, "gave more")):
        with pytest.raises(ValueError, match=f"train has a length of 3 batches and {said}"):
            shown(Samples.of(Streamed(3, real), "train"))
    with pytest.raises(TypeError, match="is a stream: its samples cannot be counted"):
        len(Samples.of([(X, Y)], "train"))


def test_few_samples_come_from_all_over_the_data_and_are_always_the_same():
    for data in ((X, Y), TensorDataset(X, Y)):
        batch = Samples.of(data).few(4)
        assert batch.rows.tolist() == [0, 3, 6, 9]
        assert torch.equal(batch.inputs, X[[0, 3, 6, 9]])


def test_a_digest_sees_order_values_types_and_labels():
    base = Samples.of((X, Y)).digest()
    changed = X.clone()
    changed[5, 1] += 1e-3
    for other in ((X.flip(0), Y), (changed, Y), (X.double(), Y), (X, Y.flip(0)), Batch(X)):
        assert Samples.of(other).digest() != base
    assert Samples.of((X, Y.flip(0))).digest(inputs_alone=True) == Samples.of(X).digest(True)


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (3, TypeError, r"train is a int: expected \(inputs, labels\)"),
        ("images", TypeError, "train is a str"),
        ((X[:0], Y[:0]), ValueError, "train is empty"),
        (TensorDataset(X[:0]), ValueError, "train is empty"),
        (DataLoader(TensorDataset(X, Y), 11, drop_last=True), ValueError, "train has no batch"),
        ((torch.tensor(1.0), Y), ValueError, "train: the inputs hold one number"),
        ([], ValueError, "train has no batch"),
        (iter([(X, Y)]), ValueError, "without a length, which the schedule needs"),
        (SimpleNamespace(images=X, labels=Y[:3]), ValueError, r"10 samples and labels of shape"),
        (
            DataLoader(
                TensorDataset(X, Y),
                sampler=DistributedSampler(TensorDataset(X), num_replicas=2, rank=0),
            ),
            ValueError,
            "has a DistributedSampler: pass shuffle=True",
        ),
    ],
)
def test_what_cannot_be_read_is_told(data, error, said):
    with pytest.raises(error, match=said):
        Samples.of(data, "train")


def test_other_inputs_for_the_same_samples_are_counted():
    with pytest.raises(ValueError, match="3 inputs for 10 samples"):
        Samples.of((X, Y)).with_inputs(X[:3], 0)
