from dataclasses import replace

import pytest
import torch

from kdlearn.data import Split
from kdlearn.experiments import extraction
from kdlearn.experiments.extraction import RECIPE, membership, shown, with_canaries


class Knows(torch.nn.Module):
    """Is sure of the images that it has seen, which are the bright ones."""

    def forward(self, images):
        return images.flatten(1).mean(1, keepdim=True) * torch.tensor([[9.0, 0.0]])


def images(brightness):
    labels = torch.zeros(len(brightness)).long()
    return Split(brightness.view(-1, 1, 1, 1), labels, torch.arange(len(labels)))


def test_a_threshold_on_the_loss_finds_the_members_of_a_model_that_knows_them_by_heart():
    auc, found = membership(Knows(), images(torch.ones(50)), images(torch.zeros(50)))
    assert (auc, found) == (1.0, 1.0)
    same = torch.rand(400, generator=torch.Generator().manual_seed(0))
    auc, found = membership(Knows(), images(same), images(same.flip(0)))
    assert auc == pytest.approx(0.5) and found == pytest.approx(0.01, abs=0.003)


def test_what_is_told_says_less_from_form_to_form_and_stays_a_distribution():
    answers = torch.softmax(3 * torch.randn(200, 10), dim=1)
    told = {kind: shown(answers, kind) for kind in ("probabilities", "rounded", "answer")}
    for rows in told.values():
        torch.testing.assert_close(rows.sum(1), torch.ones(200))
    values = {kind: len(rows.unique()) for kind, rows in told.items()}
    assert values["answer"] == 2 < values["rounded"] < values["probabilities"]


def test_canaries_swap_two_classes_and_leave_the_other_answers_alone():
    answers = torch.softmax(3 * torch.randn(300, 10), dim=1)
    told, rows = with_canaries(answers, 0.02, seed=1)
    changed = (told != answers).any(1).nonzero().flatten()
    assert sorted(rows.tolist()) == changed.tolist() and len(rows) == 6
    assert (told.argmax(1) != answers.argmax(1))[rows].all()
    torch.testing.assert_close(told.sort(1).values, answers.sort(1).values)


def test_each_student_has_its_row():
    short = replace(RECIPE, members=60, strangers=60, steps=3, teacher=(8,), student=(8,))
    methods = ["answer, 50 queries", "noise", "canaries, probabilities", "labels, 50 queries"]
    rows = {row["method"]: row for row in extraction.run_seed(0, recipe=short, methods=methods)}
    assert list(rows) == ["teacher", *methods]


def test_a_student_of_whole_answers_gets_nearer_to_the_model_than_one_of_its_noise():
    short = replace(RECIPE, strangers=500, steps=150)
    methods = ["probabilities, 500 queries", "noise"]
    rows = {row["method"]: row for row in extraction.run_seed(0, recipe=short, methods=methods)}
    assert rows[methods[0]]["agreement"] > rows["noise"]["agreement"] + 10
