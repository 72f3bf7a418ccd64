"""Where names stand among others: few as texts, a million as numbers, both the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.prediction import places as module
from earshot.prediction.places import all_different, as_names, hashed, places

NAMES = st.lists(st.text("abcü 7", max_size=6), unique=True, min_size=1, max_size=30)


@pytest.fixture(params=["texts", "numbers", "numbers that clash"])
def way(request, monkeypatch):
    if request.param != "texts":
        monkeypatch.setattr(module, "FEW", -1)
    if request.param == "numbers that clash":
        monkeypatch.setattr(module, "hashed", lambda names: np.zeros(len(names), np.uint64))


@pytest.mark.parametrize(
    ("wanted", "among", "found"),
    [
        (["b", "a"], ["a", "b"], [1, 0]),
        (["a", "b"], ["a", "b"], [0, 1]),
        (["b", "long name", "b"], ["a", "b"], [1, -1, 1]),
        (["a"], ["b", "a longer one", "a"], [2]),
        ([], ["a"], []),
        (["a"], ["a\x00b"], [-1]),
    ],
)
def test_places_of_names(way, wanted, among, found):
    assert places(as_names(wanted), as_names(among)).tolist() == found


@given(NAMES, NAMES)
def test_all_ways_agree_with_a_dictionary(wanted, among):
    place = {name: i for i, name in enumerate(among)}
    expected = [place.get(name, -1) for name in wanted]
    few = module.FEW
    try:
        for module.FEW in (few, -1):
            assert places(as_names(wanted), as_names(among)).tolist() == expected
            assert all_different(as_names(among))
            assert not all_different(as_names([*among, among[0]]))
    finally:
        module.FEW = few


def test_a_number_is_of_the_name_whatever_stands_beside_it():
    alone, beside = hashed(as_names(["ab"])), hashed(as_names(["ab", "a much longer name"]))
    assert alone[0] == beside[0] != beside[1]
