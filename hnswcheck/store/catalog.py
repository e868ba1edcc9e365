"""chroma.sqlite3: collections, records and watermarks. The write-ahead log is in ``wal.py``.

The tables are those of chroma-core/chroma's migrations (``rust/sqlite/migrations``; in 0.x
``chromadb/migrations``). No vector is ever loaded here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hnswcheck.errors import NotAChromaStore, SchemaUnknown, SqliteDamaged
from hnswcheck.formats.text import text
from hnswcheck.store.database import Database

#: The newest migration of each directory that this version knows.
NEWEST_KNOWN = {"embeddings_queue": 2, "metadb": 6, "sysdb": 10}
#: Which line wrote a schema: the first whose sysdb and metadb are not below.
LINES = (("0.4", 4, 3), ("0.6", 9, 4), ("1.0", 9, 5), ("1.5", 10, 6))

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

PERSISTED_TYPE = "urn:chroma:segment/vector/hnsw-local-persisted"

#: Vector segments of Chroma that keep nothing in the persist directory.
ELSEWHERE = {
    f"urn:chroma:segment/vector/{name}"
    for name in ("hnsw-local-memory", "hnsw-distributed", "spann", "quantized-spann")
}

PAGE_RECORDS = 1 << 16

#: Integers past this are no counter of operations: damage that a third-party fix left.
LARGEST_SEQ_ID = 1 << 53


@dataclass(frozen=True, slots=True)
class Schema:
    """Which migrations a database has seen, and which Chroma line that is."""

    migrations: Mapping[str, int]
    line: str
    columns: Mapping[str, frozenset[str]]

    @property
    def integer_watermarks(self) -> bool:
        """Whether ``max_seq_id`` holds INTEGER; migration 5 of metadb made it so."""
        return self.migrations.get("metadb", 0) >= 5

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


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A row of ``segments``."""

    id: str
    type: str


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection with its two segments (None where the row is missing)."""

    id: str
    name: str
    tenant: str
    database: str
    dimension: int | None
    space: str
    vector: SegmentRow | None
    metadata: SegmentRow | None


WatermarkForm = Literal["integer", "blob8", "blob24", "digits", "other"]


@dataclass(frozen=True, slots=True)
class Watermark:
    """A ``max_seq_id`` row: the number, and how it is written."""

    value: int
    form: WatermarkForm

    def is_number(self, integers: bool) -> bool:
        """Whether ``value`` is what Chroma takes it for, or what a writer surely meant.

        Args:
            integers: the line is 1.x, which reads no BLOB at all.
        """
        return self.form != "other" and not (integers and self.form == "digits")


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
    return Schema(migrations, _line(migrations), columns)


def _line(migrations: Mapping[str, int]) -> str:
    sysdb, metadb = migrations.get("sysdb", 0), migrations.get("metadb", 0)
    return next(line for line, s, m in LINES if sysdb <= s and metadb <= m)


def read_collections(
    database: Database, schema: Schema, only: str | None = None
) -> tuple[Collection, ...]:
    """Every collection, ordered by tenant, database, name; with ``only`` the one with that id."""
    one = None if only is None else only.encode()
    segments: dict[str, dict[str, SegmentRow]] = {}
    for segment, kind, scope, collection in database.rows(
        "SELECT id, type, scope, collection FROM segments"
        " WHERE ?1 IS NULL OR collection = CAST(?1 AS TEXT) ORDER BY id",
        (one,),
    ):
        of_collection = segments.setdefault(text(collection), {})
        of_collection[text(scope)] = SegmentRow(text(segment), text(kind))
    spaces = _spaces(database, schema)
    found = []
    for row in database.rows(_collections_query(schema), (one,)):
        collection_id = text(row[0])
        own = segments.get(collection_id, {})
        dimension = row[2] if isinstance(row[2], int) else None
        vector = own.get("VECTOR")
        space = (
            _space_in_config(row[6])
            or (spaces.get(vector.id) if vector else None)
            or spaces.get(collection_id)
            or _space_in_config(row[5])
            or "l2"
        )
        found.append(
            Collection(
                collection_id,
                text(row[1]),
                text(row[3]) or "default_tenant",
                text(row[4]) or "default_database",
                dimension,
                space,
                vector,
                own.get("METADATA"),
            )
        )
    return tuple(sorted(found, key=lambda c: (c.tenant, c.database, c.name, c.id)))


def _collections_query(schema: Schema) -> str:
    if schema.has_databases:
        join = "LEFT JOIN databases d ON d.id = c.database_id"
        names = "d.tenant_id, d.name"
    else:
        join, names = "", "NULL, NULL"
    columns = ", ".join(("c.id", "c.name", "c.dimension", names, *schema.settings_columns))
    only = "?1 IS NULL OR c.id = CAST(?1 AS TEXT)"
    return f"SELECT {columns} FROM collections c {join} WHERE {only}"


def _spaces(database: Database, schema: Schema) -> dict[str, str]:
    """hnsw:space of collections and vector segments, where it was given as metadata."""
    found: dict[str, str] = {}
    for table, key in (
        ("collection_metadata", "collection_id"),
        ("segment_metadata", "segment_id"),
    ):
        query = f"SELECT {key}, str_value FROM {table} WHERE key = 'hnsw:space'"
        try:
            found |= {text(owner): text(space) for owner, space in database.rows(query) if space}
        except SchemaUnknown:
            continue
    return found


def _space_in_config(config: object) -> str | None:
    """The distance in a JSON configuration: ``schema_str`` of 1.5, ``config_json_str`` before."""
    try:
        node = json.loads(config) if isinstance(config, bytes) else None
    except (ValueError, RecursionError):
        return None
    for path in (
        ("keys", "#embedding", "float_list", "vector_index", "config", "space"),
        ("vector_index", "hnsw", "space"),
        ("hnsw_configuration", "space"),
        ("hnsw", "space"),
    ):
        value = node
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            return value
    return None


def read_watermarks(database: Database) -> dict[str, Watermark]:
    """Every ``max_seq_id`` row, by segment id."""
    rows = database.rows("SELECT segment_id, seq_id FROM max_seq_id")
    return {text(segment): watermark(value) for segment, value in rows if value is not None}


def watermark(value: object) -> Watermark:
    """What a seq_id in ``max_seq_id`` is; text comes as bytes."""
    match value:
        case int():
            return Watermark(value, "integer")
        case bytes() if len(value) == 8 and value[:2] == b"\x11\x11" and value[2:].isdigit():
            return Watermark(int.from_bytes(value, "big"), "digits")
        case bytes() if len(value) in (8, 24):
            return Watermark(int.from_bytes(value, "big"), "blob8" if len(value) == 8 else "blob24")
        case bytes():
            return Watermark(0, "other")
        case _:
            return Watermark(0, "other")
