import math

import pytest
import torch
from torch.nn import functional as F

from kdlearn import losses
from kdlearn.data import Batch
from kdlearn.distill import (
    Outputs,
    Term,
    Want,
    label_cross_entropy,
    label_term,
    layer_term,
    logit_term,
    sparse_term,
)
from kdlearn.store import AttentionMap, TopK


def test_a_term_is_its_loss_over_what_it_picks():
    term = Term("sum", 3.0, torch.add, lambda s, t, y: [(s, t), (t, t)])
    assert term.compute(torch.tensor(1.0), torch.tensor(2.0), None) == 3 * (3 + 4)


def test_a_loss_of_several_numbers_is_told():
    rows = Outputs(torch.zeros(3, 5))
    term = label_term(loss=lambda z, y: F.cross_entropy(z, y, reduction="none"))
    with pytest.raises(ValueError, match=r"'labels' has a loss of \(3,\): expected one number"):
        term.compute(rows, rows, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="has a loss of float"):
        label_term(loss=lambda z, y: 1.0).compute(rows, rows, torch.tensor([0, 1, 2]))


def test_each_term_says_what_it_reads_of_the_teacher():
    kind = AttentionMap()
    assert label_term().wants == ()
    assert logit_term("a", losses.soft_target_loss).wants == (Want(""),)
    layers = layer_term("b", losses.hint_loss, {"s": "t", "u": "v"}, keep=kind).wants
    assert layers == (Want("t", kind), Want("v", kind))
    assert sparse_term("c", losses.top_k_kl, TopK(3)).wants == (Want("", TopK(3)),)
    by_hand = Term("d", 1.0, torch.add, lambda s, t, y: [], {"s": "t"})
    assert by_hand.wants == (Want(""), Want("t"))


def test_a_mask_reaches_the_loss():
    student, teacher = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    labels = torch.tensor([[1, 2, -100], [0, -100, -100]])
    term = logit_term("kl", losses.forward_kl, mask=lambda batch: batch.labels != -100)
    said = Outputs(student, batch=Batch(torch.zeros(2, 3), labels))
    kept = labels != -100
    expected = F.kl_div(
        student[kept].log_softmax(-1), teacher[kept].softmax(-1), reduction="batchmean"
    )
    torch.testing.assert_close(term.compute(said, Outputs(teacher), labels), expected)


@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 5), (2, 6, 5), (2, 5, 3, 4)])
def test_cross_entropy_knows_where_the_classes_are(shape):
    torch.manual_seed(0)
    logits = torch.randn(shape)
    rows = logits.movedim(1, -1) if len(shape) == 4 else logits
    labels = torch.randint(0, 5, rows.shape[:-1])
    labels.view(-1)[0] = -100
    kept = labels != -100
    expected = -rows.log_softmax(-1)[kept].gather(-1, labels[kept][:, None]).mean()
    torch.testing.assert_close(label_cross_entropy(logits, labels), expected)


def test_cross_entropy_takes_probabilities():
    assert math.isclose(
        label_cross_entropy(torch.zeros(2, 4), torch.full((2, 4), 0.25)).item(),
        math.log(4),
        rel_tol=1e-6,
    )


@pytest.mark.parametrize(
    ("labels", "error", "said"),
    [
        (torch.zeros(2), TypeError, "needs class numbers, call .long"),
        (torch.eye(3, dtype=torch.long)[:2], TypeError, r"take labels.argmax\(1\)"),
        (torch.zeros(2, 1, dtype=torch.long), TypeError, r"take labels.squeeze\(1\)"),
        (torch.tensor([0, 3]), IndexError, "go from 0 to 3 and the model has 3 classes"),
        (torch.ones(2, 3), ValueError, "sums up to 3 over the classes: .*_with_logits"),
        (torch.tensor([[2.0, -1, 0]] * 2), ValueError, "start at -1 and have sums up to 1 over"),
    ],
)
def test_labels_that_are_none_are_explained(labels, error, said):
    with pytest.raises(error, match=said):
        label_cross_entropy(torch.zeros(2, 3), labels)


def test_a_mask_needs_outputs_that_know_their_batch():
    term = logit_term("kl", losses.forward_kl, mask=lambda batch: batch.mask)
    alone = Outputs(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="'kl' has a mask, which needs outputs that know"):
        term.compute(alone, alone, None)


def test_classes_of_tokens_are_the_last_dimension_whatever_the_sizes():
    logits, labels = torch.randn(2, 5, 5), torch.arange(10).view(2, 5) % 5
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert torch.equal(label_cross_entropy(logits, labels), expected)
    with pytest.raises(ValueError, match=r"\(2, 5\) and logits \(2, 4, 5\).*\.transpose\(1, 2\)"):
        label_cross_entropy(torch.randn(2, 4, 5), labels % 4)


@pytest.mark.parametrize(("shape", "dim"), [((6, 5), 1), ((2, 7, 5), 2), ((2, 5, 3, 4), 1)])
def test_labels_that_are_probabilities_are_compared_along_the_classes(shape, dim):
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(shape, dtype=torch.float64).softmax(dim)
    found = label_cross_entropy(logits, labels)
    expected = -(labels * logits.log_softmax(dim)).sum(dim).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, logits)[0] for value in (found, expected))
    )


def test_labels_of_several_tensors_want_a_loss_of_their_own():
    with pytest.raises(TypeError, match=r"labels are a dict.*pass label_term\(loss=...\)"):
        label_cross_entropy(torch.zeros(2, 3), {"a": torch.tensor([0, 1])})
