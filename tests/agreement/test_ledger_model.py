"""The ledger equals the answer of a model of Chroma's log, whatever the history was.

Hypothesis makes up histories (adds, updates, upserts and deletions of few ids in several
collections, flushes, purges, kills, reopenings, copies of unequal age); `chroma_model` plays them
and says what is true; `synthetic` writes what would be on disk; the audit has to say the same.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from chroma_model import Change, Fate, Folder, Judgement, Moment, Shape, Shown, Store, write
from hypothesis import event, given, settings
from hypothesis import strategies as st
from synthetic import Op

import hnswcheck

NAMES = ("first", "second", "third")
IDS = ("a", "b", "c", "d", "e", "ü")  # few, so that they collide
SOUND = (Fate.APPLIED, Fate.FLUSHED, Fate.LOGGED, Fate.CUT_BEFORE_WATERMARK)
UNKILLED = (Fate.APPLIED, Fate.FLUSHED)
ANY = tuple(Fate)


# --- Histories ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Write:
    name: str
    changes: Sequence[Change]
    fate: Fate

    def play(self, store: Store) -> None:
        store.write(self.name, self.changes, self.fate)


@dataclass(frozen=True, slots=True)
class Reopen:
    """A new process, which reads one collection first."""

    name: str
    fate: Fate

    def play(self, store: Store) -> None:
        store.end_process()
        store.touch(self.name, self.fate)


@dataclass(frozen=True, slots=True)
class HoldMetadata:
    name: str
    held: bool

    def play(self, store: Store) -> None:
        store.hold_metadata_back(self.name, self.held)


@dataclass(frozen=True, slots=True)
class Copy:
    def play(self, store: Store) -> None:
        store.remember()


Action = Write | Reopen | HoldMetadata | Copy


@st.composite
def changes(draw: st.DrawFn, ops: Sequence[Op]) -> Change:
    op = draw(st.sampled_from(ops))
    has_vector = op is not Op.DELETE and (op is not Op.UPDATE or draw(st.booleans()))
    return Change(op, draw(st.sampled_from(IDS)), has_vector)


@st.composite
def histories(
    draw: st.DrawFn,
    fates: Sequence[Fate] = ANY,
    *,
    ops: Sequence[Op] = tuple(Op),
    kinds: Sequence[type[Action]] = (Write, Write, Write, Write, Reopen, HoldMetadata, Copy),
    shape: Shape = "1.x",
    purges: bool | None = None,
) -> Store:
    """A store with a past."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    name = st.sampled_from(names)
    some = st.lists(changes(ops), min_size=1, max_size=6)
    by_kind: Mapping[type[Action], st.SearchStrategy[Action]] = {
        Write: st.builds(Write, name, some, st.sampled_from(fates)),
        Reopen: st.builds(Reopen, name, st.sampled_from(fates)),
        HoldMetadata: st.builds(HoldMetadata, name, st.booleans()),
        Copy: st.just(Copy()),
    }
    store = Store.new(names, purges=draw(st.booleans()) if purges is None else purges, shape=shape)
    for action in draw(st.lists(st.sampled_from(kinds).flatmap(by_kind.__getitem__), max_size=25)):
        action.play(store)
    store.remember()
    return store


@st.composite
def skewed_copies(draw: st.DrawFn) -> tuple[Moment, bool]:
    """Tables of one moment; each segment folder, and sometimes its id map, of another.

    With whether the store purges its log.
    """
    store = draw(histories())
    moment = st.sampled_from(store.moments)
    tables, torn = draw(moment), draw(st.booleans())
    copies = {
        name: Shown(shown.tables, draw(folders(moment, name, torn)))
        for name, shown in tables.items()
    }
    return copies, store.purges


@st.composite
def folders(
    draw: st.DrawFn, moments: st.SearchStrategy[Moment], name: str, torn: bool
) -> Folder | None:
    folder = draw(moments)[name].folder
    other = draw(moments)[name].folder if torn else folder
    return Folder(folder.elements, other.id_map) if folder and other else folder


# --- The audit against the model ----------------------------------------------------------------


@contextmanager
def written(moment: Moment, *, purges: bool = True, shape: Shape = "1.x") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "store")
        write(path, moment, purges=purges, shape=shape)
        yield path


def audit(path: Path, level: str) -> hnswcheck.Report:
    return hnswcheck.audit(path, level, all_ids=True)


def ledger_of(truth: Judgement) -> dict[str, Any]:
    """All fields of a ledger but `capacity`, which is no affair of the log."""
    tables, folder, id_map = truth.shown.tables, truth.shown.folder, truth.id_map
    return {
        "records": len(tables.records),
        "index_ids": len(id_map.labels) if id_map else 0,
        "elements": len(truth.elements) if folder else None,
        "live": truth.live if folder else None,
        "tombstones": len(truth.elements) - truth.live if folder else None,
        "total_elements_added": id_map.total if id_map else None,
        "vector_watermark": truth.watermark,
        "metadata_watermark": tables.metadata_watermark,
        "wal_rows": len(tables.wal),
        "pending": truth.pending_by_operation,
        "records_after_replay": len(truth.records),
        "index_ids_after_replay": len(truth.indexed),
        "missing": len(truth.missing),
        "phantom": len(truth.phantom),
        "swallowed": 0,  # no history gives a number of the log twice
    }


def measured(segment: hnswcheck.SegmentReport) -> dict[str, Any]:
    ledger = asdict(segment.ledger)
    del ledger["capacity"]
    return ledger


def judged(moment: Moment, purges: bool = True) -> dict[str, Judgement]:
    return {name: Judgement.of(shown, purges) for name, shown in moment.items()}


def check_standard(path: Path, moment: Moment, purges: bool) -> None:
    """Everything that the standard level says."""
    truths, report = judged(moment, purges), audit(path, "standard")
    (store,) = report.stores
    assert store.findings == ()
    assert {s.collection.name for s in store.segments} == truths.keys()
    for segment in store.segments:
        check_segment(segment, truths[segment.collection.name])
    damaged = any(truth.damaged for truth in truths.values())
    assert store.verdict == ("damaged" if damaged else "consistent")
    assert report.exit_code() == (1 if damaged else 0)


def check_segment(segment: hnswcheck.SegmentReport, truth: Judgement) -> None:
    assert measured(segment) == ledger_of(truth)
    assert {f.id: f.count for f in segment.findings} == truth.findings
    samples = {f.id: f.sample for f in segment.findings}
    assert {f: sorted(samples[f]) for f in truth.ids} == {
        f: sorted(i) for f, i in truth.ids.items()
    }
    assert segment.status == truth.status
    check_recoverable(segment.recoverable, truth)


def check_recoverable(found: Any, truth: Judgement) -> None:
    """One source for each record; what a corrupt segment cannot tell is null."""
    sources = asdict(found)
    if None in sources.values():
        assert truth.status == "corrupt"
        return
    assert sum(sources.values()) == len(truth.records)
    assert sources["from_quarantine"] == 0
    if truth.status != "corrupt":
        assert sources["suspect"] == 0
        assert sources["lost"] >= len(truth.certainly_lost)
        assert sources["lost"] <= len(truth.records - truth.certainly_kept)
    if not truth.damaged:
        assert sources["lost"] == 0


def check_probe(path: Path, moment: Moment, purges: bool) -> None:
    """Counts prove divergence or nothing: what the probe says is true, and not all there is."""
    truths, report = judged(moment, purges), audit(path, "probe")
    for segment in report.stores[0].segments:
        truth = truths[segment.collection.name]
        known = {field: n for field, n in measured(segment).items() if n is not None}
        assert known == {field: ledger_of(truth)[field] for field in known}
        errors = {f.id for f in segment.findings if f.severity == "error"}
        assert errors <= truth.findings.keys()
        assert truth.damaged or segment.status not in ("corrupt", "diverged")


def check(moment: Moment, purges: bool = True, **store: Any) -> None:
    for truth in judged(moment, purges).values():
        for kind in (f"status {truth.status}", *truth.findings):
            event(kind)
    with written(moment, purges=purges, **store) as path:
        check_standard(path, moment, purges)
        check_probe(path, moment, purges)


@given(histories(SOUND))
def test_a_store_that_chroma_would_call_sound_is_sound_with_the_models_ledger(store: Store) -> None:
    moment = store.moment()
    assert not any(truth.damaged for truth in judged(moment).values())
    check(moment, purges=store.purges)


@given(histories())
def test_a_killed_flush_is_told_apart_from_one_that_blocks_every_later_write(store: Store) -> None:
    check(store.moment(), purges=store.purges)


@given(skewed_copies())
@settings(max_examples=2 * settings().max_examples)
def test_copies_of_unequal_age_have_exactly_the_models_missing_and_phantom_ids(
    copies: tuple[Moment, bool],
) -> None:
    moment, purges = copies
    check(moment, purges=purges)


@given(histories(UNKILLED, ops=(Op.ADD, Op.DELETE), kinds=(Write,), shape="0.6"))
def test_an_id_map_of_0_6_gives_the_same_ledger(store: Store) -> None:
    check(store.moment(), purges=store.purges, shape="0.6")


@given(histories(UNKILLED, ops=(Op.ADD, Op.DELETE), kinds=(Write,), shape="0.4", purges=False))
def test_a_watermark_in_the_id_map_counts_as_0_4_meant_it(store: Store) -> None:
    check(store.moment(), purges=False, shape="0.4")


@given(histories())
def test_the_model_never_loses_an_id_by_itself(store: Store) -> None:
    """What the tables and the index of the model hold is what a client would expect."""
    for name, truth in judged(store.moment()).items():
        expected = store.collections[name].ids.keys()
        assert truth.records == expected
        assert truth.indexed == expected
        if not truth.blocked:
            store.end_process()
            store.hold_metadata_back(name, False)
            store.touch(name)
            memory = store.collections[name].memory
            assert (memory.labels.keys() if memory else set()) == expected


# --- The model against the engine ---------------------------------------------------------------

SYNC_THRESHOLD = 6
#: Plays calls [collection, operation, ids, vectors or null] from stdin on a real client.
ENGINE = """
import json, os, sys
import chromadb
from chromadb.config import Settings

client = chromadb.PersistentClient(sys.argv[1], Settings(anonymized_telemetry=False))
metadata = {"hnsw:sync_threshold": int(sys.argv[2]), "hnsw:batch_size": int(sys.argv[2])}
for name, operation, ids, vectors in json.load(sys.stdin):
    collection = client.get_or_create_collection(name, metadata=metadata)
    if operation == "delete":
        collection.delete(ids=ids)
    elif vectors is None:
        collection.update(ids=ids, metadatas=[{"n": n} for n in range(len(ids))])
    else:
        getattr(collection, operation)(ids=ids, embeddings=vectors)
os._exit(0)
"""


def random_call(source: random.Random) -> Write:
    """One call as a client can make it: one operation, no id twice."""
    op = source.choice(list(Op))
    has_vector = op is not Op.DELETE and (op is not Op.UPDATE or source.random() < 0.5)
    ids = source.sample(IDS, source.randint(1, 4))
    some = [Change(op, id, has_vector) for id in ids]
    return Write(source.choice(NAMES[:2]), some, Fate.APPLIED)


def play_in_engine(path: Path, calls: Sequence[Write]) -> None:
    steps = []
    for call in calls:
        first = call.changes[0]
        vectors = [[float(ord(c.id)), 1.0, 2.0] for c in call.changes]
        ids = [c.id for c in call.changes]
        steps.append([call.name, first.op.name.lower(), ids, vectors if first.has_vector else None])
    command = [sys.executable, "-c", ENGINE, str(path), str(SYNC_THRESHOLD)]
    subprocess.run(command, input=json.dumps(steps), text=True, check=True, timeout=120)


@pytest.mark.usefixtures("chroma")
@pytest.mark.parametrize("seed", range(4))
def test_chroma_itself_leaves_what_the_model_says(seed: int, tmp_path: Path) -> None:
    source = random.Random(seed)
    store = Store.new(NAMES[:2], sync_threshold=SYNC_THRESHOLD)
    for _ in range(3):
        calls = [random_call(source) for _ in range(15)]
        for call in calls:
            call.play(store)
        play_in_engine(tmp_path, calls)
        store.end_process()
    check_standard(tmp_path, store.moment(), store.purges)
    check_probe(tmp_path, store.moment(), store.purges)
