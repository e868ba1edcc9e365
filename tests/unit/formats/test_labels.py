"""Looking up labels: the same answer by table and by sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnswcheck.formats.labels import SPARSE_FIXED, find_labels, repeated_labels

U64 = np.uint64
FAR = 1 << 63

columns = st.lists(st.integers(0, 20) | st.integers(FAR, FAR + 3), max_size=30)


@given(columns, columns)
def test_a_label_is_found_where_it_stands_last(labels: list[int], wanted: list[int]) -> None:
    last = {label: at for at, label in enumerate(labels)}
    found = find_labels(np.array(labels, U64), np.array(wanted, U64))
    assert found.tolist() == [last.get(label, -1) for label in wanted]


@given(columns)
def test_a_label_is_repeated_if_it_comes_twice(labels: list[int]) -> None:
    expected = sorted({label for label in labels if labels.count(label) > 1})
    assert repeated_labels(np.array(labels, U64)).tolist() == expected


@pytest.mark.parametrize("top", [SPARSE_FIXED, 2 * SPARSE_FIXED, (1 << 64) - 1])
def test_the_largest_label_decides_only_how_it_is_looked_up(top: int) -> None:
    labels = np.array([3, top, 3], U64)
    assert find_labels(labels, np.array([3, top, 4, top - 1], U64)).tolist() == [2, 1, -1, -1]
