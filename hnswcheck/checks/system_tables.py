"""Are the rows around the collections what Chroma can read?

Over each of these chromadb 1.5.9 fails to open the store or fails every call on a collection, or
(settings that are lost) measures another distance; sqlite's own integrity check knows of none.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from hnswcheck.checks.sampling import Sampler
from hnswcheck.formats.text import text
from hnswcheck.report import Finding, finding
from hnswcheck.store.migrations import has_known_text
from hnswcheck.store.schema import Schema
from hnswcheck.store.system_tables import Surroundings


class Need(NamedTuple):
    """A table, and columns of it, that Chroma has since a migration.

    Attributes:
        columns: those that no older migration made; of a virtual table they are not looked at.
        until: the migration that drops it again.
    """

    folder: str
    since: int
    table: str
    columns: tuple[str, ...] = ()
    until: int = sys.maxsize


_VALUES = ("str_value", "int_value", "float_value")
#: Besides those that are read of every store. ``maintenance_log`` only vacuum writes.
NEEDS = (
    Need("sysdb", 1, "collection_metadata", ("collection_id", "key", *_VALUES)),
    Need("sysdb", 2, "segment_metadata", ("segment_id", "key", *_VALUES)),
    Need("sysdb", 4, "tenants", ("id",)),
    Need("sysdb", 4, "databases", ("id", "name", "tenant_id")),
    Need("sysdb", 4, "collections", ("database_id",)),
    Need("sysdb", 6, "collection_metadata", ("bool_value",)),
    Need("sysdb", 6, "segment_metadata", ("bool_value",)),
    Need("sysdb", 7, "collections", ("config_json_str",)),
    Need("sysdb", 10, "collections", ("schema_str",)),
    Need("metadb", 1, "embedding_metadata", ("id", "key", "string_value", *_VALUES[1:])),
    Need("metadb", 1, "embedding_fulltext", until=3),
    Need("metadb", 2, "embedding_metadata", ("bool_value",)),
    Need("metadb", 3, "embedding_fulltext_search"),
    Need(
        "metadb",
        6,
        "embedding_metadata_array",
        ("id", "key", "string_value", *_VALUES[1:], "bool_value"),
    ),
    Need("embeddings_queue", 2, "embeddings_queue_config", ("config_json_str",)),
)
#: config_json_str and schema_str of no collection: 1.5 writes "{}" beside a schema, and leaves both
#: as they are in what it takes over. It then measures l2.
LOST = (b"{}", None)
#: ``migrations_hash_algorithm`` of Chroma's settings.
HASHES = {32: hashlib.md5, 64: hashlib.sha256}


def catalogue_faults(found: Surroundings, schema: Schema) -> Iterator[str]:
    """What is wrong, a phrase for each row."""
    yield from _tables(found, schema)
    yield from _migrations(schema)
    yield from _homes(found)
    yield from _settings(found, schema)


def check_migrations(schema: Schema, sampler: Sampler) -> Iterator[Finding]:
    """Findings about migrations that some releases do not have, on both sides of those known."""
    if schema.foreign:
        places = [migration.place for migration in schema.foreign]
        yield finding("schema-newer", len(places), sampler.places(places))
    if any(migration.is_only_0_4_0 for migration in schema.applied):
        yield finding("upgrade-refused")


def _tables(found: Surroundings, schema: Schema) -> Iterator[str]:
    absent = set()
    for need in NEEDS:
        if not need.since <= schema.migrations.get(need.folder, 0) < need.until:
            continue
        if need.table not in found.tables:
            absent.add(need.table)
            continue
        there = schema.columns.get(need.table, frozenset(need.columns))
        for column in need.columns:
            if column not in there:
                yield f"the table {need.table} has no column {column}"
    yield from (f"the table {name} does not exist" for name in sorted(absent))


def _migrations(schema: Schema) -> Iterator[str]:
    """What Chroma compares before anything else; of migrations that nobody knows, the newer one."""
    versions: dict[str, list[object]] = defaultdict(list)
    for migration in schema.applied:
        if migration in schema.foreign:
            continue
        versions[migration.folder].append(migration.version)
        method = HASHES.get(len(migration.digest))
        if (
            method is None
            or method(migration.sql, usedforsecurity=False).hexdigest() != migration.digest
        ):
            yield f"migration {migration.version} of {migration.folder!r} does not match its hash"
        elif not has_known_text(migration):
            yield f"migration {migration.version} of {migration.folder!r} is not the one of Chroma"
    for folder, seen in versions.items():
        if seen != list(range(1, len(seen) + 1)):
            yield f"the migrations of {folder!r} have gaps"


def _homes(found: Surroundings) -> Iterator[str]:
    """Every collection lives in a database, and that in a tenant."""
    for name in found.without_database:
        yield f"collection {name!r} belongs to a database that does not exist"
    for name in found.without_tenant:
        yield f"database {name!r} belongs to a tenant that does not exist"


def _settings(found: Surroundings, schema: Schema) -> Iterator[str]:
    for name, configured, described, distance, _ in found.settings:
        where = f"collection {text(name)!r}"
        if not _is_text(name):
            yield f"{where} has a name that is not text"
        for what, value in (("config_json_str", configured), ("schema_str", described)):
            if value is not None and not _is_object(value):
                yield f"{where} has a {what} that is not a JSON object"
        if described == b"{}" or (configured == b"{}" and schema.writer.reader != "rust"):
            yield f"{where} has empty settings"
        if schema.has_schemas and (configured, described) == LOST and distance is not None:
            yield f"{where} has lost its settings, and was made for {text(distance)}"
    if not all(value is None or _is_object(value) for value in found.log_settings):
        yield "the settings of the log are not a JSON object"


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
