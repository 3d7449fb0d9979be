import pytest
import torch

from kdlearn.data import Batch, Samples
from kdlearn.distill import Distiller, logit_term, sparse_term
from kdlearn.distill.served import ServedTeacher
from kdlearn.losses import forward_kl, top_k_kl
from kdlearn.store import TopK

LOGITS = torch.randn(4, 5, 30, generator=torch.Generator().manual_seed(0))
TOKENS = torch.arange(20).view(4, 5)

KL = logit_term("kl", forward_kl)


def score(tokens):
    return TopK(3).reduce(LOGITS[: len(tokens)])


def test_a_sparse_term_reads_the_answer():
    student = torch.nn.Embedding(20, 30)
    teacher = ServedTeacher(score, TopK(3))
    distiller = Distiller(student, teacher, [sparse_term("top3", top_k_kl, TopK(3))])
    expected = top_k_kl(student(TOKENS), *LOGITS.log_softmax(-1).topk(3))
    assert distiller(TOKENS).total == expected


def test_another_answer_is_another_teacher():
    samples = Samples.of((TOKENS, None))
    one = ServedTeacher(score, TopK(3)).identity(samples)
    assert one == ServedTeacher(score, TopK(3)).identity(samples)
    other = ServedTeacher(lambda tokens: TopK(3).reduce(-LOGITS[: len(tokens)]), TopK(3))
    assert one != other.identity(samples)


def test_all_logits_are_not_served():
    with pytest.raises(KeyError, match="logits is not served, logits as TopK"):
        Distiller(
            torch.nn.Embedding(20, 30),
            ServedTeacher(score, TopK(3)),
            [logit_term("kl", forward_kl)],
        )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.zeros(4, 5, 3), "score returned a Tensor"),
        ((torch.zeros(4, 5, 3), torch.zeros(4, 5, 2).long()), r"\(4, 5, 3\) and \(4, 5, 2\)"),
        ((torch.zeros(3, 5, 3), torch.zeros(3, 5, 3).long()), "for 4 samples"),
    ],
)
def test_an_answer_of_another_form_is_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        ServedTeacher(lambda tokens: answer, TopK(3)).outputs(Batch(TOKENS))


def test_a_score_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="expected a function from inputs"):
        ServedTeacher(LOGITS, TopK(3))
