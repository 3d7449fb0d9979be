import pytest

from kdlearn.core.errors import in_full, noting


def test_notes_add_up_from_the_inside_and_name_the_place_as_it_is_then():
    place = ["epoch 1"]
    with pytest.raises(KeyError) as caught, noting(place), noting("in term 'a'"):  # noqa: PT012
        place[0] = "epoch 2"
        raise KeyError("no layer 'x'.")
    assert in_full(caught.value) == "no layer 'x'. (in term 'a'; ['epoch 2'])"


def test_an_error_without_notes_or_words_stays_as_it_is():
    assert in_full(ValueError("no data.")) == "no data." and in_full(KeyError()) == ""


def test_ctrl_c_is_no_error_to_be_noted():
    with pytest.raises(KeyboardInterrupt) as caught, noting("epoch 1"):
        raise KeyboardInterrupt
    assert not hasattr(caught.value, "__notes__")
