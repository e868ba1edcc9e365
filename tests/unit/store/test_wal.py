"""Rows of the log: what Chroma can read of them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from stores import unpack

from hnswcheck.store.database import connect
from hnswcheck.store.releases import RELEASES
from hnswcheck.store.wal import (
    ID_FAULT,
    METADATA_FAULT,
    WalRow,
    collection_of,
    legible,
    read_wal,
    read_wal_summary,
    row_fault,
)

ADD = WalRow(seq_id=1, operation="add", id=b"a", vector_bytes=32)


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


@pytest.mark.parametrize(("line", "operation"), [("1.3", None), ("1.4", "backfill")])
def test_a_backfill_is_an_operation_since_1_3_6(
    line: str, operation: str | None, tmp_path: Path
) -> None:
    store = unpack("1.5.9-damaged-log-backfill", tmp_path)
    with closing(connect(store / "chroma.sqlite3", "ro")) as database:
        (collection,) = read_wal_summary(database)
        rows = read_wal(database, {collection: -1}, RELEASES[line])[collection]
    assert rows[-1].operation == operation
    assert rows[-1].id == b"r007"
    assert row_fault(rows[-1], 8) == (None if operation else "unknown operation")
    assert len(legible(rows, 8)) == len(rows) - (operation is not None)
