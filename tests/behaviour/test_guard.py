"""A guarded block runs on a sound store only, and who broke one hears of it with both reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from stores import DAMAGED, LAGGING, SOUND, environment, rest, segment_folders, snapshot, unpack

import hnswcheck
from hnswcheck import guarding, isolation
from hnswcheck.store import database

#: Damage that counts show, so that every level sees it.
LOSSLESS = "1.5.9-damaged-folder-older-unpurged"


class Own(Exception):
    """What a block raises by itself."""


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return rest(unpack(LAGGING, tmp_path))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return rest(unpack(DAMAGED, tmp_path))


@pytest.fixture
def no_helpers() -> Iterator[None]:
    """Processes that earlier tests left waiting are gone, and so are this test's afterwards."""
    isolation._dismiss()
    yield
    isolation._dismiss()


def break_it(store: Path) -> None:
    (folder,) = segment_folders(store)
    (folder / "header.bin").unlink()


def break_it_and(
    store: Path, error: type[BaseException], harm: Callable[[Path], None] = break_it
) -> None:
    harm(store)
    raise error


def mend_it(store: Path, kept: Path) -> None:
    (folder,) = segment_folders(kept)
    shutil.copy2(folder / "header.bin", store / folder.name)


# --- ensure_consistent ---------------------------------------------------------------------------


@pytest.mark.parametrize("level", list(hnswcheck.Level))
def test_a_sound_store_passes_with_its_report_and_is_not_touched(
    level: hnswcheck.Level, sound: Path
) -> None:
    before = snapshot(sound)
    report = hnswcheck.ensure_consistent(sound, level)
    assert report.verdict == "consistent"
    assert report.stores[0].level == level
    assert snapshot(sound) == before


def test_a_damaged_store_raises_with_the_report_in_one_line(damaged: Path) -> None:
    with pytest.raises(hnswcheck.StoreDamaged) as raised:
        hnswcheck.ensure_consistent(str(damaged))
    assert raised.value.report.verdict == "damaged"
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith(f"{damaged}: damaged: docs is diverged (35 records-missing")
    assert raised.value.exit_code == 1


def test_only_the_collections_asked_for_count(damaged: Path) -> None:
    with sqlite3.connect(damaged / "chroma.sqlite3") as connection:
        connection.execute("UPDATE collections SET name = 'docs'")
    connection.close()
    with pytest.raises(hnswcheck.UsageError, match="no collection 'others'"):
        hnswcheck.ensure_consistent(damaged, collections=["others"])
    with pytest.raises(hnswcheck.StoreDamaged):
        hnswcheck.ensure_consistent(damaged, collections=["docs"])


def test_what_cannot_be_judged_is_undecided_and_says_why(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(sound / "chroma.sqlite3")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(hnswcheck.StoreUndecided, match="sqlite-busy") as raised:
            hnswcheck.ensure_consistent(sound)
    assert [f.id for f in raised.value.report.findings] == ["sqlite-busy"]
    assert raised.value.exit_code == 3


def test_damage_of_sqlite_is_damage(sound: Path) -> None:
    (sound / "chroma.sqlite3").write_bytes(b"no database at all")
    with pytest.raises(hnswcheck.StoreDamaged, match="sqlite-damaged"):
        hnswcheck.ensure_consistent(sound)


@pytest.mark.parametrize(
    ("store", "error"),
    [
        ("nowhere", hnswcheck.StoreNotFound),
        (".", hnswcheck.NotAChromaStore),
        (42, hnswcheck.UsageError),
    ],
)
def test_no_store_is_wrong_use(
    store: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        hnswcheck.ensure_consistent(store)


def test_an_unknown_level_is_wrong_use(sound: Path) -> None:
    with pytest.raises(hnswcheck.UsageError, match="unknown level 'fast'"):
        hnswcheck.ensure_consistent(sound, "fast")


# --- Clients, and the process that reads for them ------------------------------------------------

#: A client lives in this process: its locks must stay, and every call must see the disk anew.
BESIDE_A_CLIENT = """
import json, os, sys
from pathlib import Path
import chromadb, hnswcheck
from hnswcheck import isolation

path = sys.argv[1]
client = chromadb.PersistentClient(path, chromadb.Settings(anonymized_telemetry=False))
docs = client.get_collection("docs", embedding_function=None)
docs.count()
seen = []
for level in ("probe", "probe", "standard"):
    seen.append(hnswcheck.ensure_consistent(client, level).stores[0].path)
pids = {child.pid for child in isolation._waiting}
(folder,) = [p.parent for p in Path(path).glob("*/header.bin")]
header = (folder / "header.bin").read_bytes()
(folder / "header.bin").unlink()
try:
    hnswcheck.ensure_consistent(client, "probe")
    seen.append("stale")
except hnswcheck.StoreDamaged:
    seen.append("damaged")
(folder / "header.bin").write_bytes(header)
try:
    with hnswcheck.guard(client, "probe") as g:
        docs.add(ids=["new"], embeddings=[[0.5] * 12])
    seen.append(g.after.verdict)
except hnswcheck.HnswcheckError as error:
    seen.append(repr(error))
pids |= {child.pid for child in isolation._waiting}
try:
    hnswcheck.ensure_consistent(chromadb.EphemeralClient())
except hnswcheck.UsageError as error:
    seen.append("usage")
try:
    hnswcheck.quarantine(path)
except hnswcheck.StoreInUse as error:
    seen.append("in use" if str(os.getpid()) in str(error) else str(error))
print(json.dumps([seen, len(pids)]))
"""


@pytest.mark.usefixtures("chroma")
def test_a_client_can_be_given_and_nothing_stale_is_said(sound: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BESIDE_A_CLIENT, str(sound)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen, processes = json.loads(done.stdout)
    assert seen == [*[str(sound)] * 3, "damaged", "consistent", "usage", "in use"]
    assert processes == 1


@pytest.mark.usefixtures("no_helpers")
def test_probes_beside_an_open_database_share_one_process(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sound.parent)
    with (sound / "chroma.sqlite3").open("rb"):
        hnswcheck.ensure_consistent(sound, "probe")
        (child,) = isolation._waiting
        monkeypatch.chdir(sound)
        hnswcheck.ensure_consistent(".", "probe")  # relative to where this process is now
        assert isolation._waiting == [child]
        child.kill()
        child.wait()
        hnswcheck.ensure_consistent(".", "probe")
        (another,) = isolation._waiting
    assert another.pid != child.pid


@pytest.mark.usefixtures("no_helpers")
def test_what_reads_for_us_leaves_when_it_is_no_longer_asked(sound: Path) -> None:
    with (sound / "chroma.sqlite3").open("rb"):
        hnswcheck.ensure_consistent(sound, "probe")
    (child,) = isolation._waiting
    os.kill(child.pid, signal.SIGALRM)  # as after a minute
    assert child.wait(20) == 0


@pytest.mark.usefixtures("no_helpers")
def test_a_forked_child_does_not_talk_to_its_parents_helper(sound: Path) -> None:
    with (sound / "chroma.sqlite3").open("rb"):
        hnswcheck.ensure_consistent(sound, "probe")
        (child,) = isolation._waiting
        pid = os.fork()
        if pid == 0:
            os._exit(len(isolation._waiting))
        assert os.waitpid(pid, 0)[1] == 0
        hnswcheck.ensure_consistent(sound, "probe")
    assert isolation._waiting == [child]
    assert child.poll() is None


@pytest.mark.usefixtures("no_helpers")
def test_threads_may_ask_at_the_same_time(sound: Path) -> None:
    verdicts: list[str] = []

    def ask() -> None:
        for _ in range(5):
            verdicts.append(hnswcheck.ensure_consistent(sound, "probe").verdict)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["consistent"] * 20


# --- guard ---------------------------------------------------------------------------------------


def test_a_guard_lets_a_harmless_block_pass_and_keeps_both_reports(sound: Path) -> None:
    with hnswcheck.guard(sound) as g:
        assert g.before
        assert g.after is None
    after: hnswcheck.Report | None = g.after
    assert after is not None
    assert (g.before.verdict, after.verdict) == ("consistent", "consistent")


def test_a_damaged_store_keeps_the_block_from_being_run(damaged: Path) -> None:
    with pytest.raises(hnswcheck.StoreDamaged) as raised, hnswcheck.guard(damaged):
        pytest.fail("the block was run")
    assert not isinstance(raised.value, hnswcheck.StoreBroken)


def test_a_block_that_breaks_the_store_is_told_with_both_reports(sound: Path) -> None:
    with pytest.raises(hnswcheck.StoreBroken) as raised, hnswcheck.guard(sound):
        break_it(sound)
    assert raised.value.before.verdict == "consistent"
    assert raised.value.after.verdict == "damaged"
    assert raised.value.report is raised.value.after
    assert "after the guarded block" in str(raised.value)


def test_a_blocks_own_exception_passes_where_the_store_is_sound(sound: Path) -> None:
    with pytest.raises(Own), hnswcheck.guard(sound):
        raise Own


def test_a_block_that_fails_and_breaks_the_store_is_told_of_both(sound: Path) -> None:
    with pytest.raises(hnswcheck.StoreBroken) as raised, hnswcheck.guard(sound):
        break_it_and(sound, Own)
    assert isinstance(raised.value.__cause__, Own)


def test_a_blocks_own_exception_passes_where_the_store_cannot_be_judged(sound: Path) -> None:
    with pytest.raises(Own), hnswcheck.guard(sound):
        break_it_and(sound, Own, shutil.rmtree)


def test_a_store_that_is_gone_after_the_block_is_told(sound: Path) -> None:
    with pytest.raises(hnswcheck.StoreNotFound), hnswcheck.guard(sound):
        shutil.rmtree(sound)


def test_an_interruption_is_not_held_up(sound: Path) -> None:
    with pytest.raises(KeyboardInterrupt), hnswcheck.guard(sound) as g:
        break_it_and(sound, KeyboardInterrupt)
    assert g.after is None


def test_every_call_of_a_decorated_function_is_guarded_anew(sound: Path, tmp_path: Path) -> None:
    kept = shutil.copytree(sound, tmp_path / "kept")

    @hnswcheck.guard(sound)
    def work(harm: bool) -> str:
        """Do it."""
        if harm:
            break_it(sound)
        return "done"

    assert (work.__name__, work.__doc__) == ("work", "Do it.")
    assert work(False) == "done"
    with pytest.raises(hnswcheck.StoreBroken):
        work(True)
    with pytest.raises(hnswcheck.StoreDamaged):
        work(False)
    mend_it(sound, kept)
    assert work(False) == "done"


def test_a_generator_is_guarded_until_it_ends(sound: Path) -> None:
    @hnswcheck.guard(sound)
    def work() -> Iterator[int]:
        yield 1
        break_it(sound)
        yield 2

    with pytest.raises(hnswcheck.StoreBroken):
        list(work())


def test_what_cannot_be_guarded_is_refused(sound: Path) -> None:
    guard = hnswcheck.guard(sound)

    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def later() -> None:
        pass

    for function in (numbers, staticmethod(later), object):
        with pytest.raises(hnswcheck.UsageError, match="guard decorates functions"):
            guard(function)
    coroutine = later()
    with pytest.raises(hnswcheck.UsageError, match="generator, which would run unguarded"):
        _ = guard(lambda: coroutine)()
    coroutine.close()


@pytest.mark.parametrize("kind", ["StoreDamaged", "StoreUndecided", "StoreBroken"])
def test_errors_with_reports_come_through_a_process_pool(kind: str, damaged: Path) -> None:
    report = hnswcheck.audit(damaged)
    error = getattr(hnswcheck, kind)(*[report] * (2 if kind == "StoreBroken" else 1))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), str(again), again.report) == (type(error), str(error), report)


def test_the_block_may_change_the_current_directory(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sound.parent)
    with hnswcheck.guard(sound.name) as g:
        os.chdir(tmp_path.parent)
    assert g.after is not None


def test_a_client_of_a_server_is_refused_whatever_its_settings_say() -> None:
    class Elsewhere:
        def get_settings(self) -> Namespace:
            return Namespace(
                is_persistent=True, persist_directory="./chroma", chroma_server_host="localhost"
            )

    with pytest.raises(hnswcheck.UsageError, match="keeps no store"):
        hnswcheck.ensure_consistent(Elsewhere())


def test_the_event_loop_goes_on_while_a_store_is_checked(sound: Path) -> None:
    events: list[str] = []

    async def others() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        events.append("others went on")

    async def work() -> None:
        task = asyncio.create_task(others())
        async with hnswcheck.guard(sound) as g:
            events.append("block")
            task_after = asyncio.create_task(others())
        events.append("checked")
        assert g.after
        await task
        await task_after

    asyncio.run(work())
    assert events == ["others went on", "block", "others went on", "checked"]


def test_the_asyncio_form_reads_in_another_process(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long reading in a thread would still hold the interpreter for a while at a time."""
    asked: list[Path] = []

    def heard(function: object, arguments: tuple[object, ...], *rest: object) -> object:
        asked.append(sound)
        return isolation.call_in_child(function, arguments, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(guarding, "call_in_child", heard)

    async def work() -> None:
        async with hnswcheck.guard(sound):
            pass

    asyncio.run(work())
    assert len(asked) == 2


def test_the_asyncio_form_raises_the_same(sound: Path) -> None:
    @hnswcheck.guard(sound)
    async def harm() -> None:
        break_it(sound)
        raise Own

    with pytest.raises(hnswcheck.StoreBroken) as raised:
        asyncio.run(harm())
    assert isinstance(raised.value.__cause__, Own)
    with pytest.raises(hnswcheck.StoreDamaged):
        asyncio.run(harm())


# --- quarantine_damaged --------------------------------------------------------------------------


def test_quarantine_damaged_moves_what_loses_nothing_and_says_what_and_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = rest(unpack(LOSSLESS, tmp_path))
    (folder,) = segment_folders(store)
    with caplog.at_level(logging.INFO, "hnswcheck"):
        (moved,) = hnswcheck.quarantine_damaged(store)
    assert Path(moved).is_dir()
    assert Path(moved).name.startswith(f"{folder.name}.quarantined-")
    assert not folder.exists()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    said = record.getMessage()
    for part in (
        folder.name,
        "'docs'",
        "diverged",
        "records-missing",
        "88 records",
        Path(moved).name,
    ):
        assert part in said
    assert hnswcheck.quarantine_damaged(store) == []


@pytest.mark.usefixtures("chroma")
def test_quarantine_damaged_comes_to_rest(tmp_path: Path) -> None:
    """What a move does not better is not moved at each start."""
    store = rest(unpack(LOSSLESS, tmp_path))
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM embeddings_queue WHERE seq_id <= 20")
    rest(store)
    assert len(hnswcheck.quarantine_damaged(store, accept_loss=True)) == 1
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", WRITES, str(store)], env=environment(), timeout=60, check=False
        )
        assert done.returncode == 0
        rest(store)
        assert hnswcheck.quarantine_damaged(store, accept_loss=True) == []


#: Enough for a flush.
WRITES = """
import sys, time
import chromadb
client = chromadb.PersistentClient(sys.argv[1], chromadb.Settings(anonymized_telemetry=False))
docs = client.get_collection("docs", embedding_function=None)
ids = [f"{time.time_ns()}-{i}" for i in range(200)]
docs.add(ids=ids, embeddings=[[float(i % 7), *[0.5] * 7] for i in range(200)])
"""


def test_quarantine_damaged_leaves_what_would_lose_and_says_so(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = snapshot(damaged)
    assert hnswcheck.quarantine_damaged(damaged) == []
    assert snapshot(damaged) == before
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "47 only after a repair" in record.getMessage()
    assert len(hnswcheck.quarantine_damaged(damaged, accept_loss=True)) == 1


def test_quarantine_damaged_says_nothing_of_a_sound_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert hnswcheck.quarantine_damaged(unpack(SOUND, tmp_path)) == []
    assert caplog.records == []


def test_quarantine_damaged_returns_nothing_where_nothing_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert hnswcheck.quarantine_damaged(tmp_path / "nowhere") == []
    assert hnswcheck.quarantine_damaged(tmp_path) == []
    assert caplog.records == []


def test_quarantine_damaged_never_raises_for_a_store_that_it_cannot_handle(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (damaged / "chroma.sqlite3").open("rb"):
        assert hnswcheck.quarantine_damaged(damaged, accept_loss=True) == []
    assert "has the store open" in caplog.messages[-1]
    (damaged / "chroma.sqlite3").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    assert hnswcheck.quarantine_damaged(damaged, accept_loss=True) == []
    assert caplog.records[-1].levelno == logging.ERROR
