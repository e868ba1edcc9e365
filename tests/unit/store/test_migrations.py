"""Which migrations are known, and what one that is not known may do."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from environments import VERSIONS
from stores import NAMES, PLACES, unpack

from hnswcheck.store.database import connect
from hnswcheck.store.migrations import (
    KNOWN,
    Migration,
    foreign_migrations,
    has_known_text,
    unsettling,
)
from hnswcheck.store.releases import STEPS
from hnswcheck.store.schema import COLUMNS_READ, NEEDED_COLUMNS, read_schema

#: A store of each version that wrote one.
BY_VERSION = {PLACES[name].version: name for name in NAMES if PLACES[name].family == "sound"}
TABLES = frozenset(COLUMNS_READ)


@pytest.mark.parametrize("version", BY_VERSION)
def test_every_migration_of_a_release_is_known(version: str, tmp_path: Path) -> None:
    store = unpack(BY_VERSION[version], tmp_path)
    with closing(connect(store / "chroma.sqlite3", "ro")) as database:
        schema = read_schema(database)
    assert schema.applied
    assert not schema.foreign
    assert all(map(has_known_text, schema.applied))
    assert {m.is_only_0_4_0 for m in schema.applied if m.version == 1} == (
        {True, False} if version == "0.4.0" else {False}
    )


def test_the_known_migrations_are_those_of_the_newest_step() -> None:
    assert {folder: len(known) for folder, known in KNOWN.items()} == STEPS[-1].migrations
    for known in KNOWN.values():
        assert [int(name[:5]) for name, _ in known] == list(range(1, len(known) + 1))


def test_the_columns_that_are_read_are_those_of_the_newest_release(tmp_path: Path) -> None:
    store = unpack(BY_VERSION[VERSIONS["1.5"]], tmp_path)
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        for table, columns in COLUMNS_READ.items():
            info = database.execute(f"PRAGMA table_info({table})").fetchall()
            types = {name: declared.upper() for _, name, declared, *_ in info}
            assert dict(columns).items() <= types.items(), table
    for table in NEEDED_COLUMNS.keys() - {"migrations"}:
        assert NEEDED_COLUMNS[table] <= COLUMNS_READ[table].keys()


def migration(folder: str, version: object, name: str, sql: bytes = b"") -> Migration:
    return Migration(folder, version, name, sql, hashlib.md5(sql).hexdigest())


@pytest.mark.parametrize(
    ("row", "foreign"),
    [
        (migration("sysdb", 10, "00010-collection-schema.sqlite.sql"), False),
        (migration("sysdb", 10, "00010-other.sqlite.sql"), True),
        (migration("sysdb", 11, "00011-index-cleanup.sqlite.sql"), True),
        (migration("sysdb", 11, "00010-collection-schema.sqlite.sql"), True),
        (migration("functions", 1, "00001-functions.sqlite.sql"), True),
        (migration("sysdb", "x", "00001-collections.sqlite.sql"), True),
        (migration("sysdb", 0, "00000-none.sqlite.sql"), False),
    ],
)
def test_a_migration_is_told_by_its_name(row: Migration, foreign: bool) -> None:
    assert bool(foreign_migrations([row])) is foreign
    if not foreign:
        assert not has_known_text(row)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- UPDATE segments SET id = 1;\n/* DROP TABLE segments; */",
        "CREATE TABLE other (id TEXT); CREATE UNIQUE INDEX i ON embeddings (seq_id)",
        "alter table collections add column x text;",
        "INSERT OR REPLACE INTO other SELECT id FROM segments",
        'UPDATE "other" SET id = 1; DELETE FROM other; DROP TABLE IF EXISTS other',
        "CREATE VIRTUAL TABLE other USING fts5(x); CREATE VIEW v AS SELECT * FROM segments",
        "PRAGMA foreign_keys = ON; SELECT 1; DROP INDEX i",
    ],
)
def test_what_leaves_the_rows_alone_that_are_read_is_harmless(sql: str) -> None:
    assert not list(unsettling(sql.encode(), TABLES))


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE segments SET type = 'x'",
        "update or ignore [Segments] set type = 'x'",
        "DELETE FROM embeddings_queue",
        "DROP TABLE max_seq_id",
        "ALTER TABLE embeddings RENAME COLUMN seq_id TO x",
        "ALTER TABLE other RENAME TO max_seq_id",
        "INSERT INTO embeddings SELECT * FROM other",
        "CREATE VIEW segments AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON other BEGIN SELECT 1; END",
        "WITH a AS (SELECT 1) UPDATE segments SET type = 1",
        "VACUUM",
    ],
)
def test_what_may_change_their_meaning_is_not(sql: str) -> None:
    assert list(unsettling(b"CREATE INDEX i ON segments (id);" + sql.encode(), TABLES))
