"""The write-ahead log: table ``embeddings_queue``, without its vectors.

Source: ``rust/log/src/sqlite_log.rs`` in chroma-core/chroma; in 0.x
``chromadb/db/mixins/embeddings_queue.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Literal

from hnswcheck.formats.text import text
from hnswcheck.store.catalog import PAGE_RECORDS
from hnswcheck.store.database import Database
from hnswcheck.store.releases import Release
from hnswcheck.store.schema import integer
from hnswcheck.store.watermarks import LARGEST_SEQ_ID

PAGE_WAL_ROWS = 1 << 14

PAGE_VECTORS = 1 << 9

#: A backfill asks to run an attached function over the collection.
Operation = Literal["add", "update", "upsert", "delete", "backfill"]

#: Those that write, by their codes.
OPERATIONS: tuple[Operation, ...] = ("add", "update", "upsert", "delete")

FLOAT32 = b"FLOAT32"

#: Faults of a row whose id, or whose other parts, can be told all the same.
ID_FAULT, METADATA_FAULT = "the id is not text", "metadata or time is unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class WalRow:
    """A row of ``embeddings_queue``, without its vector.

    Attributes:
        operation: None for a code that the line does not know.
        vector_bytes: length of the vector, None where the row has none.
        fault: why Chroma cannot read the row, if it cannot.
        obscure: nobody can tell which vector it writes, or whether it writes one.
    """

    seq_id: int
    operation: Operation | None
    id: bytes
    vector_bytes: int | None
    fault: str | None = None
    obscure: bool = False


def read_wal_summary(database: Database) -> dict[str, int]:
    """How many rows each collection has in the WAL. Reads the whole table once."""
    rows: dict[str, int] = {}
    last = -1 << 63
    while True:
        page = database.rows(
            "SELECT topic, count(*), max(seq_id) FROM (SELECT topic, seq_id FROM embeddings_queue"
            " WHERE seq_id > ? ORDER BY seq_id LIMIT ?) GROUP BY topic",
            (last, PAGE_RECORDS),
        )
        for topic, count, _ in page:
            collection = collection_of(topic)
            rows[collection] = rows.get(collection, 0) + integer(count, "count")
        if sum(integer(row[1], "count") for row in page) < PAGE_RECORDS:
            return rows
        last = max(integer(row[2], "seq_id") for row in page)


def highest_seq_id(database: Database) -> int:
    """The last seq_id in the WAL; the next write gets the number after it. 0 if it is empty."""
    value = database.rows("SELECT max(seq_id) FROM embeddings_queue")[0][0]
    return 0 if value is None else integer(value, "embeddings_queue.seq_id")


def collection_of(topic: object) -> str:
    """The collection id in ``persistent://<tenant>/<namespace>/<collection id>``."""
    return text(topic).rpartition("/")[2]


#: 0 for rows that the Rust reader refuses (metadata must be a JSON object) or never comes to (it
#: asks for rows of a certain age). The Python one reads more than this.
READ_BY_RUST = """
strftime('%s', created_at) IS NOT NULL AND CASE
WHEN metadata IS NULL THEN 1 WHEN typeof(metadata) <> 'text' OR NOT json_valid(metadata) THEN 0
ELSE json_type(metadata) = 'object' END
"""


def read_wal(
    database: Database, starts: Mapping[str, int], release: Release
) -> dict[str, list[WalRow]]:
    """The WAL rows of each collection with a seq_id above ``starts[collection id]``, in order."""
    readable = READ_BY_RUST if release.reader == "rust" else "1"
    found: dict[str, list[WalRow]] = {collection: [] for collection in starts}
    last = min(starts.values(), default=0)
    while starts:
        page = database.rows(
            "SELECT seq_id, topic, operation, id, typeof(id), typeof(vector), length(vector),"
            f" encoding, typeof(encoding), {readable}"
            " FROM embeddings_queue WHERE seq_id > ? ORDER BY seq_id LIMIT ?",
            (last, PAGE_WAL_ROWS),
        )
        for seq_id, topic, *row in page:
            last = integer(seq_id, "embeddings_queue.seq_id")
            collection = collection_of(topic)
            if last > starts.get(collection, LARGEST_SEQ_ID << 10):
                found[collection].append(_wal_row(last, row, release))
        if len(page) < PAGE_WAL_ROWS:
            break
    return found


def is_complete(database: Database) -> bool:
    """Whether nothing was ever purged: every row is there, from the first to the last."""
    count, last = database.rows("SELECT count(*), max(seq_id) FROM embeddings_queue")[0]
    return count == last


def read_wal_vectors(
    database: Database, seq_ids: AbstractSet[int], lift: int = 0
) -> Iterator[dict[int, bytes]]:
    """The vectors of some rows by seq_id, a page of the table at a time.

    Args:
        lift: numbers above this are as much higher as in the log.
    """
    wanted = {seq_id - lift if seq_id > lift else seq_id: seq_id for seq_id in seq_ids}
    last, end = min(wanted, default=1) - 1, max(wanted, default=0)
    while last < end:
        page = database.rows(
            "SELECT seq_id, vector FROM embeddings_queue WHERE seq_id > ? AND seq_id <= ?"
            " ORDER BY seq_id LIMIT ?",
            (last, end, PAGE_VECTORS),
        )
        vectors = {integer(seq_id, "embeddings_queue.seq_id"): vector for seq_id, vector in page}
        yield {wanted[at]: v for at, v in vectors.items() if at in wanted and isinstance(v, bytes)}
        last = max(vectors, default=last)
        if len(page) < PAGE_VECTORS:
            break


def _wal_row(seq_id: int, row: list[object], release: Release) -> WalRow:
    operation, record, id_type, vector_type, vector_bytes, *_ = row
    known = (*OPERATIONS, "backfill") if release.skips_backfills else OPERATIONS
    there = isinstance(operation, int) and 0 <= operation < len(known)
    return WalRow(
        seq_id=seq_id,
        operation=known[operation] if there and isinstance(operation, int) else None,
        id=record if isinstance(record, bytes) else str(record).encode(),
        vector_bytes=vector_bytes
        if vector_type != b"null" and isinstance(vector_bytes, int)
        else None,
        fault=_fault(id_type, vector_type, *row[5:]),
    )


def _fault(*row: object) -> str | None:
    id_type, vector_type, encoding, encoding_type, readable = row
    if id_type != b"text":
        return ID_FAULT
    if vector_type not in (b"null", b"blob"):
        return "the vector is not a BLOB"
    if encoding is not None and encoding_type != b"text":
        return "the encoding is not text"
    if vector_type == b"blob" and encoding != FLOAT32:
        return "unknown encoding"
    return None if readable else METADATA_FAULT


#: What a row is said to have whose vector is of another dimension.
VECTOR_OF = "vector of {} bytes"


def row_fault(row: WalRow, dimension: int | None) -> str | None:
    """Why Chroma cannot read a row when it replays it."""
    size = row.vector_bytes
    if row.operation is None:
        return row.fault or "unknown operation"
    if row.fault:
        return row.fault
    if size is None:
        return "no vector" if row.operation in ("add", "upsert") else None
    if dimension is not None and size != 4 * dimension:
        return f"{VECTOR_OF.format(size)}, expected {4 * dimension}"
    return "the vector is not a whole number of float32 values" if size % 4 else None


def legible(rows: Sequence[WalRow], dimension: int | None) -> Sequence[WalRow]:
    """The rows that write, with all their faults, and without vectors that cannot be read.

    A backfill does nothing to records and index, whatever it has for an id. A row that is not
    obscure then has an operation that Chroma knows, and the vector that it needs.
    """
    return [_legible(row, dimension) for row in rows if row.operation != "backfill"]


def _legible(row: WalRow, dimension: int | None) -> WalRow:
    fault = row_fault(row, dimension)
    # What else is wrong with a row decides whether its vector can be told.
    other = row_fault(replace(row, fault=None), dimension) if fault == METADATA_FAULT else fault
    if other is None:
        return row
    obscure = row.operation != "delete"
    return replace(row, vector_bytes=None, fault=fault, obscure=obscure)
