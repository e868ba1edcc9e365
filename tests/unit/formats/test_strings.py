"""Columns of byte strings, against Python's own lists, sets and dicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnswcheck.formats import strings
from hnswcheck.formats.strings import LONG_STRING, Strings, absent, differences, find, positions

LONG = b"x" * (LONG_STRING + 1)
#: Prefixes, padding zeros, lengths around a word and around what is digested alone.
ODD = [
    b"",
    b"\0",
    b"\0\0",
    b"a",
    b"a\0",
    b"a" * 7,
    b"a" * 8,
    b"a" * 9,
    LONG[:-1],
    LONG,
    LONG + b"y",
]

values = st.lists(st.sampled_from(ODD) | st.binary(max_size=12), max_size=20)


@given(values)
def test_a_column_is_the_list_it_was_made_of(items: list[bytes]) -> None:
    column = Strings.of(items)
    assert list(column) == items
    assert len(column) == len(items)


@given(values, values)
def test_columns_that_are_joined_keep_their_order(first: list[bytes], second: list[bytes]) -> None:
    joined = Strings.concatenated([Strings.of(first), Strings.of(second)])
    assert list(joined) == first + second


@given(values, values)
def test_what_another_column_lacks_is_found(left: list[bytes], right: list[bytes]) -> None:
    one, other = Strings.of(left), Strings.of(right)
    assert absent(one, other).tolist() == [item not in right for item in left]
    only_left, only_right = differences(one, other)
    assert {one[i] for i in only_left.tolist()} == set(left) - set(right)
    assert {other[i] for i in only_right.tolist()} == set(right) - set(left)


@given(values, values)
def test_a_position_is_where_an_equal_string_stands(left: list[bytes], right: list[bytes]) -> None:
    at = positions(Strings.of(left), Strings.of(right)).tolist()
    for item, place in zip(left, at, strict=True):
        assert (place == -1) == (item not in right)
        assert place == -1 or right[place] == item


@given(values, values)
def test_of_several_equal_strings_the_last_is_found(
    wanted: list[bytes], column: list[bytes]
) -> None:
    last = {item: i for i, item in enumerate(column) if item in wanted}
    assert find(wanted, Strings.of(column)) == last


@given(values)
def test_a_repeat_is_a_string_that_was_there_before(items: list[bytes]) -> None:
    assert Strings.of(items).repeats() == len(items) - len(set(items))


@pytest.mark.parametrize("wanted", ODD)
def test_strings_with_one_hash_are_still_told_apart(
    wanted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strings, "_mix", lambda words, length: np.zeros(words.shape[1], np.uint64))
    short = [item for item in ODD if len(item) <= LONG_STRING]
    column = Strings.of(short)
    expected = short.index(wanted) if wanted in short else -1
    assert positions(Strings.of([wanted]), column).tolist() == [expected]
    assert absent(Strings.of([wanted]), column).tolist() == [wanted not in short]
    assert column.repeats() == 0
