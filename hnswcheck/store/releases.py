"""What differs between the releases of Chroma: one row for each line of releases.

Sources in chroma-core/chroma. Of 0.x: ``chromadb/migrations``, and ``hnsw_params.py``,
``local_hnsw.py``, ``local_persistent_hnsw.py`` and ``batch.py`` in
``chromadb/segment/impl/vector``. Of 1.x:
``rust/sqlite/migrations``, ``rust/segment/src/local_hnsw.rs``, ``rust/log/src/sqlite_log.rs`` and
``rust/index/src/hnsw.rs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hnswcheck.formats.id_map import Shape

#: What a collection has that says nothing, in all lines.
DEFAULT_M, DEFAULT_EF_CONSTRUCTION, DEFAULT_RESIZE_FACTOR = 16, 100, 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What one line of Chroma's releases does in its own way.

    Attributes:
        line: its name, as reports have it.
        migrations: the newest migration of each directory.
        oldest_reader: the first release known to read what the line wrote.
        reader: what reads a store. The Rust one refuses a row of the log whose metadata is no JSON
            object or whose time is none, and takes an empty configuration of a collection for its
            defaults; the Python one does neither.
        id_map: shape of the id map that the line writes.
        watermark_in: where VECTOR's watermark is; METADATA's always is in sqlite.
        watermark_type: of ``max_seq_id.seq_id``, and of ``embeddings.seq_id``.
        first_capacity: elements that a new index has room for.
        growth: how the capacity follows the number of elements; the factor is the setting
            ``hnsw:resize_factor``.
        level_seed: of hnswlib's random levels.
        m, ef_construction, resize_factor: what a collection has that says nothing.
        labels_follow_rows: ascending labels of live elements are ascending rowids of records.
        counts_readded: the label counter of the id map counts every add and upsert of a batch, also
            those that get no new label.
        revives_tombstones: a write to an element that is marked deleted clears the mark; else
            hnswlib refuses it, and the replay of the log fails.
        index_ignores_known_adds: an add of an id that has a record leaves its vector alone. 0.4
            loses an id that a batch deletes and adds again, and takes the next add of it, which the
            records ignore. 0.5 and 0.6 were seen to ignore it; nothing builds on that.
        index_needs_vectors: an add or upsert without a vector ends the replay of the log; else the
            index skips it.
        empty_id_map_starts_over: an id map without ids starts a new index over any files.
    """

    line: str
    migrations: Mapping[str, int]
    oldest_reader: tuple[int, ...]
    reader: Literal["python", "rust"]
    id_map: Shape
    watermark_in: Literal["id map", "sqlite"]
    watermark_type: Literal["BLOB", "INTEGER"]
    first_capacity: int
    growth: Literal["by a factor", "to a power of two"]
    level_seed: int
    m: int = DEFAULT_M
    ef_construction: int = DEFAULT_EF_CONSTRUCTION
    resize_factor: float = DEFAULT_RESIZE_FACTOR
    labels_follow_rows: bool
    counts_readded: bool
    revives_tombstones: bool
    index_ignores_known_adds: bool
    index_needs_vectors: bool
    empty_id_map_starts_over: bool

    def capacity_for(self, count: int, resize_factor: float) -> int:
        """Elements that an index of ``count`` has room for."""
        if self.growth == "by a factor":
            grown = max(count, int(count * resize_factor))
            return self.first_capacity if count <= self.first_capacity else grown
        return self.first_capacity if count < self.first_capacity else 1 << (count - 1).bit_length()


_0_4 = Release(
    line="0.4",
    migrations={"embeddings_queue": 1, "sysdb": 4, "metadb": 3},
    oldest_reader=(0, 4, 24),
    reader="python",
    id_map="instance",
    watermark_in="id map",
    watermark_type="BLOB",
    first_capacity=1000,
    growth="by a factor",
    level_seed=100,
    labels_follow_rows=False,
    counts_readded=True,
    revives_tombstones=True,
    index_ignores_known_adds=False,
    index_needs_vectors=False,
    empty_id_map_starts_over=False,
)

_0_5 = replace(
    _0_4,
    line="0.5",
    migrations={"embeddings_queue": 2, "sysdb": 9, "metadb": 4},
    oldest_reader=(0, 5, 23),
    watermark_in="sqlite",
)

_0_6 = replace(_0_5, line="0.6")

_1_0 = replace(
    _0_6,
    line="1.0",
    migrations={"embeddings_queue": 2, "sysdb": 9, "metadb": 5},
    oldest_reader=(1, 0),
    reader="rust",
    id_map="dict",
    watermark_type="INTEGER",
    first_capacity=10_000,
    growth="to a power of two",
    level_seed=0,
    labels_follow_rows=True,
    counts_readded=False,
    revives_tombstones=False,
    index_ignores_known_adds=True,
    index_needs_vectors=True,
    empty_id_map_starts_over=True,
)

_1_5 = replace(
    _1_0,
    line="1.5",
    migrations={"embeddings_queue": 2, "sysdb": 10, "metadb": 6},
    oldest_reader=(1, 5),
    first_capacity=100,
)

#: By line, oldest first. Of the releases, 0.5.5 is the last that is like 0.4, though its migrations
#: are already those of a later line; and 1.1 is the first that is like 1.5.
RELEASES: dict[str, Release] = {r.line: r for r in (_0_4, _0_5, _0_6, _1_0, _1_5)}

#: The newest migration of each directory that this version knows.
NEWEST_KNOWN = tuple(RELEASES.values())[-1].migrations


def release_of(migrations: Mapping[str, int]) -> Release:
    """The line that wrote a store: the oldest one that has all its migrations of sysdb and metadb.

    Of two lines with the same migrations it is the later one, as 0.6 for what 0.5 wrote. Chroma
    migrates metadb last: where it came to sysdb only, records and watermarks still are those of the
    line before.

    Args:
        migrations: the newest of each directory, none newer than :data:`NEWEST_KNOWN`.
    """
    metadb = migrations.get("metadb", 0)
    having = [r for r in RELEASES.values() if metadb <= r.migrations["metadb"]]
    having = [r for r in having if r.watermark_type == having[0].watermark_type]
    sysdb = migrations.get("sysdb", 0)
    first = next((r for r in having if sysdb <= r.migrations["sysdb"]), having[-1])
    return next(r for r in reversed(having) if r.migrations == first.migrations)


def labels_follow_rows(shape: Shape | None) -> bool:
    """Whether the lines that write id maps of a shape keep labels in the order of the rows.

    What the labels of an id map mean is for the id map to say, rather than for its store: a store
    that a later line opened keeps the id map of an earlier one until its next flush.

    Args:
        shape: None for an id map of which nobody can tell it.
    """
    return any(r.labels_follow_rows for r in RELEASES.values() if r.id_map == shape)


def counts_readded(shape: Shape | None) -> bool:
    """Whether a line that writes id maps of a shape counts labels that it gives nobody."""
    return any(r.counts_readded for r in RELEASES.values() if r.id_map == shape)
