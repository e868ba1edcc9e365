"""Table ``embeddings`` with what tells when each record was made and last written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hnswcheck.errors import SqliteDamaged, StoreChanged
from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.strings import Strings
from hnswcheck.store.catalog import PAGE_RECORDS
from hnswcheck.store.database import Database
from hnswcheck.store.record_ids import read_id_pages
from hnswcheck.store.wal import is_complete

#: A seq_id as text: digits, or "x" and hexadecimal ones for a BLOB, or "?" for what is neither.
SEQ_ID = """
CASE WHEN typeof(seq_id) = 'integer' THEN seq_id
WHEN typeof(seq_id) = 'blob' AND length(seq_id) = 8 THEN 'x' || hex(seq_id) ELSE '?' END
"""


@dataclass(frozen=True, slots=True)
class Records:
    """Records of one metadata segment, in the order in which they were made.

    A new row gets a rowid above all that are there, so of two records that exist the one with the
    larger rowid was made later.

    Attributes:
        ids: their ids.
        rowids: int64 (n,), ascending.
        seq_ids: int64 (n,): the last operation on each.
    """

    ids: Strings
    rowids: Ints
    seq_ids: Ints


def read_records(database: Database, segment: str) -> Records:
    """The records of a metadata segment; takes as long as these are many, whatever else is there.

    Raises:
        SqliteDamaged: a value is none that Chroma writes.
    """
    pages: list[Strings] = []
    rowids: list[Ints] = []
    for ids, (listed,) in read_id_pages(database, segment, ("id",)):
        pages.append(ids)
        rowids.append(_numbers(listed, len(ids)))
    rows = np.concatenate(rowids)
    order = np.argsort(rows)
    rows = rows[order]
    return Records(Strings.concatenated(pages).take(order), rows, _seq_ids(database, rows))


def _seq_ids(database: Database, rowids: Ints) -> Ints:
    """int64 (n,): of records in the order of their rows, in which the table is quick to read."""
    found = [np.zeros(0, np.int64)]
    for begin in range(0, len(rowids), PAGE_RECORDS):
        page = rowids[begin : begin + PAGE_RECORDS]
        ((listed,),) = database.rows(
            f"SELECT group_concat({SEQ_ID}) FROM json_each(?) AS page"
            " CROSS JOIN embeddings ON embeddings.id = page.value",
            (json.dumps(page.tolist()),),
        )
        found.append(_numbers(listed, len(page)))
    return np.concatenate(found)


def _numbers(listed: object, count: object) -> Ints:
    """int64 (count,): numbers as :data:`SEQ_ID` has them, with commas between them."""
    found = listed.decode() if isinstance(listed, bytes) else ""
    if "?" in found:
        raise SqliteDamaged("embeddings.seq_id is not a number")
    if "x" in found:
        parts = found.split(",")
        values = [bytes.fromhex(p[1:]) if p[0] == "x" else int(p) for p in parts]
        numbers = np.array([seq_id_number(value) for value in values], np.int64)
    else:
        numbers = np.fromstring(found, np.int64, sep=",")
    if len(numbers) != count:
        raise StoreChanged("the records changed while they were read")
    return numbers


@dataclass(frozen=True, slots=True)
class History:
    """What the store still knows of its operations.

    Attributes:
        accounted: nothing up to this operation was updated or deleted, but what the WAL shows.
        complete: nothing was ever purged from the WAL.
    """

    accounted: int
    complete: bool


def read_history(database: Database) -> History:
    """What the whole store still knows; reads both tables once."""
    tables = (("embeddings", "id"), ("embeddings_queue", "seq_id"))
    return History(_accounted(database, tables), is_complete(database))


def accounted_by_records(database: Database) -> int:
    """The same of the operations before the log gave its numbers again, of which it has none."""
    return _accounted(database, (("embeddings", "id"),))


def _accounted(database: Database, tables: Sequence[tuple[str, str]]) -> int:
    """The largest n such that each of the operations 1 to n is still known to the store.

    Known is the last operation on a record that exists, and what the WAL holds. Where that is all,
    nothing up to n was updated or deleted, but what the WAL shows.

    Args:
        tables: names of the tables that count, and of their keys.
    """
    known: list[Ints] = []
    for table, key in tables:
        last: object = -1 << 63
        count: object = PAGE_RECORDS
        while count == PAGE_RECORDS:
            ((count, last, listed),) = database.rows(
                f"SELECT count(*), max(key), group_concat(number) FROM (SELECT {key} AS key,"
                f" {SEQ_ID} AS number FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?)",
                (last, PAGE_RECORDS),
            )
            known.append(_numbers(listed, count))
    numbers = np.sort(np.concatenate(known))
    numbers = numbers[numbers > 0]
    numbers = numbers[np.diff(numbers, prepend=0) > 0]
    gaps = np.flatnonzero(numbers != np.arange(1, len(numbers) + 1))
    return int(gaps[0]) if len(gaps) else len(numbers)


def read_last_seq_id(database: Database) -> int:
    """The last operation that any record of the store is of; 0 without records."""
    rows = database.rows(
        "SELECT max(seq_id) FROM embeddings WHERE typeof(seq_id) = 'integer'"
        " OR typeof(seq_id) = 'blob' AND length(seq_id) = 8 GROUP BY typeof(seq_id)"
    )
    return max((seq_id_number(seq_id) for (seq_id,) in rows), default=0)


def read_written_since(database: Database, segment: str, seq_id: int) -> dict[bytes, int]:
    """Ids of the records of a metadata segment that were last written after a seq_id, and when.

    0 for a record whose seq_id is no number.
    """
    seq_id = min(max(seq_id, 0), (1 << 63) - 1)
    rows = database.rows(
        "SELECT embedding_id, CASE WHEN typeof(seq_id) = 'integer'"
        " OR typeof(seq_id) = 'blob' AND length(seq_id) = 8 THEN seq_id END FROM embeddings"
        " WHERE segment_id = CAST(? AS TEXT)"
        " AND CASE typeof(seq_id) WHEN 'blob' THEN seq_id > ? ELSE seq_id > ? END",
        (segment.encode(), seq_id.to_bytes(8, "big"), seq_id),
    )
    return {
        id: 0 if last is None else seq_id_number(last) for id, last in rows if isinstance(id, bytes)
    }


def seq_id_number(seq_id: object) -> int:
    """A seq_id: an integer in 1.x, 8 bytes big-endian before.

    Raises:
        SqliteDamaged: it is neither.
    """
    if isinstance(seq_id, bytes) and len(seq_id) == 8:
        return int.from_bytes(seq_id, "big", signed=True)
    if isinstance(seq_id, int):
        return seq_id
    raise SqliteDamaged("embeddings.seq_id is not a number")
