"""Every vector that still exists comes back, none is passed off as better than it is, and what
cannot be done leaves the store as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import oracle
import pytest
from environments import python_of
from stores import (
    environment,
    expectation,
    rest,
    run,
    segment_folders,
    snapshot,
    unpack,
)

import hnswcheck
from hnswcheck.repairing.embedder import Embed

pytest.importorskip("hnswlib", reason="an index cannot be built without it")

#: All vectors are still there, in one place or another.
WHOLE = (
    "1.5.9-damaged-header-zeroed",
    "1.5.9-damaged-header-deleted",
    "1.5.9-damaged-links-garbage",
    "1.5.9-damaged-links-deleted",
    "1.5.9-damaged-entry-point-none",
    "1.5.9-damaged-count-huge",
)
LOSSY = "1.5.9-damaged-folder-older"  # 35 missing, 34 of them nowhere


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != "chroma.sqlite3"
    }


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    return rest(unpack(LOSSY, tmp_path))


@pytest.fixture
def documented(lossy: Path) -> Path:
    """The same with a document for each record, as long as its rowid."""
    with contextlib.closing(sqlite3.connect(lossy / "chroma.sqlite3")) as database, database:
        database.execute(
            "INSERT OR REPLACE INTO embedding_metadata (id, key, string_value)"
            " SELECT id, 'chroma:document', printf('%.*c', id, 'x') FROM embeddings"
        )
    return rest(lossy)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return rest(unpack(WHOLE[0], tmp_path))


# --- What is all there ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_all_there_comes_back_without_a_flag(name: str, tmp_path: Path) -> None:
    store = rest(unpack(name, tmp_path))
    records = expectation(name)["collections"]["default_tenant/default_database/docs"]["ledger"]
    report = hnswcheck.repair(store)
    (segment,) = report.segments
    assert segment.grades == {"proven": len(list(segment.records()))}
    assert report.after is not None
    assert report.after.verdict == "consistent"
    assert hnswcheck.audit(store, "deep").verdict == "consistent"
    assert records["records"] <= len(list(segment.records())) + 10


def test_an_id_map_is_believed_to_be_as_long_as_it_is_though_the_header_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hnswcheck.store.segment.ID_MAP_BYTES_FIXED", 100)
    store = rest(unpack("1.5.9-damaged-header-zeroed", tmp_path))
    (audited,) = hnswcheck.audit(store).stores[0].segments
    assert audited.error_ids == ("header-invalid",)
    (segment,) = hnswcheck.repair(store, dry_run=True).segments
    assert set(segment.grades) == {"proven"}


# --- What has no proven vector -------------------------------------------------------------------


def test_without_a_choice_nothing_is_changed_and_every_record_is_listed(lossy: Path) -> None:
    before = snapshot(lossy)
    plan = hnswcheck.repair(lossy, dry_run=True)
    with pytest.raises(hnswcheck.RepairRefused, match="records have no proven vector"):
        hnswcheck.repair(lossy)
    assert snapshot(lossy) == before
    (segment,) = plan.segments
    listed = list(segment.records())
    assert len(listed) == 88
    assert sum(record.grade == "lost" for record in listed) == 34
    assert {record.source for record in listed if record.grade == "lost"} == {"nowhere"}
    assert segment.grades["lost"] == 34


def test_what_the_log_would_bring_back_is_not_repaired_away(tmp_path: Path) -> None:
    store = rest(unpack("1.5.9-damaged-records-all-deleted", tmp_path))
    before = snapshot(store)
    with pytest.raises(hnswcheck.RepairRefused, match="the log would bring back 1 records"):
        hnswcheck.repair(store)
    assert snapshot(store) == before


def test_records_may_be_left_and_are_then_all_that_is_missing(lossy: Path) -> None:
    accept = ("unconfirmed", "outdated", "suspect")
    report = hnswcheck.repair(lossy, accept=accept, leave_unindexed=True)
    assert report.after is not None
    (found,) = report.after.stores[0].segments
    errors = {f.id: f.count for f in found.findings if f.severity == "error"}
    assert errors == {"records-missing": 34}
    assert [len(segment.fates.leave) for segment in report.repaired] == [34]


def test_documents_are_embedded_again_where_no_vector_is(documented: Path) -> None:
    asked: list[str] = []

    def embed(documents: list[str]) -> Sequence[Sequence[float]]:
        asked.extend(documents)
        return [[float(len(document)), *([0.25] * 7)] for document in documents]

    report = hnswcheck.repair(documented, embed=embed)
    (segment,) = report.repaired
    assert len(asked) == len(segment.fates.embed) > 33
    assert report.after is not None
    assert report.after.verdict == "consistent"
    sources = [record.source for record in segment.records()]
    assert sources.count("embedded") == len(asked)


def failing(documents: list[str]) -> Sequence[Sequence[float]]:
    raise ValueError("no such model")


def too_short(documents: list[str]) -> Sequence[Sequence[float]]:
    return [[1.0]] * len(documents)


def not_finite(documents: list[str]) -> Sequence[Sequence[float]]:
    return [[float("nan")] * 8] * len(documents)


@pytest.mark.parametrize(
    ("embed", "says"),
    [(failing, "no such model"), (too_short, "8 dimensions"), (not_finite, "not finite")],
)
def test_an_embedding_function_that_fails_leaves_the_store_as_it_was(
    embed: Embed, says: str, documented: Path
) -> None:
    before = snapshot(documented)
    with pytest.raises(hnswcheck.HnswcheckError, match=says) as raised:
        hnswcheck.repair(documented, embed=embed)
    assert "\n" not in str(raised.value)
    after = snapshot(documented)
    assert {name: trace.content for name, trace in after.items()} == {
        name: trace.content for name, trace in before.items()
    }


def test_an_unknown_grade_is_wrong_use(lossy: Path) -> None:
    with pytest.raises(hnswcheck.UsageError, match="unknown grade 'lost'"):
        hnswcheck.repair(lossy, accept=["lost"])


# --- Rows of the log that nobody can read --------------------------------------------------------

#: What is left of the one record that the row wrote.
UNREADABLE = {
    "1.5.9-damaged-log-metadata-torn": "proven",  # its vector can be read
    "1.5.9-damaged-log-time-unknown": "proven",
    "1.5.9-damaged-log-operation-unknown": "outdated",
    "1.5.9-damaged-log-encoding-unknown": "lost",
    "1.5.9-damaged-log-vector-missing": "lost",
    "1.5.9-damaged-log-vector-odd": "lost",
    "1.5.9-damaged-log-vector-short": "lost",
}


@pytest.mark.usefixtures("chroma")
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_row_that_cannot_be_read_costs_no_other_record_its_vector(
    name: str, tmp_path: Path
) -> None:
    store, grade = rest(unpack(name, tmp_path)), UNREADABLE[name]
    report = hnswcheck.repair(store, leave_unindexed=True)
    (segment,) = report.repaired
    assert report.verified == "chroma"
    assert segment.grades == Counter({"proven": 87}) + Counter([grade])
    assert "pass over 1 unreadable rows of the log" in segment.plan.steps()
    assert report.after is not None
    (after,) = report.after.stores[0].segments
    missing = [] if grade == "proven" else [("records-missing", 1)]
    assert [(found.id, found.count) for found in after.findings] == missing


def test_an_old_row_that_cannot_be_read_is_in_nobodys_way(tmp_path: Path) -> None:
    store = unpack("1.5.9-damaged-log-applied-vector-odd", tmp_path)
    (folder,) = segment_folders(store)
    (folder / "header.bin").write_bytes(bytes(100))
    (segment,) = hnswcheck.repair(rest(store)).segments
    assert segment.grades == {"proven": 88}
    assert hnswcheck.audit(store, "deep").exit_code() == 0


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("1.5.9-damaged-dimension-changed", "9 dimensions, but the WAL has vectors of other"),
        ("1.5.9-damaged-dimension-gone", "sqlite has no dimension for the collection"),
    ],
)
def test_where_sqlite_has_another_dimension_nothing_is_called_lost(
    name: str, line: str, tmp_path: Path
) -> None:
    store = rest(unpack(name, tmp_path))
    before = snapshot(store)
    with pytest.raises(hnswcheck.RepairRefused, match=line):
        hnswcheck.repair(store, leave_unindexed=True)
    assert snapshot(store) == before


# --- Safe ----------------------------------------------------------------------------------------


def test_a_sound_store_is_left_alone(tmp_path: Path) -> None:
    store = rest(unpack("1.5.9-churn-l2", tmp_path))
    before = snapshot(store)
    report = hnswcheck.repair(store)
    assert report.segments == ()
    assert snapshot(store) == before


def test_what_is_not_consistent_afterwards_is_taken_back(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(whole)
    monkeypatch.setattr("hnswcheck.repairing.swap._problem", lambda *_: "1 made-up")
    with pytest.raises(hnswcheck.RepairFailed, match="made-up"):
        hnswcheck.repair(whole)
    assert contents(whole) == before
    assert hnswcheck.audit(whole).verdict == "damaged"


def test_without_room_nothing_is_begun(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(whole)
    monkeypatch.setattr("hnswcheck.repairing.prepare.free_bytes", lambda _: 1000)
    with pytest.raises(hnswcheck.RepairRefused, match="1,000 are free"):
        hnswcheck.repair(whole)
    assert snapshot(whole) == before


def test_without_hnswlib_one_line_says_what_to_install(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(whole)
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(hnswcheck.EngineMissing):
        hnswcheck.repair(whole)
    assert {n: t.content for n, t in snapshot(whole).items()} == {
        n: t.content for n, t in before.items()
    }


#: Stops for ever once a part of the new index is there.
STOPS = """
import sys, time
import numpy as np
import hnswcheck
from hnswcheck.repairing import prepare as make

def stop(*arguments, **options):
    made(*arguments, **options)
    print("built", flush=True)
    time.sleep(60)

made, make.build_segment = make.build_segment, stop
hnswcheck.repair(sys.argv[1])
"""


def test_a_new_index_that_was_left_behind_by_a_kill_goes(whole: Path) -> None:
    before = contents(whole)
    with subprocess.Popen(
        [sys.executable, "-c", STOPS, str(whole)], stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"built\n"
        os.kill(process.pid, signal.SIGKILL)
    assert len(list(whole.glob("*.rebuilt-*"))) == 1
    assert hnswcheck.audit(whole).verdict == "damaged"
    assert hnswcheck.repair(whole).after is not None
    assert list(whole.glob("*.rebuilt-*")) == []
    assert hnswcheck.audit(whole).verdict == "consistent"
    assert {n: d for n, d in contents(whole).items() if n in before} != {}


# --- What is moved aside helps, too --------------------------------------------------------------


def test_a_folder_that_was_quarantined_gives_back_its_vectors(tmp_path: Path) -> None:
    store = rest(unpack("1.5.9-damaged-links-garbage", tmp_path))
    (fate,) = hnswcheck.quarantine(store, accept_loss=True).segments
    assert fate.after_repair > 50
    rest(store)
    report = hnswcheck.repair(store)
    (segment,) = report.segments
    assert segment.grades == {"proven": 88}
    sources = {record.source for record in segment.records()}
    assert fate.moved_to in sources
    assert hnswcheck.audit(store, "deep").verdict == "consistent"


def test_a_folder_that_others_renamed_gives_back_what_is_proven(tmp_path: Path) -> None:
    store = rest(unpack("1.5.9-damaged-links-garbage", tmp_path))
    (folder,) = segment_folders(store)
    folder.rename(store / f"{folder.name}.drift-20260101-000000")
    plan = hnswcheck.repair(store, dry_run=True)
    (segment,) = plan.segments
    (audited,) = hnswcheck.audit(store).stores[0].segments
    assert audited.recoverable.lost == segment.grades.get("lost", 0)
    assert segment.grades.get("proven", 0) > 0


# --- Export --------------------------------------------------------------------------------------


def test_what_is_left_can_be_taken_elsewhere_without_touching_the_store(
    documented: Path, tmp_path: Path
) -> None:
    before = snapshot(documented)
    done = run("salvage", documented, "--collection", "docs", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lost = "34 lost no file and no readable row of the log holds its vector"
    assert lost in " ".join(done.stdout.split())
    assert snapshot(documented) == before
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    with np.load(tmp_path / "out.npz") as found:
        vectors, grades = found["vectors"], found["grades"]
    assert vectors.shape == (88, 8)
    assert [line["grade"] == "lost" for line in lines] == np.isnan(vectors).any(axis=1).tolist()
    assert [line["grade"] == "proven" for line in lines] == (grades == 5).tolist()
    assert all(set(line["document"]) == {"x"} for line in lines)
    with pytest.raises(hnswcheck.UsageError, match="inside the store"):
        hnswcheck.salvage(documented, "docs", documented / "out")
    with pytest.raises(hnswcheck.UsageError, match="no collection 'nothing'"):
        hnswcheck.salvage(documented, "nothing", tmp_path / "out")


# --- Command line --------------------------------------------------------------------------------


def test_the_command_plans_refuses_repairs_and_says_how_to_undo(lossy: Path) -> None:
    plan = run("repair", lossy, "--plan")
    assert plan.returncode == 1
    assert "34 lost" in plan.stdout
    assert "--leave-unindexed" in plan.stdout
    refused = run("repair", lossy, "--yes")
    assert refused.returncode == 1
    assert "nothing was changed" in refused.stderr
    nobody = run("repair", lossy, "--accept", "unconfirmed", "--accept", "outdated", "--accept",
                 "suspect", "--leave-unindexed")  # fmt: skip
    assert nobody.returncode == 2
    assert "use --yes" in nobody.stderr
    done = run("repair", lossy, "--accept", "unconfirmed", "--accept", "outdated", "--accept",
               "suspect", "--leave-unindexed", "--yes", "--json")  # fmt: skip
    assert done.returncode == 1, done.stderr  # 34 records have no vector still
    report = json.loads(done.stdout)
    assert report["segments"][0]["leave"] == 34
    assert len(report["segments"][0]["records"]) == 88
    assert "undo with: hnswcheck restore" in done.stderr


def test_the_command_takes_a_function_of_the_users(documented: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def embed(texts):\n    return [[0.5] * 8 for _ in texts]\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hnswcheck",
            "repair",
            documented,
            "--embed-with",
            "mine:embed",
            "--yes",
        ],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "embedded again" in done.stdout
    wrong = run("repair", documented, "--embed-with", "nowhere:embed")
    assert wrong.returncode == 2


# --- Every line of Chroma reads and writes what was repaired for it ------------------------------

LINES = [
    f"{version}-churn-{space}"
    for version in ("1.5.9", "1.0.20", "0.6.3", "0.5.23", "0.4.24")
    for space in ("l2", "cosine")
]


@pytest.mark.usefixtures("chroma")
@pytest.mark.parametrize("name", LINES)
def test_chroma_reads_searches_writes_and_flushes_what_was_repaired_for_it(
    name: str, tmp_path: Path
) -> None:
    """In four phases, each in a fresh process: see tests/support/oracle.py."""
    python = python_of(name.split("-", maxsplit=1)[0])
    store = rest(unpack(name, tmp_path))
    for links in store.glob("*/link_lists.bin"):
        links.write_bytes(b"A" * 64)
    rest(store)
    report = hnswcheck.repair(store, verify="audit")
    assert {tuple(segment.grades) for segment in report.segments} == {("proven",)}
    with contextlib.closing(oracle.Oracle(python, time_limit=90)) as judge:
        for judged in judge.judge_store(store):
            assert not judged.broken, judged
            assert {problem.kind for problem in judged.problems} <= {oracle.Kind.UNFOUND}, judged
