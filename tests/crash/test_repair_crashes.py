"""A repair happens whole or not at all, wherever it is stopped: by kill -9, by an error of the
system, by a loss of power, by a signal; the next command finishes what was left.

Every call of a repair that can change a file is a point to stop at, from the first of the new
index to the audit of the result. What is not among them are the calls of the program that loads
the result into hnswlib: it writes in $TMPDIR only.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from crashes import (
    DATABASE,
    DRAFT,
    ERRORS,
    FAIL_ON,
    FAIL_ONCE,
    JOURNAL,
    KILL,
    SIGNAL,
    Action,
    Call,
    Case,
    Essence,
    Known,
    State,
    Stop,
    after_power_loss,
    contents,
    essence,
    kill_at,
    kill_only,
    known,
    put,
    traced,
)
from moving import Dump, dump, edit
from oracle import Oracle
from others import EACH_OF_THEM, OTHERS, another
from stores import (
    PROGRAM,
    Trace,
    environment,
    in_a_mount_namespace,
    mounted,
    one_line,
    rest,
    run,
    snapshot,
    unpack,
)

import hnswcheck
from hnswcheck.cli import app as cli
from hnswcheck.formats.segment_files import LEVEL0
from hnswcheck.isolation import exit_when_told
from hnswcheck.progress import silent
from hnswcheck.repairing.choices import Choices
from hnswcheck.repairing.repair import carry_out, plan_repair

pytestmark = pytest.mark.slow

pytest.importorskip("hnswlib", reason="an index cannot be built without it")

#: The vectors of 88 records are in the segment and in the WAL.
DAMAGED = "1.5.9-damaged-header-zeroed"
#: All of them are in the WAL, and the segment has no folder.
WITHOUT_FOLDER = "1.5.9-damaged-folder-deleted-unflushed"
#: Damaged, but not so that Chroma could not open it.
READABLE = "1.5.9-damaged-folder-older-unpurged"
#: Sound stores, to be damaged. The watermark of the first is the last operation already; of the
#: second it is a blob; that of the third is in its id map.
FLUSHED, OF_BLOBS, OF_OLD = "1.5.9-exactly-flushed", "0.6.3-churn-cosine", "0.4.24-churn-l2"
#: A repair adds a row to its log, which is empty.
WITHOUT_LOG = "0.6.3-exactly-flushed"
QUARANTINED = ".quarantined-"
REPAIR = Action("repair")


def damaged(name: str, target: Path) -> Path:
    """A store whose damage a repair heals without a flag."""
    store = unpack(name, target)
    if name == WITHOUT_LOG:
        with closing(sqlite3.connect(store / DATABASE)) as database:
            database.execute("DELETE FROM embeddings_queue")
            database.commit()
    elif "damaged" not in name:
        for links in store.glob("*/link_lists.bin"):
            links.unlink()
    return rest(store)


def prepared(name: str, tracer: Path, workers: ProcessPoolExecutor, target: Path) -> Known:
    base = damaged(name, target)
    scratch = target / "copies"
    scratch.mkdir()
    what = known(Case(tracer, REPAIR, base, scratch), workers)
    assert hnswcheck.audit(scratch / "undisturbed").verdict == "consistent"
    return what


def number_of_swap(what: Known) -> int:
    """The first call of the swap: all before it builds the new index."""
    return what.number_of("openat", DRAFT)


def first_after(what: Known) -> int:
    """The first call after the swap."""
    return what.number_of("unlink", JOURNAL) + 2


def fewer(what: Known) -> list[int]:
    """All calls, but of the audit afterwards, where one is like the other, every third."""
    end = first_after(what)
    return [*range(1, end), *range(end, len(what.calls) + 1, 3)]


def without_new_index(left: Essence) -> Essence:
    """A store but for a new index that is not in its place."""
    folders = tuple(folder for folder in left.folders if ".rebuilt-" not in folder[0])
    others = tuple(name for name in left.others if ".rebuilt-" not in name and name != DRAFT)
    return replace(left, folders=folders, others=others)


def assert_safe(stop: Stop, what: Known) -> None:
    """What a stop left is the store before or after, or is called unfinished; no file is lost;
    the next repair goes all the way, and leaves nothing behind.
    """
    at = f"stopped before call {stop.number} of {len(what.calls)}"
    assert stop.touched == (), at
    if stop.findings is not None:
        assert ("action-unfinished" in stop.findings) == stop.journal, at
    if not stop.journal:
        assert without_new_index(stop.left) in (what.before, what.after), at
    lost = {file for _, files in what.before.folders for file in files}
    assert lost <= {file for _, files in stop.left.folders for file in files}, at
    assert stop.said == "", at
    assert stop.settled == what.after, at


# --- kill -9 -------------------------------------------------------------------------------------


def test_a_kill_at_any_call_leaves_the_store_before_or_after_or_a_journal(
    tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(DAMAGED, tracer, workers, tmp_path)
    count = len(what.calls)
    stops = list(workers.map(kill_at, [what.case] * (count + 1), range(1, count + 2)))
    assert [stop.killed for stop in stops] == [True] * count + [False]
    for stop in stops:
        assert_safe(stop, what)
    swap, end = number_of_swap(what), first_after(what)
    print(f"{count} calls: {swap - 1} build, {end - swap} swap, {count - end + 1} audit")
    # All that can be left was left: a part of a new index, a journal, everything.
    parts = [stop for stop in stops if without_new_index(stop.left) != stop.left]
    assert len(parts) > 30
    assert {stop.journal for stop in parts} == {True, False}
    assert stops[end].left == what.after


def next_command(store: Path) -> str:
    """Let any command finish what was left: a restore does before it looks for a quarantine."""
    try:
        hnswcheck.restore(store, "nothing")
    except hnswcheck.UsageError as error:
        assert "no quarantine 'nothing'" in str(error)  # noqa: PT017 - here it is what was asked
        return ""
    except hnswcheck.HnswcheckError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("a quarantine of this name")


@dataclass(frozen=True, slots=True)
class Trial:
    """What a disturbed repair led to.

    Attributes:
        said: its error.
        changed: whether anything but a new index, or its mtime, was different then.
        left: the store then.
        scratch: what was left in $TMPDIR.
        said_next, settled: the error of the next command, and the store then.
    """

    number: int
    said: str
    changed: bool
    left: Essence
    scratch: tuple[str, ...]
    said_next: str
    settled: Essence


def disturb(
    case: Case, number: int, mode: int, error: int, act: Callable[[Path], str] = REPAIR.on
) -> Trial:
    """Repair a copy under the tracer; then any other command."""
    store = case.copy(f"disturbed-{number}-{mode}-{error}")
    scratch = case.scratch / f"scratch-{number}-{mode}-{error}"
    scratch.mkdir()
    usual, os.environ["TMPDIR"] = os.environ["TMPDIR"], str(scratch)
    try:
        before = contents(store)
        said = traced(case.tracer, partial(act, store), mode, number, error).said
        changed = contents(store) != before
        left_over = tuple(path.name for path in scratch.iterdir())
        left = essence(store)
        said_next = next_command(store)
        return Trial(number, said, changed, left, left_over, said_next, essence(store))
    finally:
        os.environ["TMPDIR"] = usual
        shutil.rmtree(store)


def disturb_all(
    what: Known,
    workers: ProcessPoolExecutor,
    numbers: Iterable[int],
    mode: int,
    errors: Iterable[int],
    act: Callable[[Path], str] = REPAIR.on,
) -> list[Trial]:
    numbers = list(numbers)
    count = len(numbers)
    arguments = ([what.case] * count, numbers, [mode] * count, errors, [act] * count)
    return list(workers.map(disturb, *arguments))


SWAPPED = (WITHOUT_FOLDER, FLUSHED, OF_BLOBS, OF_OLD, WITHOUT_LOG)


@pytest.mark.parametrize("name", SWAPPED)
def test_a_kill_at_any_call_of_the_swap_is_settled_by_any_command(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    """Of stores whose swap is another one: no folder to move, watermarks of other kinds."""
    what = prepared(name, tracer, workers, tmp_path)
    numbers = range(number_of_swap(what), first_after(what) + 1)
    trials = disturb_all(what, workers, numbers, KILL, [0] * len(numbers))
    assert {trial.said_next for trial in trials} == {""}
    wrong = [t.number for t in trials if t.settled not in (what.before, what.after)]
    assert wrong == []
    assert {trial.settled == what.after for trial in trials} == {True, False}


# --- Loss of power -------------------------------------------------------------------------------


def test_what_takes_its_place_is_on_the_disk_before(
    tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(DAMAGED, tracer, workers, tmp_path)
    root = os.fsencode(what.case.scratch / "undisturbed")
    not_synced: set[bytes] = set()
    for call in what.calls[: number_of_swap(what) - 1]:
        path = call.arguments[0] if call.arguments else b""
        if call.name == "fsync":
            not_synced.discard(path)
        elif call.name in ("write", "mkdir"):
            not_synced |= {path} if call.name == "write" else {path, root}
        elif call.name in ("openat", "unlink"):
            not_synced |= {path, os.path.dirname(path)}  # noqa: PTH120 - bytes
            if call.name == "unlink":
                not_synced.discard(path)
    assert not_synced == set()


@pytest.mark.parametrize("name", [DAMAGED, WITHOUT_FOLDER])
def test_a_loss_of_power_within_the_swap_is_recovered_from(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    """What comes before is a new index that is not in its place: any part of it goes."""
    what = prepared(name, tracer, workers, tmp_path)
    swap, end = number_of_swap(what), first_after(what)
    base = what.case.copy("built")
    assert workers.submit(kill_only, what.case, base, swap).result()
    recorded = Path(os.fsdecode(what.calls[0].arguments[0])).name.removesuffix("-1")
    for made in base.glob("*.rebuilt-*"):  # the new index, and an empty folder in place of none
        made.rename(base / f"{recorded}-{made.name.rpartition('-')[2]}")
    case = replace(what.case, base=base)
    calls = what.calls[swap - 1 : end - 1]
    states = list(after_power_loss(base, what.case.scratch / "undisturbed", calls))
    cut = [state for _, state in states]
    count = len(states)
    trials = list(
        workers.map(lose_power_and_settle, [case] * count, range(count), cut, chunksize=4)
    )
    print(f"{len(calls)} calls, {count} states")
    wrong = [t.number for t in trials if t.said_next or t.settled not in (what.before, what.after)]
    assert wrong == []
    assert {trial.settled == what.after for trial in trials} == {True, False}


def lose_power_and_settle(case: Case, number: int, state: State) -> Trial:
    store = case.scratch / f"lost-{number}"
    put(state, case.base, store)
    left = essence(store)
    said = next_command(store)
    trial = Trial(number, "", True, left, (), said, essence(store))
    shutil.rmtree(store)
    return trial


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("refusing")
def test_a_call_that_fails_leaves_the_store_as_it_was_to_the_byte(
    tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(DAMAGED, tracer, workers, tmp_path)
    errors = [ERRORS.get(call.name, errno.ENOSPC) for call in what.calls]
    # What cannot be removed now is removed by the next command.
    unlinking = what.number_of("unlink", ".scratch")
    wrong, taken_back = [], 0
    for trial in disturb_all(what, workers, what.numbers, FAIL_ONCE, errors):
        if not trial.said:  # it could do without that call
            right = trial.left == trial.settled == what.after
        elif "done, but" in trial.said:
            right = trial.left.is_but_for_others(what.after) and trial.settled == what.after
        else:
            # A result that cannot be audited is taken back, which counts as a change in sqlite.
            same = trial.left == what.before if "RepairFailed" in trial.said else not trial.changed
            unremoved = trial.number == unlinking and trial.left.others != ()
            right = (same or unremoved) and trial.settled == what.before
            taken_back += 1
        right &= not trial.said or is_clear(trial.said)
        right &= trial.said_next == "" and trial.scratch == ()
        if not right:
            wrong.append(f"{trial.number}, {what.calls[trial.number - 1].name}: {trial.said}")
    print(f"{len(what.calls)} calls, {taken_back} taken back")
    assert wrong == []
    assert taken_back > number_of_swap(what) + 20


@pytest.mark.usefixtures("refusing")
def test_where_nothing_can_be_written_any_more_the_next_command_finishes(
    tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(DAMAGED, tracer, workers, tmp_path)
    errors = [errno.EROFS, errno.ENOSPC] * len(what.calls)
    wrong, left_half_way = [], 0
    for trial in disturb_all(what, workers, fewer(what), FAIL_ON, errors):
        whole = without_new_index(trial.left) in (what.before, what.after)
        right = JOURNAL in trial.left.others or whole
        right &= trial.said_next == "" and trial.settled in (what.before, what.after)
        # Without room for a copy of chroma.sqlite3 the last audit goes without sqlite's own checks.
        right &= is_clear(trial.said) if trial.said else trial.left == what.after
        left_half_way += JOURNAL in trial.left.others
        if not right:
            wrong.append(f"{trial.number}, {what.calls[trial.number - 1].name}: {trial.said}")
    print(f"{len(what.calls)} calls, {left_half_way} left half way")
    assert wrong == []
    assert left_half_way


def is_clear(said: str) -> bool:
    return re.fullmatch(r"(ActionFailed|RepairFailed): \S.*", said) is not None


# --- Signals -------------------------------------------------------------------------------------


def command_line(store: Path) -> str:
    """The program in this process: exit code and stderr."""
    exit_when_told()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as shown:
        try:
            code: object = cli.run(["repair", str(store), "--yes", "--quiet", "--verify", "audit"])
        except SystemExit as told:
            code = told.code
    return f"{code} {shown.getvalue()}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_call_leaves_the_store_before_or_after_and_nothing_else(
    number: signal.Signals, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(DAMAGED, tracer, workers, tmp_path)
    # Signals differ in no more than the exception that they raise.
    at = fewer(what)[:: 1 if number == signal.SIGINT else 6]
    trials = disturb_all(what, workers, at, SIGNAL, [number] * len(at), command_line)
    expected = {signal.SIGINT: "130 hnswcheck: interrupted\n", signal.SIGTERM: "143 "}[number]
    wrong = []
    for trial in trials:
        right = trial.left in (what.before, what.after)  # before also if the last audit was stopped
        if not right or trial.said != expected or trial.scratch:
            wrong.append(f"{trial.number}, {what.calls[trial.number - 1].name}: {trial.said}")
    assert wrong == []
    assert {trial.left == what.after for trial in trials} == {True, False}


# --- The engine ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("chroma")
def test_the_engine_is_content_with_what_was_repaired_after_a_kill(
    tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(DAMAGED, tracer, workers, tmp_path)
    numbers = (what.number_of("fsync", LEVEL0), what.number_of("rename", nth=3), committing(what))
    with closing(Oracle(sys.executable)) as oracle:
        for number in numbers:
            stop = workers.submit(kill_at, what.case, number).result()
            assert_safe(stop, what)
            (judgement,) = oracle.judge_store(stop.path)
            assert judgement.records == 88
            assert not judgement.broken, str(judgement)


def committing(what: Known) -> int:
    """With the database half written."""
    return what.number_of("pwrite", DATABASE, nth=2)


# --- Undone, and done again ----------------------------------------------------------------------


def as_it_was(store: Path) -> tuple[Dump | None, dict[str, tuple[int, int, str]]]:
    """What sqlite holds, and all other files but those of a quarantine."""
    files = contents(store).items()
    kept = {name: file for name, file in files if QUARANTINED not in name}
    for name in [name for name in kept if name.startswith(DATABASE)]:
        del kept[name]
    return dump(store), kept


@pytest.mark.parametrize("name", [DAMAGED, FLUSHED, OF_BLOBS, OF_OLD])
def test_a_repair_can_be_undone_to_the_byte_and_done_again(name: str, tmp_path: Path) -> None:
    store = damaged(name, tmp_path)
    before = as_it_was(store)
    for _ in range(2):
        report = hnswcheck.repair(store)
        assert report.after is not None
        assert report.after.verdict == "consistent"
        (segment,) = report.repaired
        assert segment.replaced is not None
        assert hnswcheck.restore(store, segment.replaced).done
        assert as_it_was(store) == before
    asides = [path.name for path in store.iterdir() if path.is_dir() and QUARANTINED in path.name]
    assert len(asides) == len(list(store.glob("*.json"))) == 2  # both new indexes


def test_a_kill_between_two_collections_leaves_one_repaired_and_the_next_repair_does_the_other(
    tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    base = damaged("1.5.9-interleaved", tmp_path)
    before = as_it_was(base)
    (tmp_path / "copies").mkdir()
    what = known(Case(tracer, REPAIR, base, tmp_path / "copies"), workers)
    assert len(what.after.manifests) == 3
    _, second, _ = (n for n, call in enumerate(what.calls, 1) if is_new_index(call))
    for number in (second, second + 12, what.number_of("rename", nth=5)):
        stop = workers.submit(kill_at, what.case, number).result()
        assert_halves(stop, what)
        manifests = hnswcheck.quarantines(stop.path)
        for manifest in manifests:
            assert hnswcheck.restore(stop.path, manifest.folder).done
        assert len(manifests) == 3
        assert as_it_was(stop.path) == before


def is_new_index(call: Call) -> bool:
    return call.name == "mkdir" and b".rebuilt-" in call.arguments[0]


def assert_halves(stop: Stop, what: Known) -> None:
    assert stop.killed
    assert without_new_index(stop.left) not in (what.before, what.after)
    assert (stop.said, stop.settled) == ("", what.after)


# --- Refusals ------------------------------------------------------------------------------------


def words(store: Path) -> tuple[str | Path, ...]:
    return ("repair", store, "--yes", "--verify", "audit")


def same_content(store: Path, before: dict[str, Trace]) -> bool:
    """Whether nothing is there but what was, where a new index came and went."""
    after = snapshot(store)
    return {name: trace.content for name, trace in after.items()} == {
        name: trace.content for name, trace in before.items()
    }


def no_hnswlib(store: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.modules['hnswlib'] = None; from hnswcheck.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words(store))],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )


def test_without_hnswlib_one_line_says_what_to_install(tmp_path: Path) -> None:
    store = damaged(DAMAGED, tmp_path)
    before = snapshot(store)
    done = no_hnswlib(store)
    assert done.returncode == 3
    assert "hnswcheck[repair]" in one_line(done.stderr)
    assert snapshot(store) == before


UNUSABLE = {
    "a dimension that no vector has": "UPDATE collections SET dimension = 9",
    "a dimension of zero": "UPDATE collections SET dimension = 0",
    "an unknown space": "UPDATE collections SET schema_str ="
    """ replace(schema_str, '"l2"', '"hamming"')""",
}


@pytest.mark.parametrize("statement", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_collection_that_no_index_can_be_built_for_is_left_alone(
    statement: str, tmp_path: Path
) -> None:
    store = damaged(DAMAGED, tmp_path)
    edit(store, statement)
    rest(store)
    before = snapshot(store)
    done = run(*words(store))
    assert done.returncode == 1, done
    one_line(done.stderr)
    assert snapshot(store) == before


EMBED = r"""
calls = 0

def embed(texts):
    global calls
    calls += 1
    if calls > 1:
        raise ConnectionError("the service\nis gone")
    return [[0.5] * 12 for _ in texts]
"""


def test_an_embedding_function_that_fails_half_way_leaves_the_store_as_it_was(
    tmp_path: Path,
) -> None:
    store = unpack("1.5.9-churn-l2", tmp_path)
    (folder,) = (path for path in store.iterdir() if path.is_dir())
    shutil.rmtree(folder)
    edit(
        store,
        "INSERT OR REPLACE INTO embedding_metadata (id, key, string_value)"
        " SELECT id, 'chroma:document', 'text ' || id FROM embeddings",
    )
    rest(store)
    before = snapshot(store)
    (tmp_path / "mine.py").write_text(EMBED)
    batches = ("--embed-with", "mine:embed", "--batch-size", "100")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = run(*words(store), *batches, cwd=tmp_path, env=cache)
    assert done.returncode == 1
    assert "ConnectionError: the service" in one_line(done.stderr)
    assert same_content(store, before)


@pytest.mark.parametrize("content", ["def embed(", "raise OSError('no model here')"])
def test_a_module_that_cannot_be_imported_is_wrong_use(content: str, tmp_path: Path) -> None:
    store = damaged(DAMAGED, tmp_path)
    before = snapshot(store)
    (tmp_path / "mine.py").write_text(content)
    done = run(*words(store), "--embed-with", "mine:embed", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"hnswcheck: --embed-with mine:embed: .+\n", done.stderr)
    assert snapshot(store) == before


@pytest.mark.parametrize("who", EACH_OF_THEM)
def test_whoever_has_the_store_open_is_named_and_nothing_is_repaired(
    who: str, tmp_path: Path
) -> None:
    store = damaged(READABLE, tmp_path)
    with another(OTHERS[who], store) as process:
        before = snapshot(store)
        done = run(*words(store))
        assert done.returncode == 3
        said = one_line(done.stderr)
        assert str(process.pid) in said
        assert snapshot(store) == before


@in_a_mount_namespace
def test_in_a_read_only_directory_nothing_is_repaired(tmp_path: Path) -> None:
    store = damaged(DAMAGED, tmp_path)
    before = snapshot(store)
    bind = f"mount --bind {store} {store}; mount -o remount,bind,ro {store}"
    done = run(*words(store), prefix=mounted(f'{bind}; "$@"'))
    assert done.returncode == 3
    one_line(done.stderr)
    assert snapshot(store) == before


#: KiB: nothing; too little for the swap, though not for the index; enough.
FREE = (0, 40, 512)


@in_a_mount_namespace
def test_on_a_full_disk_all_of_it_is_done_or_nothing(tmp_path: Path) -> None:
    """However little is free, it works once there is room."""
    store = damaged(DAMAGED, tmp_path)
    before = as_it_was(store)
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    codes = []
    for free in FREE:
        out, again = tmp_path / f"full-{free}", tmp_path / f"roomy-{free}"
        script = f"""mount -t tmpfs -o size=4m none {tiny}; cp -a {store}/. {tiny}
            dd if=/dev/zero of={tiny}/filler bs=4k 2>/dev/null || true
            truncate -s -{free}k {tiny}/filler; code=0; "$@" || code=$?
            rm {tiny}/filler; cp -a {tiny} {out}; "$@" >/dev/null 2>&1 || true
            cp -a {tiny} {again}; exit $code"""
        done = run(*words(tiny), prefix=mounted(script))
        codes.append(done.returncode)
        if done.returncode:
            one_line(done.stderr)
            assert as_it_was(out) == before, free
        assert hnswcheck.audit(again, "deep").verdict == "consistent", free
        assert not list(again.glob("*.rebuilt-*"))
    assert codes == [1, 1, 0]  # found out before anything is begun


def in_wal_mode(store: Path, left: str) -> Path:
    """As a reader or a writer leaves it that set the mode: with nothing, a -wal, a -shm, too."""
    path = store / DATABASE
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        (number,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {number + 1}")
        kept = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in left.split()}
        if kept:
            kept[""] = path.read_bytes()
    for suffix, data in kept.items():
        Path(f"{path}{suffix}").write_bytes(data)
    return rest(store)


@pytest.mark.parametrize("left", ["", "-wal", "-wal -shm"])
def test_a_database_in_wal_mode_is_no_reason_to_try_twice(left: str, tmp_path: Path) -> None:
    store = in_wal_mode(damaged(DAMAGED, tmp_path), left)
    before = as_it_was(store)[0]
    report = hnswcheck.repair(store)
    assert report.after is not None
    assert report.after.verdict == "consistent"
    replaced = report.repaired[0].replaced
    assert replaced is not None
    in_wal_mode(store, left)
    assert hnswcheck.restore(store, replaced).done
    assert dump(store) == before


def test_the_choice_of_verification_outlives_sqlites_own_log(tmp_path: Path) -> None:
    """The plan is made again then, and the caller's choice stays."""
    store = in_wal_mode(damaged(DAMAGED, tmp_path), "-wal")
    assert hnswcheck.repair(store, verify="none").verified == "none"


def test_what_is_written_while_the_question_stands_stops_a_repair(tmp_path: Path) -> None:
    """Also where sqlite's own log has to be taken in first."""
    store = in_wal_mode(damaged(DAMAGED, tmp_path), "-wal")
    choices = Choices()
    made = plan_repair(store, None, choices, dry_run=False, wait=0.0)
    edit(
        store,
        "INSERT INTO embeddings_queue (operation, topic, id, vector, encoding, metadata)"
        " SELECT 0, topic, 'another', vector, encoding, NULL FROM embeddings_queue LIMIT 1",
    )
    in_wal_mode(store, "-wal")
    before = as_it_was(store)
    with pytest.raises(hnswcheck.StoreChanged):
        carry_out(made, choices, 0.0, silent)
    assert as_it_was(store) == before
    assert not list(store.glob("*.rebuilt-*"))


def test_two_repairs_at_once_repair_it_once(tmp_path: Path) -> None:
    for trial in range(2):
        store = damaged(DAMAGED, tmp_path / str(trial))
        running = [
            subprocess.Popen(
                [*PROGRAM, *map(str, words(store)), "--wait", "20"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            for _ in range(2)
        ]
        answers = [(process.communicate(timeout=60)[1], process.returncode) for process in running]
        for err, code in answers:
            if code:
                assert code == 3, err
                one_line(err)
        codes = {code for _, code in answers}
        assert 0 in codes
        assert hnswcheck.audit(store, "deep").verdict == "consistent"
        names = [path.name for path in store.iterdir()]
        assert len(names) == 4, names  # database, index, and a quarantine with its manifest


def drop_collection(store: Path) -> None:
    edit(store, "DELETE FROM collections")
    edit(store, "DELETE FROM segments")


@pytest.mark.parametrize(
    ("name", "meanwhile"),
    [
        (DAMAGED, hnswcheck.repair),  # the new folder is shorter than the plan has it
        (DAMAGED, drop_collection),
        ("1.5.9-damaged-record-deleted", lambda s: hnswcheck.quarantine(s, accept_loss=True)),
        ("1.5.9-damaged-record-deleted", lambda s: next(s.glob("*/header.bin")).unlink()),
    ],
)
def test_a_store_that_somebody_else_changed_meanwhile_has_changed(
    name: str, meanwhile: Callable[[Path], object], tmp_path: Path
) -> None:
    store = damaged(name, tmp_path)
    made = plan_repair(store, None, Choices(), dry_run=False, wait=0.0)
    assert made.report.planned
    meanwhile(store)
    before = as_it_was(store)
    with pytest.raises(hnswcheck.StoreChanged):
        carry_out(made, Choices(), 0.0, silent)
    assert as_it_was(store) == before
