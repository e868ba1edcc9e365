"""Table ``embeddings`` with what tells when each record was made and last written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hnswcheck.disk.catalog import PAGE_RECORDS, integer
from hnswcheck.disk.database import Database
from hnswcheck.disk.strings import Flags, Ints, Strings
from hnswcheck.disk.text import text
from hnswcheck.disk.wal import is_complete
from hnswcheck.errors import SqliteDamaged

PAGE_DOCUMENTS = 500

Scalar = str | int | float | None
Value = Scalar | list[Scalar]
VALUE_COLUMNS = ("string_value", "int_value", "float_value", "bool_value")


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
    seq_ids: list[Ints] = []
    key, after = b"", ">="
    while True:
        page = database.rows(
            "SELECT id, seq_id, embedding_id FROM embeddings WHERE segment_id = CAST(? AS TEXT)"
            f" AND embedding_id {after} CAST(? AS TEXT) ORDER BY embedding_id LIMIT ?",
            (segment.encode(), key, PAGE_RECORDS),
        )
        ids = [id for _, _, id in page if isinstance(id, bytes)]
        if len(ids) < len(page):
            raise SqliteDamaged("embeddings.embedding_id is no text")
        pages.append(Strings.of(ids))
        rowids.append(np.array([integer(n, "embeddings.id") for n, _, _ in page], np.int64))
        seq_ids.append(np.array([seq_id_number(n) for _, n, _ in page], np.int64))
        if len(page) < PAGE_RECORDS:
            break
        if ids[-1] <= key:
            raise SqliteDamaged("the index of table embeddings is out of order")
        key, after = ids[-1], ">"
    rows = np.concatenate(rowids)
    order = np.argsort(rows)
    strings = Strings.concatenated(pages)
    return Records(strings.take(order), rows[order], np.concatenate(seq_ids)[order])


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
    return History(_accounted(database), is_complete(database))


def _accounted(database: Database) -> int:
    """The largest n such that each of the operations 1 to n is still known to the store.

    Known is the last operation on a record that exists, and what the WAL holds. Where that is all,
    nothing up to n was updated or deleted, but what the WAL shows.
    """
    known: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    for table, key in (("embeddings", "id"), ("embeddings_queue", "seq_id")):
        last = -1 << 63
        while True:
            page = database.rows(
                f"SELECT {key}, seq_id FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?",
                (last, PAGE_RECORDS),
            )
            known.append(np.array([seq_id_number(seq_id) for _, seq_id in page], np.int64))
            if len(page) < PAGE_RECORDS:
                break
            last = integer(page[-1][0], key)
    numbers = np.unique(np.concatenate(known))
    numbers = numbers[numbers > 0]
    gaps = np.flatnonzero(numbers != np.arange(1, len(numbers) + 1))
    return int(gaps[0]) if len(gaps) else len(numbers)


def read_metadata(database: Database, rowids: Ints) -> dict[int, dict[str, Value]]:
    """Metadata of records, by rowid; their documents are under "chroma:document".

    Args:
        rowids: int64 (n,), not more than :data:`PAGE_DOCUMENTS`.
    """
    found: dict[int, dict[str, Value]] = {}
    for rowid, key, value in _metadata_rows(database, "embedding_metadata", rowids):
        found.setdefault(rowid, {})[key] = value
    for rowid, key, value in _metadata_rows(database, "embedding_metadata_array", rowids):
        values = found.setdefault(rowid, {}).setdefault(key, [])
        if isinstance(values, list) and not isinstance(value, list):
            values.append(value)
    return found


def _metadata_rows(
    database: Database, table: str, rowids: Ints
) -> Iterator[tuple[int, str, Value]]:
    """(rowid, key, value) of one of the two tables; nothing where a line has it not."""
    there = [text(name) for _, name, *_ in database.rows(f"PRAGMA table_info({table})")]
    columns = [name for name in VALUE_COLUMNS if name in there]
    if not columns:
        return
    marks = ", ".join("?" * len(rowids))
    query = (
        f"SELECT id, key, {', '.join(columns)} FROM {table} WHERE id IN ({marks}) ORDER BY rowid"
    )
    for rowid, key, *values in database.rows(query, rowids.tolist()):
        pairs = zip(columns, values, strict=True)
        column, value = next((pair for pair in pairs if pair[1] is not None), ("", None))
        plain = text(value) if isinstance(value, bytes) else value
        if isinstance(plain, str | int | float | None):
            is_flag = column == "bool_value" and isinstance(plain, int)
            yield integer(rowid, "id"), text(key), bool(plain) if is_flag else plain


def read_documents(database: Database, rowids: Ints) -> dict[int, str]:
    """The documents of records, by rowid; of those that have one."""
    found: dict[int, str] = {}
    for begin in range(0, len(rowids), PAGE_DOCUMENTS):
        page = read_metadata(database, rowids[begin : begin + PAGE_DOCUMENTS])
        for rowid, metadata in page.items():
            document = metadata.get("chroma:document")
            if isinstance(document, str):
                found[rowid] = document
    return found


def have_documents(database: Database, rowids: Ints) -> Flags:
    """bool (n,): which records have a document."""
    found: list[int] = []
    for begin in range(0, len(rowids), PAGE_DOCUMENTS):
        page = rowids[begin : begin + PAGE_DOCUMENTS].tolist()
        rows = database.rows(
            "SELECT id FROM embedding_metadata WHERE key = 'chroma:document'"
            f" AND string_value IS NOT NULL AND id IN ({', '.join('?' * len(page))})",
            page,
        )
        found += [integer(rowid, "id") for (rowid,) in rows]
    return np.isin(rowids, found)


def seq_id_number(seq_id: object) -> int:
    """A seq_id: an integer in 1.x, 8 bytes big-endian before.

    Raises:
        SqliteDamaged: it is neither.
    """
    if isinstance(seq_id, bytes) and len(seq_id) == 8:
        return int.from_bytes(seq_id, "big", signed=True)
    if isinstance(seq_id, int):
        return seq_id
    raise SqliteDamaged("embeddings.seq_id is no number")
