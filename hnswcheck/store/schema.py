"""Which schema chroma.sqlite3 has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from hnswcheck.errors import NotAChromaStore, SchemaUnknown, SqliteDamaged
from hnswcheck.formats.text import text
from hnswcheck.store.database import Database
from hnswcheck.store.migrations import Migration, foreign_migrations, read_migrations, unsettling
from hnswcheck.store.releases import NEWEST_KNOWN, STEPS, Release, release_of, step_of

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

#: Columns that are read, with their types, as the newest known migrations have them. After a
#: migration that nobody knows they must still be these.
_TEXT, _INTEGER, _REAL, _BLOB = "TEXT", "INTEGER", "REAL", "BLOB"
_VALUES = {"int_value": _INTEGER, "float_value": _REAL, "bool_value": _INTEGER}
_METADATA = {"id": _INTEGER, "key": _TEXT, "string_value": _TEXT} | _VALUES
COLUMNS_READ: Mapping[str, Mapping[str, str]] = {
    "collections": dict.fromkeys(("id", "name", "database_id"), _TEXT)
    | {"dimension": _INTEGER, "config_json_str": _TEXT, "schema_str": _TEXT},
    "segments": dict.fromkeys(("id", "type", "scope", "collection"), _TEXT),
    "databases": dict.fromkeys(("id", "name", "tenant_id"), _TEXT),
    "tenants": {"id": _TEXT},
    "collection_metadata": dict.fromkeys(("collection_id", "key", "str_value"), _TEXT) | _VALUES,
    "segment_metadata": dict.fromkeys(("segment_id", "key", "str_value"), _TEXT) | _VALUES,
    "embeddings": dict.fromkeys(("segment_id", "embedding_id"), _TEXT)
    | {"id": _INTEGER, "seq_id": _BLOB, "created_at": "TIMESTAMP"},
    "embedding_metadata": _METADATA,
    "embedding_metadata_array": _METADATA,
    "max_seq_id": {"segment_id": _TEXT, "seq_id": _INTEGER},
    "embeddings_queue": dict.fromkeys(("topic", "id", "encoding", "metadata"), _TEXT)
    | {"seq_id": _INTEGER, "created_at": "TIMESTAMP", "operation": _INTEGER, "vector": _BLOB},
    "embeddings_queue_config": {"config_json_str": _TEXT},
}
#: The rowid under a name of its own.
ROWIDS = {("embeddings", "id"), ("embeddings_queue", "seq_id")}

#: How a table that holds what we read may be declared; a view could be anything.
TABLES_ONLY = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Which migrations a database has seen, which Chroma line that is, and which is to open it.

    Attributes:
        migrations: the newest of each directory.
        writer: the line that wrote it.
        opener: the line that is to open it: another one where somebody asks whether it can.
        columns: names, by table.
        applied: every migration.
        foreign: those that no release has that is known. What is read is as it was before them.
    """

    migrations: Mapping[str, int]
    writer: Release
    opener: Release
    columns: Mapping[str, frozenset[str]]
    applied: Sequence[Migration]
    foreign: Sequence[Migration]

    @property
    def releases(self) -> str:
        """Those that have these migrations."""
        if self.foreign:
            return f"newer than {STEPS[-1].last}"
        step = step_of(self.migrations)
        only = any(migration.is_only_0_4_0 for migration in self.applied)
        return step.first if only else step.name

    @property
    def converts_watermarks(self) -> bool:
        """Whether the opener makes an INTEGER of every watermark, by a migration of metadb."""
        return self.writer.watermark_type != self.opener.watermark_type == "INTEGER"

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

    A migration that nobody knows is no matter where what is read is still as it was before.

    Raises:
        NotAChromaStore: there are no collections and no segments.
        SchemaUnknown: a table or column is missing, or one that is read may mean something else.
    """
    names = {text(row[0]) for row in database.rows(TABLES_ONLY)}
    if not names & {"collections", "segments"}:
        raise NotAChromaStore("chroma.sqlite3 has no collections and no segments table")
    columns = _columns(database, names & {*NEEDED_COLUMNS, *COLUMNS_READ})
    for table, needed in NEEDED_COLUMNS.items():
        missing = needed - columns.get(table, frozenset())
        if missing:
            raise SchemaUnknown(f"table {table} has no column {', '.join(sorted(missing))}")
    for table in NEEDED_COLUMNS:  # a root page that is damaged shows at once
        database.rows(f"SELECT max(rowid) FROM {table}")
    applied = read_migrations(database, columns["migrations"])
    newest: dict[str, int] = {}
    for migration in applied:
        version = integer(migration.version, "migrations.version")
        newest[migration.folder] = max(version, newest.get(migration.folder, version))
    foreign = foreign_migrations(applied)
    if why := next(_unknown(database, newest, foreign), None) if foreign else None:
        says = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in why)
        raise SchemaUnknown(f"migrations newer than this version knows: {says}")
    writer = release_of(newest)
    return Schema(
        migrations=newest,
        writer=writer,
        opener=writer,
        columns=columns,
        applied=applied,
        foreign=foreign,
    )


def _columns(database: Database, tables: AbstractSet[str]) -> dict[str, frozenset[str]]:
    """The names of the columns of each table."""
    found: dict[str, set[str]] = {table: set() for table in tables}
    for table, column in database.rows(
        "SELECT m.name, c.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c"
        " WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%'"
    ):
        found.get(text(table), set()).add(text(column))
    return {table: frozenset(names) for table, names in found.items()}


def _unknown(
    database: Database, newest: Mapping[str, int], foreign: Sequence[Migration]
) -> Iterator[str]:
    """What migrations that nobody knows may have changed of what is read."""
    for folder, number in NEWEST_KNOWN.items():
        if newest.get(folder, 0) < number:
            yield f"{foreign[0].place} is there, and {folder} has no migration {number}"
    for migration in foreign:
        for statement in unsettling(migration.sql, frozenset({*COLUMNS_READ, "migrations"})):
            yield f"{migration.place} does {statement[:100]!r}"
    for kind, name, table in database.rows("SELECT type, name, tbl_name FROM sqlite_master"):
        if kind == b"trigger" and text(table).lower() in COLUMNS_READ:
            yield f"the trigger {text(name)} acts on {text(table)}"
    for table, expected in COLUMNS_READ.items():
        found = {text(row[1]): row for row in database.rows(f"PRAGMA table_xinfo({table})")}
        for column, declared in expected.items():
            row = found.get(column)
            # (cid, name, type, notnull, default, pk, hidden): hidden ones are computed.
            if row is None or text(row[2]).upper() != declared or row[6]:
                yield f"{table}.{column} is no plain {declared} column"
            elif (table, column) in ROWIDS and row[5] != 1:
                yield f"{table}.{column} is not the rowid"
