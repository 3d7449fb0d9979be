import pytest
import torch

from kdlearn.data import reordering_task
from kdlearn.data.sequences import SYMBOLS, spell

DATA = reordering_task(300, length=8, seed=1)


def test_letters_come_first_and_digits_last_in_reverse():
    for row in range(50):
        source, target = spell(DATA.source[row]), spell(DATA.target[row])
        letters = [symbol for symbol in source if symbol.isalpha()]
        digits = [symbol for symbol in source if symbol.isdigit()]
        assert target == "".join(letters + digits[::-1])


def test_the_alignment_is_a_permutation_that_gives_the_target():
    assert torch.equal(DATA.source.gather(1, DATA.alignment), DATA.target)
    assert torch.equal(DATA.alignment.sort(dim=1).values, torch.arange(8).expand(300, 8))


def test_every_symbol_is_used():
    assert len(DATA.source.unique()) == len(SYMBOLS) == 20


def test_the_seed_decides_and_no_global_state_is_touched():
    state = torch.get_rng_state()
    again, other = reordering_task(300, seed=1), reordering_task(300, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again.source, DATA.source) and not torch.equal(other.source, DATA.source)


def test_a_token_without_a_symbol_is_refused():
    with pytest.raises(ValueError, match="tokens from 0 to 19"):
        spell(torch.tensor([3, 20]))
    with pytest.raises(ValueError, match="one row"):
        spell(DATA.source)


def test_an_empty_task_is_refused():
    with pytest.raises(ValueError, match="length is 0: expected"):
        reordering_task(5, length=0)
