"""The smallest change that is enough: only what is wrong is changed, and the real engine agrees.

Records that are to go, go from everywhere, and only once they are in a file.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import oracle
import pytest
from moving import dump
from stores import NAMES, environment, rest, run, snapshot, unpack

import hnswcheck
from hnswcheck.formats.header import parse_header

pytest.importorskip("hnswlib", reason="an index cannot be built without it")

CUT = r"cut link_lists\.bin behind its last record, at [\d,]+ bytes"
ANEW = r"write the id map anew: [\d,]+ records"
DEAD = r"mark [\d,]+ elements deleted that belong to no record"
VECTOR, METADATA = r"set VECTOR's watermark to \d+", r"set METADATA's watermark to \d+"
ADOPT = r"take the folder [0-9a-f-]+\.drift-20260101-000000"

MENDS = {
    "1.5.9-damaged-links-oversized": [CUT],
    "1.5.9-damaged-links-one-byte-more": [CUT],
    "1.5.9-damaged-watermark-ahead": [VECTOR],
    "1.5.9-damaged-watermark-huge": [VECTOR],
    "1.5.9-damaged-watermark-negative": [VECTOR],
    "1.5.9-damaged-watermark-blob": [VECTOR],
    "1.5.9-damaged-watermark-digits": [VECTOR],
    "1.5.9-damaged-metadata-watermark-huge": [METADATA],
    "1.5.9-damaged-log-emptied": [VECTOR, METADATA],
    "1.5.9-damaged-folder-older-unpurged": [VECTOR],
    "1.5.9-damaged-folder-renamed": [ADOPT, VECTOR],
    "1.5.9-damaged-record-deleted": [ANEW, DEAD, VECTOR],
    "1.5.9-damaged-log-lost-a-deletion": [ANEW, DEAD, VECTOR],
    "1.5.9-damaged-id-map-not-inverse": [ANEW, DEAD],
    "1.5.9-damaged-id-map-without-stop": [ANEW, DEAD],
    "1.5.9-damaged-total-too-small": [ANEW],
    "1.5.9-damaged-tombstone-cleared": [ANEW, DEAD, VECTOR],
    "1.5.9-interrupted-flush-of-deletions": [ANEW, DEAD],
    "1.5.9-interrupted-flush-of-added-and-deleted": [ANEW, DEAD],
    "0.6.3-damaged-watermark-huge": [VECTOR],
    "0.6.3-damaged-record-deleted": [ANEW, DEAD, VECTOR],
}
#: Nearly one of those: something besides is wrong, and only a new index helps.
REBUILT = (
    "1.5.9-damaged-header-stride",
    "1.5.9-damaged-link-to-count",
    "1.5.9-damaged-links-cut",
    "1.5.9-damaged-interrupted-and-cut",
)
#: There is no folder, or nothing that Chroma would read in it.
NOTHING_LEFT = (
    "1.5.9-damaged-folder-deleted",
    "1.5.9-damaged-folder-deleted-unflushed",
    "1.5.9-damaged-folder-emptied",
    "1.5.9-damaged-id-map-deleted",
)
LOSSY = "1.5.9-damaged-folder-older"  # 34 of 88 vectors are nowhere
ALL_GRADES = ("unconfirmed", "outdated", "suspect")


@pytest.fixture(scope="module")
def judge(chroma: object) -> Iterator[oracle.Oracle]:
    with contextlib.closing(oracle.Oracle(sys.executable)) as found:
        yield found


def assert_content(judge: oracle.Oracle, store: Path) -> None:
    """The engine reads and writes it; searches may pass a record by, as in any HNSW index."""
    for subject in oracle.subjects(store):
        found = judge.judge(store, subject, phases=oracle.PHASES[:2])
        assert {problem.kind for problem in found.problems} <= {oracle.Kind.UNFOUND}, found
        assert not found.broken, found


def contents(root: Path) -> dict[str, bytes]:
    """Every file but sqlite's."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("chroma.sqlite3")
    }


def vectors(folder: Path) -> bytes:
    """data_level0.bin without the delete marks."""
    found = folder / "data_level0.bin"
    header = parse_header((folder / "header.bin").read_bytes())
    data = bytearray(found.read_bytes())
    data[2 :: header.stride] = bytes(len(range(2, len(data), header.stride)))
    return bytes(data)


@pytest.mark.parametrize("name", MENDS)
def test_no_more_is_changed_than_is_wrong(name: str, tmp_path: Path, judge: oracle.Oracle) -> None:
    store = rest(unpack(name, tmp_path))
    (segment,) = hnswcheck.repair(store, dry_run=True).planned
    steps = list(segment.steps())
    assert len(steps) == len(MENDS[name])
    assert all(map(re.fullmatch, MENDS[name], steps)), steps
    folders = {folder: snapshot(folder) for folder in store.iterdir() if folder.is_dir()}
    (folder,) = folders
    before = vectors(folder)

    report = hnswcheck.repair(store)

    assert report.after is not None
    assert report.after.verdict in ("consistent", "lagging")
    assert hnswcheck.audit(store, "deep").exit_code() == 0
    (replaced,) = (segment.replaced for segment in report.repaired)
    assert replaced is not None
    own = store / segment.segment
    assert vectors(own) == before
    if folder != own:  # it was taken over, and stays what it was
        assert snapshot(folder) == folders[folder]
    if steps[0].startswith("set"):
        assert contents(own) == contents(store / replaced)
    assert_content(judge, store)


@pytest.mark.parametrize("name", REBUILT)
def test_what_no_mend_can_cure_is_built_anew(name: str, tmp_path: Path) -> None:
    store = rest(unpack(name, tmp_path))
    (segment,) = hnswcheck.repair(store, dry_run=True).planned
    assert [step.split(":")[0] for step in segment.steps()] == ["build a new index"]


def test_a_mend_that_is_not_enough_gives_way_to_a_new_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = rest(unpack("1.5.9-damaged-record-deleted", tmp_path))
    answers = iter(["1 made-up"])
    monkeypatch.setattr("hnswcheck.repairing.swap._problem", lambda *_: next(answers, ""))
    (segment,) = hnswcheck.repair(store).repaired
    assert segment.plan.patch is None
    assert len(list(store.glob("*.quarantined-*.json"))) == 1
    assert hnswcheck.audit(store, "deep").verdict == "consistent"


@pytest.mark.parametrize("name", [*MENDS, *REBUILT, *NOTHING_LEFT])
def test_what_a_repair_replaced_can_be_put_back(name: str, tmp_path: Path) -> None:
    store = rest(unpack(name, tmp_path))
    before, rows = contents(store), dump(store)
    (segment,) = hnswcheck.repair(store, leave_unindexed=True, verify="none").repaired
    assert segment.replaced is not None
    done = hnswcheck.restore(store, segment.replaced)
    assert done.displaced is not None
    again = contents(store)
    assert {n: data for n, data in again.items() if done.displaced not in n} == before
    if METADATA not in MENDS.get(name, ()):  # that of the records stays right
        assert dump(store) == rows


# --- Records that go -----------------------------------------------------------------------------

TABLES = {"embedding_metadata": "id", "embedding_metadata_array": "id"}


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    """Every record has a document, as long as its rowid, that can be searched."""
    store = rest(unpack(LOSSY, tmp_path))
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database, database:
        database.execute(
            "INSERT OR REPLACE INTO embedding_metadata (id, key, string_value)"
            " SELECT id, 'chroma:document', printf('%.*c', id, 'x') FROM embeddings"
        )
        database.execute("DELETE FROM embedding_fulltext_search")
        database.execute(
            "INSERT INTO embedding_fulltext_search (rowid, string_value)"
            " SELECT id, printf('%.*c', id, 'x') FROM embeddings"
        )
    return rest(store)


def rowids(store: Path, query: str) -> set[int]:
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        return {rowid for (rowid,) in database.execute(query)}


def test_records_go_from_every_table_and_are_in_a_file(lossy: Path, judge: oracle.Oracle) -> None:
    records = rowids(lossy, "SELECT id FROM embeddings")
    report = hnswcheck.repair(lossy, accept=ALL_GRADES, drop_records=True)
    assert report.after is not None
    assert report.after.verdict == "consistent"
    (segment,) = report.repaired
    assert segment.exported is not None
    lines = [json.loads(line) for line in (lossy / segment.exported).read_text().splitlines()]
    assert len(lines) == len(segment.fates.drop) == 34
    assert {line["grade"] for line in lines} == {"lost"}
    gone = {len(line["document"]) for line in lines}  # a document is as long as its rowid
    assert rowids(lossy, "SELECT id FROM embeddings") == records - gone
    for table, column in TABLES.items():
        assert rowids(lossy, f"SELECT {column} FROM {table}") <= records - gone
    assert rowids(lossy, "SELECT rowid FROM embedding_fulltext_search") == records - gone
    assert {record.id for record in segment.records() if record.grade == "lost"} == {
        line["id"] for line in lines
    }
    assert_content(judge, lossy)


def test_a_plan_lists_what_would_go_and_deletes_nothing(lossy: Path) -> None:
    before = snapshot(lossy)
    done = run("repair", lossy, "--accept", "suspect", "--accept", "unconfirmed", "--accept",
               "outdated", "--drop-records", "--plan")  # fmt: skip
    assert "delete 34 records after writing them to a file" in done.stdout
    assert snapshot(lossy) == before


def test_records_stay_if_the_index_turns_out_wrong(
    lossy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: trace.content for name, trace in snapshot(lossy).items()}
    records = rowids(lossy, "SELECT id FROM embeddings")
    monkeypatch.setattr("hnswcheck.repairing.swap._problem", lambda *_: "1 made-up")
    with pytest.raises(hnswcheck.RepairFailed, match="made-up"):
        hnswcheck.repair(lossy, accept=ALL_GRADES, drop_records=True)
    after = {name: trace.content for name, trace in snapshot(lossy).items()}
    assert {k: v for k, v in after.items() if k != "chroma.sqlite3"} == {
        k: v for k, v in before.items() if k != "chroma.sqlite3"
    }
    assert rowids(lossy, "SELECT id FROM embeddings") == records


#: Kills itself when the file with the records that go gets its name, or just before.
KILLED = """
import os, signal, sys
from pathlib import Path
import hnswcheck

def rename(self, target):
    if sys.argv[2] == "before" and ".dropped-" in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    renamed(self, target)
    if ".dropped-" in str(target):
        os.kill(os.getpid(), signal.SIGKILL)

renamed, Path.rename = Path.rename, rename
grades = ("unconfirmed", "outdated", "suspect")
hnswcheck.repair(sys.argv[1], accept=grades, drop_records=True, verify="audit")
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_leaves_all_records_or_the_next_command_deletes_them(when: str, lossy: Path) -> None:
    """They go only from an index that was found right, and only once they are in their file."""
    records = rowids(lossy, "SELECT id FROM embeddings")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(lossy), when], env=environment(), check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert rowids(lossy, "SELECT id FROM embeddings") == records
    (shown,) = hnswcheck.audit(lossy).stores
    assert "action-unfinished" in {found.id for found in shown.findings}
    said = run("repair", lossy, "--plan").stdout
    assert "An earlier action was stopped half way" in said
    with pytest.raises(hnswcheck.UsageError):
        hnswcheck.restore(lossy, "nothing")  # any command finishes it, or takes it back
    left = rowids(lossy, "SELECT id FROM embeddings")
    files = list(lossy.glob("*.dropped-*.jsonl"))
    assert list(lossy.glob("*.rebuilt-*")) == []
    if when == "before":
        assert (left, files) == (records, [])
    else:
        assert len(records - left) == len(files[0].read_text().splitlines()) == 34
        assert hnswcheck.audit(lossy).verdict == "consistent"


def test_an_index_that_is_not_verified_costs_no_record(
    lossy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    records = rowids(lossy, "SELECT id FROM embeddings")
    with monkeypatch.context() as patched:
        patched.setattr("hnswcheck.repairing.swap._problem", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hnswcheck.repair(lossy, accept=ALL_GRADES, drop_records=True, verify="audit")
    with pytest.raises(hnswcheck.UsageError):
        hnswcheck.restore(lossy, "nothing")
    assert rowids(lossy, "SELECT id FROM embeddings") == records


def test_a_collection_never_goes_whole(tmp_path: Path) -> None:
    store = rest(unpack("1.5.9-damaged-folders-exchanged", tmp_path))
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database, database:
        database.execute("DELETE FROM embeddings_queue WHERE seq_id < (SELECT max(seq_id) FROM"
                         " embeddings_queue)")  # fmt: skip
    rest(store)
    with pytest.raises(hnswcheck.RepairRefused, match="no record would be left"):
        hnswcheck.repair(store, drop_records=True)


def test_records_either_stay_or_go(lossy: Path) -> None:
    with pytest.raises(hnswcheck.UsageError, match="exclude each other"):
        hnswcheck.repair(lossy, drop_records=True, leave_unindexed=True)


@pytest.mark.parametrize("name", [n for n in NAMES if "-log-emptied-then-" in n])
def test_writes_after_a_log_was_emptied_come_back_in_every_line(name: str, tmp_path: Path) -> None:
    """A watermark that would mean all of the log is none that 0.x has."""
    store = rest(unpack(name, tmp_path))
    repaired = hnswcheck.repair(store, accept=["unconfirmed"], verify="audit").repaired
    assert repaired
    (audited,) = hnswcheck.audit(store, "deep").stores
    assert not [found.id for found in audited.all_findings if found.severity == "error"]
