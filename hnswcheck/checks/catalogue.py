"""Are the rows around the collections what Chroma can read?

Over each of these chromadb 1.5.9 fails to open the store or fails every call on a collection, or
(settings that are lost) measures another distance; sqlite's own integrity check knows of none.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator

from hnswcheck.disk.catalog import Schema
from hnswcheck.disk.database import Database, Row
from hnswcheck.disk.text import text
from hnswcheck.errors import SchemaUnknown

NEEDED_TABLES = ("collection_metadata", "embedding_metadata", "segment_metadata")
#: Settings of the log are one row; what has more is no table.
MOST_ROWS = 100
SEARCH_TABLE = "embedding_fulltext_search"
#: Since this migration of metadb: metadata of several values.
ARRAY_TABLE, ARRAY_MIGRATION = "embedding_metadata_array", 6
#: config_json_str and schema_str of no collection: 1.5 writes "{}" beside a schema, and leaves both
#: as they are in what it takes over. It then measures l2.
LOST = (b"{}", None)
#: ``migrations_hash_algorithm`` of Chroma's settings.
HASHES = {32: hashlib.md5, 64: hashlib.sha256}


def catalogue_faults(database: Database, schema: Schema) -> Iterator[str]:
    """What is wrong, a phrase for each row."""
    yield from _tables(database, schema)
    yield from _migrations(database)
    yield from _homes(database, schema)
    yield from _settings(database, schema)


def _tables(database: Database, schema: Schema) -> Iterator[str]:
    there = {text(name) for (name,) in database.rows("SELECT name FROM sqlite_master")}
    needed = [*NEEDED_TABLES, SEARCH_TABLE]
    if schema.migrations.get("metadb", 0) >= ARRAY_MIGRATION:
        needed.append(ARRAY_TABLE)
    yield from (f"there is no table {name}" for name in needed if name not in there)


def _migrations(database: Database) -> Iterator[str]:
    query = "SELECT dir, version, sql, hash FROM migrations ORDER BY dir, version"
    try:
        rows = database.rows(query)
    except SchemaUnknown:
        return
    versions: dict[str, list[object]] = defaultdict(list)
    for folder, version, sql, found in rows:
        versions[text(folder)].append(version)
        digest = text(found)
        method = HASHES.get(len(digest))
        content = sql if isinstance(sql, bytes) else b""
        if method is None or method(content, usedforsecurity=False).hexdigest() != digest:
            yield f"migration {version} of {text(folder)!r} does not match its hash"
    for folder, found in versions.items():
        if found != list(range(1, len(found) + 1)):
            yield f"the migrations of {folder!r} have gaps"


def _homes(database: Database, schema: Schema) -> Iterator[str]:
    """Every collection lives in a database, and that in a tenant."""
    if "databases" not in schema.columns or "database_id" not in schema.columns["collections"]:
        return
    for (name,) in database.rows(
        "SELECT name FROM collections c"
        " WHERE NOT EXISTS (SELECT 1 FROM databases d WHERE d.id = c.database_id)"
    ):
        yield f"collection {text(name)!r} lives in a database that is not there"
    for (name,) in database.rows(
        "SELECT name FROM databases d"
        " WHERE NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id = d.tenant_id)"
    ):
        yield f"database {text(name)!r} belongs to a tenant that is not there"


def _settings(database: Database, schema: Schema) -> Iterator[str]:
    have = schema.columns["collections"]
    config = "config_json_str" if "config_json_str" in have else "NULL"
    schemas = "schema_str" if "schema_str" in have else "NULL"
    other_distance = (
        "SELECT str_value FROM collection_metadata m WHERE m.collection_id = c.id"
        " AND m.key = 'hnsw:space' AND m.str_value <> 'l2'"
    )
    for name, configured, described, distance in database.rows(
        f"SELECT name, {config}, {schemas}, ({other_distance}) FROM collections c"
    ):
        where = f"collection {text(name)!r}"
        if not _is_text(name):
            yield f"{where} has a name that is no text"
        for what, value in (("config_json_str", configured), ("schema_str", described)):
            if value is not None and not _is_object(value):
                yield f"{where} has a {what} that is no JSON object"
        if described == b"{}" or (configured == b"{}" and not schema.integer_watermarks):
            yield f"{where} has empty settings"
        if "schema_str" in have and (configured, described) == LOST and distance is not None:
            yield f"{where} has lost its settings, and was made for {text(distance)}"
    try:
        rows: list[Row] = database.rows(
            f"SELECT config_json_str FROM embeddings_queue_config LIMIT {MOST_ROWS}"
        )
    except SchemaUnknown:  # before 0.5.6 there was none
        return
    if not all(value is None or _is_object(value) for (value,) in rows):
        yield "the settings of the log are no JSON object"


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, bytes) and value.decode() is not None
    except UnicodeDecodeError:
        return False


def _is_object(value: object) -> bool:
    try:
        return isinstance(value, bytes) and isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False
