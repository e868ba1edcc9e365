"""sqlite's own checks, on a private copy: they read every page, and would keep writers waiting."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from hnswcheck.formats.text import text
from hnswcheck.store.view import copied_database

#: Lines that PRAGMA integrity_check may say.
MOST_LINES = 100
SEARCH_TABLES = "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL%USING fts5%'"


def sqlite_faults(root: Path) -> Iterator[str]:
    """What sqlite finds wrong in chroma.sqlite3, a line each.

    Raises:
        StoreChanged, StoreUnreadable: it could not be copied.
    """
    with copied_database(root) as copy, closing(sqlite3.connect(copy)) as database:
        database.text_factory = bytes
        try:
            lines = database.execute(f"PRAGMA integrity_check({MOST_LINES})").fetchall()
            yield from (text(line) for (line,) in lines if line != b"ok")
            tables = [text(name) for (name,) in database.execute(SEARCH_TABLES)]
        except sqlite3.DatabaseError as error:
            yield str(error)
            return
        for table in tables:
            yield from _search_faults(database, table)


def _search_faults(database: sqlite3.Connection, table: str) -> Iterator[str]:
    """FTS5's check that its index and the texts agree (sqlite.org/fts5.html, section 6.4)."""
    name = '"' + table.replace('"', '""') + '"'
    try:
        database.execute(f"INSERT INTO {name}({name}) VALUES ('integrity-check')")
    except sqlite3.OperationalError:
        return  # this sqlite was built without the tokenizer
    except sqlite3.DatabaseError as error:
        yield f"{table}: {error}"
