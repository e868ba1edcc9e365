"""Which schema chroma.sqlite3 has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hnswcheck.errors import NotAChromaStore, SchemaUnknown, SqliteDamaged
from hnswcheck.formats.text import text
from hnswcheck.store.database import Database
from hnswcheck.store.releases import NEWEST_KNOWN, Release, release_of

NEEDED_COLUMNS = {
    "collections": {"id", "name", "dimension"},
    "segments": {"id", "type", "scope", "collection"},
    "embeddings": {"segment_id", "embedding_id", "seq_id"},
    "max_seq_id": {"segment_id", "seq_id"},
    "embeddings_queue": {
        *("seq_id", "created_at", "operation", "topic", "id", "vector", "encoding", "metadata")
    },
    "migrations": {"dir", "version"},
}

#: How a table that holds what we read may be declared; a view could be anything.
TABLES_ONLY = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
)


@dataclass(frozen=True, slots=True)
class Schema:
    """Which migrations a database has seen, and which Chroma line that is.

    Attributes:
        migrations: the newest of each directory.
        columns: names, by table.
    """

    migrations: Mapping[str, int]
    release: Release
    columns: Mapping[str, frozenset[str]]

    @property
    def has_databases(self) -> bool:
        """Whether collections live in databases, and these in tenants."""
        return "databases" in self.columns and "database_id" in self.columns["collections"]

    @property
    def has_schemas(self) -> bool:
        """Whether collections have a ``schema_str``."""
        return "schema_str" in self.columns["collections"]

    @property
    def settings_columns(self) -> tuple[str, str]:
        """Where collections keep their settings, old form and new; NULL where there is none."""
        config = "config_json_str" in self.columns["collections"]
        return "config_json_str" if config else "NULL", "schema_str" if self.has_schemas else "NULL"


def integer(value: object, what: str) -> int:
    """An integer column.

    Raises:
        SqliteDamaged: it holds something else.
    """
    if not isinstance(value, int):
        raise SqliteDamaged(f"{what} is not an integer")
    return value


def read_schema(database: Database) -> Schema:
    """Which schema this is.

    Raises:
        NotAChromaStore: there are no collections and no segments.
        SchemaUnknown: a table or column is missing, or a migration is newer than we know.
    """
    names = {text(row[0]) for row in database.rows(TABLES_ONLY)}
    if not names & {"collections", "segments"}:
        raise NotAChromaStore("chroma.sqlite3 has no collections and no segments table")
    columns = {
        table: frozenset(text(row[1]) for row in database.rows(f"PRAGMA table_info({table})"))
        for table in sorted(names & {*NEEDED_COLUMNS, "databases"})
    }
    for table, needed in NEEDED_COLUMNS.items():
        missing = needed - columns.get(table, frozenset())
        if missing:
            raise SchemaUnknown(f"table {table} has no column {', '.join(sorted(missing))}")
    for table in NEEDED_COLUMNS:  # a root page that is damaged shows at once
        database.rows(f"SELECT max(rowid) FROM {table}")
    migrations = {
        text(name): integer(version, "migrations.version")
        for name, version in database.rows("SELECT dir, max(version) FROM migrations GROUP BY dir")
    }
    for name, version in migrations.items():
        if version > NEWEST_KNOWN.get(name, 0):
            raise SchemaUnknown(f"migration {version} of {name!r} is newer than this version knows")
    return Schema(migrations, release_of(migrations), columns)
