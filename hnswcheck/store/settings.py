"""How a collection's index is to be built (M, ef_construction, threads), and what embeds for it.

0.4 to 0.6 keep them as metadata of the segment (``hnsw:M``, ``hnsw:construction_ef``,
``hnsw:num_threads``: chromadb/segment/impl/vector/hnsw_params.py), 1.x in the configuration or the
schema of the collection (``max_neighbors``, ``ef_construction``, ``num_threads``). The same two
places keep the embedding function since 1.0: {"type": "known", "name": "default", "config": {}}, or
of type "legacy" or "unknown" and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hnswcheck.errors import SchemaUnknown
from hnswcheck.formats.text import text
from hnswcheck.store.catalog import Collection
from hnswcheck.store.config_json import settings_in_json
from hnswcheck.store.database import Database
from hnswcheck.store.schema import Schema

#: What each is called, the field of this module first.
NAMES = {
    "m": ("hnsw:M", "max_neighbors", "M"),
    "ef_construction": ("hnsw:construction_ef", "ef_construction"),
    "threads": ("hnsw:num_threads", "num_threads"),
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


@dataclass(frozen=True, slots=True)
class DeclaredSettings:
    """What the collection says; ``threads`` 0 for as many as there are."""

    m: int
    ef_construction: int
    threads: int


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
    default = schema.release
    return DeclaredSettings(
        **{"m": default.m, "ef_construction": default.ef_construction, "threads": 0, **said}
    )


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
