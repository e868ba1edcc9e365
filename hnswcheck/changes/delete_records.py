"""Rows of records, gone from every table that Chroma keeps them in.

What is left behind in one of them makes the next add fail, as sqlite hands out rowids anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from hnswcheck.store.records import seq_id_number

#: (rowid in ``embeddings``, seq_id): a rowid alone may be another record's by now.
Drop = tuple[int, int]

#: What keeps parts of a record, by the column that holds its rowid; not all lines have all.
PARTS = {
    "embedding_metadata": "id",
    "embedding_metadata_array": "id",
    "embedding_fulltext": "id",
    "embedding_fulltext_search": "rowid",
}
PAGE = 500


def drop_records(connection: sqlite3.Connection, drops: Sequence[Drop]) -> None:
    """Delete those that are still the records that were meant.

    Raises:
        sqlite3.Error: sqlite refused.
    """
    tables = connection.execute("SELECT CAST(name AS BLOB) FROM sqlite_master WHERE type = 'table'")
    there = {name for (name,) in tables}
    for rowids in _still_there(connection, drops):
        marks = ", ".join("?" * len(rowids))
        for table, column in PARTS.items():
            if table.encode() in there:
                connection.execute(f"DELETE FROM {table} WHERE {column} IN ({marks})", rowids)
        connection.execute(f"DELETE FROM embeddings WHERE id IN ({marks})", rowids)


def all_gone(connection: sqlite3.Connection, drops: Sequence[Drop]) -> bool:
    """Whether none of them is there."""
    return not any(_still_there(connection, drops))


def _still_there(connection: sqlite3.Connection, drops: Sequence[Drop]) -> Iterator[list[int]]:
    """Rowids, some at a time."""
    for begin in range(0, len(drops), PAGE):
        page = dict(drops[begin : begin + PAGE])
        found = connection.execute(
            f"SELECT id, seq_id FROM embeddings WHERE id IN ({', '.join('?' * len(page))})",
            list(page),
        ).fetchall()
        yield [rowid for rowid, seq_id in found if seq_id_number(seq_id) == page[rowid]]
