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
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from crashes import (
    DRAFT,
    ERRORS,
    FAIL_ON,
    FAIL_ONCE,
    JOURNAL,
    KILL,
    SIGNAL,
    Action,
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
from stores import rest, unpack

import hnswcheck
from hnswcheck import cli
from hnswcheck.apart import exit_when_told

pytest.importorskip("hnswlib", reason="an index cannot be built without it")

#: The vectors of 88 records are in the segment and in the WAL.
DAMAGED = "1.5.9-damaged-header-zeroed"
#: All of them are in the WAL, and the segment has no folder.
WITHOUT_FOLDER = "1.5.9-damaged-folder-deleted-unpurged"
#: Sound stores, to be damaged. The watermark of the first is the last operation already; of the
#: second it is a blob; that of the third is in its id map.
FLUSHED, OF_BLOBS, OF_OLD = "1.5.9-exactly-flushed", "0.6.3-churn-cosine", "0.4.24-churn-l2"
REPAIR = Action("repair")


def damaged(name: str, target: Path) -> Path:
    """A store whose damage a repair heals without a flag."""
    store = unpack(name, target)
    if "damaged" not in name:
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
    os.environ["TMPDIR"] = str(scratch)
    try:
        before = contents(store)
        said = traced(case.tracer, partial(act, store), mode, number, error).said
        changed = contents(store) != before
        left_over = tuple(path.name for path in scratch.iterdir())
        left = essence(store)
        said_next = next_command(store)
        return Trial(number, said, changed, left, left_over, said_next, essence(store))
    finally:
        del os.environ["TMPDIR"]
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


SWAPPED = (WITHOUT_FOLDER, FLUSHED, OF_BLOBS, OF_OLD)


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
    (new_index,) = base.glob("*.rebuilt-*")
    new_index.rename(base / Path(os.fsdecode(what.calls[0].arguments[0])).name)
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
    for trial in disturb_all(what, workers, what.numbers, FAIL_ON, errors):
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
            code: object = cli.run(["repair", str(store), "--yes", "--quiet"])
        except SystemExit as told:
            code = told.code
    return f"{code} {shown.getvalue()}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_call_leaves_the_store_before_or_after_and_nothing_else(
    number: signal.Signals, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(DAMAGED, tracer, workers, tmp_path)
    # Signals differ in no more than the exception that they raise.
    at = what.numbers if number == signal.SIGINT else what.numbers[::4]
    trials = disturb_all(what, workers, at, SIGNAL, [number] * len(at), command_line)
    expected = {signal.SIGINT: "130 hnswcheck: interrupted\n", signal.SIGTERM: "143 "}[number]
    wrong = []
    for trial in trials:
        right = trial.left == (what.after if trial.changed else what.before)
        if not right or trial.said != expected or trial.scratch:
            wrong.append(f"{trial.number}, {what.calls[trial.number - 1].name}: {trial.said}")
    assert wrong == []
    assert {trial.changed for trial in trials} == {True, False}
