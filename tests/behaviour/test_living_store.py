"""While Chroma writes, the answer is right or store-changed, never a false alarm; and no write
fails because of an audit.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from stores import LAGGING, WAL_MODES, environment, run, unpack

import hnswcheck
from hnswcheck import Report
from hnswcheck.store import database

SECONDS_BESIDE_A_WRITER = 8.0
SECONDS_BESIDE_A_PAUSED_WRITER = 5.0
AUDITORS = 4
KILLS = 4
SEED = 20_250_101

#: Flushes after every few operations, in several collections at once. Ends when its stdin does;
#: then says how many records each collection must have.
WRITER = """
import itertools, json, random, sys, threading, time
import chromadb

path, seed = sys.argv[1], int(sys.argv[2])
client = chromadb.PersistentClient(path, chromadb.Settings(anonymized_telemetry=False))
stop, failed, expected, done = threading.Event(), [], {}, [0]


def collection(name):
    settings = {"hnsw:sync_threshold": 12, "hnsw:batch_size": 4}
    return client.get_or_create_collection(name, metadata=settings, embedding_function=None)


def vectors(draw, count):
    return [[draw.uniform(-1, 1) for _ in range(8)] for _ in range(count)]


def write(name, longest_pause):
    draw, numbers = random.Random(f"{seed}/{name}"), itertools.count()
    target = collection(name)
    live = set(target.get(include=[])["ids"])
    fresh = f"{name}-{draw.getrandbits(60):x}"
    while not stop.is_set():
        operation = draw.choice(["add", "add", "upsert", "update", "delete"])
        some = draw.sample(sorted(live), min(len(live), draw.randint(1, 5)))
        new = [f"{fresh}-{next(numbers)}" for _ in range(draw.randint(1, 9))]
        if operation == "add":
            target.add(ids=new, embeddings=vectors(draw, len(new)))
            live.update(new)
        elif operation == "upsert":
            target.upsert(ids=new + some, embeddings=vectors(draw, len(new + some)))
            live.update(new)
        elif some and operation == "update":
            target.update(ids=some, embeddings=vectors(draw, len(some)))
        elif some:
            target.delete(ids=some)
            live.difference_update(some)
        done[0] += 1
        time.sleep(longest_pause * draw.random() ** 3)
    expected[name] = len(live)


def come_and_go():
    for number in itertools.count():
        if stop.is_set():
            return
        target = collection(f"passing-{number}")
        for part in range(5):
            ids = [f"{part}-{i}" for i in range(7)]
            target.add(ids=ids, embeddings=vectors(random, len(ids)))
        client.delete_collection(f"passing-{number}")
        done[0] += 1


def guarded(work, *arguments):
    try:
        work(*arguments)
    except BaseException as error:
        failed.append(f"{work.__name__}{arguments}: {error!r}")
        raise


jobs = [(write, "hurried", 0), (write, "steady", 0.1), (write, "slow", 1.0)]
if sys.argv[3] == "come-and-go":
    jobs.append((come_and_go,))
threads = [threading.Thread(target=guarded, args=job, daemon=True) for job in jobs]
for thread in threads:
    thread.start()
print("writing", flush=True)
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps({"failed": failed, "expected": expected, "done": done[0]}), flush=True)
"""


@contextlib.contextmanager
def writer(
    store: Path, seed: int = SEED, *, steady: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A process that writes to ``store`` until its stdin is closed."""
    mode = "steady" if steady else "come-and-go"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store), str(seed), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def finished(process: subprocess.Popen[str]) -> dict[str, int]:
    """How many records each collection has, once the writer has ended; no write failed."""
    out, _ = process.communicate("", timeout=60)
    result = json.loads(out)
    assert result["failed"] == []
    assert process.returncode == 0
    assert result["done"] > 0
    expected: dict[str, int] = result["expected"]
    return expected


def timeless(report: Report) -> Report:
    return replace(report, stores=tuple(replace(s, elapsed_seconds=0.0) for s in report.stores))


def errors_in(report: Report) -> list[object]:
    """What is wrong, without the rest."""
    wrong = [f for store in report.stores for f in store.findings]
    bad = [
        s for store in report.stores for s in store.segments if {f.id for f in s.findings} - {"lag"}
    ]
    return [*wrong, *bad]


def assert_sound(store: Path, expected: dict[str, int]) -> None:
    (found,) = hnswcheck.audit(store).stores
    assert found.verdict == "consistent"
    assert {f.id for f in found.all_findings} <= {"lag", "segment-folder-unclaimed"}
    records = {s.collection.name: s.ledger.records for s in found.segments}
    assert {name: records[name] for name in expected} == expected


@pytest.mark.usefixtures("chroma")
def test_audits_beside_a_writer_are_right_or_undecided_and_no_write_fails(tmp_path: Path) -> None:
    store = tmp_path / "store"
    seen: Counter[str] = Counter()

    def audit_until(end: float) -> None:
        for level in itertools.cycle(("probe", "standard")):
            if time.monotonic() > end:
                return
            seen.update(f"{level}: {what}" for what in undeniable(store, level))

    with writer(store) as process, ThreadPoolExecutor(AUDITORS) as pool:
        end = time.monotonic() + SECONDS_BESIDE_A_WRITER
        for auditor in [pool.submit(audit_until, end) for _ in range(AUDITORS)]:
            auditor.result()
        expected = finished(process)
    print(dict(seen))
    assert_sound(store, expected)
    # Something was decided, so "undecided" is no way out.
    assert seen["standard: consistent"] + seen["standard: lagging"] > 10


def undeniable(store: Path, level: str) -> Iterator[str]:
    """The status of each collection, none of which may be a false alarm."""
    try:
        report = hnswcheck.audit(store, level)
    except (hnswcheck.StoreChanged, hnswcheck.SqliteBusy) as error:
        yield type(error).__name__
        return
    assert report.verdict != "damaged", errors_in(report)
    (found,) = report.stores
    passing = {"segment-folder-unclaimed", "store-changed", "sqlite-busy"}
    assert {finding.id for finding in found.findings} <= passing, errors_in(report)
    for segment in found.segments:
        ids = {finding.id for finding in segment.findings}
        if segment.status == "undecided":
            assert ids == {"store-changed"}, segment
        else:
            assert segment.status in ("consistent", "lagging", "empty"), segment
            assert ids <= {"lag"}, segment
        yield segment.status


@pytest.mark.usefixtures("chroma")
def test_a_writer_that_is_paused_anywhere_does_not_upset_an_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)  # a stopped writer keeps its locks
    draw = random.Random(SEED)
    seen: Counter[str] = Counter()
    store = tmp_path / "store"
    with writer(store, steady=True) as process:
        until = time.monotonic() + SECONDS_BESIDE_A_PAUSED_WRITER
        while time.monotonic() < until:
            time.sleep(draw.uniform(0.0, 0.1))
            process.send_signal(signal.SIGSTOP)
            try:
                report = hnswcheck.audit(store)
            except (hnswcheck.StoreChanged, hnswcheck.SqliteBusy) as error:
                seen[type(error).__name__] += 1
                continue
            finally:
                process.send_signal(signal.SIGCONT)
            ids = sorted({found.id for found in report.findings} - {"lag"})
            seen[f"{report.verdict} {' '.join(ids)}"] += 1
        expected = finished(process)
    print(dict(seen))
    assert_sound(store, expected)


@pytest.mark.usefixtures("chroma")
def test_a_killed_writer_leaves_a_store_of_which_every_audit_says_the_same(tmp_path: Path) -> None:
    def audited(trial: int) -> str:
        store = tmp_path / f"store-{trial}"
        with writer(store, SEED + trial, steady=True) as process:
            time.sleep(random.Random(SEED + trial).uniform(0.3, 1.5))
            process.kill()
            process.wait()
        first, second = hnswcheck.audit(store), hnswcheck.audit(store)
        assert timeless(first) == timeless(second)
        (found,) = first.stores
        assert found.complete, errors_in(first)
        for segment in found.segments:
            if any(one.id == "id-map-truncated" for one in segment.findings):
                # Killed between truncating the id map and writing it: nobody can tell its ids.
                assert segment.ledger.missing is segment.ledger.phantom is None, segment
                assert not segment.recoverable.lost, segment
                continue
            # No record is lost by a kill: 2-behaviour.md, faults that happen by themselves.
            assert segment.ledger.missing == segment.ledger.phantom == 0, segment
            assert segment.recoverable.lost == 0, segment
        return f"{first.verdict} {sorted({one.id for one in first.findings} - {'lag'})}"

    with ThreadPoolExecutor(KILLS) as pool:
        print(Counter(pool.map(audited, range(KILLS))))


# --- Stores that never stand still ---------------------------------------------------------------

REWRITER = """
import itertools, sys, time
from pathlib import Path
path = Path(sys.argv[1])
content = path.read_bytes()
with path.open("r+b") as file:
    print("writing", flush=True)
    for _ in itertools.count():
        file.seek(0)
        file.write(content)
        file.flush()
        time.sleep(0.002)
"""
COMMITTER = """
import itertools, sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for number in itertools.count():
    database.execute(f"PRAGMA user_version = {number % 1000}")
    if not number:
        print("writing", flush=True)
    time.sleep(0.02)
"""


@contextlib.contextmanager
def changing(script: str, path: Path) -> Iterator[None]:
    """A process that changes a file without a pause."""
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        try:
            yield
        finally:
            process.kill()


def test_a_store_that_never_stands_still_is_undecided_in_bounded_time(tmp_path: Path) -> None:
    cases = [
        (LAGGING, REWRITER, "*/header.bin", "probe"),
        (LAGGING, REWRITER, "*/index_metadata.pickle", "standard"),
        (WAL_MODES[0], COMMITTER, "chroma.sqlite3", "standard"),
    ]

    def audited(number: int) -> subprocess.CompletedProcess[str]:
        name, script, pattern, level = cases[number]
        store = unpack(name, tmp_path / str(number))
        (path,) = store.glob(pattern)
        with changing(script, path):
            return run("audit", store, "--level", level, "--format", "json")

    with ThreadPoolExecutor() as pool:
        for done in pool.map(audited, range(len(cases))):
            assert done.returncode == 3, done.args
            (found,) = json.loads(done.stdout)["stores"]
            assert (found["verdict"], found["complete"]) == ("undecided", False)
            ids = [f["id"] for part in (found, *found["segments"]) for f in part["findings"]]
            assert ids == ["store-changed"]
            assert len(done.stderr.splitlines()) <= 1


def test_commits_alone_do_not_keep_a_segment_undecided(tmp_path: Path) -> None:
    store = unpack(LAGGING, tmp_path)
    usual = hnswcheck.audit(store)
    with changing(COMMITTER, store / "chroma.sqlite3"):
        assert timeless(hnswcheck.audit(store)) == timeless(usual)


# --- Within the process of a writer --------------------------------------------------------------


def locks_of_this_process(path: Path) -> list[str]:
    """What the kernel knows of our locks on a file: kind, first and last byte."""
    inode, process = f":{path.stat().st_ino}", str(os.getpid())
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [" ".join(r[3:4] + r[6:]) for r in rows if r[4] == process and r[5].endswith(inode)]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="no /proc/locks here")
@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN"])
def test_an_audit_keeps_the_locks_of_its_own_process(begin: str, tmp_path: Path) -> None:
    """Closing any descriptor of a file drops all locks that the process has on it."""
    store = unpack(LAGGING, tmp_path)
    path = store / "chroma.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(begin)
        database.execute("SELECT count(*) FROM collections").fetchall()
        held = locks_of_this_process(path)
        assert held
        for level in ("probe", "standard"):
            hnswcheck.audit(store, level)
            assert locks_of_this_process(path) == held


#: chromadb 1.x brings an sqlite of its own; what that locks, Python's sqlite knows nothing of.
IN_THE_CLIENTS_PROCESS = """
import fcntl, os, sys
import chromadb_rust_bindings, hnswcheck

store = sys.argv[1]
path = os.path.join(store, "chroma.sqlite3")
descriptor = os.open(path, os.O_RDWR)
fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 4096)


def held():
    inode = f":{os.stat(path).st_ino}"
    rows = [line.split() for line in open("/proc/locks")]
    return any(r[4] == str(os.getpid()) and r[5].endswith(inode) and r[6] == "4096" for r in rows)


assert held()
for level in ("probe", "standard"):
    try:
        print(level, hnswcheck.audit(store, level).verdict)
    except hnswcheck.HnswcheckError as error:
        print(level, error)
    print(level, "held" if held() else "dropped")
"""


def test_an_audit_apart_says_and_raises_the_same(tmp_path: Path) -> None:
    store = unpack(LAGGING, tmp_path)
    seen: list[tuple[int, int, str]] = []
    usual = hnswcheck.audit(store, all_ids=True)
    with (store / "chroma.sqlite3").open("rb"):
        other = hnswcheck.audit(store, all_ids=True, progress=lambda *told: seen.append(told))
        with pytest.raises(hnswcheck.UsageError, match="the store has no collection 'nowhere'"):
            hnswcheck.audit(store, collections=["nowhere"])
    assert timeless(other) == timeless(usual)
    done, total, _ = seen[-1]
    assert done == total > 0


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false"])
def test_an_audit_apart_without_a_python_is_undecided(
    executable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: executable)
    store = unpack(LAGGING, tmp_path)
    with (
        (store / "chroma.sqlite3").open("rb"),
        pytest.raises(hnswcheck.StoreUnreadable, match="in another process failed"),
    ):
        hnswcheck.audit(store)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="no /proc/locks here")
@pytest.mark.usefixtures("chroma")
def test_an_audit_keeps_the_locks_of_a_client_in_its_process(tmp_path: Path) -> None:
    pytest.importorskip("chromadb_rust_bindings")
    store = unpack(LAGGING, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_CLIENTS_PROCESS, str(store)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.endswith("dropped")] == []
