import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlearn.data.tokenizers import Tokenizer, learn_pairs, shared_spans

TEXT = "the cat sat on the mat and the rat sat on the cat"
texts = st.text(alphabet="".join(sorted(set(TEXT))), min_size=1, max_size=60)


@given(texts, st.integers(0, 20))
def test_what_is_encoded_can_be_decoded(text, merges):
    tokenizer = learn_pairs(TEXT, merges)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert len(tokens) <= len(text) and int(tokens.max()) < len(tokenizer)


def test_the_most_frequent_pair_is_merged_first():
    # "th" and "at" and "he" of TEXT, counted by hand: at 5, he 4, th 4, "e " 4, "t " 4.
    assert learn_pairs(TEXT, 1).merges == (("a", "t"),)


def test_repeated_letters_are_merged_from_left_to_right():
    assert Tokenizer("a", (("a", "a"),)).split("aaaaa") == ["aa", "aa", "a"]
    assert Tokenizer("ab", (("a", "b"), ("ab", "b"))).split("abbb") == ["abb", "b"]


def test_a_pair_that_comes_once_is_not_worth_a_token():
    assert learn_pairs("abcd", 10).merges == ()


def test_without_merges_tokens_are_characters():
    tokenizer = learn_pairs(TEXT, 0)
    assert tokenizer.split("cat") == ["c", "a", "t"]
    assert tokenizer.encode("a").dtype == torch.int64


@given(texts, st.integers(0, 8), st.integers(0, 20))
def test_shared_spans_cover_the_text_and_cannot_be_cut_finer(text, few, many):
    left, right = (learn_pairs(TEXT, merges).split(text) for merges in (few, many))
    spans = shared_spans(left, right)
    assert "".join("".join(left[one]) for one, _ in spans) == text
    for one, other in spans:
        assert "".join(left[one]) == "".join(right[other])
        inner = [
            {len("".join(side[:n])) for n in range(1, len(side))}
            for side in (left[one], right[other])
        ]
        assert not inner[0] & inner[1]


def test_pieces_of_two_texts_are_refused():
    with pytest.raises(ValueError, match="two different texts"):
        shared_spans(["a"], ["b"])


def test_an_unknown_character_and_an_empty_text_are_refused():
    with pytest.raises(ValueError, match=r"the text has \['X'\]"):
        learn_pairs(TEXT, 2).encode("caX")
    with pytest.raises(ValueError, match="the text is empty"):
        learn_pairs("", 2)
