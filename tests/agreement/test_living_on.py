"""A repaired store lives on under the release that it is of: nothing that is written is lost.

Each version of ``HNSWCHECK_ENVS`` writes a store, which is damaged by what people do, and repaired.
Then that version reads, searches, adds, updates and deletes in ten processes, one after the other,
and flushes on the way. Each must see all that the one before left.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from environments import VERSIONS, in_chroma, python_of
from stores import segment_folders

import hnswcheck
from hnswcheck.formats.id_map import decode_id_map
from hnswcheck.formats.id_map_writer import write_instance

SETTINGS = {"hnsw:sync_threshold": 20, "hnsw:batch_size": 10, "hnsw:num_threads": 1}
RUNS, DIMENSION = 10, 8
TOLERANCE = 1e-5
NEW = [f"new{n}" for n in range(7)]
#: What a repaired store may have left: records without a vector, the old folder, and (a note) one
#: that a search passes by in Chroma's own graph.
LEFT = {
    "lag", "watermark-legacy", "records-missing", "segment-folder-quarantined", "searches-miss",
}  # fmt: skip

Vectors = dict[str, list[float]]
Step = tuple[str, list[str], list[list[float]]]


class Application:
    """What one version of Chroma is told to write, and what must then be there.

    Attributes:
        written: the vector of each record.
        had: all vectors that a record ever had.
    """

    def __init__(self, version: str, store: Path) -> None:
        self.python, self.store = python_of(version), store
        self.written: Vectors = {}
        self.had: defaultdict[str, list[list[float]]] = defaultdict(list)
        self.source = random.Random(version)

    def vectors(self, ids: list[str]) -> list[list[float]]:
        return [[self.source.uniform(-1, 1) for _ in range(DIMENSION)] for _ in ids]

    def step(self, operation: str, *ids: str) -> Step:
        vectors = [] if operation == "delete" else self.vectors(list(ids))
        for record in ids:
            self.written.pop(record, None)
        for record, vector in zip(ids, vectors, strict=bool(vectors)):
            self.written[record] = vector
            self.had[record].append(vector)
        return operation, list(ids), vectors

    def ask(self, command: str, made: object, steps: Sequence[Step]) -> Any:
        job = {"name": "docs", "made": made, "steps": steps}
        return in_chroma(command, self.store, job, self.python)

    def play(self, *steps: Step) -> None:
        self.ask("play", {"metadata": SETTINGS}, steps)

    def live(self, *steps: Step) -> Vectors:
        """Every record with its vector; that a search for everything finds them is checked."""
        seen = self.ask("live", None, steps)
        assert seen["count"] == len(seen["ids"])
        found = {record: vector for record, vector in seen["vectors"].items() if vector}
        assert set(seen["hits"]) == found.keys()
        return found


def grow(application: Application) -> None:
    """55 records of which 15 wait in the log, after updates, deletions and a second flush."""
    ids = [f"r{n:02d}" for n in range(40)]
    application.play(*(application.step("add", *ids[n : n + 10]) for n in range(0, 40, 10)))
    application.play(application.step("update", *ids[5:15]), application.step("delete", *ids[:3]))
    application.play(*(application.step("add", *[f"s{n}{k}" for k in range(5)]) for n in range(4)))


def sql(store: Path, *statements: str) -> None:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


VECTOR = "(SELECT id FROM segments WHERE scope = 'VECTOR')"


def log_emptied(application: Application) -> None:
    sql(application.store, "DELETE FROM embeddings_queue")


def sqlite_restored(application: Application) -> None:
    """An older chroma.sqlite3 under a newer folder."""
    database = application.store / "chroma.sqlite3"
    older = database.read_bytes()
    application.play(application.step("add", *[f"later{n}" for n in range(25)]))
    database.write_bytes(older)


def folder_restored(application: Application) -> None:
    """An older folder under a newer chroma.sqlite3."""
    (folder,) = segment_folders(application.store)
    kept = shutil.copytree(folder, application.store.with_suffix(".kept"))
    application.play(application.step("add", *[f"later{n}" for n in range(25)]))
    shutil.rmtree(folder)
    kept.rename(folder)


def folder_deleted(application: Application) -> None:
    (folder,) = segment_folders(application.store)
    shutil.rmtree(folder)


def id_map_cut(application: Application) -> None:
    (folder,) = segment_folders(application.store)
    path = folder / "index_metadata.pickle"
    path.write_bytes(path.read_bytes()[:-200])


def watermarks_gone(application: Application) -> None:
    sql(application.store, "DELETE FROM max_seq_id")
    _set_pickled(application.store, None)


def watermarks_zero(application: Application) -> None:
    zero = "CASE typeof(seq_id) WHEN 'blob' THEN zeroblob(8) ELSE 0 END"
    sql(application.store, f"UPDATE max_seq_id SET seq_id = {zero}")
    _set_pickled(application.store, 0)


def _set_pickled(store: Path, value: int | None) -> None:
    (folder,) = segment_folders(store)
    path = folder / "index_metadata.pickle"
    id_map = decode_id_map(path.read_bytes())
    if id_map.max_seq_id is None:
        return
    ids, labels = id_map.id_to_label.ids, id_map.id_to_label.labels.astype("uint64")
    total = id_map.total_elements_added or 0
    with path.open("wb") as file:
        write_instance(file, ids, labels, total, DIMENSION, id_map.id_to_label.labels, value)


DAMAGES: tuple[Callable[[Application], None], ...] = (
    log_emptied, sqlite_restored, folder_restored, folder_deleted, id_map_cut, watermarks_gone,
    watermarks_zero,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("version", VERSIONS.values())
def test_a_repaired_store_loses_nothing_that_is_written_afterwards(
    version: str, damage: Callable[[Application], None], tmp_path: Path
) -> None:
    """A vector that is unconfirmed, and accepted, may be one that an update replaced."""
    application = Application(version, tmp_path / "store")
    grow(application)
    damage_and_live_on(application, damage)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("versions", [("0.4.24", "0.6.3"), ("0.6.3", "1.5.9")])
def test_nor_does_a_store_that_an_older_release_began(
    versions: tuple[str, str], damage: Callable[[Application], None], tmp_path: Path
) -> None:
    """Its log was never purged, or its id map is of the older release."""
    older, application = (Application(version, tmp_path / "store") for version in versions)
    grow(older)
    application.had = older.had
    application.play(application.step("upsert", *[f"r{n:02d}" for n in range(20, 33)]))
    damage_and_live_on(application, damage)


def damage_and_live_on(application: Application, damage: Callable[[Application], None]) -> None:
    assert hnswcheck.audit(application.store).exit_code() == 0
    damage(application)
    hnswcheck.repair(application.store, accept=["unconfirmed"], leave_unindexed=True)
    (audited,) = hnswcheck.audit(application.store, "deep").stores
    assert {found.id for found in audited.all_findings} <= LEFT

    live_on(application)


def live_on(application: Application) -> None:
    """Ten runs, each of which sees what the ones before wrote."""
    first = application.step("add", *NEW)
    seen = application.live(first)
    for record, vector in seen.items():
        assert any(vector == pytest.approx(one, abs=TOLERANCE) for one in application.had[record])
    application.written = seen | dict(zip(first[1], first[2], strict=True))
    for run in range(1, RUNS):
        expected = dict(application.written)
        names = [f"run{run}-{n}" for n in range(7)]
        changed, gone = NEW[run % 3], f"run{run - 1}-2" if run > 1 else NEW[4]
        steps = (("add", names), ("update", [changed]), ("delete", [gone]))
        seen = application.live(*(application.step(operation, *ids) for operation, ids in steps))
        assert seen.keys() == expected.keys()
        for record, vector in expected.items():
            assert seen[record] == pytest.approx(vector, abs=TOLERANCE), record


SWALLOWED = [f"late{n}" for n in range(12)]


@pytest.mark.parametrize("version", VERSIONS.values())
def test_writes_below_a_watermark_come_back_and_stay(version: str, tmp_path: Path) -> None:
    """The log was emptied and kept afterwards; the writes got the numbers of earlier ones."""
    application = Application(version, tmp_path / "store")
    grow(application)
    keep_log(application)
    log_emptied(application)
    before = dict(application.written)
    application.play(application.step("add", *SWALLOWED))
    application.play(application.step("upsert", "r20", "late3"), application.step("delete", "r21"))
    (audited,) = hnswcheck.audit(application.store).stores
    (found,) = (one for one in audited.all_findings if one.id == "writes-swallowed")
    # The records that had the numbers 1 to 3 are gone, so nothing tells of the first three.
    assert set(found.sample) == {*SWALLOWED[3:], "r20", "r21"}
    hnswcheck.repair(application.store, accept=["unconfirmed"], leave_unindexed=True)
    (audited,) = hnswcheck.audit(application.store, "deep").stores
    assert {found.id for found in audited.all_findings} <= LEFT
    changed = {id: vector for id, vector in application.written.items() if vector != before.get(id)}
    live_on(application)
    assert changed.keys() == {*SWALLOWED, "r20"}
    seen = application.live(application.step("add", "last"))
    assert "r21" not in seen
    for record, vector in changed.items():
        assert seen[record] == pytest.approx(vector, abs=TOLERANCE), record


def keep_log(application: Application) -> None:
    """As a store begun before 0.5.6 does, and any whose owner said so."""
    with contextlib.suppress(sqlite3.OperationalError):  # 0.4 never purges
        off = "json_set(config_json_str, '$.automatically_purge', json('false'))"
        sql(application.store, f"UPDATE embeddings_queue_config SET config_json_str = {off}")
