"""Dump what an empty Chroma store holds, as the SQL that rebuilds it.

Run with an interpreter that has chromadb: ``python dump_schema.py OUTPUT_DIRECTORY``.
It writes ``chroma-<version>.sql`` (schema, migrations, tenants, databases, queue settings) and
``chroma-<version>.schema.json`` (``collections.schema_str`` of a collection with default settings).
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import chromadb
from chromadb.config import Settings

SEED_TABLES = ("migrations", "tenants", "databases", "acquire_write", "embeddings_queue_config")

# Shadow tables of a virtual table appear with it; sqlite_% objects cannot be created by name.
DDL = """
    SELECT sql FROM sqlite_master
    WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
      AND name NOT LIKE 'embedding\\_fulltext\\_search\\_%' ESCAPE '\\'
    ORDER BY rootpage = 0, rowid
"""


def dump(database: sqlite3.Connection) -> Iterator[str]:
    """Yield one SQL statement per schema object and per seed row."""
    for (sql,) in database.execute(DDL):
        yield f"{sql};"
    for table in SEED_TABLES:
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        values = " || ', ' || ".join(f"quote({column})" for column in columns)
        for (row,) in database.execute(f"SELECT {values} FROM {table}"):
            yield f"INSERT INTO {table} VALUES ({row});"


def main(output: Path) -> None:
    """Create a store with one collection, write down its schema, leave the collection out."""
    with tempfile.TemporaryDirectory() as directory:
        client = chromadb.PersistentClient(directory, Settings(anonymized_telemetry=False))
        client.create_collection("defaults", embedding_function=None)
        with closing(sqlite3.connect(Path(directory, "chroma.sqlite3"))) as database:
            statements = "\n".join(dump(database))
            (schema,) = database.execute("SELECT schema_str FROM collections").fetchone()
    stem = f"chroma-{chromadb.__version__}"
    title = f"-- An empty store of chromadb {chromadb.__version__}, written by dump_schema.py\n"
    output.joinpath(f"{stem}.sql").write_text(f"{title}{statements}\n", encoding="utf-8")
    output.joinpath(f"{stem}.schema.json").write_text(f"{schema}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
