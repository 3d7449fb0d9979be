import pytest
import torch
import torch.nn.functional as F

from kdlearn.data.dates import SYMBOLS, written_dates
from kdlearn.experiments.date_translation import alignment_kl, measures

DATES = written_dates(40, seed=5)


class Told:
    """A model that gives each of the two kinds of answer a fixed probability."""

    def __init__(self, shares):
        self.shares = shares

    def __call__(self, source, target=None, *, length=10):
        text = DATES.answers[int(self.shares[1] > self.shares[0])] if target is None else target
        kind = int(torch.equal(text, DATES.answers[1]))
        # The first symbol says which kind it is, the others follow from it.
        chance = torch.ones(len(source), length, 1)
        chance[:, 0] = self.shares[kind]
        logits = F.one_hot(text, len(SYMBOLS)) * 60.0
        rest = ((1 - chance).clamp_min(1e-9) / chance / (len(SYMBOLS) - 1)).log()
        logits = torch.where(logits > 0, 0.0, rest.clamp_min(-60))
        weights = DATES.alignment[DATES.second.long(), torch.arange(len(DATES))].float()
        return logits, weights / weights.sum(-1, keepdim=True).clamp_min(1)


def test_what_is_measured_of_a_model_that_is_known():
    model = Told((0.7, 0.2))
    told = measures(model, model, DATES)
    assert told["accuracy"] == 100
    assert told["sampled"] == pytest.approx(90, abs=0.1)
    assert told["second"] == pytest.approx(20, abs=0.1)
    assert told["aligned"] == pytest.approx(100)
    assert told["kl_alignment"] == pytest.approx(0, abs=1e-6)


def test_the_divergence_of_alignments_is_that_of_their_rows():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.rand(2, 3, 10, 15, generator=generator).softmax(-1)
    expected = F.kl_div(student.log(), teacher, reduction="none").sum(-1).mean()
    torch.testing.assert_close(alignment_kl(student, teacher), expected)
