"""Write persist directories as chromadb 1.5.9 lays them out, without chromadb.

``write_store(path, [CollectionSpec(...), ...])`` writes exactly the state it is given: nothing is
derived from the records, so any state that a log of operations reaches, and any disagreement
between sqlite and the index, can be stated. Vectors that are not given are drawn and streamed.

Run as a program it writes one large sound collection:
``python tests/support/synthetic.py PATH --records 1000000 --dim 384``.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import pickle
import sqlite3
import struct
import sys
import types
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, Literal
from unittest import mock

import numpy as np
import numpy.typing as npt

# --- The formats, as data -----------------------------------------------------------------------

# hnswalg.h, HEADER_FIELDS: persistence version, offsetLevel0, max_elements, cur_element_count,
# size_data_per_element, label_offset, offsetData, maxlevel, enterpoint_node, maxM, maxM0, M, mult,
# ef_construction.
HEADER = struct.Struct("<iQQQQQQiIQQQdQ")
PERSISTENCE_VERSION = 1
M = MAX_M = 16  # Chroma's default max_neighbors
MAX_M0 = 2 * M  # hnswalg.h, constructor
EF_CONSTRUCTION = 100
LEVEL_MULT = 1 / math.log(M)
NO_ENTRY_POINT = 0xFFFFFFFF
TOMBSTONE = 1  # bit 0 of the flags byte

INITIAL_CAPACITY = {"dict": 100, "instance": 1000}  # 1.x; 0.x DEFAULT_CAPACITY
WORDS_PER_LEVEL = 1 + MAX_M  # of link_lists.bin: u32 degree, u32 links

VECTOR_SEGMENT = "urn:chroma:segment/vector/hnsw-local-persisted"
METADATA_SEGMENT = "urn:chroma:segment/metadata/sqlite"
TOPIC_PREFIX = "persistent://default/default/"  # 1.x writes it for every tenant and database
CREATED_AT = "2025-01-01 00:00:00"

DATA = Path(__file__).parents[1] / "data"  # dump_schema.py there says where these come from
SCHEMA_SQL = DATA / "chroma-1.5.9.sql"
SCHEMA_JSON = DATA / "chroma-1.5.9.schema.json"

# 0.4.24, 0.5.23 and 0.6.3: pickle.dump(PersistentData, HIGHEST_PROTOCOL)
INSTANCE_MODULE = "chromadb.segment.impl.vector.local_persistent_hnsw"
INSTANCE_PROTOCOL = 5

CHUNK = 16_384  # elements or pickle entries held in memory at a time
BUILD_CACHE_KIB = 256 * 1024

Space = Literal["l2", "cosine", "ip"]
SeqId = int | bytes  # bytes: the big-endian BLOB of 0.x, or damage
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def element_dtype(dimension: int) -> np.dtype[np.void]:
    """One element of data_level0.bin (hnswalg.h, saveIndex; flags byte: isMarkedDeleted)."""
    return np.dtype(
        [
            ("degree", "<u2"),
            ("flags", "u1"),
            ("unused", "u1"),
            ("links", "<u4", (MAX_M0,)),
            ("vector", "<f4", (dimension,)),
            ("label", "<u8"),
        ]
    )


# --- What a store is made of --------------------------------------------------------------------


class Op(IntEnum):
    """`embeddings_queue.operation`."""

    ADD = 0
    UPDATE = 1
    UPSERT = 2
    DELETE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WalRow:
    """A row of `embeddings_queue`; the vector is as the caller added it, also under cosine."""

    seq_id: int
    op: Op
    id: str
    vector: Sequence[float] | Floats | None = None
    metadata: str | None = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """The folder of a segment that was written to and never flushed: no pickle, no element."""

    dimension: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A flushed index. Only `dimension` is needed; the defaults are those of a sound segment.

    ids, labels: the id map, aligned. labels None: 1, 2, ... len(ids).
    total_elements_added: None: the highest label of the id map.
    element_labels: the label of each element. None: 1, 2, ... total_elements_added.
    tombstones: labels whose elements carry the delete mark. None: those the id map lacks.
    vectors: float32 (elements, dimension), as added, row i belonging to element_labels[i]; the
        writer normalises them under cosine. None: standard normal, drawn while writing.
    scramble: elements are stored in random order within runs of this many, as the parallel
        writer of 1.x leaves them. 1: stored in the order given.
    capacity: `max_elements`. slots: elements that data_level0.bin and length.bin have room for.
    shape: "dict" as 1.x pickles the id map, "instance" as 0.x does.
    pickle_max_seq_id: the watermark that 0.4 keeps in the pickle; the attribute is left out of
        an instance when this is None.
    """

    dimension: int
    ids: Sequence[str] = ()
    labels: Sequence[int] | Integers | None = None
    total_elements_added: int | None = None
    element_labels: Sequence[int] | Integers | None = None
    tombstones: Collection[int] | None = None
    vectors: Floats | None = None
    scramble: int = 100
    capacity: int | None = None
    slots: int | None = None
    shape: Literal["dict", "instance"] = "dict"
    pickle_max_seq_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSpec:
    """A collection: its rows in sqlite and, apart from them, the state of its segment folder.

    segment None: no folder. records: (embedding id, seq_id) in rowid order, consumed once.
    documents: by embedding id, for records that have one. watermark, metadata_watermark: None
    leaves the row of `max_seq_id` out. dimension None: the segment's.
    """

    name: str
    segment: Segment | Skeleton | None = None
    records: Iterable[tuple[str, SeqId]] = ()
    documents: Mapping[str, str] = field(default_factory=dict)
    wal: Sequence[WalRow] = ()
    watermark: SeqId | None = None
    metadata_watermark: SeqId | None = None
    dimension: int | None = None
    space: Space = "l2"
    sync_threshold: int = 1000
    tenant: str = "default_tenant"
    database: str = "default_database"
    topic_prefix: str = TOPIC_PREFIX
    vector_segment_type: str = VECTOR_SEGMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Where a collection went."""

    collection: str
    vector_segment: str
    metadata_segment: str
    folder: Path


def write_store(
    path: Path | str,
    collections: Iterable[CollectionSpec],
    *,
    seed: int = 0,
    automatically_purge: bool | None = True,
) -> list[Written]:
    """Write a persist directory; the same arguments give the same bytes in the segment folders.

    automatically_purge None leaves `embeddings_queue_config` empty, as stores from before 0.5.6.
    """
    root = Path(path)
    root.mkdir(parents=True, exist_ok=True)
    database_file = root / "chroma.sqlite3"
    database_file.write_bytes(_empty_database())
    written = []
    with closing(sqlite3.connect(database_file, isolation_level=None)) as database:
        # A store that fails half-way is of no use, so nothing here has to survive a crash.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"PRAGMA cache_size = -{BUILD_CACHE_KIB}")
        database.execute("BEGIN")
        _set_purge(database, automatically_purge)
        for number, spec in enumerate(collections):
            place = _place(root, spec, seed)
            _insert_collection(database, spec, place)
            _write_folder(place.folder, spec, np.random.default_rng([seed, number]))
            written.append(place)
        database.execute("COMMIT")
    return written


def _place(root: Path, spec: CollectionSpec, seed: int) -> Written:
    def identify(role: str) -> str:
        name = f"{seed}/{spec.tenant}/{spec.database}/{spec.name}/{role}"
        return str(uuid.uuid5(uuid.NAMESPACE_OID, name))

    vector_segment = identify("vector")
    return Written(
        collection=identify("collection"),
        vector_segment=vector_segment,
        metadata_segment=identify("metadata"),
        folder=root / vector_segment,
    )


# --- chroma.sqlite3 -----------------------------------------------------------------------------


@functools.cache
def _empty_database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA page_size = 4096")
        database.executescript(SCHEMA_SQL.read_text(encoding="utf-8"))
        return database.serialize()


@functools.cache
def _schema_str(space: Space, sync_threshold: int) -> str:
    schema = json.loads(SCHEMA_JSON.read_text(encoding="utf-8"))
    for values in (schema["defaults"], schema["keys"]["#embedding"]):
        config = values["float_list"]["vector_index"]["config"]
        config["space"] = space
        config["hnsw"]["sync_threshold"] = sync_threshold
    return json.dumps(schema, separators=(",", ":"))


def _set_purge(database: sqlite3.Connection, automatically: bool | None) -> None:
    if automatically is None:
        database.execute("DELETE FROM embeddings_queue_config")
    else:
        database.execute(
            "UPDATE embeddings_queue_config SET config_json_str ="
            " json_set(config_json_str, '$.automatically_purge', json(?))",
            [json.dumps(automatically)],
        )


def _insert_collection(database: sqlite3.Connection, spec: CollectionSpec, place: Written) -> None:
    dimension = spec.dimension
    if dimension is None and spec.segment is not None:
        dimension = spec.segment.dimension
    database.execute(
        "INSERT INTO collections VALUES (?, ?, ?, ?, '{}', ?)",
        [
            place.collection,
            spec.name,
            dimension,
            _database_id(database, spec),
            _schema_str(spec.space, spec.sync_threshold),
        ],
    )
    segments = [
        (place.vector_segment, spec.vector_segment_type, "VECTOR", place.collection),
        (place.metadata_segment, METADATA_SEGMENT, "METADATA", place.collection),
    ]
    database.executemany("INSERT INTO segments VALUES (?, ?, ?, ?)", segments)
    watermarks = [
        (place.metadata_segment, spec.metadata_watermark),
        (place.vector_segment, spec.watermark),
    ]
    database.executemany(
        "INSERT INTO max_seq_id VALUES (?, ?)", [row for row in watermarks if row[1] is not None]
    )
    _insert_records(database, spec, place.metadata_segment)
    topic = spec.topic_prefix + place.collection
    database.executemany(
        "INSERT INTO embeddings_queue VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (_queue_row(row, topic) for row in spec.wal),
    )


def _database_id(database: sqlite3.Connection, spec: CollectionSpec) -> str:
    find = "SELECT id FROM databases WHERE name = ? AND tenant_id = ?"
    found = database.execute(find, [spec.database, spec.tenant]).fetchone()
    if found is not None:
        return str(found[0])
    identity = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{spec.tenant}/{spec.database}"))
    database.execute("INSERT OR IGNORE INTO tenants VALUES (?)", [spec.tenant])
    database.execute(
        "INSERT INTO databases VALUES (?, ?, ?)", [identity, spec.database, spec.tenant]
    )
    return identity


def _insert_records(database: sqlite3.Connection, spec: CollectionSpec, segment: str) -> None:
    database.executemany(
        "INSERT INTO embeddings (segment_id, embedding_id, seq_id, created_at) VALUES (?, ?, ?, ?)",
        ((segment, identity, seq_id, CREATED_AT) for identity, seq_id in spec.records),
    )
    if not spec.documents:
        return
    rows = database.execute(
        "SELECT id, embedding_id FROM embeddings WHERE segment_id = ? ORDER BY id", [segment]
    )
    documents = [(row, spec.documents[key]) for row, key in rows if key in spec.documents]
    database.executemany(
        "INSERT INTO embedding_metadata (id, key, string_value) VALUES (?, 'chroma:document', ?)",
        documents,
    )
    database.executemany(
        "INSERT INTO embedding_fulltext_search (rowid, string_value) VALUES (?, ?)", documents
    )


def _queue_row(row: WalRow, topic: str) -> tuple[object, ...]:
    vector = None if row.vector is None else np.asarray(row.vector, "<f4").tobytes()
    encoding = None if vector is None else "FLOAT32"
    return (
        row.seq_id,
        CREATED_AT,
        int(row.op),
        topic,
        row.id,
        vector,
        encoding,
        row.metadata,
    )


# --- The segment folder -------------------------------------------------------------------------


def _write_folder(folder: Path, spec: CollectionSpec, rng: np.random.Generator) -> None:
    match spec.segment:
        case None:
            return
        case Skeleton(dimension=dimension):
            folder.mkdir()
            _write_skeleton(folder, dimension)
        case Segment() as segment:
            folder.mkdir()
            _write_segment(folder, segment, spec.space, rng)


def _write_skeleton(folder: Path, dimension: int) -> None:
    slots = INITIAL_CAPACITY["dict"]
    none = np.zeros(0, np.int64)
    header = _header(dimension, slots, Graph(levels=none, offsets=none))
    (folder / "header.bin").write_bytes(header)
    (folder / "data_level0.bin").write_bytes(bytes(slots * element_dtype(dimension).itemsize))
    (folder / "length.bin").write_bytes(bytes(4 * slots))
    (folder / "link_lists.bin").write_bytes(b"")


def _write_segment(folder: Path, segment: Segment, space: Space, rng: np.random.Generator) -> None:
    id_labels = _or_range(segment.labels, len(segment.ids))
    total = segment.total_elements_added
    if total is None:
        total = int(id_labels.max(initial=0))
    labels = _or_range(segment.element_labels, total)
    deleted = ~_member(labels, id_labels)
    if segment.tombstones is not None:
        deleted = _member(labels, np.fromiter(segment.tombstones, np.int64))

    graph = Graph.draw(len(labels), rng)
    capacity = _capacity(segment, graph.count)
    slots = _slots(segment, graph.count, capacity)
    (folder / "header.bin").write_bytes(_header(segment.dimension, capacity, graph))
    # Under l2 and ip, and past the count, Chroma writes uninitialised memory.
    lengths = np.frombuffer(rng.bytes(4 * slots), "<f4").copy()
    with (folder / "data_level0.bin").open("wb") as out:
        start = 0
        for elements, norms in _elements(segment, labels, deleted, graph, space, rng):
            elements.tofile(out)
            if norms is not None:
                lengths[start : start + len(norms)] = norms
            start += len(elements)
        out.write(rng.bytes((slots - start) * element_dtype(segment.dimension).itemsize))
    lengths.tofile(folder / "length.bin")
    graph.link_lists(rng).tofile(folder / "link_lists.bin")
    with (folder / "index_metadata.pickle").open("wb") as out:
        match segment.shape:
            case "dict":
                _write_id_map(out, segment.ids, id_labels, total, rng)
            case "instance":
                _write_id_map_instance(out, segment, id_labels, total)


def _or_range(values: Sequence[int] | Integers | None, count: int) -> Integers:
    return np.arange(1, count + 1) if values is None else np.asarray(values, np.int64)


def _member(values: Integers, of: Integers) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isin(values, of), np.bool_)


def _capacity(segment: Segment, count: int) -> int:
    if segment.capacity is not None:
        return segment.capacity
    initial = INITIAL_CAPACITY[segment.shape]
    # What 1.5.9 was seen to do: 100, then the powers of two.
    return initial if count < initial else 1 << count.bit_length()


def _slots(segment: Segment, count: int, capacity: int) -> int:
    if segment.slots is not None:
        return max(segment.slots, count)
    # 1.x writes count elements over what the skeleton preallocated; 0.x its whole capacity.
    return capacity if segment.shape == "instance" else max(count, INITIAL_CAPACITY["dict"])


def _header(dimension: int, capacity: int, graph: Graph) -> bytes:
    fields: Mapping[str, Any] = element_dtype(dimension).fields or {}
    return HEADER.pack(
        PERSISTENCE_VERSION,
        0,
        capacity,
        graph.count,
        element_dtype(dimension).itemsize,
        fields["label"][1],
        fields["vector"][1],
        graph.max_level,
        graph.entry_point,
        MAX_M,
        MAX_M0,
        M,
        LEVEL_MULT,
        EF_CONSTRUCTION,
    )


def _elements(
    segment: Segment,
    labels: Integers,
    deleted: npt.NDArray[np.bool_],
    graph: Graph,
    space: Space,
    rng: np.random.Generator,
) -> Iterator[tuple[npt.NDArray[np.void], Floats | None]]:
    """Yield the elements in chunks, under cosine with the norms of the vectors as added."""
    order = _scrambled(graph.count, segment.scramble, rng)
    for start in range(0, graph.count, CHUNK):
        rows = order[start : start + CHUNK]
        elements = np.zeros(len(rows), element_dtype(segment.dimension))
        degrees, links = graph.level0(start, start + len(rows), rng)
        elements["degree"] = degrees
        elements["links"][:, : links.shape[1]] = links
        elements["flags"] = deleted[rows] * TOMBSTONE
        elements["label"] = labels[rows]
        if segment.vectors is None:
            vectors = rng.standard_normal((len(rows), segment.dimension), np.float32)
        else:
            vectors = np.asarray(segment.vectors[rows], np.float32)
        norms = None
        if space == "cosine":
            norms = np.linalg.norm(vectors, axis=1).astype(np.float32)
            vectors = vectors / (norms[:, None] + np.float32(1e-30))  # as hnswlib normalises
        elements["vector"] = vectors
        yield elements, norms


def _scrambled(count: int, run: int, rng: np.random.Generator) -> Integers:
    """Permute range(count), moving nothing out of its run."""
    positions = np.arange(count)
    return positions if run <= 1 else np.lexsort((rng.random(count), positions // run))


# --- A valid graph ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Links that obey every rule of hnswlib and cost nothing to find.

    Element i links to i + offset for a few distinct random offsets, +1 and -1 first. So no element
    links to itself or to one twice, and all are reachable at level 0. Upper levels do the same
    among the positions of the elements that reach them.
    """

    levels: Integers
    offsets: Integers

    @classmethod
    def draw(cls, count: int, rng: np.random.Generator) -> Graph:
        """Draw levels as hnswalg.h does (getRandomLevel)."""
        levels = (-np.log(1 - rng.random(count)) * LEVEL_MULT).astype(np.int64)
        return cls(levels=levels, offsets=_offsets(count, MAX_M0, rng))

    @property
    def count(self) -> int:
        return len(self.levels)

    @property
    def max_level(self) -> int:
        return int(self.levels.max(initial=-1))

    @property
    def entry_point(self) -> int:
        return int(self.levels.argmax()) if self.count else NO_ENTRY_POINT

    def level0(self, start: int, stop: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
        """Degrees and links of the elements in [start, stop).

        Links past an element's degree are left in place: pruned links stay in real files too.
        """
        links = _circulant(start, stop, self.count, self.offsets)
        most = links.shape[1]
        return rng.integers(min(2, most), most + 1, stop - start), links

    def link_lists(self, rng: np.random.Generator) -> npt.NDArray[np.uint32]:
        """Lay out link_lists.bin: per element its byte length, then its levels from 1 up."""
        sizes = self.levels * WORDS_PER_LEVEL
        ends = np.cumsum(1 + sizes)
        starts = ends - sizes
        words = np.zeros(int(ends[-1]) if self.count else 0, "<u4")
        words[starts - 1] = 4 * sizes
        for level in range(1, self.max_level + 1):
            members = np.flatnonzero(self.levels >= level)
            offsets = _offsets(len(members), MAX_M, rng)
            links = members[_circulant(0, len(members), len(members), offsets)]
            at = starts[members] + (level - 1) * WORDS_PER_LEVEL
            words[at] = links.shape[1]
            words[at[:, None] + 1 + np.arange(links.shape[1])] = links
        return words


def _offsets(count: int, most: int, rng: np.random.Generator) -> Integers:
    """At most `most` distinct offsets, none a multiple of `count`; one step up and down first."""
    steps = np.unique([1, count - 1]) if count > 1 else np.zeros(0, np.int64)
    others = max(count - 3, 0)  # 2 ... count - 2
    leaps = 2 + rng.choice(others, min(others, most - len(steps)), replace=False)
    return np.concatenate([steps, leaps]).astype(np.int64)


def _circulant(start: int, stop: int, count: int, offsets: Integers) -> Integers:
    links: Integers = (np.arange(start, stop)[:, None] + offsets) % max(count, 1)
    return links


# --- The id map ---------------------------------------------------------------------------------


def _write_id_map(
    out: BinaryIO, ids: Sequence[str], labels: Integers, total: int, rng: np.random.Generator
) -> None:
    """index_metadata.pickle as Rust's serde_pickle writes it: protocol 3 and no memo.

    Labels are BININT (i32). A Rust HashMap has no order, so each map is written in its own.
    """
    out.write(b"\x80\x03}(")
    out.write(_text("dimensionality") + b"N")
    out.write(_text("total_elements_added") + _integer(total))
    out.write(_text("max_seq_id") + b"N")
    out.write(_text("id_to_label"))
    _write_dict(out, ids, labels, rng, labels_first=False)
    out.write(_text("label_to_id"))
    _write_dict(out, ids, labels, rng, labels_first=True)
    out.write(_text("id_to_seq_id") + b"}u.")


def _write_dict(
    out: BinaryIO,
    ids: Sequence[str],
    labels: Integers,
    rng: np.random.Generator,
    *,
    labels_first: bool,
) -> None:
    out.write(b"}")
    if not ids:
        return  # serde_pickle leaves MARK and SETITEMS out of an empty map
    out.write(b"(")
    order = rng.permutation(len(ids))
    for start in range(0, len(ids), CHUNK):
        rows = order[start : start + CHUNK].tolist()
        texts = (_text(ids[row]) for row in rows)
        numbers = map(_integer, labels[rows].tolist())
        pairs = (
            zip(numbers, texts, strict=True) if labels_first else zip(texts, numbers, strict=True)
        )
        out.write(b"".join(part for pair in pairs for part in pair))
    out.write(b"u")


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X%b%b" % (len(raw).to_bytes(4, "little"), raw)


def _integer(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def _write_id_map_instance(out: BinaryIO, segment: Segment, labels: Integers, total: int) -> None:
    """index_metadata.pickle as 0.4 to 0.6 write it: Python pickles an instance of a class."""
    persistent_data = type("PersistentData", (), {"__module__": INSTANCE_MODULE})
    pairs = list(zip(segment.ids, labels.tolist(), strict=True))
    instance = persistent_data()
    instance.dimensionality = segment.dimension
    instance.total_elements_added = total
    if segment.pickle_max_seq_id is not None:
        instance.max_seq_id = segment.pickle_max_seq_id
    instance.id_to_label = dict(pairs)
    instance.label_to_id = {label: identity for identity, label in pairs}
    # Labels stand in for seq ids: the map's shape counts here, not its values.
    instance.id_to_seq_id = dict(pairs)
    # pickle looks the class up by name, through every parent package.
    names = INSTANCE_MODULE.split(".")
    stubs = {name: types.ModuleType(name) for name in _prefixes(names)}
    stubs[INSTANCE_MODULE].__dict__["PersistentData"] = persistent_data
    with mock.patch.dict(sys.modules, stubs):
        pickle.dump(instance, out, INSTANCE_PROTOCOL)


def _prefixes(names: Sequence[str]) -> list[str]:
    return [".".join(names[:end]) for end in range(1, len(names) + 1)]


# --- A large sound collection -------------------------------------------------------------------


def sound_collection(
    name: str, records: int, dimension: int, *, deleted: int = 0, space: Space = "l2", seed: int = 0
) -> CollectionSpec:
    """Make up a flushed collection without lag, with UUID ids and the holes of deletions.

    It went through `records + deleted` additions and then `deleted` deletions.
    """
    rng = np.random.default_rng(seed)
    total = records + deleted
    labels = np.sort(rng.choice(total, records, replace=False)) + 1
    ids = _uuids(records, rng)
    last = total + deleted
    return CollectionSpec(
        name=name,
        segment=Segment(dimension=dimension, ids=ids, labels=labels, total_elements_added=total),
        records=zip(ids, labels.tolist(), strict=True),
        # The purge keeps the row at the watermark.
        wal=[WalRow(seq_id=last, op=Op.DELETE, id="deleted")] if deleted else [],
        watermark=last,
        metadata_watermark=last,
        space=space,
    )


def _uuids(count: int, rng: np.random.Generator) -> list[str]:
    digits = rng.bytes(16 * count).hex()
    return [
        f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
        for h in (digits[at : at + 32] for at in range(0, len(digits), 32))
    ]


def main() -> None:
    """Write one large sound collection, as the benchmarks use it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--deleted", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--space", choices=("l2", "cosine", "ip"), default="l2")
    parser.add_argument("--collection", default="benchmark")
    options = parser.parse_args()
    spec = sound_collection(
        options.collection,
        options.records,
        options.dim,
        deleted=options.deleted,
        space=options.space,
    )
    write_store(options.path, [spec])


if __name__ == "__main__":
    main()


def missing_after_the_first(count: int, prefix: str = "record") -> CollectionSpec:
    """A collection of which sqlite has ``count`` records that the index lacks."""
    names = [f"{prefix}-{number:04}" for number in range(count)]
    return CollectionSpec(
        name="docs",
        segment=Segment(dimension=4, ids=["held"]),
        records=[("held", 1), *((name, at + 2) for at, name in enumerate(names))],
        # The purge keeps the last row.
        wal=[WalRow(seq_id=count + 1, op=Op.DELETE, id="gone")],
        watermark=count + 1,
        metadata_watermark=count + 1,
    )
