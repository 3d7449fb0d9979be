import torch
from torch import nn

from kdlearn.data import Batch
from kdlearn.distill import Taps, Want
from kdlearn.distill.outputs import run
from kdlearn.store import AttentionMap


def test_a_run_hands_on_what_was_tapped_and_keeps_nothing():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    taps, batch = Taps(model, ["0"]), Batch(torch.randn(5, 4))
    outputs = run(model, taps, batch)
    assert outputs.batch is batch and torch.equal(outputs.taps["0"], model[0](batch.inputs))
    assert not taps._outputs


def test_nothing_is_tapped_unless_asked():
    outputs = run(nn.Linear(4, 3), None, Batch(torch.ones(2, 4)))
    assert outputs.taps == {} and outputs.kept == {}


def test_a_want_says_what_it_is():
    assert [str(Want("")), str(Want("group1"))] == ["logits", "group1"]
    assert str(Want("group1", AttentionMap())) == "group1 as AttentionMap(p=2, size=None)"
