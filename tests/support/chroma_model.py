"""A model of Chroma 1.x: what its log, its tables and its segment folders hold after any history.

`Store` plays a history: writes, flushes, purges, kills at the places where a kill leaves something
behind, reopenings. `Moment` is what is on disk at one time, and `Judgement` says what an audit of
a `Shown` collection (tables of one moment, folder of perhaps another) has to find. Nothing here
looks at the package under test.

The rules are those of Chroma's sources:

* rust/segment/src/local_hnsw.rs, `apply_log_chunk`: what a row does to the index and its id map;
  `persist`: index files, then the id map, and the watermark after both; `from_segment`: an absent
  or empty id map starts a new index at `last_seen_seq_id: 0`, whatever the watermark says.
* rust/log/src/local_compaction_manager.rs: every write makes both segments read the log, METADATA
  first, each past its own watermark; a purge follows up to the lower one.
* rust/log/src/sqlite_log.rs, `purge_logs`: `DELETE ... WHERE topic = ? AND seq_id < ?`.
* hnswlib, hnswalg.h: `markDeletedInternal` and `addPoint` both throw for an element that is marked
  deleted already.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Literal

import numpy as np
from synthetic import CollectionSpec, Floats, Op, Segment, Skeleton, WalRow, write_store

DIMENSION = 3
LONG_AGO = 1_700_000_000
Shape = Literal["1.x", "0.6", "0.4"]

CORRUPT = frozenset(
    {
        "element-unmapped",
        "id-map-missing",
        "label-missing",
        "label-tombstoned",
        "replay-blocked",
        "segment-folder-missing",
    }
)
DIVERGED = frozenset({"records-missing", "records-phantom"})
LAGGING = frozenset({"lag", "flush-interrupted"})


@dataclass(frozen=True, slots=True)
class Change:
    """What a client asks for; only an update can come without a vector."""

    op: Op
    id: str
    has_vector: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the log."""

    seq_id: int
    op: Op
    id: str
    has_vector: bool

    @property
    def reaches_hnswlib(self) -> bool:
        """An update of metadata alone does not."""
        return self.has_vector or self.op is Op.DELETE


@dataclass(frozen=True, slots=True)
class Element:
    """Is it live, and which row wrote its vector?"""

    live: bool
    written_by: int


@dataclass(frozen=True, slots=True)
class IdMap:
    """index_metadata.pickle. `max_seq_id` is the watermark where 0.4 keeps it."""

    labels: Mapping[str, int]
    total: int
    max_seq_id: int | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """A segment folder: the four index files as elements by label, and the id map."""

    elements: Mapping[int, Element]
    id_map: IdMap | None

    @property
    def loadable(self) -> bool:
        """Whether Chroma reads the index files at all."""
        return self.id_map is not None and bool(self.id_map.labels)


NEW_FOLDER = Folder({}, None)


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows that sqlite has of one collection; records with their seq_id in rowid order."""

    records: Mapping[str, int] = field(default_factory=dict)
    wal: tuple[Row, ...] = ()
    watermark: int | None = None
    metadata_watermark: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What an audit sees of one collection."""

    tables: Tables
    folder: Folder | None


Moment = Mapping[str, Shown]


# --- How Chroma gets there ----------------------------------------------------------------------


class Blocked(Exception):
    """hnswlib threw, so the engine fails to apply the log."""


@dataclass(slots=True)
class Index:
    """The index in a process's memory."""

    labels: dict[str, int] = field(default_factory=dict)
    elements: dict[int, Element] = field(default_factory=dict)
    total: int = 0

    def apply(self, chunk: Iterable[Row]) -> None:
        """`apply_log_chunk`: first the id map takes all rows, then hnswlib."""
        batch = []
        for row in chunk:
            label = self.labels.get(row.id)
            if label is None and row.op in (Op.ADD, Op.UPSERT):
                self.total += 1
                label = self.labels[row.id] = self.total
            elif label is None or row.op is Op.ADD or not row.reaches_hnswlib:
                continue
            if row.op is Op.DELETE:
                del self.labels[row.id]
            batch.append((label, row))
        for label, row in batch:
            self._touch(label, row)

    def _touch(self, label: int, row: Row) -> None:
        element = self.elements.get(label)
        if element is not None and not element.live:
            raise Blocked(row.id)
        if row.op is Op.DELETE:
            assert element is not None, "Label not found"
            self.elements[label] = replace(element, live=False)
        else:
            self.elements[label] = Element(True, row.seq_id)


class Fate(Enum):
    """How far a call gets before the process goes on, or is killed."""

    LOGGED = auto()  # killed: the rows are in the log and nobody has read them
    APPLIED = auto()
    FLUSHED = auto()
    CUT_BEFORE_ID_MAP = auto()  # killed: index files written
    CUT_BEFORE_WATERMARK = auto()  # killed: index files and id map written

    @property
    def killed(self) -> bool:
        return self not in (Fate.APPLIED, Fate.FLUSHED)


@dataclass(slots=True)
class Collection:
    """One collection: on disk, and in the memory of the process that has it open.

    `ids` is what a client that wrote all this expects to find. With a sync threshold it flushes
    like Chroma does; without one, when a call's fate says so.
    """

    ids: Mapping[str, int] = field(default_factory=dict)
    shape: Shape = "1.x"
    tables: Tables = field(default_factory=Tables)
    folder: Folder | None = None
    memory: Index | None = None
    last_seen: int = 0
    sync_threshold: int | None = None
    since_flush: int = 0
    holds_metadata_back: bool = False

    def log(self, rows: Sequence[Row]) -> None:
        self.ids = replay(self.ids, rows)
        self.tables = replace(self.tables, wal=(*self.tables.wal, *rows))

    def catch_up(self, fate: Fate) -> None:
        """Both segments read the log; the vector segment may flush."""
        if not self.holds_metadata_back:
            self._apply_metadata()
        index = self.memory if self.memory is not None else self._open()
        chunk = [row for row in self.tables.wal if row.seq_id > self.last_seen]
        if not chunk:
            return
        index.apply(chunk)
        self.last_seen = chunk[-1].seq_id
        self.since_flush += len(chunk)
        if self.sync_threshold is not None and self.since_flush >= self.sync_threshold:
            fate = Fate.FLUSHED
        if fate is not Fate.APPLIED:
            self._flush(index, fate)

    def purge(self) -> None:
        """The row at the lower watermark stays: `seq_id <`, not `<=`."""
        lower = min(self.tables.watermark or 0, self.tables.metadata_watermark or 0)
        kept = tuple(row for row in self.tables.wal if row.seq_id >= lower)
        self.tables = replace(self.tables, wal=kept)

    def _apply_metadata(self) -> None:
        tables = self.tables
        waiting = past(tables.wal, tables.metadata_watermark)
        if waiting:
            self.tables = replace(
                tables,
                records=replay(tables.records, waiting),
                metadata_watermark=waiting[-1].seq_id,
            )

    def _open(self) -> Index:
        """`from_segment`: load, or begin anew over whatever files are there."""
        folder = self.folder or NEW_FOLDER
        if folder.loadable and folder.id_map is not None:
            id_map = folder.id_map
            index = Index(dict(id_map.labels), dict(folder.elements), id_map.total)
            self.last_seen = self.tables.watermark or id_map.max_seq_id or 0
        else:
            index = Index()
            self.folder = replace(folder, elements={})
            self.last_seen = 0
        self.memory = index
        self.since_flush = 0
        return index

    def _flush(self, index: Index, fate: Fate) -> None:
        assert self.folder is not None
        elements = dict(index.elements)
        self.folder = replace(self.folder, elements=elements)
        if fate is Fate.CUT_BEFORE_ID_MAP:
            return
        legacy = self.last_seen if self.shape == "0.4" else None
        self.folder = Folder(elements, IdMap(dict(index.labels), index.total, legacy))
        if fate is Fate.FLUSHED and self.shape != "0.4":
            self.tables = replace(self.tables, watermark=self.last_seen)
        self.since_flush = 0


@dataclass(slots=True)
class Store:
    """A persist directory and the one process that writes to it."""

    collections: dict[str, Collection]
    purges: bool = True
    seq_id: int = 0
    moments: list[Moment] = field(default_factory=list)

    @classmethod
    def new(
        cls,
        names: Iterable[str],
        *,
        purges: bool = True,
        shape: Shape = "1.x",
        sync_threshold: int | None = None,
    ) -> Store:
        collections = {n: Collection(shape=shape, sync_threshold=sync_threshold) for n in names}
        return cls(collections, purges)

    def write(self, name: str, changes: Sequence[Change], fate: Fate = Fate.APPLIED) -> None:
        """One call of a client, with what it logs."""
        rows = []
        for change in changes:
            self.seq_id += 1
            rows.append(Row(self.seq_id, change.op, change.id, change.has_vector))
        self.collections[name].log(rows)
        self._proceed(self.collections[name], fate)

    def touch(self, name: str, fate: Fate = Fate.APPLIED) -> None:
        """A first read of a collection brings it up to date; later ones do nothing."""
        collection = self.collections[name]
        if collection.memory is None and collection.tables.wal:
            self._proceed(collection, fate)

    def hold_metadata_back(self, name: str, held: bool) -> None:
        """Let METADATA stay behind, as nothing but a fault does."""
        self.collections[name].holds_metadata_back = held

    def end_process(self) -> None:
        """What was not flushed is in the log only. Nothing is flushed at close."""
        for collection in self.collections.values():
            collection.memory = None

    def remember(self) -> None:
        """Copy the persist directory."""
        self.moments.append(self.moment())

    def moment(self) -> Moment:
        return {name: Shown(c.tables, c.folder) for name, c in self.collections.items()}

    def _proceed(self, collection: Collection, fate: Fate) -> None:
        if fate is Fate.LOGGED:
            self.end_process()
            return
        try:
            collection.catch_up(fate)
        except Blocked:
            # The call fails before it purges. What the next call does in a process whose memory
            # is half changed depends on the order of threads: let each have a process of its own.
            self.end_process()
            return
        if fate.killed:
            self.end_process()
        elif self.purges:
            collection.purge()


def past(wal: Iterable[Row], watermark: int | None) -> list[Row]:
    return [row for row in wal if row.seq_id > (watermark or 0)]


def replay(ids: Mapping[str, int], rows: Iterable[Row]) -> dict[str, int]:
    """Ids after some rows, each with the row that touched it last."""
    after = dict(ids)
    for row in rows:
        match row.op:
            case Op.ADD:
                after.setdefault(row.id, row.seq_id)
            case Op.UPDATE if row.id in after:
                after[row.id] = row.seq_id
            case Op.UPSERT:
                after[row.id] = row.seq_id
            case Op.DELETE:
                after.pop(row.id, None)
    return after


# --- What an audit has to find ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judgement:
    """The truth about a collection as it is on disk."""

    shown: Shown
    start: int
    pending: tuple[Row, ...]
    records: frozenset[str]
    indexed: frozenset[str]
    handed_out: int
    purges: bool

    @classmethod
    def of(cls, shown: Shown, purges: bool = True) -> Judgement:
        tables, folder = shown.tables, shown.folder
        id_map = folder.id_map if folder and folder.loadable else None
        start = (tables.watermark or id_map.max_seq_id or 0) if id_map else 0
        pending = past(tables.wal, start)
        labels = id_map.labels if id_map else {}
        return cls(
            shown,
            start,
            tuple(pending),
            frozenset(replay(tables.records, past(tables.wal, tables.metadata_watermark))),
            frozenset(replay(labels, pending)),
            _handed_out(labels, pending),
            purges,
        )

    @property
    def missing(self) -> frozenset[str]:
        return self.records - self.indexed

    @property
    def phantom(self) -> frozenset[str]:
        return self.indexed - self.records

    @property
    def elements(self) -> Mapping[int, Element]:
        return self.shown.folder.elements if self.shown.folder else {}

    @property
    def live(self) -> int:
        return sum(element.live for element in self.elements.values())

    @property
    def id_map(self) -> IdMap | None:
        return self.shown.folder.id_map if self.shown.folder else None

    def of_elements(self, *, live: bool) -> frozenset[int]:
        return frozenset(label for label, e in self.elements.items() if e.live is live)

    @property
    def blocked(self) -> frozenset[str]:
        """Ids of pending rows that hnswlib refuses: `markDelete` and `addPoint` throw."""
        if self.id_map is None or not self.id_map.labels:
            return frozenset()
        labels, next_label = dict(self.id_map.labels), self.id_map.total + 1
        live, stuck = {label: e.live for label, e in self.elements.items()}, set()
        for row in self.pending:
            label = labels.get(row.id)
            if label is None and row.op in (Op.ADD, Op.UPSERT):
                label = labels[row.id] = next_label
                next_label += 1
            elif label is None or row.op is Op.ADD or not row.reaches_hnswlib:
                continue
            if row.op is Op.DELETE:
                del labels[row.id]
            if live.get(label, row.op is not Op.DELETE):
                live[label] = row.op is not Op.DELETE
            else:
                stuck.add(row.id)
        return frozenset(stuck)

    @property
    def tombstoned(self) -> frozenset[str]:
        """Ids of the id map whose element is deleted."""
        labels = self.id_map.labels if self.id_map else {}
        deleted = self.of_elements(live=False)
        return frozenset(id for id, label in labels.items() if label in deleted)

    @property
    def elementless(self) -> frozenset[str]:
        """Ids of the id map whose element the index files lack."""
        labels = self.id_map.labels if self.id_map else {}
        return frozenset(id for id, label in labels.items() if label not in self.elements)

    @property
    def written_again(self) -> frozenset[str]:
        """Ids without an element that replay gives one, before anything deletes them."""
        first: dict[str, Op] = {}
        for row in self.pending:
            if row.reaches_hnswlib and row.op is not Op.ADD:
                first.setdefault(row.id, row.op)
        return frozenset(id for id in self.elementless if first.get(id) in (Op.UPDATE, Op.UPSERT))

    @property
    def in_segment(self) -> frozenset[str]:
        """Ids with a live element."""
        labels = self.id_map.labels if self.id_map else {}
        live = self.of_elements(live=True)
        return frozenset(id for id, label in labels.items() if label in live)

    @property
    def certainly_lost(self) -> frozenset[str]:
        """Records whose vector neither a live element nor any row of the log can have."""
        with_vector = {row.id for row in self.shown.tables.wal if row.has_vector}
        return self.records - self.in_segment - with_vector

    @property
    def certainly_kept(self) -> frozenset[str]:
        """Records with a live element, or whose last row in effect is in the log with a vector."""
        tables = self.shown.tables
        touched = replay(tables.records, past(tables.wal, tables.metadata_watermark))
        rows = {(row.id, row.seq_id) for row in tables.wal if row.has_vector}
        return (self.records & self.in_segment) | {id for id, _ in touched.items() & rows}

    @property
    def unmapped(self) -> frozenset[int]:
        """Elements that nothing accounts for: a later add of a deleted one's label would fail."""
        return self.unknown - self.explained

    @property
    def findings(self) -> dict[str, int]:
        """Finding ids with how many are affected."""
        tables, folder = self.shown.tables, self.shown.folder
        was_flushed = (tables.watermark or 0) > 0
        lost = was_flushed and self.purges  # no history has rows enough to be flushed at once
        no_id_map = was_flushed and folder is not None and folder.id_map is None
        counts = {
            "lag": len(self.pending),
            "watermark-legacy": int(self._legacy_watermark is not None),
            "segment-folder-missing": int(folder is None and (lost or bool(self.missing))),
            "id-map-missing": int(no_id_map),
            "flush-interrupted": 0 if no_id_map else len(self.explained) + len(self.written_again),
            "element-unmapped": len(self.unmapped),
        }
        counts |= {finding: len(ids) for finding, ids in self.ids.items()}
        return {finding: count for finding, count in counts.items() if count}

    @property
    def ids(self) -> dict[str, frozenset[str]]:
        """The ids that findings about ids name."""
        ids = {
            "records-missing": self.missing,
            "records-phantom": self.phantom,
            "replay-blocked": self.blocked,
            "label-tombstoned": self.tombstoned,
            "label-missing": self.elementless - self.written_again,
        }
        return {finding: names for finding, names in ids.items() if names}

    @property
    def status(self) -> str:
        found = self.findings.keys()
        for status, kinds in (("corrupt", CORRUPT), ("diverged", DIVERGED), ("lagging", LAGGING)):
            if found & kinds:
                return status
        untouched = self.shown.tables == Tables() and not self.elements and not self._total
        return "empty" if untouched else "consistent"

    @property
    def damaged(self) -> bool:
        return self.status in ("corrupt", "diverged")

    @property
    def pending_by_operation(self) -> dict[str, int]:
        operations = Counter(row.op for row in self.pending)
        return {op.name.lower(): operations[op] for op in Op}

    @property
    def watermark(self) -> int | None:
        """The watermark that counts. 1.x takes one from an id map only if that is not empty."""
        return self._legacy_watermark or self.shown.tables.watermark

    @property
    def _legacy_watermark(self) -> int | None:
        folder, watermark = self.shown.folder, self.shown.tables.watermark
        in_use = watermark is None and folder is not None and folder.loadable
        return self.id_map.max_seq_id if in_use and self.id_map else None

    @property
    def _total(self) -> int:
        return self.id_map.total if self.id_map else 0

    @property
    def unknown(self) -> frozenset[int]:
        """Labels of elements that the id map does not account for."""
        mapped = set(self.id_map.labels.values()) if self.id_map else set()
        newer = {label for label in self.elements if label > self._total}
        return frozenset(newer | (self.of_elements(live=True) - mapped))

    @property
    def explained(self) -> frozenset[int]:
        """Those that replay writes to again, or that Chroma does not load at all."""
        folder = self.shown.folder
        if folder is None or not folder.loadable:
            return self.unknown
        return self.unknown & set(range(self._total + 1, self._total + self.handed_out + 1))


def _handed_out(labels: Mapping[str, int], pending: Iterable[Row]) -> int:
    """Labels that replay gives to ids that are not there."""
    known, count = set(labels), 0
    for row in pending:
        if row.op is Op.DELETE:
            known.discard(row.id)
        elif row.op is not Op.UPDATE and row.id not in known:
            known.add(row.id)
            count += 1
    return count


# --- How it is written --------------------------------------------------------------------------


def vector(seq_id: int) -> Floats:
    """The vector that a row brings."""
    return np.random.default_rng(seq_id).standard_normal(DIMENSION, np.float32)


def write(path: Path, moment: Moment, *, purges: bool = True, shape: Shape = "1.x") -> None:
    """Write a moment as a persist directory, as if a while ago."""
    specs = [_spec(name, shown, shape) for name, shown in moment.items()]
    places = write_store(path, specs, automatically_purge=purges)
    for place, shown in zip(places, moment.values(), strict=True):
        if shown.folder is not None and shown.folder.id_map is None:
            (place.folder / "index_metadata.pickle").unlink(missing_ok=True)
    for file in (path, *path.rglob("*")):
        os.utime(file, (LONG_AGO, LONG_AGO))


def _spec(name: str, shown: Shown, shape: Shape = "1.x") -> CollectionSpec:
    """The collection for `synthetic.write_store`."""
    tables = shown.tables
    return CollectionSpec(
        name=name,
        segment=_segment(shown.folder, shape),
        records=tables.records.items(),
        wal=[
            WalRow(
                seq_id=row.seq_id,
                op=row.op,
                id=row.id,
                vector=vector(row.seq_id) if row.has_vector and row.op is not Op.DELETE else None,
            )
            for row in tables.wal
        ],
        watermark=tables.watermark,
        metadata_watermark=tables.metadata_watermark,
        dimension=DIMENSION,
    )


def _segment(folder: Folder | None, shape: Shape) -> Segment | Skeleton | None:
    if folder is None:
        return None
    if folder == NEW_FOLDER:
        return Skeleton(dimension=DIMENSION)
    id_map = folder.id_map or IdMap({}, 0)
    elements = folder.elements
    return Segment(
        dimension=DIMENSION,
        ids=list(id_map.labels),
        labels=list(id_map.labels.values()),
        total_elements_added=id_map.total,
        element_labels=list(elements),
        tombstones=[label for label, element in elements.items() if not element.live],
        vectors=_stack(vector(e.written_by) for e in elements.values()),
        shape="dict" if shape == "1.x" else "instance",
        pickle_max_seq_id=id_map.max_seq_id,
    )


def _stack(vectors: Iterable[Floats]) -> Floats:
    return np.array(list(vectors), np.float32).reshape(-1, DIMENSION)
