"""A pickle cut at any byte, or gone; a header gone; level 0 cut at any element; a folder renamed,
with a thousand writes since: what exists comes back, and an audit said before how much that is.

The truth is the writer's, or what the engine read before the damage.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import random
import shutil
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from environments import in_chroma
from oracle import _indexed
from stores import NAMES, expectation, rest, snapshot, unpack

import hnswcheck
from hnswcheck.formats.segment_files import HEADER, ID_MAP, LEVEL0
from hnswcheck.repairing.segment_plan import RecordGrade
from hnswcheck.report import Recoverable
from hnswcheck.salvaging.counts import counted
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.sources import NOWHERE, find_sources
from hnswcheck.store.catalog import read_collections
from hnswcheck.store.collection_view import read_collection_views
from hnswcheck.store.schema import read_schema
from hnswcheck.store.view import open_store

pytestmark = pytest.mark.usefixtures("chroma")

DIMENSION = 8
Truth = dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]
Step = tuple[str, list[str], list[list[float]] | None]


# --- The writer, and what it knows ---------------------------------------------------------------


@dataclass
class Writer:
    """Plays operations on a store and keeps what each record's vector must be then."""

    store: Path
    space: str = "l2"
    flush_after: int = 40
    truth: Truth = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    made: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(7))

    def vectors(self, count: int) -> list[list[float]]:
        values = [[self.random.gauss(0, 1) for _ in range(DIMENSION)] for _ in range(count)]
        rounded: list[list[float]] = np.array(values, np.float32).tolist()
        return rounded

    def step(self, operation: str, ids: Sequence[str]) -> None:
        vectors = None if operation == "delete" else self.vectors(len(ids))
        self.steps.append((operation, list(ids), vectors))
        for place, record in enumerate(ids):
            if vectors is None:
                self.truth.pop(record, None)
            elif operation != "add" or record not in self.truth:
                self.truth[record] = np.array(vectors[place], np.float32)

    def add(self, count: int) -> None:
        ids = [f"r{self.made + n:05d}" for n in range(count)]
        self.made += count
        self.step("add", ids)

    def some(self, count: int) -> list[str]:
        return self.random.sample(sorted(self.truth), count)

    def anything(self, operations: int) -> None:
        """So many of all kinds, in batches."""
        while operations > 0:
            size = min(operations, self.random.randint(1, 12))
            kind = self.random.choice(("add", "add", "update", "upsert", "delete"))
            if kind == "add":
                self.add(size)
            elif kind == "upsert":
                half = self.some(size // 2)
                fresh = [f"r{self.made + n:05d}" for n in range(size - len(half))]
                self.made += len(fresh)
                self.step("upsert", [*half, *fresh])
            else:
                self.step(kind, self.some(size))
            operations -= size

    def write(self) -> None:
        """Let the engine do it, in a process that then ends."""
        job = {
            "name": "docs",
            "steps": self.steps,
            "made": {
                "metadata": {
                    "hnsw:space": self.space,
                    "hnsw:sync_threshold": self.flush_after,
                    "hnsw:batch_size": min(self.flush_after, 10),
                }
            },
        }
        in_chroma("play", self.store, job)
        self.steps.clear()
        rest(self.store)


def read_by_engine(store: Path, scratch: Path) -> dict[str, Truth]:
    """What the engine reads of a copy, by collection; records without a vector are left out."""
    copy = scratch / "read"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(store, copy)
    return {
        name: {i: np.array(v, np.float32) for i, v in vectors.items() if v is not None}
        for name, vectors in in_chroma("vectors", copy)
    }


# --- What is found -------------------------------------------------------------------------------


@dataclass
class Found:
    """Of each record the grade and the vector; and what an audit would say."""

    grades: dict[str, Grade]
    vectors: Truth
    told: Recoverable

    def wrong(self, truth: Truth, grade: Grade | None = None) -> list[str]:
        """Records with a vector that is not theirs."""
        return [
            record
            for record, vector in self.vectors.items()
            if grade in (None, self.grades[record])
            and not np.allclose(vector, truth[record], rtol=1e-3, atol=1e-5)
        ]

    def without(self) -> set[str]:
        return self.grades.keys() - self.vectors.keys()


def find(store: Path, name: str = "docs") -> Found:
    """What salvage finds of a collection."""
    with open_store(store) as view:
        schema = read_schema(view.database)
        named = [c for c in read_collections(view.database, schema) if c.name == name]
        (target,) = read_collection_views(view, named, schema, with_ids=True)
        found = find_sources(view.database, target)
        chosen = np.flatnonzero(found.sources != NOWHERE)
        ids = [id.decode() for id in found.records.ids]
        chunks = list(found.read(chosen, view.database, named[0].dimension or 0))
        vectors = np.concatenate([np.zeros((0, named[0].dimension or 0), np.float32), *chunks])
        return Found(
            dict(zip(ids, map(Grade, found.grades.tolist()), strict=True)),
            {ids[i]: vector for i, vector in zip(chosen.tolist(), vectors, strict=True)},
            counted(found, target),
        )


def folder_of(store: Path, name: str = "docs") -> Path:
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        (segment,) = database.execute(
            "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection"
            " WHERE s.scope = 'VECTOR' AND c.name = ?",
            [name],
        ).fetchone()
    return store / str(segment)


def in_log(store: Path, name: str) -> set[str]:
    """Ids whose vector some row of the log has; adds of ids that exist are none of them."""
    query = (
        "SELECT DISTINCT q.id FROM embeddings_queue q JOIN collections c ON"
        " q.topic LIKE '%/' || c.id WHERE c.name = ? AND q.vector IS NOT NULL AND q.operation > 0"
    )
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        return {id for (id,) in database.execute(query, [name])}


def elements_in(level0: bytes, header: bytes) -> dict[int, int]:
    """Where each label's element ends in the file."""
    count, stride, label_at = struct.unpack_from("<QQQ", header, 20)
    return {
        struct.unpack_from("<Q", level0, n * stride + label_at)[0]: (n + 1) * stride
        for n in range(count)
    }


@dataclass(frozen=True)
class Base:
    """A sound store, and what the engine or the writer knows of it."""

    store: Path
    truth: Truth
    name: str = "docs"
    lively: bool = True

    @property
    def folder(self) -> Path:
        return folder_of(self.store, self.name)

    @functools.cached_property
    def logged(self) -> set[str]:
        return in_log(self.store, self.name)

    def find(self) -> Found:
        return find(self.store, self.name)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cuts")


@functools.cache
def lively_store(scratch: Path, space: str) -> Base:
    """Written by the engine here: every kind of operation, some of them not flushed yet."""
    writer = Writer(scratch / f"lively-{space}", space)
    writer.add(30)
    writer.step("delete", writer.some(4))
    writer.step("update", writer.some(6))
    writer.step("upsert", writer.some(5))
    writer.add(10)
    writer.step("delete", writer.some(2))
    writer.step("update", writer.some(3))
    writer.add(4)
    writer.write()
    return Base(writer.store, writer.truth)


@functools.cache
def old_store(scratch: Path, name: str) -> Base:
    """A fixture, and what chromadb 1.5.9 reads of it."""
    store = rest(unpack(name, scratch / "old"))
    truths = read_by_engine(store, scratch)
    return Base(store, truths[min(truths)], min(truths), lively=False)


SPACES = ("l2", "cosine")
OLD = (
    "0.4.24-interleaved",
    "0.5.23-interleaved",
    "0.6.3-churn-cosine",
    "1.0.20-churn-l2",
    "1.5.9-interleaved",
)


@pytest.fixture(params=SPACES)
def lively(request: pytest.FixtureRequest, scratch: Path) -> Base:
    return lively_store(scratch, request.param)


@pytest.fixture(params=[*SPACES, *OLD])
def base(request: pytest.FixtureRequest, scratch: Path) -> Base:
    make = lively_store if request.param in SPACES else old_store
    return make(scratch, request.param)


@contextlib.contextmanager
def kept(*files: Path) -> Iterator[None]:
    """Put files back as they were."""
    before = {file: file.read_bytes() for file in files}
    try:
        yield
    finally:
        for file, data in before.items():
            file.write_bytes(data)


def sample(size: int, number: int) -> list[int]:
    """Places in a file, among them the first and the last ones."""
    return sorted({0, 1, size - 1, *(size * n // number for n in range(1, number))})


# --- A pickle cut at any byte --------------------------------------------------------------------


def test_the_pickle_cut_at_every_byte_costs_1_x_no_record(scratch: Path) -> None:
    """Labels are handed out in the order of the records: what is cut off can be put together."""
    lively = lively_store(scratch, "l2")
    file = lively.folder / ID_MAP
    whole = file.read_bytes()
    whole_map = whole.index(b"label_to_id")
    with kept(file):
        for size in range(len(whole)):
            file.write_bytes(whole[:size])
            found = lively.find()
            assert found.vectors.keys() == lively.truth.keys(), size
            assert not found.wrong(lively.truth), size
            assert found.told.lost == found.told.suspect == 0, size
            if size > whole_map + len(b"label_to_id"):
                assert set(found.grades.values()) == {Grade.PROVEN}, size


def test_the_pickle_cut_anywhere_gives_what_it_still_names(base: Base) -> None:
    file = base.folder / ID_MAP
    whole = file.read_bytes()
    with kept(file):
        for size in sample(len(whole), 80):
            file.write_bytes(whole[:size])
            found = base.find()
            named = set(_indexed(file.parent)) | base.logged
            assert found.vectors.keys() >= named & base.truth.keys(), size
            assert not found.wrong(base.truth), size
            assert found.told.lost == len(found.without()), size


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_without_a_pickle_the_order_of_the_records_is_left(lively: Base, how: str) -> None:
    file = lively.folder / ID_MAP
    with kept(file):
        file.write_bytes(b"")
        if how == "gone":
            file.unlink()
        found = lively.find()
    assert found.vectors.keys() == lively.truth.keys()
    assert not found.wrong(lively.truth)


# --- A header gone -------------------------------------------------------------------------------


def test_a_header_gone_zeroed_or_cut_costs_nothing(base: Base) -> None:
    file = base.folder / HEADER
    whole = file.read_bytes()
    with kept(file):
        sizes = range(len(whole)) if base.lively else sample(len(whole), 25)
        for data in (bytes(len(whole)), *(whole[:size] for size in sizes)):
            file.write_bytes(data)
            found = base.find()
            assert set(found.grades.values()) == {Grade.PROVEN}, len(data)
            assert not found.wrong(base.truth), len(data)
        file.unlink()
        assert set(base.find().grades.values()) == {Grade.PROVEN}


def test_a_header_that_counts_too_few_elements_hides_none(lively: Base) -> None:
    file = lively.folder / HEADER
    whole = file.read_bytes()
    (count,) = struct.unpack_from("<Q", whole, 20)
    with kept(file):
        for fewer in range(1, count):
            file.write_bytes(whole[:20] + struct.pack("<Q", fewer) + whole[28:])
            found = lively.find()
            assert not found.without(), fewer
            assert not found.wrong(lively.truth), fewer


# --- Level 0 cut ---------------------------------------------------------------------------------


def test_level_0_cut_at_any_element_gives_all_before_it(base: Base) -> None:
    folder = base.folder
    file, header = folder / LEVEL0, (folder / HEADER).read_bytes()
    whole = file.read_bytes()
    ends = elements_in(whole, header)
    labels = _labels(folder)
    (stride,) = struct.unpack_from("<Q", header, 28)
    boundaries: Sequence[int] = range(0, max(ends.values()), stride)
    if not base.lively:  # their files are larger
        boundaries = [boundaries[n] for n in sample(len(boundaries), 40)]
    with kept(file):
        for size in sorted({at + n for at in boundaries for n in (0, 1, stride - 1)}):
            file.write_bytes(whole[:size])
            found = base.find()
            there = {i for i, label in labels.items() if ends.get(label, 1 << 60) <= size}
            wanted = (there | base.logged) & base.truth.keys()
            assert found.vectors.keys() >= wanted, size
            assert not found.wrong(base.truth), size
            assert found.told.suspect == 0, size


def _labels(folder: Path) -> dict[str, int]:
    """The id map, which a real Chroma wrote."""

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> type:
            return type(name, (), {})

    with (folder / ID_MAP).open("rb") as file:
        found = Reader(file).load()
    labels: dict[str, int] = (found if isinstance(found, dict) else vars(found))["id_to_label"]
    return labels


# --- A folder renamed, and a thousand writes since -----------------------------------------------


@dataclass(frozen=True)
class Drifted:
    base: Base
    drift: Path


@functools.cache
def drifted_store(scratch: Path, space: str) -> Drifted:
    writer = Writer(scratch / f"drifted-{space}", space)
    writer.add(150)
    writer.step("delete", writer.some(5))
    writer.step("update", writer.some(20))
    writer.step("upsert", writer.some(10))
    writer.add(30)
    writer.step("update", writer.some(10))
    writer.write()
    folder = folder_of(writer.store)
    drift = folder.rename(f"{folder}.drift-20240101-000000")
    writer.anything(1_000)
    writer.write()
    return Drifted(Base(writer.store, writer.truth), drift)


@pytest.fixture(params=SPACES)
def drifted(request: pytest.FixtureRequest, scratch: Path) -> Drifted:
    return drifted_store(scratch, request.param)


def in_files(store: Path, truth: Truth) -> set[str]:
    """Records whose vector lies somewhere in a file, byte by byte."""
    query = "SELECT vector FROM embeddings_queue WHERE vector IS NOT NULL"
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        rows = [vector for (vector,) in database.execute(query)]
    data = b"".join([*rows, *(file.read_bytes() for file in store.glob(f"*/{LEVEL0}"))])
    return {record for record, vector in truth.items() if vector.tobytes() in data}


def right(found: Found, truth: Truth) -> set[str]:
    return found.vectors.keys() - set(found.wrong(truth))


def test_a_folder_that_was_renamed_gives_back_what_the_new_one_lacks(drifted: Drifted) -> None:
    base = drifted.base
    found = base.find()
    assert not found.wrong(base.truth, Grade.PROVEN)
    assert not found.without()
    assert found.told.from_quarantine
    assert found.told.from_segment
    if "l2" in base.store.name:  # else what lies there is of length 1
        there = in_files(base.store, base.truth)
        assert 500 < len(there) < len(base.truth)  # what was updated while it was away is nowhere
        assert right(found, base.truth) == there
    new = [r for r in found.grades if found.grades[r] is Grade.PROVEN]
    assert len(new) > 0.85 * len(right(found, base.truth))  # all that the log or the segment has


@pytest.mark.parametrize("name", [HEADER, LEVEL0, "folder"])
def test_whatever_is_left_of_both_folders_comes_back(drifted: Drifted, name: str) -> None:
    base = drifted.base
    keep = base.store.with_name("keep")
    shutil.copytree(base.folder, keep)
    try:
        if name == "folder":
            shutil.rmtree(base.folder)
        else:
            (base.folder / name).unlink()
        found = base.find()
        assert not found.wrong(base.truth, Grade.PROVEN)
        if "l2" in base.store.name:
            assert right(found, base.truth) == in_files(base.store, base.truth)
        named = set(_labels(drifted.drift)) | base.logged
        assert found.vectors.keys() >= named & base.truth.keys()
    finally:
        shutil.rmtree(base.folder, ignore_errors=True)
        keep.rename(base.folder)


def test_the_new_pickle_cut_costs_no_more_than_it_no_longer_names(drifted: Drifted) -> None:
    """Its labels are not in the order of the records: who was written again got a new one."""
    base = drifted.base
    file = base.folder / ID_MAP
    whole = file.read_bytes()
    named = set(_labels(drifted.drift)) | base.logged
    with kept(file):
        for size in sample(len(whole), 40):
            file.write_bytes(whole[:size])
            found = base.find()
            wanted = (named | set(_indexed(base.folder))) & base.truth.keys()
            assert found.vectors.keys() >= wanted, size
            assert not found.wrong(base.truth, Grade.PROVEN), size


# --- One number ----------------------------------------------------------------------------------


def told(segment: hnswcheck.SegmentReport) -> tuple[int | None, ...]:
    found = segment.recoverable
    return (
        found.from_segment,
        found.from_wal,
        found.from_quarantine,
        found.suspect,
        found.lost,
    )


def planned(records: Iterator[RecordGrade], own: str) -> tuple[int, ...]:
    """The same by the sources and grades that a repair lists."""
    number: Counter[str] = Counter()
    for _, source, grade, _ in records:
        if source in ("wal", "nowhere"):
            number[source] += 1
        elif grade == "suspect":
            number[grade] += 1
        else:
            number["segment" if source == own else "quarantine"] += 1
    names = ("segment", "wal", "quarantine", "suspect", "nowhere")
    return tuple(number[name] for name in names)


def check_told(store: Path) -> int:
    """An audit says what a repair finds; how many collections were compared."""
    plan = hnswcheck.repair(store, accept=(), dry_run=True)
    audited = {s.collection.id: s for s in hnswcheck.audit(store).stores[0].segments}
    for segment in plan.segments:
        report = audited[segment.collection.id]
        if segment.fates is None:
            assert set(told(report)) == {None}
        else:
            assert told(report) == planned(segment.records(), segment.segment)
    return len(plan.segments)


DAMAGED = [
    name
    for name in NAMES
    if any(
        collection["status"] in ("diverged", "corrupt")
        for collection in (expectation(name)["collections"] or {}).values()
    )
]


@pytest.mark.parametrize("name", DAMAGED)
def test_an_audit_says_what_a_repair_finds_of_a_damaged_store(name: str, tmp_path: Path) -> None:
    store = rest(unpack(name, tmp_path))
    before = snapshot(store)
    try:
        assert check_told(store)
    except hnswcheck.RepairRefused as error:
        assert "sqlite" in str(error)  # noqa: PT017 - which says so of the whole store
    assert snapshot(store) == before


def check_cuts(base: Base) -> int:
    compared = 0
    for name in (ID_MAP, HEADER, LEVEL0):
        file = base.folder / name
        whole = file.read_bytes()
        with kept(file):
            for size in (0, len(whole) // 3, len(whole) - 50):
                file.write_bytes(whole[:size])
                rest(base.store)
                compared += check_told(base.store)
    rest(base.store)
    return compared


def test_an_audit_says_what_a_repair_finds_of_a_store_that_was_cut(base: Base) -> None:
    assert check_cuts(base) >= 7  # the end of level 0 may be empty


def test_an_audit_says_what_a_repair_finds_of_two_folders(drifted: Drifted) -> None:
    assert check_told(drifted.base.store) == 1
    assert check_cuts(drifted.base) == 9


def test_deep_counts_what_only_vectors_show(tmp_path: Path) -> None:
    store = rest(unpack("1.5.9-damaged-vector-no-number", tmp_path))
    standard, deep = (
        hnswcheck.audit(store, level).stores[0].segments[0] for level in ("standard", "deep")
    )
    assert (standard.status, standard.recoverable.lost) == ("lagging", 0)
    assert (deep.status, deep.recoverable.lost) == ("corrupt", 1)


# --- All the way ---------------------------------------------------------------------------------


def repaired(store: Path, scratch: Path) -> tuple[hnswcheck.RepairReport, Mapping[str, Truth]]:
    """Repair a copy with whatever is found, and let the engine read it."""
    copy = scratch / "repaired"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(store, copy)
    rest(copy)
    accept = ("inferred", "unconfirmed", "outdated", "suspect")
    report = hnswcheck.repair(copy, accept=accept, leave_unindexed=True, verify="audit")
    return report, read_by_engine(copy, scratch)


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", [ID_MAP, HEADER, LEVEL0])
def test_the_engine_reads_what_was_found(
    name: str, part: float, lively: Base, tmp_path: Path
) -> None:
    pytest.importorskip("hnswlib", reason="an index cannot be built without it")
    file = lively.folder / name
    whole = file.read_bytes()
    with kept(file):
        used = len(whole)
        if name == LEVEL0:  # and not the room behind them
            used = max(elements_in(whole, (lively.folder / HEADER).read_bytes()).values())
        file.write_bytes(whole[: int(part * used)])
        found = lively.find()
        report, read = repaired(lively.store, tmp_path)
    (segment,) = report.repaired
    assert len(segment.fates.use) == len(found.vectors)
    assert read["docs"].keys() == found.vectors.keys()
    for record, vector in read["docs"].items():
        assert np.allclose(vector, lively.truth[record], rtol=1e-3, atol=1e-5), record


def test_the_engine_reads_what_was_found_in_both_folders(drifted: Drifted, tmp_path: Path) -> None:
    pytest.importorskip("hnswlib", reason="an index cannot be built without it")
    base = drifted.base
    found = base.find()
    _, read = repaired(base.store, tmp_path)
    assert read["docs"].keys() == base.truth.keys()
    for record in right(found, base.truth):
        assert np.allclose(read["docs"][record], base.truth[record], rtol=1e-3, atol=1e-5), record
