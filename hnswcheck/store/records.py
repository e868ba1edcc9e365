"""Table ``embeddings`` with what tells when each record was made and last written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hnswcheck.errors import SqliteDamaged, StoreChanged
from hnswcheck.formats.strings import Flags, Ints, Strings
from hnswcheck.formats.text import text
from hnswcheck.store.catalog import PAGE_RECORDS, integer
from hnswcheck.store.database import Database
from hnswcheck.store.record_ids import read_id_pages
from hnswcheck.store.wal import is_complete

PAGE_DOCUMENTS = 500

Scalar = str | int | float | None
Value = Scalar | list[Scalar]
VALUE_COLUMNS = ("string_value", "int_value", "float_value", "bool_value")

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
        raise SqliteDamaged("embeddings.seq_id is no number")
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
    return History(_accounted(database), is_complete(database))


def _accounted(database: Database) -> int:
    """The largest n such that each of the operations 1 to n is still known to the store.

    Known is the last operation on a record that exists, and what the WAL holds. Where that is all,
    nothing up to n was updated or deleted, but what the WAL shows.
    """
    known: list[Ints] = []
    for table, key in (("embeddings", "id"), ("embeddings_queue", "seq_id")):
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


def read_wal_metadata(database: Database, seq_ids: Sequence[int]) -> dict[int, dict[str, Value]]:
    """Metadata that rows of the WAL write, by seq_id; None for a key that they remove."""
    found: dict[int, dict[str, Value]] = {}
    for begin in range(0, len(seq_ids), PAGE_DOCUMENTS):
        page = seq_ids[begin : begin + PAGE_DOCUMENTS]
        rows = database.rows(
            "SELECT seq_id, metadata FROM embeddings_queue WHERE metadata IS NOT NULL"
            f" AND seq_id IN ({', '.join('?' * len(page))})",
            page,
        )
        for seq_id, metadata in rows:
            found[integer(seq_id, "embeddings_queue.seq_id")] = _parsed(metadata)
    return found


def _parsed(metadata: object) -> dict[str, Value]:
    """A JSON object; nothing where it is none."""
    try:
        found = json.loads(metadata) if isinstance(metadata, bytes) else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


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
    raise SqliteDamaged("embeddings.seq_id is no number")
