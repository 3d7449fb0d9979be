import pytest
import torch

from kdlearn.models import RecurrentLM


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_continued_in_pieces_it_gives_the_same(cell):
    torch.manual_seed(0)
    model, tokens = RecurrentLM(9, cell=cell), torch.randint(9, (3, 6))
    first, state = model.continued(tokens[:, :4])
    second, _ = model.continued(tokens[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), model(tokens))


@pytest.mark.parametrize(("cell", "gates"), [("gru", 3), ("lstm", 4)])
def test_a_gru_has_three_gates_and_an_lstm_four(cell, gates):
    model = RecurrentLM(9, embedding=5, hidden=7, cell=cell)
    assert model.recurrent.weight_ih_l0.shape == (gates * 7, 5)


def test_no_place_sees_a_later_one():
    torch.manual_seed(0)
    model, tokens = RecurrentLM(9), torch.randint(9, (3, 6))
    assert torch.equal(model(tokens)[:, :4], model(tokens[:, :4]))


def test_another_cell_is_refused():
    with pytest.raises(ValueError, match="cell is 'rnn', expected one of 'gru', 'lstm'"):
        RecurrentLM(9, cell="rnn")
