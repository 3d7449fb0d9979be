import pickle
import random
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)

from kdlearn.data import Batch, Samples
from kdlearn.data.samples import _Seeded

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


PAIRS = TensorDataset(X, Y)
LEFT_OUT = [0, 3, 9]
SOME = [row for row in range(10) if row not in LEFT_OUT]


def as_dict(pairs):
    inputs, labels = default_collate(pairs)
    return {"x": inputs, "labels": labels}


LOADERS = {
    "in order": lambda: DataLoader(PAIRS, 4),
    "shuffled": lambda: DataLoader(PAIRS, 4, shuffle=True),
    "shuffled by its own generator": lambda: DataLoader(
        PAIRS, 4, shuffle=True, generator=Generator().manual_seed(5)
    ),
    "a subset": lambda: DataLoader(PAIRS, 4, sampler=SubsetRandomSampler(SOME)),
    "a list as sampler": lambda: DataLoader(PAIRS, 4, sampler=SOME[::-1]),
    "a list of batches": lambda: DataLoader(PAIRS, batch_sampler=[[1, 2], [5, 4, 7]]),
    "batches of a random sampler": lambda: DataLoader(
        PAIRS, batch_sampler=BatchSampler(RandomSampler(PAIRS, generator=Generator()), 3, False)
    ),
    "the last batch dropped": lambda: DataLoader(PAIRS, 4, drop_last=True),
    "rows twice": lambda: DataLoader(PAIRS, 4, sampler=[1, 1, 2, 8, 1]),
    "a subset as data set": lambda: DataLoader(Subset(PAIRS, SOME), 4, shuffle=True),
    "dicts": lambda: DataLoader(PAIRS, 4, sampler=SubsetRandomSampler(SOME), collate_fn=as_dict),
    "with workers": lambda: DataLoader(PAIRS, 4, sampler=SubsetRandomSampler(SOME), num_workers=2),
}


def contents(batches) -> list[tuple[float, int]]:
    """First input and label of every sample, sorted."""
    pairs = [(b["x"], b["labels"]) if isinstance(b, dict) else b for b in batches]
    return sorted((x[0].item(), y.item()) for xs, ys in pairs for x, y in zip(xs, ys, strict=True))


def measured(samples: Samples) -> list[tuple[float, int]]:
    batches = [(batch.inputs, batch.labels) for batch in samples.in_order(4)]
    return contents((x["x"] if isinstance(x, dict) else x, y) for x, y in batches)


@pytest.mark.parametrize("kind", LOADERS)
def test_what_is_measured_and_trained_on_is_what_the_loader_gives(kind):
    expected = contents(LOADERS[kind]())
    samples = Samples.of(LOADERS[kind](), "train")
    assert measured(samples) == measured(samples) == expected
    inputs = [batch.inputs for batch in samples.load(samples.order(9, Generator()), (0, 1), (0,))]
    trained = torch.cat([x["x"] if isinstance(x, dict) else x for x in inputs])[:, 0].tolist()
    assert sorted(trained) == [first for first, _ in expected]


@pytest.mark.parametrize("kind", LOADERS)
def test_few_samples_are_of_those_that_the_loader_gives(kind):
    batch = Samples.of(LOADERS[kind](), "train").few(99)
    x = batch.inputs["x"] if isinstance(batch.inputs, dict) else batch.inputs
    assert contents([(x, batch.labels)]) == sorted(set(contents(LOADERS[kind]())))


def test_a_row_that_the_sampler_leaves_out_is_never_read():
    class Broken(Drawing):
        def __getitem__(self, row: int):
            if row in LEFT_OUT:
                raise OSError(f"row {row} is damaged")
            return X[row], Y[row]

    samples = Samples.of(DataLoader(Broken(), 4, sampler=SubsetRandomSampler(SOME)), "train")
    assert len(measured(samples)) == len(SOME) and samples.digest() and len(shown(samples)) == 2
    with pytest.raises(OSError, match="row 0 is damaged"):
        samples.whole().few(2)


@pytest.mark.parametrize("drop", [True, False])
def test_of_what_is_drawn_at_random_the_same_is_measured_each_time(drop):
    loaders = [
        DataLoader(PAIRS, 4, sampler=WeightedRandomSampler([0.0] + [1.0] * 9, 30), drop_last=drop),
        DataLoader(PAIRS, 4, shuffle=True, drop_last=drop),
    ]
    for loader in loaders:
        samples, again = Samples.of(loader, "train"), Samples.of(loader, "train")
        torch.manual_seed(1)
        samples.order(4, Generator())
        assert measured(samples) == measured(again)
        assert len(measured(samples)) == len(contents(loader))
        assert set(measured(samples)) <= set(contents([(X, Y)]))
    assert (0.0, 0) not in measured(Samples.of(loaders[0], "train"))


def test_the_generators_of_a_loader_are_as_they_were():
    own, inner = Generator().manual_seed(5), Generator().manual_seed(6)
    sampler = BatchSampler(RandomSampler(PAIRS, generator=inner), 4, False)
    samples = Samples.of(DataLoader(PAIRS, batch_sampler=sampler, generator=own), "train")
    before = own.get_state(), inner.get_state(), torch.get_rng_state()
    assert orders(samples) and measured(samples) and samples.digest()
    after = own.get_state(), inner.get_state(), torch.get_rng_state()
    assert all(map(torch.equal, before, after))


class Nested(Sampler):
    """Gives what another one gives, and knows the epoch."""

    def __init__(self, inner) -> None:
        self.inner, self.epoch, self.told = inner, 0, []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.told.append(epoch)

    def __iter__(self):
        rows = list(self.inner)
        return iter(rows[self.epoch :] + rows[: self.epoch])

    def __len__(self) -> int:
        return len(self.inner)


class Own(Nested):
    """Draws from a generator of Python that nobody else knows."""

    def __iter__(self):
        self.random = getattr(self, "random", random.Random(0))
        return iter(self.random.sample(range(10), 10))


def test_the_order_follows_from_the_generator_however_deep_the_sampler_draws():
    for loader in (
        LOADERS["batches of a random sampler"](),
        DataLoader(PAIRS, 4, sampler=Nested(RandomSampler(PAIRS, generator=Generator()))),
    ):
        samples, generator = Samples.of(loader, "train"), Generator().manual_seed(0)
        first, second = ([r.tolist() for r in samples.order(4, generator)] for _ in range(2))
        assert first != second and orders(samples) == first == orders(samples)


def test_a_sampler_is_told_the_epoch():
    sampler = Nested(range(10))
    for inner in (sampler, BatchSampler(sampler, 4, False)):
        kind = "sampler" if inner is sampler else "batch_sampler"
        size = {"batch_size": 4} if inner is sampler else {}
        samples = Samples.of(DataLoader(PAIRS, **size, **{kind: inner}), "train")
        for epoch in (3, 1):
            rows = torch.cat(list(samples.order(4, Generator(), epoch)))
            assert rows.tolist() == [(row + epoch - 1) % 10 for row in range(10)]


def test_an_order_that_cannot_be_had_again_is_told_where_data_are_named():
    samples = Samples.of(DataLoader(PAIRS, 4, sampler=Own(range(10))), "train")
    assert samples.digest(inputs_alone=True) and sorted(sum(orders(samples), [])) == list(range(10))
    with pytest.raises(ValueError, match="sampler of train gives another order each time"):
        samples.digest()


class Short(Sampler):
    """Says another number of batches than it gives, three."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self):
        return iter(torch.arange(9).split(3))

    def __len__(self) -> int:
        return self.length


@pytest.mark.parametrize(("length", "gave"), [(2, "more"), (4, "3")])
@pytest.mark.parametrize("use", [orders, measured, lambda samples: samples.few(2)])
def test_a_batch_sampler_is_held_to_its_length(use, length, gave):
    samples = Samples.of(DataLoader(PAIRS, batch_sampler=Short(length)), "train")
    with pytest.raises(ValueError, match=f"a length of {length} batches and gave {gave}: "):
        use(samples)


@pytest.mark.parametrize(
    ("rows", "said"),
    [([["1", "2"]], "'1', '2'"), ([[]], r"\[\]"), ([0, 1], "gives 0"), ([[0.5]], "0.5")],
)
def test_batches_of_something_else_than_rows_are_told(rows, said):
    samples = Samples.of(DataLoader(PAIRS, batch_sampler=rows), "train")
    with pytest.raises(TypeError, match=f"{said}.* as a batch: expected a list of row numbers"):
        orders(samples)


def draws(pairs):
    inputs, labels = default_collate(pairs)
    return inputs + torch.rand(()) + random.random() + float(np.random.rand()), labels


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_drawn_while_a_batch_is_put_together_follows_from_the_seed(workers):
    loader = DataLoader(PAIRS, 4, collate_fn=draws, num_workers=workers)
    samples = Samples.of(loader, "train")
    torch.manual_seed(workers)
    before = torch.get_rng_state()
    order = samples.order(4, Generator())
    first = [batch.inputs for batch in samples.load(order, (0, 1), (0, 1))]
    rest = [batch.inputs for batch in samples.load(order[1:], (0, 1), (0, 1))]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, first[1:], rest))
    alone = Samples.of(DataLoader(PAIRS, 4, collate_fn=draws), "train")
    assert torch.equal(first[0], next(iter(alone.load(order, (0, 1), (0, 1)))).inputs)


class Flipped(Drawing):
    """Every tenth sample is another one, at random."""

    def __getitem__(self, row: int):
        return (X[row].flip(0) if torch.rand(()) < 0.1 else X[row]), Y[row]


def test_data_that_are_drawn_anew_are_known():
    for data in (Drawing(), Flipped(), DataLoader(PAIRS, 4, collate_fn=draws)):
        assert Samples.of(data, "train").changes()
    for data in ((X, Y), PAIRS, *(make() for make in LOADERS.values())):
        assert not Samples.of(data, "train").changes()


class Opened(Drawing):
    """Has to be made ready where it is read."""

    scale, ready = 1.0, False

    def open(self) -> None:
        self.ready = True

    def __getitem__(self, row: int):
        assert self.ready
        return X[row] * self.scale, Y[row]


def ready(worker: int) -> None:
    dataset = get_worker_info().dataset
    dataset.open()
    dataset.scale += 1.0


def test_a_worker_can_make_its_data_set_ready():
    loader = DataLoader(Opened(), 5, num_workers=1, worker_init_fn=ready)
    samples = Samples.of(loader, "train")
    assert measured(samples) == contents([(2 * X, Y)]) and not Opened().ready
    assert torch.equal(samples.few(2).inputs, 2 * X[[0, 9]])


def test_a_data_set_can_be_sent_to_a_worker_and_is_itself_in_all_but_its_draws():
    seeded = pickle.loads(pickle.dumps(_Seeded(Opened(), (0,), default_collate)))
    seeded.open()
    assert seeded.ready and len(seeded) == 10
    with pytest.raises(AttributeError, match="'Opened' object has no attribute 'other'"):
        _ = seeded.other


def test_labels_may_be_none_in_a_data_set_and_then_in_all_of_it():
    class Unlabeled(Drawing):
        labeled = (4,)

        def __getitem__(self, row: int):
            return X[row], (Y[row] if row in self.labeled else None)

    samples = Samples.of(DataLoader(Unlabeled(), 4, sampler=SubsetRandomSampler(SOME)), "train")
    with pytest.raises(TypeError, match="None where another of its batch has a value"):
        list(samples.in_order())
    Unlabeled.labeled = ()
    batches = list(samples.in_order())
    assert all(batch.labels is None for batch in batches)
    rows = torch.cat([batch.rows for batch in batches])
    assert torch.equal(rows.sort().values, torch.as_tensor(SOME).sort().values)
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), X[rows])
    assert Samples.of(Unlabeled()).few(3).labels is None


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


SUBSET = Subset(TensorDataset(X.repeat(9, 1), torch.arange(90)), range(0, 90, 2))
HELD = {
    "tensors": TensorDataset(X.repeat(9, 1), torch.arange(90)),
    "a subset": SUBSET,
    "a subset of a subset": Subset(SUBSET, torch.arange(44)),
    "a loader": DataLoader(SUBSET, 4, sampler=SubsetRandomSampler(range(40))),
}


@pytest.mark.parametrize("kind", HELD)
def test_every_row_of_tensors_in_memory_counts(kind):
    samples = Samples.of(HELD[kind], "train")
    rows = samples.few(99).labels.tolist()
    base = HELD["tensors"] if kind == "tensors" else SUBSET.dataset
    x, y = base.tensors
    for inputs_alone in (True, False):
        before = samples.digest(inputs_alone)
        assert before == samples.digest(inputs_alone)
        for row in range(90):
            x[row, 1] += 1
            assert (samples.digest(inputs_alone) != before) == (row in rows)
            x[row, 1] -= 1
            y[row] += 1
            assert (samples.digest(inputs_alone) != before) == (row in rows and not inputs_alone)
            y[row] -= 1


def test_a_digest_sees_the_order_of_a_loader():
    weights = torch.ones(10)
    loaders = [
        DataLoader(PAIRS, 4),
        DataLoader(PAIRS, 4, shuffle=True),
        DataLoader(PAIRS, 3, shuffle=True),
        DataLoader(PAIRS, 4, sampler=WeightedRandomSampler(weights, 10)),
        DataLoader(PAIRS, 4, sampler=WeightedRandomSampler(weights + torch.eye(10)[0], 10)),
    ]
    named = [Samples.of(loader).digest() for loader in loaders]
    assert len(set(named)) == len(named) == len({Samples.of(x).digest() for x in loaders})
    assert len({Samples.of(x).whole().digest(inputs_alone=True) for x in loaders}) == 1


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (pd.DataFrame({"x": [1.0, 2.0]}), TypeError, "train is a DataFrame of pandas: expected"),
        (pd.Series([1.0, 2.0]), TypeError, "train is a Series of pandas: expected"),
        ([X, Y], TypeError, "train is a list of 2 tensors of different kinds"),
        ((X, Y, X), TypeError, "train is a tuple of 3 tensors of different kinds"),
        (DataLoader(PAIRS, batch_sampler=iter([[0]])), ValueError, "without a length"),
        (
            DataLoader(
                PAIRS,
                batch_sampler=BatchSampler(
                    DistributedSampler(PAIRS, num_replicas=2, rank=0), 2, False
                ),
            ),
            ValueError,
            "has a DistributedSampler: pass shuffle=True",
        ),
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


def test_what_is_used_up_after_one_pass_is_refused():
    class Once:
        def __init__(self) -> None:
            self.batches = iter([(X, Y)])

        def __len__(self) -> int:
            return 1

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.batches)

    with pytest.raises(TypeError, match="Once, which is used up after one pass"):
        Samples.of(Once(), "validation")


@pytest.mark.parametrize("said", [1, 3])
def test_a_stream_with_a_wrong_length_is_not_measured_either(said):
    class Wrong(list):
        def __len__(self) -> int:
            return said

    stream = Samples.of(Wrong([(X, Y), (X, Y)]), "validation")
    with pytest.raises(ValueError, match=f"validation has a length of {said} batches"):
        list(stream.in_order())


def test_what_augment_does_in_place_stays_out_of_a_streams_own_tensors():
    batches = [(X.clone(), Y)]
    for batch in Samples.of(batches).load([torch.empty(0)], (0, 1), (0,)):
        batch.inputs.zero_()
    assert torch.equal(batches[0][0], X)


def test_a_few_of_very_many_samples_are_rows_that_there_are():
    class Many:
        def __len__(self) -> int:
            return 16_777_220

        def __getitem__(self, row: int):
            assert 0 <= row < len(self)
            return torch.tensor([float(row)]), row % 2

    assert Samples.of(Many()).few(8).rows[-1] == 16_777_219


class Scaled(Dataset):
    """Gives its samples otherwise than it holds them, and not all of them."""

    def __init__(self) -> None:
        self.images, self.labels = 255 * torch.rand(8, 3), torch.arange(8)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, row: int):
        return self.images[row] / 255, self.labels[row]


class Halved(DataLoader):
    def __iter__(self):
        for inputs, labels in super().__iter__():
            yield inputs / 2, labels


def test_what_a_data_set_or_a_loader_of_your_own_gives_is_what_is_seen():
    samples = Samples.of(Scaled())
    (batch,) = samples.in_order()
    assert len(samples) == len(batch) == 5 and batch.inputs.max() <= 1
    (batch,) = Samples.of(Halved(TensorDataset(torch.ones(4, 2), torch.arange(4)), 4)).in_order()
    assert torch.equal(batch.inputs, torch.full((4, 2), 0.5))


def test_a_few_of_a_stream_are_copies():
    batches = [(torch.ones(4, 2), torch.arange(4))]
    Samples.of(batches).few(2).inputs.zero_()
    assert batches[0][0].sum() == 8
