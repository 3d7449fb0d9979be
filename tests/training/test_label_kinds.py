"""The table of label kinds in `kdlearn.data.Samples`, read there and tried cell by cell."""

import inspect
import math

import datasets
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from kdlearn.data import Samples
from kdlearn.distill import Distiller, label_term, logit_term
from kdlearn.losses import dkd_loss, forward_kl
from kdlearn.measure import evaluate
from kdlearn.store import cache_teacher
from kdlearn.training import fit

N, C = 6, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
TOKENS = torch.arange(2 * N).view(N, 2) % C
TOKENS[0], TOKENS[1, 0] = -100, -100

LABELS = {
    "class numbers (B,)": torch.arange(N) % C,
    "probabilities (B, C)": torch.softmax(X[:, :C], 1),
    "several classes, 0/1 (B, C)": torch.tensor([[1.0, 1.0, 0.0]]).repeat(N, 1),
    "numbers (B,)": X[:, 0].clone(),
    "numbers (B, D)": X[:, :C].clone(),
    "tokens (B, L), -100 for none": TOKENS,
    "none": None,
}
OWN = {
    "several classes, 0/1 (B, C)": F.binary_cross_entropy_with_logits,
    "numbers (B,)": lambda outputs, labels: F.mse_loss(outputs[:, 0], labels),
    "numbers (B, D)": F.mse_loss,
}


def table() -> dict[str, dict[str, str]]:
    """Kind of labels to column to cell."""
    lines = inspect.getdoc(Samples).splitlines()
    rules = [n for n, line in enumerate(lines) if line.strip().startswith("====")]
    starts = [
        m for m, c in enumerate(lines[rules[0]]) if c == "=" and lines[rules[0]][m - 1] == " "
    ]
    spans = list(zip(starts, [*starts[1:], None], strict=True))

    def cells(line: str) -> list[str]:
        return [line[first:last].strip() for first, last in spans]

    head = cells(lines[rules[0] + 1])
    rows = [cells(line) for line in lines[rules[1] + 1 : rules[2]]]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


TABLE = table()
CELLS = [(kind, column, cell) for kind, row in TABLE.items() for column, cell in row.items()]


class Words(nn.Module):
    """Two tokens a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2 * C)

    def forward(self, x):
        return self.layer(x).view(len(x), 2, C)


def network(kind: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Words() if "tokens" in kind else nn.Linear(4, C)


def reference(kind: str, model: nn.Module) -> torch.Tensor:
    """The loss of all samples, written out anew."""
    outputs, labels = model(X).double(), LABELS[kind]
    log_probs = outputs.log_softmax(-1)
    if kind.startswith("class"):
        return -log_probs[torch.arange(N), labels].mean()
    if kind.startswith("prob"):
        return -(labels * log_probs).sum(1).mean()
    if kind.startswith("several"):
        p = outputs.sigmoid()
        return -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    if kind == "numbers (B,)":
        return ((outputs[:, 0] - labels) ** 2).mean()
    if kind == "numbers (B, D)":
        return ((outputs - labels) ** 2).mean()
    counted = labels != -100
    return -log_probs[counted].gather(1, labels[counted][:, None]).mean()


def terms(kind: str) -> list:
    if LABELS[kind] is None:
        return [logit_term("kl", forward_kl)]
    return [label_term(loss=OWN[kind]) if kind in OWN else label_term()]


def step(model: nn.Module, data, **settings) -> float:
    """One step on all samples; the loss before it."""
    student = getattr(model, "student", model)
    before = [p.detach().clone() for p in student.parameters()]
    history = fit(model, data, epochs=1, batch_size=N, progress=False, **settings)
    assert all(p.isfinite().all() for p in student.parameters())
    assert any(not torch.equal(p, q) for p, q in zip(student.parameters(), before, strict=True))
    return history.epochs[0]["loss"]


def refused(model: nn.Module, data, **settings) -> None:
    seen = []
    student = getattr(model, "student", model)
    student.register_forward_hook(lambda m, i, o: seen.append(len(o)))
    with pytest.raises((TypeError, ValueError)) as caught:
        step(model, data, **settings)
    assert set(seen) <= {2} and "\n" not in str(caught.value)


def taught(kind: str, terms: list) -> Distiller:
    return Distiller(network(kind), network(kind, 1), terms)


def test_the_table_has_every_kind():
    assert list(TABLE) == list(LABELS)
    assert all(list(row) == list(TABLE["none"]) for row in TABLE.values())


@pytest.mark.parametrize(("kind", "column", "cell"), CELLS)
def test_a_cell_of_the_table_is_true(kind, column, cell, tmp_path):
    data = (X, LABELS[kind])
    if column == "fit":
        if cell == "yes":
            assert math.isclose(
                step(network(kind), data), reference(kind, network(kind)).item(), rel_tol=1e-5
            )
        else:
            refused(network(kind), data)
        if cell == "own loss":
            loss = step(Distiller(network(kind), None, terms(kind)), data)
            assert math.isclose(loss, reference(kind, network(kind)).item(), rel_tol=1e-5)
    elif column == "validation":
        model = taught(kind, terms(kind))
        if cell == "yes":
            step(model, data, validation=data)
        else:
            refused(taught(kind, terms(kind)), data, validation=data)
            step(model, data, validation=data, metric=lambda logits, labels: logits.mean())
    elif column == "loss with labels":
        model = taught(kind, [logit_term("dkd", dkd_loss, with_labels=True)])
        if cell == "yes":
            assert math.isfinite(step(model, data))
        else:
            refused(model, data)
    else:
        kl = [*terms(kind), *([logit_term("soft", forward_kl)] if LABELS[kind] is not None else [])]
        stored = cache_teacher(network(kind, 1), X, tmp_path, kl, progress=False)
        live, kept = (Distiller(network(kind), t, kl) for t in (network(kind, 1), stored))
        assert math.isclose(step(live, data), step(kept, data), rel_tol=1e-5)


class Streamed(IterableDataset):
    def __init__(self, inputs, labels) -> None:
        self.parts = inputs, labels

    def __len__(self) -> int:
        return 1

    def __iter__(self):
        return iter([self.parts])


class Named(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def as_hugging_face(inputs, labels):
    columns = {"x": inputs.tolist()} | ({} if labels is None else {"labels": labels.tolist()})
    return datasets.Dataset.from_dict(columns).with_format("torch")


FORMS = {
    "dict": lambda x, y: {"x": x} | ({} if y is None else {"labels": y}),
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), N),
    "loader of dicts with a worker": lambda x, y: DataLoader(
        as_hugging_face(x, y), N, num_workers=1
    ),
    "stream": Streamed,
    "hugging face": as_hugging_face,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LABELS)
def test_every_kind_of_labels_comes_in_every_form(form, kind):
    labels = LABELS[kind]
    if labels is None and form == "loader":
        pytest.skip("a TensorDataset of one tensor gives lists of one")
    if form == "loader of dicts with a worker" and not kind.startswith("tokens"):
        pytest.skip("one kind is enough for what a worker does")
    model = Distiller(Named(network(kind)), Named(network(kind, 1)), terms(kind))
    again = Distiller(Named(network(kind)), Named(network(kind, 1)), terms(kind))
    loss = step(model, FORMS[form](X, labels))
    assert math.isclose(loss, step(again, {"x": X, "labels": labels}), rel_tol=1e-5)


def test_images_of_bytes_are_trained_through_a_transform_and_refused_without():
    images, labels = (X.abs() * 50).to(torch.uint8), LABELS["class numbers (B,)"]
    refused(network("class"), (images, labels))
    loss = step(network("class"), (images, labels), augment=lambda x, generator: x.float() / 255)
    assert math.isclose(loss, step(network("class"), (images.float() / 255, labels)), rel_tol=1e-5)


def test_outputs_of_one_column_against_plain_numbers_are_refused():
    torch.manual_seed(0)
    model = Distiller(nn.Linear(4, 1), None, [label_term(loss=F.mse_loss)])
    refused(model, (X, X[:, 0].clone()))
    assert math.isfinite(step(model, (X, X[:, :1].clone())))


PAIRS = TensorDataset(
    torch.randn(60, C, generator=torch.Generator().manual_seed(1)), torch.arange(60) % C
)
LOADERS = {
    "in order": lambda: DataLoader(PAIRS, 10),
    "shuffled": lambda: DataLoader(PAIRS, 10, shuffle=True),
    "a subset": lambda: DataLoader(PAIRS, 10, sampler=SubsetRandomSampler(range(50, 60))),
    "batches": lambda: DataLoader(PAIRS, batch_sampler=[[0, 1, 9], [59, 3]]),
    "random batches": lambda: DataLoader(
        PAIRS, batch_sampler=BatchSampler(RandomSampler(PAIRS), 7, False)
    ),
    "the last batch dropped": lambda: DataLoader(PAIRS, 50, drop_last=True),
    "rows twice": lambda: DataLoader(PAIRS, 10, sampler=[4, 4, 4, 31]),
    "collated": lambda: DataLoader(
        PAIRS,
        10,
        sampler=[5, 6, 59],
        collate_fn=lambda pairs: [torch.stack(part) for part in zip(*pairs, strict=True)],
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_what_is_measured_is_what_the_loader_gives(kind):
    torch.manual_seed(0)
    model = nn.Linear(C, C)
    history = fit(
        model, PAIRS, validation=LOADERS[kind](), metric=F.cross_entropy, epochs=2, progress=False
    )
    with torch.no_grad():
        losses = [F.cross_entropy(model(x), y, reduction="none") for x, y in LOADERS[kind]()]
    expected = torch.cat(losses).double().mean().item()
    told = history.epochs[-1]["validation_cross_entropy"]
    assert math.isclose(told, expected, rel_tol=1e-5)
    assert evaluate(model, LOADERS[kind](), F.cross_entropy) == told


def test_a_label_that_the_sampler_leaves_out_need_not_be_a_class():
    labels = torch.where(torch.arange(60) == 59, 99, torch.arange(60) % C)
    data = TensorDataset(PAIRS.tensors[0], labels)
    loader = DataLoader(data, 10, sampler=SubsetRandomSampler(range(50)))
    assert math.isfinite(step(nn.Linear(C, C), loader, validation=loader))


def test_tokens_of_several_lengths_are_measured_as_they_are(monkeypatch):
    def token_loss(logits, labels):
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def batch(length):
        tokens = torch.arange(2 * length).view(2, length) % C
        return tokens, tokens.roll(1, 1).index_fill(1, torch.tensor([0]), -100)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(C, 4), nn.Linear(4, C))
    batches = [batch(5), batch(7), batch(6)]
    history = fit(model, batches, validation=batches, metric=token_loss, epochs=1, progress=False)
    with torch.no_grad():
        sums = [
            F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum")
            for x, y in batches
        ]
    counted = sum(int((y != -100).sum()) for _, y in batches)
    told = history.epochs[-1]["validation_token_loss"]
    assert math.isclose(told, float(sum(sums)) / counted, rel_tol=1e-5)


def test_tokens_that_all_count_are_not_padded_behind_the_metrics_back():
    batches = [(x := torch.arange(2 * n).view(2, n) % C, x) for n in (2, 4)]
    with pytest.raises(ValueError, match="pad them to one length"):
        evaluate(nn.Embedding(C, C), batches, lambda logits, labels: 0.0)


def test_a_loaders_own_batches_are_measured():
    seen = []
    model = nn.Linear(C, C)
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    evaluate(model, DataLoader(PAIRS, 25, shuffle=True))
    assert seen == [25, 25, 10]


@pytest.mark.parametrize("what", ["outputs and labels", "labels"])
def test_samples_of_several_lengths_cannot_be_measured_together(what):
    def batch(length):
        tokens = torch.arange(2 * length).view(2, length) % C
        inputs = tokens if what == "outputs and labels" else tokens[:, :2]
        return inputs, tokens.float()  # no class numbers, so that none may be added

    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(C, 4), nn.Linear(4, C))
    with pytest.raises(ValueError, match="have the shapes .* pad them to one length"):
        evaluate(model, [batch(5), batch(6)], lambda logits, labels: 0.0)
    assert evaluate(model, [batch(5), batch(5)], lambda logits, labels: float(len(labels))) == 4.0
