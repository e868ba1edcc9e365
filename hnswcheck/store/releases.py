"""What differs between the releases of Chroma: one row for each line of releases that behave alike.

Sources in chroma-core/chroma, at the tags of the releases. Of 0.x: ``chromadb/migrations``,
``chromadb/db/mixins/embeddings_queue.py``, and ``hnsw_params.py``, ``local_hnsw.py``,
``local_persistent_hnsw.py`` and ``batch.py`` in ``chromadb/segment/impl/vector``. Of 1.x:
``rust/sqlite/migrations``, ``rust/segment/src/local_hnsw.rs``, ``rust/log/src/sqlite_log.rs`` and
``rust/index/src/hnsw.rs``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from hnswcheck.formats.id_map import Shape

#: What a collection has that says nothing, in all lines.
DEFAULT_M, DEFAULT_EF_CONSTRUCTION, DEFAULT_RESIZE_FACTOR = 16, 100, 1.2
DEFAULT_SYNC_THRESHOLD, DEFAULT_BATCH_SIZE = 1000, 100

Version = tuple[int, ...]

#: How a line fills the batches of hnswcheck.replay.batches: by changes, and an add of an id that
#: the batch deletes is lost; by changes and rows that say nothing; by rows.
Batches = Literal["lose readded", "count changes", "count rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What one line of Chroma's releases does in its own way.

    Attributes:
        line: its name, after its newest release.
        first: its first release.
        reader: what reads a store. The Rust one refuses a row of the log whose metadata is no JSON
            object or whose time is none, and takes an empty configuration of a collection for its
            defaults; the Python one does neither.
        id_map: shape of the id map that the line writes.
        watermark_in: where VECTOR's watermark is; METADATA's always is in sqlite.
        watermark_type: of ``max_seq_id.seq_id``, and of ``embeddings.seq_id``.
        watermark_forms: the forms of ``max_seq_id.seq_id`` that the line reads.
        before_all: a watermark with which all of the log is replayed.
        zero_skips_all: with the watermark 0 nothing of the log is replayed, now or ever, and with
            an empty log every call fails: ``start or self._next_seq_id()``.
        needs_watermark: an id map without a watermark anywhere fails to load.
        watermark_outlives_index: VECTOR's watermark counts although there is no index; else an
            index that is begun anew gets all of the log.
        flushes_in_transaction: of the log: a process that dies in a flush leaves index files with a
            call in them of which the log and the records know nothing.
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
        index_ignores_known_adds: an add of an id that has a record leaves its vector alone. Up to
            0.5.4 an id is lost that a batch deletes and adds again, and the next add of it is
            taken, which the records ignore. From 0.5.5 on it was seen to be ignored; nothing builds
            on that.
        batches: how it takes the log into the index; None for row by row.
        index_needs_vectors: an add or upsert without a vector ends the replay of the log; else the
            index skips it.
        skips_backfills: a row that asks to run a function over the collection (operation 4) changes
            nothing; else it ends the replay, as any unknown operation does.
        empty_id_map_starts_over: an id map without ids starts a new index over any files.
    """

    line: str
    first: Version
    reader: Literal["python", "rust"]
    id_map: Shape
    watermark_in: Literal["id map", "sqlite"]
    watermark_type: Literal["BLOB", "INTEGER"]
    watermark_forms: frozenset[str]
    before_all: Literal[-1, 0]
    zero_skips_all: bool
    needs_watermark: bool
    watermark_outlives_index: bool
    flushes_in_transaction: bool
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
    batches: Batches | None
    index_needs_vectors: bool
    skips_backfills: bool
    empty_id_map_starts_over: bool

    def capacity_for(self, count: int, resize_factor: float) -> int:
        """Elements that an index of ``count`` has room for."""
        if self.growth == "by a factor":
            grown = max(count, int(count * resize_factor))
            return self.first_capacity if count <= self.first_capacity else grown
        return self.first_capacity if count < self.first_capacity else 1 << (count - 1).bit_length()


_0_4 = Release(
    line="0.4",
    first=(0, 4, 0),
    reader="python",
    id_map="instance",
    watermark_in="id map",
    watermark_type="BLOB",
    watermark_forms=frozenset({"blob8", "blob24"}),
    before_all=-1,
    zero_skips_all=True,
    needs_watermark=True,
    watermark_outlives_index=False,
    flushes_in_transaction=True,
    first_capacity=1000,
    growth="by a factor",
    level_seed=100,
    labels_follow_rows=False,
    counts_readded=True,
    revives_tombstones=True,
    index_ignores_known_adds=False,
    batches="lose readded",
    index_needs_vectors=False,
    skips_backfills=False,
    empty_id_map_starts_over=False,
)

_0_5_3 = replace(_0_4, line="0.5.3", first=(0, 5, 0))

# The stores of 0.5.4, which loses readded ids as 0.5.3 does, have nothing that tells them apart.
_0_5_5 = replace(_0_5_3, line="0.5.5", first=(0, 5, 4), batches="count changes")

_0_6 = replace(
    _0_5_5,
    line="0.6",
    first=(0, 5, 6),
    watermark_in="sqlite",
    watermark_forms=frozenset({"integer", "blob8", "blob24"}),
    watermark_outlives_index=True,
    batches="count rows",
)

_1_0 = replace(
    _0_6,
    line="1.0",
    first=(1, 0, 0),
    reader="rust",
    id_map="dict",
    watermark_type="INTEGER",
    watermark_forms=frozenset({"integer"}),
    before_all=0,
    zero_skips_all=False,
    needs_watermark=False,
    watermark_outlives_index=False,
    flushes_in_transaction=False,
    first_capacity=10_000,
    growth="to a power of two",
    level_seed=0,
    labels_follow_rows=True,
    counts_readded=False,
    revives_tombstones=False,
    index_ignores_known_adds=True,
    batches=None,
    index_needs_vectors=True,
    empty_id_map_starts_over=True,
)

_1_2 = replace(_1_0, line="1.2", first=(1, 0, 21), first_capacity=100)

_1_3 = replace(_1_2, line="1.3", first=(1, 3, 0))

_1_4 = replace(_1_3, line="1.4", first=(1, 3, 6), skips_backfills=True)

_1_5 = replace(_1_4, line="1.5", first=(1, 5, 0))

#: By line, oldest first.
RELEASES: dict[str, Release] = {
    r.line: r for r in (_0_4, _0_5_3, _0_5_5, _0_6, _1_0, _1_2, _1_3, _1_4, _1_5)
}


class Step(NamedTuple):
    """Releases with the same migrations, and the number of the newest one in each directory."""

    first: str
    last: str
    migrations: Mapping[str, int]

    @property
    def name(self) -> str:
        """The releases, as reports have them."""
        return f"{self.first} to {self.last}" if self.first != self.last else self.first


def _step(first: str, last: str, embeddings_queue: int, sysdb: int, metadb: int) -> Step:
    numbers = {"embeddings_queue": embeddings_queue, "sysdb": sysdb, "metadb": metadb}
    return Step(first, last, numbers)


#: Oldest first. A store has the migrations of the newest release that opened it.
STEPS = (
    _step("0.4.0", "0.4.3", 1, 3, 1),
    _step("0.4.4", "0.4.5", 1, 3, 2),
    _step("0.4.6", "0.4.14", 1, 3, 3),
    _step("0.4.15", "0.4.24", 1, 4, 3),
    _step("0.5.0", "0.5.0", 1, 5, 3),
    _step("0.5.1", "0.5.3", 1, 6, 3),
    _step("0.5.4", "0.5.5", 1, 7, 3),
    _step("0.5.6", "0.6.3", 2, 9, 4),
    _step("1.0.0", "1.2.2", 2, 9, 5),
    _step("1.3.0", "1.4.1", 2, 10, 5),
    _step("1.5.0", "1.5.9", 2, 10, 6),
)

#: The newest migration of each directory that this version knows.
NEWEST_KNOWN = STEPS[-1].migrations


def step_of(migrations: Mapping[str, int]) -> Step:
    """The releases whose migrations a store has: the newest that have no other.

    Chroma migrates metadb last: where it came to sysdb only, records and watermarks still are those
    of the releases before.

    Args:
        migrations: the newest of each directory.
    """
    having = [s for s in STEPS if all(migrations.get(d, 0) >= n for d, n in s.migrations.items())]
    return having[-1] if having else STEPS[0]


def release_of(migrations: Mapping[str, int]) -> Release:
    """The line that wrote a store; of several with the same migrations the newest one.

    Args:
        migrations: the newest of each directory.
    """
    return release_for(step_of(migrations).last)


def release_for(version: str) -> Release:
    """The line of a release; of a version that leaves numbers out, the newest that it can mean.

    Raises:
        ValueError: it is no version, or older than any that is known.
    """
    if not re.fullmatch(r"\d{1,5}(\.\d{1,5}){0,2}", version):
        raise ValueError(f"{version!r} is no version of Chroma")
    numbers = numbers_of(version)
    for release in reversed(RELEASES.values()):
        if release.first[: len(numbers)] <= numbers:
            return release
    raise ValueError(f"no Chroma before {STEPS[0].first} wrote such stores")


def is_of_line(version: str, migrations: Mapping[str, int]) -> bool:
    """Whether a release is one that could have written a store, or behaves like those.

    Args:
        version: False for what is none of a known form, such as "1.6.0.dev3".
        migrations: the newest of each directory.
    """
    try:
        line = release_for(version)
    except ValueError:
        return False
    step = step_of(migrations)
    within = numbers_of(step.first) <= numbers_of(version) <= numbers_of(step.last)
    return within or line is release_for(step.last)


def numbers_of(version: str) -> Version:
    """A version as numbers that can be compared."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


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


def flushes_in_transaction(shape: Shape | None, release: Release) -> bool:
    """Whether a flush that was cut short belongs to a call that the log has forgotten.

    Args:
        shape: of the id map that the flush was to write anew; None if nobody can tell it.
        release: the line of the store, which says it then.
    """
    lines = [r for r in RELEASES.values() if r.id_map == shape] or [release]
    return any(line.flushes_in_transaction for line in lines)
