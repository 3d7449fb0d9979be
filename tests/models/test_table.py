import pytest
import torch

from kdlearn.data.dyck import START, dyck_language
from kdlearn.models import TableLM


def test_it_sees_its_window_and_its_place_and_nothing_else():
    torch.manual_seed(0)
    model = TableLM(symbols=4, length=6, window=2)
    tokens = torch.tensor([[4, 0, 1, 2, 3, 0], [4, 1, 3, 2, 3, 0], [4, 1, 3, 2, 2, 0]])
    logits = model(tokens)
    assert torch.equal(logits[0, 4:], logits[1, 4:])
    assert not torch.equal(logits[1, 5], logits[2, 5])
    assert not torch.equal(logits[0, 2], logits[0, 3])


def test_different_windows_have_different_entries():
    model = TableLM(symbols=3, length=3, window=2)
    model.table.data = torch.arange(3 * 16 * 3.0).view(3, 16, 3)
    tokens = torch.cat(
        [torch.full((9, 1), 3), torch.cartesian_prod(torch.arange(3), torch.arange(3))], dim=1
    )
    assert len(model(tokens)[:, 2, 0].unique()) == 9


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="7 tokens and 6 places: make it with length=7"):
        TableLM(4, 6, 2)(torch.zeros(1, 7, dtype=torch.long))


def test_an_exact_model_says_of_each_string_what_the_language_says():
    language = dyck_language(4)
    model = TableLM.exact(language.strings, language.next_log_probs())
    starts = torch.full((len(language), 1), START)
    logits = model(torch.cat([starts, language.strings[:, :-1]], 1))
    taken = logits.log_softmax(-1).gather(2, language.strings[..., None]).squeeze(2)
    torch.testing.assert_close(taken.sum(1), language.log_probs, rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("wrong", [-1, 5, 9])
def test_a_number_that_is_no_token_is_told(wrong):
    model = TableLM(symbols=4, length=6, window=2)
    with pytest.raises(IndexError, match="expected numbers from 0, and 4 for the start"):
        model(torch.tensor([[4, 1, wrong]]))
