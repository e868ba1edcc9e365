"""What a repair made is tried by the real Chroma, and taken back if it does not come out right."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from environments import python_of
from stores import rest, run, segment_folders, snapshot, unpack, unwrapped

import hnswcheck
from hnswcheck.engines import chroma
from hnswcheck.engines.chroma import NotAsked, problem_in_chroma
from hnswcheck.formats.arrays import Ints
from hnswcheck.repairing.choices import ACCEPTABLE
from hnswcheck.repairing.sample import Sample
from hnswcheck.repairing.segment_plan import SegmentPlan
from hnswcheck.repairing.swap import expected_of
from hnswcheck.store import releases
from hnswcheck.store.database import DATABASE
from hnswcheck.store.view import open_store

pytest.importorskip("hnswlib", reason="an index cannot be built without it")
pytestmark = pytest.mark.usefixtures("chroma")

WHOLE = "1.5.9-damaged-header-zeroed"
LOSSY = "1.5.9-damaged-folder-older"
OUTSIDE = "1.5.9-damaged-migration-changed"
PYTHON = "0.6.3-churn-cosine"
CRASHES = "1.5.9-damaged-links-far-away"
#: Of each line, and each distance.
SOUND = ("0.4.24-churn-cosine", "0.6.3-churn-cosine", "1.0.20-churn-ip", "1.5.9-tenants")


def without_links(name: str, target: Path) -> Path:
    """A store whose indexes have lost a file; all vectors are still there."""
    store = unpack(name, target)
    for folder in segment_folders(store):
        (folder / "link_lists.bin").unlink()
    return rest(store)


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != DATABASE
    }


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return rest(unpack(WHOLE, tmp_path))


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    return rest(unpack(LOSSY, tmp_path))


# --- Content -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOUND)
def test_chroma_is_asked_about_what_every_line_wrote(name: str, tmp_path: Path) -> None:
    report = hnswcheck.repair(without_links(name, tmp_path), verify="chroma")
    assert len(report.segments) >= 1
    assert len(report.repaired) == len(report.segments)
    assert {segment.verified for segment in report.repaired} == {"chroma"}
    assert report.verified == "chroma"
    assert report.after is not None
    assert report.after.verdict == "consistent"


def test_chroma_writes_only_to_a_copy(whole: Path, tmp_path: Path) -> None:
    def log() -> list[tuple[int, str]]:
        with contextlib.closing(sqlite3.connect(whole / DATABASE)) as database:
            return database.execute("SELECT seq_id, id FROM embeddings_queue").fetchall()

    before = log()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # Settings from outside lead Chroma nowhere else, either.
    elsewhere = {"CHROMA_API_IMPL": "chromadb.api.fastapi.FastAPI", "CHROMA_SERVER_HOST": "x"}
    done = run(
        "repair", whole, "--yes", "--json", env={"TMPDIR": str(scratch), **elsewhere}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verified"] == "chroma"
    assert [segment["verified"] for segment in report["segments"]] == ["chroma"]
    assert "and by Chroma 1.5.9 on a copy" in done.stderr
    assert "another line" not in done.stderr
    assert report["tried_by"] == "1.5.9"
    assert [segment["tried_by_line_that_wrote"] for segment in report["segments"]] == [True]
    assert log() == before
    assert list(scratch.iterdir()) == []


def test_records_that_are_left_have_no_vector_in_chroma_either(lossy: Path) -> None:
    report = hnswcheck.repair(lossy, accept=ACCEPTABLE, leave_unindexed=True, verify="chroma")
    assert report.verified == "chroma"
    assert [len(segment.fates.leave) for segment in report.repaired] == [34]


def test_where_no_record_has_a_vector_chroma_is_still_asked(tmp_path: Path) -> None:
    store = unpack("1.5.9-exactly-flushed", tmp_path)
    for path in store.glob("*/*.bin"):
        path.unlink()
    with contextlib.closing(sqlite3.connect(store / DATABASE)) as database, database:
        database.execute(
            "UPDATE embeddings_queue SET operation = 1, vector = NULL, encoding = NULL"
        )
    report = hnswcheck.repair(rest(store), leave_unindexed=True, verify="chroma")
    (segment,) = report.repaired
    assert (len(segment.fates.use), segment.verified) == (0, "chroma")


def test_what_was_embedded_again_is_compared_as_well(lossy: Path) -> None:
    with contextlib.closing(sqlite3.connect(lossy / DATABASE)) as database, database:
        database.execute(
            "INSERT OR REPLACE INTO embedding_metadata (id, key, string_value)"
            " SELECT id, 'chroma:document', printf('%.*c', id, 'x') FROM embeddings"
        )

    def embed(documents: list[str]) -> Sequence[Sequence[float]]:
        return [[len(document) / 3] * 8 for document in documents]

    report = hnswcheck.repair(rest(lossy), embed=embed, verify="chroma")
    assert report.verified == "chroma"


# --- Discontent ----------------------------------------------------------------------------------


def test_what_chroma_cannot_open_is_taken_back(tmp_path: Path) -> None:
    """The damage is not in the index, so that an audit of the collection is content."""
    store = without_links(OUTSIDE, tmp_path)
    before = contents(store)
    with pytest.raises(hnswcheck.RepairFailed, match="Chroma at opening it: ") as raised:
        hnswcheck.repair(store, verify="chroma")
    assert "\n" not in str(raised.value)
    assert contents(store) == before
    assert hnswcheck.repair(rest(store), verify="audit").verified == "audit"


def said_of(store: Path, segment: SegmentPlan, chosen: Ints, change: int | None = None) -> str:
    """What Chroma says of a store as it is, about vectors that salvage found.

    Args:
        change: the number of one that is made another.
    """
    found = segment.fates.salvage
    with open_store(found.folders[0].path.parent) as view:
        vectors = np.concatenate(list(found.read(chosen, view.database, 8)))
    if change is not None:
        vectors[change] = -vectors[change]
    sample = Sample()
    list(sample.watch(chosen, segment.fates.embed, iter([vectors])))
    return problem_in_chroma(store, expected_of(segment, sample))


def planned(store: Path) -> SegmentPlan:
    report = hnswcheck.repair(store, dry_run=True, accept=ACCEPTABLE, leave_unindexed=True)
    (segment,) = report.planned
    return segment


def test_records_without_a_vector_are_seen(lossy: Path) -> None:
    segment = planned(lossy)
    assert "Chroma at get() of vectors: " in said_of(lossy, segment, segment.fates.use)


def test_hits_that_are_no_records_are_seen(lossy: Path) -> None:
    segment = planned(lossy)
    (folder,) = segment_folders(lossy)
    indexed = [i for i, r in enumerate(segment.records()) if r.source == folder.name]
    assert "finds ids without a record" in said_of(lossy, segment, np.array(indexed))


def test_a_vector_that_is_not_the_one_put_in_is_seen(whole: Path, tmp_path: Path) -> None:
    hnswcheck.repair(whole, verify="none")
    segment = planned(unpack(WHOLE, tmp_path / "twin"))
    assert said_of(whole, segment, segment.fates.use) == ""
    said = said_of(whole, segment, segment.fates.use, change=3)
    assert "another vector than the new index for 1 of " in said


def test_hits_at_another_distance_are_seen(whole: Path, tmp_path: Path) -> None:
    hnswcheck.repair(whole, verify="none")
    segment = planned(unpack(WHOLE, tmp_path / "twin"))
    assert segment.collection.space == "l2"
    other = replace(segment.audited, collection=replace(segment.collection, space="ip"))
    expected = replace(segment, audited=other)
    assert "reports a wrong distance for" in said_of(whole, expected, segment.fates.use)


def test_a_crash_is_seen(tmp_path: Path) -> None:
    store = rest(unpack(CRASHES, tmp_path))
    segment = planned(store)
    assert "its process died of SIG" in said_of(store, segment, segment.fates.use)


def test_an_engine_that_never_answers_is_killed(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(whole)
    monkeypatch.setattr("hnswcheck.engines.chroma.FIXED_SECONDS", 0.3)
    monkeypatch.setattr("hnswcheck.engines.chroma.BYTES_PER_SECOND", 1e12)
    with pytest.raises(hnswcheck.RepairFailed, match="no answer for 0 s"):
        hnswcheck.repair(whole, verify="chroma")
    assert contents(whole) == before


def test_an_interrupt_takes_back_what_was_not_verified(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    before = contents(whole)
    monkeypatch.setattr("hnswcheck.repairing.swap.problem_in_chroma", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hnswcheck.repair(whole, verify="chroma")
    assert contents(whole) == before


# --- Who cannot be asked -------------------------------------------------------------------------


def make_absent(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)


def make_broken(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    (place / "chromadb.py").write_text("raise RuntimeError('needs another sqlite')\n")
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{place}{os.pathsep}{before}")


def make_old(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    later = releases.STEPS[-1]._replace(first="99.0.0")
    monkeypatch.setattr(releases, "STEPS", (*releases.STEPS[:-1], later))


def make_full(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    monkeypatch.setattr("hnswcheck.repairing.verification.free_bytes", lambda _: 1000)


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (make_absent, hnswcheck.EngineMissing, "not installed"),
        (make_broken, hnswcheck.EngineMissing, "needs another sqlite"),
        (make_old, hnswcheck.EngineMissing, "is older than the Chroma that wrote the store"),
        (make_full, hnswcheck.RepairRefused, "1,000 are free"),
    ],
)
def test_who_wants_the_engine_is_refused_and_who_does_not_is_told(
    make: object, kind: type[Exception], says: str, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(make)
    make(monkeypatch, whole.parent)
    chroma.asked_version.cache_clear()  # another Chroma than the tests before had
    before = snapshot(whole)
    with pytest.raises(kind, match=says) as raised:
        hnswcheck.repair(whole, verify="chroma")
    assert "nothing was changed" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert {n: t.content for n, t in snapshot(whole).items()} == {
        n: t.content for n, t in before.items()
    }
    (segment,) = hnswcheck.repair(whole).repaired
    assert segment.verified == "audit"
    assert says in segment.not_asked


def test_without_room_at_last_the_audit_counts_unless_the_engine_is_wanted(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise NotAsked("no copy for Chroma: the disk is full")

    before = contents(whole)
    monkeypatch.setattr("hnswcheck.repairing.swap.problem_in_chroma", full)
    with pytest.raises(hnswcheck.RepairFailed, match="the disk is full"):
        hnswcheck.repair(whole, verify="chroma")
    assert contents(whole) == before
    report = hnswcheck.repair(rest(whole))
    assert report.verified == "audit"


def test_nobody_is_asked_where_nobody_shall_be(whole: Path) -> None:
    done = run("repair", whole, "--yes", "--verify", "none")
    assert done.returncode == 0, done.stderr
    assert "not verified" in done.stdout
    assert hnswcheck.audit(whole, "deep").verdict == "consistent"


# --- Whose Chroma is asked ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "version"), [("0.4.24-churn-cosine", "0.4.24"), (PYTHON, "0.6.3")]
)
def test_another_python_can_name_the_chroma_that_uses_the_store(
    store: str, version: str, tmp_path: Path
) -> None:
    python = python_of(version)
    report = hnswcheck.repair(without_links(store, tmp_path), chroma_python=python)
    assert (report.verified, report.tried_by) == ("chroma", version)
    assert all(one.tried_by and one.tried_by.is_of_line for one in report.repaired)
    assert report.after is not None
    assert report.after.verdict == "consistent"


@pytest.mark.parametrize("name", [PYTHON, "0.4.24-churn-cosine"])
def test_a_chroma_of_another_line_is_told_from_the_one_that_wrote(
    name: str, tmp_path: Path
) -> None:
    """Here it is 1.5.9 that tries it; near ones, of the line itself, are above."""
    done = run("repair", without_links(name, tmp_path), "--yes", "--verify", "chroma", timeout=120)
    assert done.returncode == 0, done.stderr
    said = unwrapped(done.stdout)
    assert "by Chroma 1.5.9 on a copy" in said
    assert "Chroma 1.5.9 is of another line than the Chroma that wrote the store" in said


def test_what_another_chroma_refuses_is_taken_back(tmp_path: Path) -> None:
    """0.6.3 does not list the collections, whatever their index is like."""
    python = python_of("0.6.3")
    store = without_links("0.6.3-damaged-batch-above-sync", tmp_path)
    before = contents(store)
    with pytest.raises(hnswcheck.RepairFailed, match="batch_size must be less than or equal"):
        hnswcheck.repair(store, chroma_python=python)
    assert contents(store) == before


def test_a_python_without_a_chroma_for_the_store_changes_nothing(
    whole: Path, tmp_path: Path
) -> None:
    before = contents(whole)
    with pytest.raises(hnswcheck.EngineMissing, match="could not be started"):
        hnswcheck.repair(whole, chroma_python=tmp_path / "nowhere")
    with pytest.raises(hnswcheck.EngineMissing, match="is older than the Chroma that wrote"):
        hnswcheck.repair(whole, chroma_python=python_of("0.6.3"))
    assert contents(whole) == before


@pytest.mark.parametrize("verify", ["none", "audit"])
def test_who_names_a_python_asks_chroma(verify: str, whole: Path) -> None:
    with pytest.raises(hnswcheck.UsageError, match="exclude each other"):
        hnswcheck.repair(whole, verify=verify, chroma_python=sys.executable)
    done = run("repair", whole, "--verify", verify, "--chroma-python", sys.executable)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_verification_is_wrong_use(whole: Path) -> None:
    with pytest.raises(hnswcheck.UsageError, match="unknown verification 'twice'"):
        hnswcheck.repair(whole, verify="twice")
    assert run("repair", whole, "--verify", "twice").returncode == 2
