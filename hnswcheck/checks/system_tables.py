"""Are the rows around the collections what Chroma can read?

Over each of these chromadb 1.5.9 fails to open the store or fails every call on a collection, or
(settings that are lost) measures another distance; sqlite's own integrity check knows of none.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator

from hnswcheck.formats.text import text
from hnswcheck.store.schema import Schema
from hnswcheck.store.system_tables import Surroundings

NEEDED_TABLES = ("collection_metadata", "embedding_metadata", "segment_metadata")
SEARCH_TABLE = "embedding_fulltext_search"
#: Since this migration of metadb: metadata of several values.
ARRAY_TABLE, ARRAY_MIGRATION = "embedding_metadata_array", 6
#: config_json_str and schema_str of no collection: 1.5 writes "{}" beside a schema, and leaves both
#: as they are in what it takes over. It then measures l2.
LOST = (b"{}", None)
#: ``migrations_hash_algorithm`` of Chroma's settings.
HASHES = {32: hashlib.md5, 64: hashlib.sha256}


def catalogue_faults(found: Surroundings, schema: Schema) -> Iterator[str]:
    """What is wrong, a phrase for each row."""
    yield from _tables(found, schema)
    yield from _migrations(found)
    yield from _homes(found)
    yield from _settings(found, schema)


def _tables(found: Surroundings, schema: Schema) -> Iterator[str]:
    needed = [*NEEDED_TABLES, SEARCH_TABLE]
    if schema.migrations.get("metadb", 0) >= ARRAY_MIGRATION:
        needed.append(ARRAY_TABLE)
    yield from (f"the table {name} does not exist" for name in needed if name not in found.tables)


def _migrations(found: Surroundings) -> Iterator[str]:
    versions: dict[str, list[object]] = defaultdict(list)
    for folder, version, sql, digest in found.migrations:
        versions[folder].append(version)
        method = HASHES.get(len(digest))
        if method is None or method(sql, usedforsecurity=False).hexdigest() != digest:
            yield f"migration {version} of {folder!r} does not match its hash"
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
    for name, configured, described, distance in found.settings:
        where = f"collection {text(name)!r}"
        if not _is_text(name):
            yield f"{where} has a name that is not text"
        for what, value in (("config_json_str", configured), ("schema_str", described)):
            if value is not None and not _is_object(value):
                yield f"{where} has a {what} that is not a JSON object"
        if described == b"{}" or (configured == b"{}" and schema.release.reader != "rust"):
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
