import math

import pytest
import torch

from kdlearn.data.dyck import SYMBOLS, brackets_match, dyck_language


def matched(text):
    """By deleting pairs until nothing changes."""
    before = None
    while text != before:
        before, text = text, text.replace("()", "").replace("[]", "")
    return not text


def test_valid_strings_are_those_that_pairs_can_be_deleted_from():
    language = dyck_language(6)
    texts = ["".join(SYMBOLS[token] for token in row) for row in language.strings.tolist()]
    assert len(set(texts)) == 4**6
    assert language.valid.tolist() == [matched(text) for text in texts]


@pytest.mark.parametrize("length", [2, 4, 6, 8])
def test_there_are_as_many_as_catalan_and_the_kinds_say(length):
    pairs = length // 2
    catalan = math.comb(length, pairs) // (pairs + 1)
    assert dyck_language(length).valid.sum() == catalan * 2**pairs


def test_probabilities_sum_to_one_and_only_the_noise_is_invalid():
    language = dyck_language(6, noise=0.05, seed=3)
    probs = language.log_probs.double().exp()
    assert abs(probs.sum() - 1) < 1e-6
    assert abs(probs[~language.valid].sum() - 0.05 * (1 - 40 / 4096)) < 1e-6


def test_without_sharpness_all_valid_strings_are_equally_likely():
    language = dyck_language(4, sharpness=0)
    assert len(language.log_probs[language.valid].unique()) == 1


def test_next_probabilities_are_those_of_counting():
    language = dyck_language(4, seed=1)
    probs, strings = language.log_probs.exp(), language.strings
    found = language.next_log_probs().exp()
    row = 117
    for place in range(4):
        alike = (strings[:, :place] == strings[row, :place]).all(1)
        for token in range(4):
            share = probs[alike & (strings[:, place] == token)].sum() / probs[alike].sum()
            assert abs(found[row, place, token] - share) < 1e-6


def test_the_seed_decides():
    assert torch.equal(dyck_language(4, seed=5).log_probs, dyck_language(4, seed=5).log_probs)
    assert not torch.equal(dyck_language(4, seed=5).log_probs, dyck_language(4).log_probs)


def test_a_closing_bracket_with_nothing_open_never_matches():
    assert not brackets_match(torch.tensor([[2, 0], [3, 3], [0, 3]])).any()


def test_odd_lengths_and_impossible_strings_are_refused():
    for length in (3, 10):
        with pytest.raises(ValueError, match="expected 2, 4, 6 or 8"):
            dyck_language(length)
    with pytest.raises(ValueError, match="noise is 0: expected more"):
        dyck_language(4, noise=0)
