"""Documents and metadata of records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from hnswcheck.formats.arrays import Flags, Ints
from hnswcheck.formats.text import text
from hnswcheck.store.database import Database
from hnswcheck.store.schema import integer

PAGE_DOCUMENTS = 500

Scalar = str | int | float | None

Value = Scalar | list[Scalar]

VALUE_COLUMNS = ("string_value", "int_value", "float_value", "bool_value")


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
