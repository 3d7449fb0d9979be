from dataclasses import replace

import torch

from kdlearn.experiments import retrieval
from kdlearn.experiments.retrieval import (
    RECIPE,
    Embedding,
    candidates,
    margin_mse,
    ranks,
    read_texts,
)


def test_margins_do_not_see_a_constant_and_their_gradient_moves_both_documents():
    teacher = torch.randn(4, 5, dtype=torch.float64)
    shifted = (teacher + torch.randn(4, 1, dtype=torch.float64)).requires_grad_()
    assert margin_mse(shifted, teacher).item() < 1e-24
    student = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    margin_mse(student, teacher).backward()
    by_hand = -2 * (teacher[:, :1] - teacher[:, 1:]) / 16
    torch.testing.assert_close(student.grad[:, 1:], -by_hand)
    torch.testing.assert_close(student.grad[:, 0], by_hand.sum(1))


def test_a_rank_counts_what_stands_above():
    scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert ranks(scores, torch.tensor([0, 1])).tolist() == [0, 2]


def test_the_right_document_is_never_among_the_others():
    rows, best = torch.arange(6), torch.arange(6)[:, None].expand(6, 3)
    drawn = candidates(rows, best, 50, 6, torch.Generator().manual_seed(0))
    assert (drawn != rows[:, None]).all() and drawn.unique().tolist() == list(range(6))


def test_an_embedding_of_all_words_is_the_word_overlap():
    texts = read_texts()
    some = texts.questions[:40], texts.documents[:40]
    student = Embedding(torch.eye(some[0].shape[1]))
    torch.testing.assert_close(student(some[0]) @ student(some[1]).T, some[0] @ some[1].T)
    assert len(texts.questions) == 1500 and texts.pairs.shape == (1500, 1500, 5)


def test_more_singular_vectors_come_nearer_to_the_words_and_need_no_training():
    widths = [f"SVD, width {width}" for width in (8, 32, 128)]
    short = replace(RECIPE, steps=5)
    rows = [row for row in retrieval.run_seed(0, recipe=short, methods=[*widths, "words"])]
    found = [row["recall_10"] for row in rows[1:]]
    assert found == sorted(found) and found[0] < found[-1]
