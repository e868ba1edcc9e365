"""Rows of the log: what Chroma can read of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hnswcheck.store.wal import ID_FAULT, METADATA_FAULT, WalRow, collection_of, legible, row_fault

ADD = WalRow(1, "add", b"a", 32)


@pytest.mark.parametrize(
    ("row", "dimension", "fault"),
    [
        (ADD, 8, None),
        (ADD, None, None),
        (ADD, 7, "vector of 32 bytes, expected 28"),
        (replace(ADD, vector_bytes=31), 8, "vector of 31 bytes, expected 32"),
        (replace(ADD, vector_bytes=31), None, "the vector is not a whole number of float32 values"),
        (replace(ADD, vector_bytes=None), 8, "no vector"),
        (replace(ADD, operation="upsert", vector_bytes=None), 8, "no vector"),
        (replace(ADD, operation="update", vector_bytes=None), 8, None),
        (replace(ADD, operation="delete", vector_bytes=None), 8, None),
        (replace(ADD, operation=None), 8, "unknown operation"),
        (replace(ADD, operation=None, fault="known"), 8, "known"),
        (replace(ADD, fault=ID_FAULT), 7, ID_FAULT),
    ],
)
def test_each_fault_is_said(row: WalRow, dimension: int | None, fault: str | None) -> None:
    assert row_fault(row, dimension) == fault


def test_a_row_that_can_be_read_stays_as_it_is() -> None:
    assert legible([ADD], 8) == [ADD]


def test_a_row_with_faulty_metadata_keeps_its_vector() -> None:
    row = replace(ADD, fault=METADATA_FAULT)
    assert legible([row], 8) == [row]


def test_of_a_faulty_row_nobody_knows_the_vector_unless_it_deletes() -> None:
    (torn,) = legible([ADD], 7)
    assert torn.vector_bytes is None
    assert torn.obscure
    assert torn.fault == "vector of 32 bytes, expected 28"
    (deletion,) = legible([replace(ADD, operation="delete")], 7)
    assert not deletion.obscure


@pytest.mark.parametrize(
    ("topic", "collection"),
    [
        ("persistent://default/default/abc", "abc"),
        (b"persistent://default/default/abc", "abc"),
        ("abc", "abc"),
        ("persistent://default/default/", ""),
    ],
)
def test_the_collection_is_the_end_of_the_topic(topic: object, collection: str) -> None:
    assert collection_of(topic) == collection
