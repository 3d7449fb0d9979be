import pytest
import torch

from kdlearn.data import associative_recall

DATA = associative_recall(200, pairs=8, keys=16, values=16, seed=2)


def test_the_answer_stands_at_its_source_and_after_the_query():
    assert DATA.tokens.shape == (200, 32)
    assert torch.equal(DATA.tokens.gather(1, DATA.sources), DATA.answers)
    assert torch.equal(DATA.tokens[:, DATA.queries + 1], DATA.answers)


def test_the_source_follows_the_same_key():
    keys = DATA.tokens[:, DATA.queries]
    assert torch.equal(DATA.tokens.gather(1, DATA.sources - 1), keys)
    assert keys.max() < 16 <= DATA.answers.min() and DATA.answers.max() < 32


def test_keys_differ_within_a_sequence():
    assert all(len(row.unique()) == 8 for row in DATA.tokens[:, 0:16:2])


def test_queries_come_in_another_order():
    assert (DATA.sources[1:] != DATA.sources[:-1]).any()
    assert torch.equal(DATA.sources.sort(dim=1).values[0], 1 + 2 * torch.arange(8))


def test_the_seed_decides_and_no_global_state_is_touched():
    state = torch.get_rng_state()
    again, other = associative_recall(200, seed=2), associative_recall(200, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again.tokens, DATA.tokens) and not torch.equal(other.tokens, DATA.tokens)


def test_more_pairs_than_keys_are_refused():
    with pytest.raises(ValueError, match="20 pairs and 16 keys"):
        associative_recall(3, pairs=20)
    with pytest.raises(ValueError, match="sequences is 0: expected"):
        associative_recall(0)
