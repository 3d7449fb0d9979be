import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlearn.distill import Distiller, Term, label_term, layer_term, logit_term
from kdlearn.losses import forward_kl, hint_loss, soft_target_loss
from kdlearn.training import Engine, fit, next_tokens

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
    assert set(seen) <= {2}


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
