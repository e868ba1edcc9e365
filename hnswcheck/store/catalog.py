"""chroma.sqlite3: collections, records and watermarks. The write-ahead log is in ``wal.py``.

The tables are those of chroma-core/chroma's migrations (``rust/sqlite/migrations``; in 0.x
``chromadb/migrations``). No vector is ever loaded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hnswcheck.errors import SchemaUnknown, UsageError
from hnswcheck.formats.text import text
from hnswcheck.store.config_json import space_in_config
from hnswcheck.store.database import Database
from hnswcheck.store.schema import Schema

PERSISTED_TYPE = "urn:chroma:segment/vector/hnsw-local-persisted"

#: Vector segments of Chroma that keep nothing in the persist directory.
ELSEWHERE = {
    f"urn:chroma:segment/vector/{name}"
    for name in ("hnsw-local-memory", "hnsw-distributed", "spann", "quantized-spann")
}

PAGE_RECORDS = 1 << 16


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A row of ``segments``."""

    id: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
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
            space_in_config(row[6])
            or (spaces.get(vector.id) if vector else None)
            or spaces.get(collection_id)
            or space_in_config(row[5])
            or "l2"
        )
        found.append(
            Collection(
                id=collection_id,
                name=text(row[1]),
                tenant=text(row[3]) or "default_tenant",
                database=text(row[4]) or "default_database",
                dimension=dimension,
                space=space,
                vector=vector,
                metadata=own.get("METADATA"),
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


def select_collections(
    collections: Sequence[Collection], wanted: Sequence[str] | None
) -> list[Collection]:
    """Those with one of these names or ids; all for None.

    Raises:
        UsageError: none has one of them.
    """
    if wanted is None:
        return list(collections)
    known = {key for c in collections for key in (c.name, c.id)}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        names = ", ".join(sorted({repr(c.name) for c in collections})[:20]) or "none"
        raise UsageError(
            f"the store has no collection {unknown[0]!r}; its collections are: {names}"
        )
    return [c for c in collections if c.name in wanted or c.id in wanted]
