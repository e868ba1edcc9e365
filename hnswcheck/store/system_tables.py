"""chroma.sqlite3: what stands around the collections, as it is there, broken or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hnswcheck.errors import SchemaUnknown
from hnswcheck.formats.text import text
from hnswcheck.store.database import Database, Row
from hnswcheck.store.schema import Schema

#: What metadata may be; true and false are 1 and 0 here.
Value = str | int | float

#: Settings of the log are one row; what has more is no table.
MOST_ROWS = 100


class Settings(NamedTuple):
    """How a collection is set up.

    Attributes:
        config_json_str, schema_str: None, too, where the schema has no such column.
        distance: the one that its metadata asks for; None for l2.
        hnsw: what its metadata says of the index, by keys that begin with ``hnsw:``.
    """

    name: object
    config_json_str: object
    schema_str: object
    distance: object
    hnsw: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What Chroma reads before it comes to a collection, or with it.

    Attributes:
        tables: all names that the database knows.
        without_database: names of collections that live in a database that is not there.
        without_tenant: names of databases that belong to a tenant that is not there.
        settings: of each collection.
        log_settings: of the log.
    """

    tables: frozenset[str]
    without_database: Sequence[str]
    without_tenant: Sequence[str]
    settings: Sequence[Settings]
    log_settings: Sequence[object]


def read_surroundings(database: Database, schema: Schema) -> Surroundings:
    """All of it; nothing of a table that is missing."""
    without_database, without_tenant = _homeless(database, schema)
    names = database.rows("SELECT name FROM sqlite_master")
    return Surroundings(
        tables=frozenset(text(name) for (name,) in names),
        without_database=without_database,
        without_tenant=without_tenant,
        settings=_settings(database, schema),
        log_settings=_log_settings(database),
    )


def read_discarded(database: Database) -> frozenset[str]:
    """Ids of deleted segments whose folders Chroma removes at its next start.

    The table ``index_cleanup`` is no release's yet: it is in open pull requests of
    chroma-core/chroma.
    """
    rows = _rows_if_known(database, "SELECT segment_id FROM index_cleanup")
    return frozenset(text(segment) for (segment,) in rows)


def _homeless(database: Database, schema: Schema) -> tuple[list[str], list[str]]:
    """Collections without a database, and databases without a tenant."""
    if not schema.has_databases:
        return [], []
    collections = _rows_if_known(
        database,
        "SELECT name FROM collections c"
        " WHERE NOT EXISTS (SELECT 1 FROM databases d WHERE d.id = c.database_id)",
    )
    databases = _rows_if_known(
        database,
        "SELECT name FROM databases d"
        " WHERE NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id = d.tenant_id)",
    )
    return [text(name) for (name,) in collections], [text(name) for (name,) in databases]


def _settings(database: Database, schema: Schema) -> list[Settings]:
    other_distance = (
        "SELECT str_value FROM collection_metadata m WHERE m.collection_id = c.id"
        " AND m.key = 'hnsw:space' AND m.str_value <> 'l2'"
    )
    columns = ", ".join(schema.settings_columns)
    query = f"SELECT id, name, {columns}, ({other_distance}) FROM collections c"
    rows = _rows_if_known(database, query)
    hnsw = _hnsw_settings(database)
    return [
        Settings(name, config, schema, distance, hnsw.get(text(id), {}))
        for id, name, config, schema, distance in rows
    ]


def _hnsw_settings(database: Database) -> dict[str, dict[str, Value]]:
    """By collection; a key that has no value is not there."""
    found: dict[str, dict[str, Value]] = {}
    query = (
        "SELECT collection_id, key, str_value, coalesce(int_value, float_value{})"
        " FROM collection_metadata WHERE key GLOB 'hnsw:*' ORDER BY collection_id, key"
    )
    rows = _rows_if_known(database, query.format(", bool_value"))
    rows = rows or _rows_if_known(database, query.format(""))  # before 0.5.1
    for owner, key, words, number in rows:
        value = text(words) if words is not None else number
        if isinstance(value, str | int | float):
            found.setdefault(text(owner), {})[text(key)] = value
    return found


def _log_settings(database: Database) -> list[object]:
    """Before 0.5.6 there were none."""
    query = f"SELECT config_json_str FROM embeddings_queue_config LIMIT {MOST_ROWS}"
    return [value for (value,) in _rows_if_known(database, query)]


def _rows_if_known(database: Database, query: str) -> list[Row]:
    try:
        return database.rows(query)
    except SchemaUnknown:
        return []
