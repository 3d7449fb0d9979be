import copy
import statistics
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from kdlearn.data import FixedCopies
from kdlearn.distill import CRDLoss, Distiller, Term, crd_term, label_term, layer_term, logit_term
from kdlearn.losses import forward_kl, hint_loss, soft_target_loss
from kdlearn.training import Engine, OnPolicy, answer_mask, fit, next_tokens

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


def network(seed: int = 0, width: int = 8) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(), nn.Linear(width, 3)
    )


def steps_of(model: nn.Module) -> list[int]:
    """Sizes of the batches that a model sees while it trains."""
    seen: list[int] = []
    model.register_forward_hook(
        lambda module, inputs, output: seen.append(len(output)) if module.training else None
    )
    return seen


def refused(model, train=(X, Y), **settings) -> tuple[Exception, list[int]]:
    student = getattr(model, "student", model)
    seen, before = steps_of(student), copy.deepcopy(student.state_dict())
    with pytest.raises(Exception) as caught:
        fit(model, train, epochs=1, batch_size=4, progress=False, **settings)
    assert all(torch.equal(value, before[n]) for n, value in student.state_dict().items())
    return caught.value, seen


def agreement_of(student, teacher):
    return (student.argmax(1) == teacher.argmax(1)).float().mean()


@pytest.mark.parametrize(
    ("terms", "error", "said"),
    [
        ([logit_term("soft", partial(soft_target_loss, temperature=-1))], ValueError, "-1"),
        ([logit_term("soft", partial(soft_target_loss, temperature="four"))], TypeError, "'four'"),
        ([layer_term("hint", hint_loss, ["0"])], ValueError, "features"),
        (
            [label_term(loss=partial(F.cross_entropy, reduction="none"))],
            ValueError,
            "has a loss of (2,)",
        ),
        (
            [label_term(), logit_term("dead", agreement_of)],
            ValueError,
            "'dead' has no gradient, so it trains nothing",
        ),
        (
            [Term("odd", 1.0, torch.add, lambda s, t, y: [(s.logits, t.missing)])],
            AttributeError,
            "missing",
        ),
    ],
)
def test_a_term_that_cannot_work_is_told_before_the_first_step(terms, error, said):
    caught, seen = refused(Distiller(network(), network(1, width=5), terms))
    assert isinstance(caught, error) and said in str(caught)
    assert set(seen) <= {2, 12}  # where two have no gradient, all are tried


def test_labels_and_inputs_that_do_not_fit_are_told_before_the_first_step():
    caught, seen = refused(network(), (X, Y.float()))
    assert "cross-entropy needs class numbers" in str(caught) and set(seen) <= {2}
    caught, seen = refused(network(), ((X * 50).to(torch.uint8), Y))
    assert "torch.uint8 and the model wants floating point" in str(caught)
    for kind in (torch.float16, torch.float64):
        caught, seen = refused(network(), (X.to(kind), Y))
        assert isinstance(caught, TypeError) and not seen
        assert f"are {kind} and the student's weights torch.float32" in str(caught)
    caught, seen = refused(network(), {"pixels": X, "labels": Y})
    assert "does not take the named inputs of train" in str(caught)


def test_a_student_whose_gradient_cannot_be_had_or_seen_is_told_before_the_first_step():
    words = nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.Flatten(), nn.Linear(4, 3))
    caught, seen = refused(words, (torch.randint(5, (12, 2)), Y))
    assert "make the embedding with sparse=False" in str(caught) and set(seen) <= {2}
    assert words[0].weight.grad is None
    with torch.no_grad():
        caught, seen = refused(network())
    assert "or a no_grad() or inference_mode() around" in str(caught)


class Halves(nn.Module):
    """A body that runs with or without a graph, and a head."""

    def __init__(self, body: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.how = nn.Linear(4, 4), nn.Linear(4, 3), body

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                x = self.body(x)
        elif self.how == "checkpoint":
            x = checkpoint(self.body, x.requires_grad_(), use_reentrant=True)
        elif self.how == "twice":
            with torch.no_grad():
                other = self.body(x)
            x = self.body(x) - other
        return self.head(x)


def test_weights_that_forward_leaves_without_a_graph_are_told_before_the_first_step():
    caught, seen = refused(Halves("no_grad"))
    assert "layer 'body' of the student has weights to train and runs under" in str(caught)
    assert set(seen) <= {2, 12}  # more are tried, which may choose other parts
    frozen = Halves("no_grad")
    frozen.body.requires_grad_(False)
    for student in (frozen, Halves("twice"), Halves("checkpoint"), Halves("left out")):
        fit(student, (X.clone(), Y), epochs=1, progress=False)
        assert not any(part._forward_hooks for part in student.modules())
    fit(torch.compile(Halves("twice"), backend="eager"), (X, Y), epochs=1, progress=False)


def test_labels_that_stand_in_their_own_place_are_told_before_the_first_step():
    tokens = torch.randint(9, (12, 6), generator=torch.Generator().manual_seed(0))
    labels = tokens.masked_fill(torch.arange(6) > 3, -100)
    caught, seen = refused(nn.Embedding(9, 9), (tokens, labels))
    assert "labels of train are the tokens themselves" in str(caught) and not seen

    class Named(nn.Embedding):
        def forward(self, input_ids):
            return super().forward(input_ids)

    caught, seen = refused(Named(9, 9), {"input_ids": tokens, "labels": labels})
    assert "shift them by one" in str(caught) and not seen
    fit(nn.Embedding(9, 9), next_tokens(tokens, labels >= 0), epochs=1, progress=False)


def test_the_two_that_are_tried_have_a_label_that_counts():
    labels = torch.full((40, 6), -100)
    labels[20] = torch.arange(6)
    mask = {"mask": lambda batch: batch.labels != -100}
    model = Distiller(
        nn.Embedding(9, 9), nn.Embedding(9, 9), [logit_term("kl", forward_kl, **mask)]
    )
    tokens = torch.randint(9, (40, 6), generator=torch.Generator().manual_seed(0))
    history = fit(model, (tokens, labels), epochs=1, batch_size=40, progress=False)
    assert history.epochs[0]["loss"] > 0


def test_a_validation_that_cannot_be_measured_is_told_before_the_first_step():
    regression = Distiller(nn.Linear(4, 1), None, [label_term(loss=F.mse_loss)])
    train = (X, X[:, :1])
    caught, seen = refused(regression, train, validation=train)
    assert "validation cannot be measured by accuracy" in str(caught) and set(seen) <= {2}
    history = fit(
        regression,
        train,
        validation=train,
        metric=lambda predicted, wanted: F.l1_loss(predicted, wanted),
        epochs=2,
        progress=False,
    )
    (name,) = (key for key in history.epochs[0] if key.startswith("validation"))
    assert history.epochs[-1][name] < 10


def test_a_loss_that_lacks_an_option_is_blamed_by_name():
    term = logit_term("kd", lambda a, b: soft_target_loss(a, b, temprature=2))
    caught, _ = refused(Distiller(network(), network(1), [term]))
    assert "unexpected keyword argument 'temprature'" in str(caught)
    assert "in term 'kd'" in caught.__notes__ and "named inputs" not in str(caught)


def test_a_target_that_is_the_source_is_no_copying_where_the_decoder_has_its_own_inputs():
    class Both(nn.Embedding):
        def forward(self, input_ids, decoder_input_ids):
            return super().forward(decoder_input_ids)

    tokens = torch.randint(9, (12, 6), generator=torch.Generator().manual_seed(0))
    named = {"input_ids": tokens, "decoder_input_ids": tokens.roll(1, 1), "labels": tokens}
    fit(Both(9, 9), named, epochs=1, progress=False)


def test_batches_of_tokens_that_no_metric_can_get_are_told_before_the_first_step():
    def batches(*lengths, label):
        return [(torch.ones(2, n, dtype=torch.int64), torch.full((2, n), label)) for n in lengths]

    tokens, metric = torch.zeros(12, 6, dtype=torch.int64), {"metric": lambda z, y: 1.0}
    train = (torch.ones_like(tokens), tokens)
    validation = batches(6, 6, 9, label=0)
    caught, seen = refused(nn.Embedding(3, 3), train, validation=validation, **metric)
    assert "batches of validation have [6, 9] tokens" in str(caught) and set(seen) <= {2}
    padded = [*validation, *batches(9, label=-100)]
    fit(nn.Embedding(3, 3), train, validation=padded, epochs=1, progress=False, **metric)


@pytest.mark.parametrize("wrong", [-1, 3])
@pytest.mark.parametrize("row", [0, 5, 11])
def test_a_label_that_is_no_class_is_told_before_the_first_step_wherever_it_stands(wrong, row):
    labels = Y.clone()
    labels[row] = wrong
    caught, seen = refused(network(), (X, labels))
    assert f"labels go from {labels.min()} to {labels.max()}" in str(caught) and set(seen) <= {2}
    caught, seen = refused(network(), (X, Y), validation=(X, labels))
    assert "validation cannot be measured by accuracy" in str(caught) and set(seen) <= {2}
    tokens = torch.zeros(12, 6, dtype=torch.int64)
    tokens[row, 3] = wrong
    caught, seen = refused(nn.Embedding(3, 3), (torch.ones_like(tokens), tokens))
    assert "numbered from 0" in str(caught) and set(seen) <= {2}


def test_a_metric_that_asks_for_all_classes_is_tried_with_all_labels():
    sizes = []

    def classes_there(logits, labels):
        sizes.append(len(logits))
        assert set(labels.tolist()) == set(Y.tolist())
        return 1.0

    fit(network(), (X, Y), validation=(X, Y), metric=classes_there, epochs=1, progress=False)
    assert sizes == [12, 12]


@pytest.mark.parametrize("as_loader", [False, True])
def test_a_metric_that_writes_into_what_it_gets_leaves_the_data_alone(as_loader):
    def writes(logits, labels):
        logits.zero_()
        labels.fill_(7)
        return 1.0

    labels = Y.clone()
    held_out = [(X, labels)] if as_loader else (X, labels)
    fit(network(), (X, labels), validation=held_out, metric=writes, epochs=1, progress=False)
    assert torch.equal(labels, Y)


def test_a_metric_of_all_classes_is_tried_on_a_loader_too():
    def of_three(logits, labels):
        if len(labels.unique()) < 3:
            raise ValueError("the labels lack a class.")
        return 1.0

    loader = DataLoader(TensorDataset(X, Y), 4)
    fit(network(), (X, Y), validation=loader, metric=of_three, epochs=1, progress=False)
    few = DataLoader(TensorDataset(X, 0 * Y), 4)
    caught, seen = refused(network(), (X, Y), validation=few, metric=of_three)
    assert "measured by of_three: the labels lack a class." in str(caught) and set(seen) <= {2}


def test_a_student_that_cannot_run_on_the_validation_is_told_so():
    caught, _ = refused(network(), (X, Y), validation=(X[:, :3], Y))
    assert "the student cannot run on validation: mat1 and mat2" in str(caught)
    for kind in (torch.uint8, torch.int64, torch.bool):
        caught, _ = refused(network(), (X, Y), validation=(X.to(kind), Y))
        assert f"inputs of validation are {kind} and the model wants floating" in str(caught)
        caught, _ = refused(network(), (X.to(kind), Y))
        assert f"inputs of train are {kind} and the model wants floating" in str(caught)


def test_a_loss_that_finds_nothing_in_two_samples_is_tried_on_more():
    def pairs(student, labels):
        same = (labels[:, None] == labels).triu(1)
        return torch.cdist(student, student)[same].mean() if same.any() else torch.tensor(0.0)

    model = Distiller(network(), None, [label_term(), label_term(loss=pairs, name="pairs")])
    fit(model, (X, Y), epochs=1, progress=False)


def test_a_loss_for_fewer_rows_than_copies_have_is_told_before_the_first_step():
    copies = FixedCopies(lambda images, generator: images + 1, (0, 1))
    for labels, said in ((Y, "rows go from 12 to 14 and CRD was made for 12"), (Y.repeat(2), None)):
        torch.manual_seed(0)
        loss = CRDLoss(8, 8, labels, width=4, negatives=2)
        model = Distiller(network(), network(1), [label_term(), crd_term("crd", loss, "0", "0")])
        if said is None:
            fit(model, (X, Y), augment=copies, epochs=2, progress=False)
        else:
            caught, seen = refused(model, augment=copies)
            assert said in str(caught) and set(seen) <= {2}


def test_half_precision_inputs_are_welcome_where_a_step_takes_them():
    fit(network(), (X.half(), Y), epochs=1, engine=Engine(precision="bf16"), progress=False)


def test_nothing_is_left_of_the_trial():
    rehearsed, plain = network(), network()
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(rehearsed.parameters(), lr=0.1)
    fit(rehearsed, (X, Y), epochs=1, batch_size=12, optimizer=optimizer, seed=5, progress=False)
    plain.train()
    torch.manual_seed(5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    F.cross_entropy(plain(X[order]), Y[order]).backward()
    with torch.no_grad():
        for p in plain.parameters():
            p -= 0.1 * p.grad
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(rehearsed.state_dict()[name], value)


PROJECT = nn.Linear(3, 3)
HEAD = nn.Linear(3, 3).requires_grad_(False)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda s, t: F.mse_loss(PROJECT(s), t), "goes through 2 parameters that are neither"),
        (lambda s, t: F.mse_loss(s.mul_(2), t), "a loss changes its inputs in place"),
        (lambda s, t: F.mse_loss(s, t.div_(4)), "a loss changes its inputs in place"),
    ],
)
def test_a_loss_whose_weights_nothing_trains_or_that_writes_to_its_inputs_is_refused(loss, said):
    model = Distiller(network(), network(1), [logit_term("soft", loss), label_term()])
    error, seen = refused(model)
    assert said in str(error) and seen == [2]


def test_a_loss_through_weights_that_stay_as_they_are_is_taken():
    def loss(student, teacher):
        return F.mse_loss(HEAD(student), HEAD(teacher))

    model = Distiller(network(), network(1), [logit_term("head", loss)])
    fit(model, (X, Y), epochs=1, progress=False)


def test_fit_inside_autocast_is_refused_and_measuring_does_not_change_the_training():
    with torch.autocast("cpu", torch.bfloat16):
        error, seen = refused(network())
    assert "inside torch.autocast" in str(error) and not seen

    def drawing(logits, labels):
        return torch.rand(()).item()

    ends = []
    for more in ({}, {"validation": (X, Y), "metric": drawing}):
        student = network()
        fit(student, (X, Y), epochs=2, batch_size=4, progress=False, **more)
        ends.append(student[0].weight)
    assert torch.equal(*ends)


def test_a_schedule_that_ends_before_the_training_is_told_before_it():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    short = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=2)
    error, seen = refused(model, optimizer=optimizer, scheduler=short)
    assert "has total_steps=2, of which it took 0, and this training takes 3" in str(error)
    assert not seen


def test_another_student_that_writes_is_refused():
    def student() -> nn.Module:
        return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))

    model = Distiller(student(), student(), [logit_term("soft", forward_kl, mask=answer_mask)])
    views = OnPolicy(student(), prompt=2, new_tokens=3)
    error, seen = refused(model, (torch.arange(24).view(12, 2) % 5, None), augment=views)
    assert "OnPolicy has another student" in str(error) and not seen


def test_a_student_that_ends_in_a_softmax_is_refused_where_labels_want_logits():
    error, seen = refused(nn.Sequential(network(), nn.Softmax(dim=1)))
    assert "the student's logits sum to 1 in each row" in str(error) and seen == [2]


class Experts(nn.Module):
    """Scores all its experts without a graph, and runs the best for each sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(3))

    def forward(self, x):
        with torch.no_grad():
            best = torch.stack([expert(x).amax(1) for expert in self.experts]).argmax(0)
        logits = x.new_zeros(len(x), 3)
        for number, expert in enumerate(self.experts):
            if (best == number).any():
                logits = logits.index_put((best == number,), expert(x[best == number]))
        return logits


def test_parts_that_are_chosen_by_sample_are_trained():
    fit(Experts(), (torch.randn(200, 4), torch.arange(200) % 3), epochs=1, progress=False)


def test_a_metric_of_answers_that_differ_is_tried_on_those():
    def correlated(logits, labels):
        return statistics.correlation(logits.flatten().tolist(), labels.flatten().tolist())

    student = Distiller(nn.Linear(4, 1), None, [label_term(loss=F.mse_loss)])
    data = (X, X[:, :1] ** 2)
    fit(student, data, validation=data, metric=correlated, epochs=1, progress=False)


def test_an_error_of_a_model_of_tokens_is_not_explained_by_its_inputs():
    student = nn.Sequential(nn.Embedding(5, 4).bfloat16(), nn.Flatten(), nn.Linear(8, 3))
    caught, _ = refused(student, (torch.randint(5, (12, 2)), Y))
    assert "BFloat16" in str(caught) and "images" not in str(caught)
    assert any("in the forward pass of" in note for note in caught.__notes__)


def test_labels_that_no_loss_reads_may_be_empty():
    term = logit_term("soft", soft_target_loss)
    data = (X, torch.empty(12, 0, dtype=torch.int64))
    fit(Distiller(network(), network(1), [term]), data, epochs=1, progress=False)
