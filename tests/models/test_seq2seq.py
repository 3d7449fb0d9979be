import pytest
import torch

from kdlearn.models import Seq2Seq
from kdlearn.models.seq2seq import AdditiveAttention


@pytest.fixture(params=["gru", "lstm"])
def model(request):
    torch.manual_seed(0)
    return Seq2Seq(symbols=20, embedding=8, hidden=12, cell=request.param)


def test_the_weights_match_the_formula():
    torch.manual_seed(0)
    attention = AdditiveAttention(query=3, memory=5, hidden=4)
    state, states = torch.randn(2, 3), torch.randn(2, 6, 5)
    w, u, v = (
        layer.weight for layer in (attention.from_query, attention.from_memory, attention.score)
    )
    scores = torch.stack([torch.tanh(w @ state[1] + u @ states[1, j]) @ v[0] for j in range(6)])
    expected = scores.exp() / scores.exp().sum()
    assert torch.allclose(attention(state, states)[1], expected, atol=1e-6)


def test_rows_of_the_weights_sum_to_one(model):
    _, weights = model(torch.randint(20, (3, 8)), length=5)
    assert weights.shape == (3, 5, 8)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(3, 5))


def test_a_step_sees_the_target_before_it_and_not_the_one_to_come(model):
    source, target = torch.randint(20, (2, 8)), torch.randint(20, (2, 8))
    changed = target.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 20
    before, after = model(source, target)[0], model(source, changed)[0]
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_without_a_target_it_reads_its_own_output(model):
    source = torch.randint(20, (2, 8))
    free, _ = model(source)
    forced, _ = model(source, target=free.argmax(dim=-1))
    assert torch.allclose(free, forced, atol=1e-6)


def test_an_odd_size_is_refused():
    with pytest.raises(ValueError, match="hidden must be even"):
        Seq2Seq(hidden=7)


def test_the_decoder_starts_from_where_both_directions_ended(model):
    source, started = torch.randint(20, (2, 8)), []
    model.decoder.register_forward_pre_hook(lambda module, given: started.append(given[1]))
    model(source, length=1)
    states, last = model.encoder(model.read(source))
    output = started[0][0] if isinstance(last, tuple) else started[0]
    # Forwards it ended at the last symbol, backwards at the first.
    assert torch.equal(output, torch.cat([states[:, -1, :6], states[:, 0, 6:]], 1))


def test_another_cell_is_refused():
    with pytest.raises(ValueError, match="cell is 'rnn', expected one of 'gru', 'lstm'"):
        Seq2Seq(cell="rnn")
