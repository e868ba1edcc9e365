"""How a collection's index is to be built and flushed, and what embeds for it.

0.4 to 0.6 keep them as metadata of the segment (``hnsw:M``, ``hnsw:construction_ef``,
``hnsw:num_threads``, ``hnsw:sync_threshold``, ``hnsw:batch_size``:
chromadb/segment/impl/vector/hnsw_params.py), 1.x in the configuration or the schema of the
collection (``max_neighbors``, ``ef_construction``, ``num_threads``, ``sync_threshold``). The same
two places keep the embedding function since 1.0: {"type": "known", "name": "default", "config":
{}}, or of type "legacy" or "unknown" and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hnswcheck.errors import SchemaUnknown
from hnswcheck.formats.text import text
from hnswcheck.store.catalog import Collection
from hnswcheck.store.config_json import settings_in_json
from hnswcheck.store.database import Database
from hnswcheck.store.releases import DEFAULT_BATCH_SIZE, DEFAULT_SYNC_THRESHOLD
from hnswcheck.store.schema import Schema

#: What each is called, the field of this module first.
NAMES = {
    "m": ("hnsw:M", "max_neighbors", "M"),
    "ef_construction": ("hnsw:construction_ef", "ef_construction"),
    "threads": ("hnsw:num_threads", "num_threads"),
    "sync_threshold": ("hnsw:sync_threshold", "sync_threshold"),
    "batch_size": ("hnsw:batch_size", "batch_size"),
}

PLACES = (
    ("keys", "#embedding", "float_list", "vector_index", "config", "hnsw"),
    ("vector_index", "hnsw"),
    ("hnsw_configuration",),
    ("hnsw",),
)

#: Where the embedding function is.
FUNCTION_PLACES = (
    ("keys", "#embedding", "float_list", "vector_index", "config", "embedding_function"),
    ("embedding_function",),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredSettings:
    """What the collection says.

    Attributes:
        threads: that build the index; 0 for as many as there are.
        sync_threshold: operations after which Chroma flushes the index.
        batch_size: rows or changes that 0.x takes into the index at a time.
        purges: the log loses what both segments have; it is the store that says so.
    """

    m: int
    ef_construction: int
    threads: int
    sync_threshold: int
    batch_size: int
    purges: bool


def read_declared_settings(
    database: Database, schema: Schema, collection: Collection
) -> DeclaredSettings:
    """The settings of a collection; what it does not say is Chroma's default."""
    said: dict[str, int] = {}
    for found in _said(database, schema, collection):
        for name, aliases in NAMES.items():
            values = [found[alias] for alias in aliases if alias in found]
            if values and isinstance(values[0], int) and values[0] > 0:
                said.setdefault(name, values[0])
    default = schema.writer
    settings = {
        "m": default.m,
        "ef_construction": default.ef_construction,
        "threads": 0,
        "sync_threshold": DEFAULT_SYNC_THRESHOLD,
        "batch_size": DEFAULT_BATCH_SIZE,
        **said,
    }
    return DeclaredSettings(**settings, purges=_purges(database))


def _purges(database: Database) -> bool:
    """Whether the log is purged; stores that are older than the setting keep everything."""
    try:
        rows = database.rows("SELECT config_json_str FROM embeddings_queue_config")
    except SchemaUnknown:
        return False
    said = [found for (value,) in rows for found in settings_in_json(value, ((),))]
    return not said or said[0].get("automatically_purge") is not False


def read_embedding_function(
    database: Database, schema: Schema, collection: Collection
) -> dict[str, object] | None:
    """What Chroma keeps of the embedding function of a collection; None where there is nothing."""
    for value in _settings_json(database, schema, collection):
        for found in settings_in_json(value, FUNCTION_PLACES):
            return found
    return None


def _said(
    database: Database, schema: Schema, collection: Collection
) -> Iterator[dict[str, object]]:
    for table, key, owner in (
        ("segment_metadata", "segment_id", collection.vector.id if collection.vector else ""),
        ("collection_metadata", "collection_id", collection.id),
    ):
        query = f"SELECT key, int_value FROM {table} WHERE {key} = CAST(? AS TEXT)"
        try:
            rows = database.rows(query, (owner.encode(),))
        except SchemaUnknown:
            continue
        yield {text(name): value for name, value in rows}
    for value in _settings_json(database, schema, collection):
        yield from settings_in_json(value, PLACES)


def _settings_json(database: Database, schema: Schema, collection: Collection) -> Iterator[object]:
    """The settings as they are kept, the newer form first."""
    for column in reversed(schema.settings_columns):
        query = f"SELECT {column} FROM collections WHERE id = CAST(? AS TEXT)"
        for (value,) in database.rows(query, (collection.id.encode(),)):
            yield value
