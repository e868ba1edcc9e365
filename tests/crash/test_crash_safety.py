"""A quarantine and a restore happen whole or not at all, wherever they are stopped: by kill -9, by
an error of the system, by a loss of power; and the next run finishes what was left.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from crashes import (
    DATABASE,
    DRAFT,
    FAIL_ON,
    FAIL_ONCE,
    JOURNAL,
    Action,
    Case,
    Disk,
    Essence,
    Known,
    Stop,
    after_power_loss,
    contents,
    data_files,
    essence,
    failures,
    is_one_line,
    kill_at,
    kill_only,
    known,
    lose_power,
    put,
    read_calls,
    unfinished,
)
from oracle import Judgement, Oracle
from stores import environment, one_line, run, snapshot, unpack

import hnswcheck
from hnswcheck.changes.procedure import settle

pytestmark = pytest.mark.slow

#: Two damaged segments, of which a quarantine moves both only if the loss is accepted.
TWO_DAMAGED = "1.5.9-damaged-folders-of-unlike-exchanged"
#: Two collections whose folders are each other's: moved aside, each holds what the other needs.
EXCHANGED = "1.5.9-damaged-folders-exchanged"
#: Every record is in the WAL: Chroma makes a whole index anew.
UNPURGED = "1.5.9-damaged-folder-older-unpurged"


# --- Stores to act on ----------------------------------------------------------------------------


def quarantined(target: Path) -> tuple[Path, str, str]:
    """A store with two segments moved aside, and the names of these folders."""
    store = unpack(EXCHANGED, target)
    first, second = hnswcheck.quarantine(store, accept_loss=True).moved
    return store, first.name, second.name


def to_quarantine(target: Path) -> tuple[Path, Action]:
    return unpack(TWO_DAMAGED, target), Action("quarantine")


def to_restore(target: Path) -> tuple[Path, Action]:
    store, name, _ = quarantined(target)
    return store, Action("restore", name)


def to_restore_with_a_new_folder(target: Path) -> tuple[Path, Action]:
    """As if Chroma had replayed all into a new index meanwhile, and written nothing since."""
    store, name, other = quarantined(target)
    segment = name.partition(".")[0]
    shutil.copytree(store / other, store / segment)
    with closing(sqlite3.connect(store / DATABASE, isolation_level=None)) as database:
        database.execute("INSERT INTO max_seq_id (segment_id, seq_id) VALUES (?, 60)", [segment])
    return store, Action("restore", name)


def to_restore_with_an_empty_folder(target: Path) -> tuple[Path, Action]:
    """As Chroma makes one before its first flush."""
    store, name, _ = quarantined(target)
    (store / name.partition(".")[0]).mkdir()
    return store, Action("restore", name)


Maker = Callable[[Path], tuple[Path, Action]]
MAKERS: dict[str, Maker] = {
    "quarantine": to_quarantine,
    "restore": to_restore,
    "restore-with-a-new-folder": to_restore_with_a_new_folder,
    "restore-with-an-empty-folder": to_restore_with_an_empty_folder,
}
every_action = pytest.mark.parametrize(
    "name", ["quarantine", "restore", "restore-with-a-new-folder"]
)
#: Those with more than one folder to move.
both_long_actions = pytest.mark.parametrize("name", ["quarantine", "restore-with-a-new-folder"])


def prepared(maker: Maker, tracer: Path, workers: ProcessPoolExecutor, target: Path) -> Known:
    base, action = maker(target)
    scratch = target / "copies"
    scratch.mkdir()
    return known(Case(tracer, action, base, scratch), workers)


def already_done(said: str, action: Action) -> bool:
    """What a restore says whose folder is back in its place."""
    wanted = f"no quarantine {action.quarantine!r}"
    return action.name == "restore" and said.startswith("UsageError: ") and wanted in said


def assert_safe(stop: Stop, what: Known, *others: Essence) -> None:
    """What a stop left is the store before or after, or is called unfinished; no file is lost;
    and the next run goes all the way.

    Args:
        others: what the store may also be while no journal is there.
    """
    at = f"stopped before call {stop.number} of {len(what.calls)}"
    assert stop.touched == (), at
    if stop.findings is not None:
        assert ("action-unfinished" in stop.findings) == stop.journal, at
    if not stop.journal:
        left = replace(stop.left, others=tuple(n for n in stop.left.others if n != DRAFT))
        assert left in (what.before, what.after, *others), at
    files = data_files(what.case.base)
    assert stop.files == stop.files_after == files, at
    assert stop.said == "" or already_done(stop.said, what.case.action), at
    assert stop.settled == what.after, at


# --- kill -9 -------------------------------------------------------------------------------------


@every_action
def test_a_kill_at_any_call_leaves_the_store_before_or_after_or_a_journal(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(MAKERS[name], tracer, workers, tmp_path)
    count = len(what.calls)
    numbers = [*what.numbers, count + 1]
    stops = list(workers.map(kill_at, [what.case] * len(numbers), numbers))
    assert [stop.killed for stop in stops] == [True] * count + [False]
    for stop in stops:
        assert_safe(stop, what)
    print(f"{count} calls, {sum(stop.journal for stop in stops)} with a journal")
    # All that can be left was left: nothing yet, something half way, everything.
    assert {stop.left in (what.before, what.after) for stop in stops} == {True, False}
    assert {stop.journal for stop in stops} == {True, False}


@both_long_actions
def test_a_kill_at_any_call_of_the_recovery_is_recovered_from(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    first = prepared(MAKERS[name], tracer, workers, tmp_path)
    what, halfway = half_done(first, workers, tmp_path / "again")
    assert what.after == first.after
    stops = list(workers.map(kill_at, [what.case] * len(what.calls), what.numbers))
    assert all(stop.killed for stop in stops)
    for stop in stops:
        assert_safe(stop, what, first.before, halfway)
    print(f"{len(what.calls)} calls")


def half_done(first: Known, workers: ProcessPoolExecutor, scratch: Path) -> tuple[Known, Essence]:
    """An action that was killed between its two renames and is run again; and what the store is
    once that is recovered from, and nothing more.
    """
    scratch.mkdir()
    number = first.number_of("rename", nth=3)
    left = first.case.copy("half-done")
    done = workers.submit(kill_only, first.case, left, number).result()
    assert done
    assert unfinished(left)
    settled = scratch / "settled"
    shutil.copytree(left, settled)
    assert len(settle(settled, 0.0)) > 0
    halfway = essence(settled)
    return known(replace(first.case, base=left, scratch=scratch), workers), halfway


# --- Loss of power -------------------------------------------------------------------------------


@every_action
def test_a_loss_of_power_at_any_time_is_recovered_from(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(MAKERS[name], tracer, workers, tmp_path)
    assert_survives_power_loss(what, workers)


@both_long_actions
def test_a_loss_of_power_while_recovering_is_recovered_from(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    first = prepared(MAKERS[name], tracer, workers, tmp_path)
    what, halfway = half_done(first, workers, tmp_path / "again")
    assert_survives_power_loss(what, workers, first.before, halfway)


@pytest.mark.usefixtures("refusing")
@both_long_actions
def test_a_loss_of_power_while_going_back_is_recovered_from(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(MAKERS[name], tracer, workers, tmp_path)
    committing = what.number_of("pwrite", f"{DATABASE}-journal")
    done = workers.submit(what.case.look_at_failure, committing).result()
    assert done.said.startswith("ActionFailed: ")
    calls = read_calls(what.case.scratch / "undoing")
    assert len(calls) > committing
    assert_survives_power_loss(replace(what, calls=calls), workers, where="undone")


def assert_survives_power_loss(
    what: Known, workers: ProcessPoolExecutor, *others: Essence, where: str = "undisturbed"
) -> None:
    root = what.case.scratch / where
    states = list(after_power_loss(what.case.base, root, what.calls))
    numbers = range(len(states))
    cases = [what.case] * len(states)
    left = [state for _, state in states]
    stops = list(workers.map(lose_power, cases, numbers, left, chunksize=4))
    wrong = []
    for stop, (call, _) in zip(stops, states, strict=True):
        try:
            assert_safe(replace(stop, number=call + 1), what, *others)
        except AssertionError as error:
            wrong.append((call, error))
    print(f"{len(what.calls)} calls, {len(states)} states")
    after = [(number, what.calls[number - 1].name) for number, _ in wrong]
    assert not wrong, f"{len(wrong)} of {len(states)} states, after calls {after}: {wrong[0][1]}"


@every_action
def test_what_was_done_needs_no_recovery_after_a_loss_of_power(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(MAKERS[name], tracer, workers, tmp_path)
    disk = Disk(what.case.base, what.case.scratch / "undisturbed")
    for call in what.calls:
        disk.take(call)
    (state,) = set(disk.states())
    put(state, what.case.base, tmp_path / "done")
    assert essence(tmp_path / "done") == what.after


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize(
    "name", ["quarantine", "restore-with-a-new-folder", "restore-with-an-empty-folder"]
)
def test_a_call_that_fails_leaves_the_store_as_it_was_to_the_byte(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(MAKERS[name], tracer, workers, tmp_path)
    wrong, undone = [], 0
    for refusal in failures(what, workers, FAIL_ONCE):
        call = what.calls[refusal.number - 1]
        whole = (refusal.left, refusal.journal) == (what.after, False)
        if not refusal.said:  # it could do without that call
            right = whole
        elif "done, but" in refusal.said:
            right = refusal.left.is_but_for_others(what.after)
        else:
            # Chroma makes an empty folder again as soon as it needs one.
            right = set(refusal.changed) <= set(what.case.empty_folders()) and not refusal.journal
            undone += 1
        if refusal.said:
            right &= is_one_line(refusal.said) and refusal.settled == what.after
        if not right:
            wrong.append(f"{refusal.number}, {call}: {refusal.said} {refusal.changed}")
    print(f"{len(what.calls)} calls, {undone} taken back")
    assert wrong == []
    assert undone > len(what.calls) // 2


@pytest.mark.usefixtures("refusing")
@both_long_actions
def test_where_nothing_can_be_written_any_more_the_next_run_finishes(
    name: str, tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    what = prepared(MAKERS[name], tracer, workers, tmp_path)
    wrong, left_half_way = [], 0
    for refusal in failures(what, workers, FAIL_ON):
        call = what.calls[refusal.number - 1]
        whole = refusal.left.is_but_for_others(what.after)
        right = is_one_line(refusal.said) and refusal.settled == what.after
        right &= set(refusal.changed) <= {DRAFT} or refusal.journal or whole
        right &= not refusal.said_next or already_done(refusal.said_next, what.case.action)
        left_half_way += refusal.journal
        if not right:
            text = f"{refusal.said} {refusal.changed} {refusal.said_next}"
            wrong.append(f"{refusal.number}, {call}: {text}")
    print(f"{len(what.calls)} calls, {left_half_way} left half way")
    assert wrong == []
    assert left_half_way


# --- The engine ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle(chroma: object) -> Iterator[Oracle]:
    with closing(Oracle(sys.executable)) as judge:
        yield judge


def judged(oracle: Oracle, store: Path) -> list[Judgement]:
    """What the engine says of each collection, whatever the time it takes."""
    subjects = oracle.judge_store(store)
    return [replace(judgement, seconds=0.0) for judgement in subjects]


def test_the_engine_is_content_with_what_was_finished_after_a_kill(
    tracer: Path, workers: ProcessPoolExecutor, oracle: Oracle, tmp_path: Path
) -> None:
    what = prepared(
        lambda target: (unpack(UNPURGED, target), Action("quarantine")), tracer, workers, tmp_path
    )
    for number in moved_but_not_committed(what):
        stop = workers.submit(kill_at, what.case, number).result()
        assert_safe(stop, what)
        assert stop.journal
        (judgement,) = judged(oracle, stop.path)
        assert judgement.records == 88
        assert not judgement.broken, str(judgement)


@both_long_actions
def test_the_engine_finds_the_same_whether_or_not_there_was_a_kill(
    name: str, tracer: Path, workers: ProcessPoolExecutor, oracle: Oracle, tmp_path: Path
) -> None:
    what = prepared(MAKERS[name], tracer, workers, tmp_path)
    number = moved_but_not_committed(what)[-1]
    stop = workers.submit(kill_at, what.case, number).result()
    assert_safe(stop, what)
    assert stop.journal
    undisturbed = judged(oracle, what.case.scratch / "undisturbed")
    assert len(undisturbed) == 2
    assert judged(oracle, stop.path) == undisturbed


def moved_but_not_committed(what: Known) -> list[int]:
    """Right after the folders moved; with sqlite's journal; with its database half written."""
    journal = what.number_of("pwrite", f"{DATABASE}-journal")
    return [journal - 2, journal + 1, what.number_of("pwrite", DATABASE, nth=2)]


#: Opens a store, adds to each collection what a flush needs, and says where it flushed to.
WRITER = """
import json, random, sys
import chromadb

client = chromadb.PersistentClient(sys.argv[1], chromadb.Settings(anonymized_telemetry=False))
draw = random.Random(7)
for found in client.list_collections():
    collection = client.get_collection(found.name, embedding_function=None)
    dimension = int(sys.argv[2])
    for part in range(4):
        ids = [f"later-{part}-{n}" for n in range(50)]
        vectors = [[draw.uniform(-1, 1) for _ in range(dimension)] for _ in ids]
        collection.add(ids=ids, embeddings=vectors)
    print(json.dumps(collection.count()))
"""


@pytest.mark.usefixtures("chroma")
def test_what_chroma_made_between_a_kill_and_the_next_run_is_left_alone(
    tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    base, action = unpack(UNPURGED, tmp_path), Action("quarantine")
    case = Case(tracer, action, base, tmp_path / "copies")
    case.scratch.mkdir()
    what = known(case, workers)
    (segment,) = (name for name, _ in what.before.folders)
    store = case.copy("killed")
    assert workers.submit(kill_only, case, store, moved_but_not_committed(what)[0]).result()
    assert unfinished(store)
    assert not (store / segment).exists()

    with closing(sqlite3.connect(store / DATABASE)) as database:
        (dimension,) = database.execute("SELECT dimension FROM collections").fetchone()
    command = [sys.executable, "-c", WRITER, str(store), str(dimension)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == 88 + 200
    assert unfinished(store)
    assert any((store / segment).iterdir()), "nothing was flushed, so nothing is proved"
    assert len(list(store.glob(f"{segment}.quarantined-*[0-9]"))) == 1

    made, files = contents(store), data_files(store)
    rows = watermarks(store)
    assert rows != dict(what.before.watermarks_by_segment())
    (line,) = settle(store, 0.0)
    assert line == f"finished the quarantine of segment {segment}"
    assert watermarks(store) == rows
    assert data_files(store) == files
    del made[JOURNAL]
    assert contents(store) == made


def test_a_folder_that_chroma_made_before_its_watermark_keeps_the_watermark(
    tracer: Path, workers: ProcessPoolExecutor, tmp_path: Path
) -> None:
    """As if Chroma in turn had been killed: its flush writes the files first."""
    what = prepared(
        lambda target: (unpack(UNPURGED, target), Action("quarantine")), tracer, workers, tmp_path
    )
    store = what.case.copy("killed")
    committing = moved_but_not_committed(what)[0]
    assert workers.submit(kill_only, what.case, store, committing).result()
    (aside,) = store.glob("*.quarantined-*[0-9]")
    segment = aside.name.partition(".")[0]
    shutil.copytree(aside, store / segment)
    made, rows = contents(store), watermarks(store)
    assert segment in rows
    settle(store, 0.0)
    assert watermarks(store) == rows
    del made[JOURNAL]
    assert contents(store) == made


def watermarks(store: Path) -> dict[str, object]:
    return dict(essence(store).watermarks_by_segment())


# --- Journals that are none ----------------------------------------------------------------------

SEGMENT = "00000000-0000-4000-8000-000000000000"
ASIDE = f"{SEGMENT}.quarantined-20250101T000000Z-1"


def step(**changes: object) -> dict[str, object]:
    whole = {
        "segment": SEGMENT,
        "moves": [[SEGMENT, ASIDE]],
        "watermarks": [change()],
        "adds": [ASIDE + ".json"],
        "removes": [],
        "drops": [],
    }
    return {**whole, **changes}


def change(**changes: object) -> dict[str, object]:
    return {"segment": SEGMENT, "before": None, "after": None, **changes}


def journal(*steps: object, **changes: object) -> bytes:
    whole = {"schema": "hnswcheck.journal/1", "action": "quarantine", "steps": list(steps)}
    return json.dumps({**whole, **changes}).encode()


def huge_number(place: str) -> bytes:
    """A folder that has moved, so that the row would be written."""
    row = {"rowid": 1, "type": "integer", "value": 1, place: 10**30}
    return journal(step(watermarks=[change(after=row)]))


CONTENTS = {
    "empty": b"",
    "no-json": b"\x00\xff\xfe garbage",
    "cut": journal(step())[:-9],
    "no-utf-8": b'"\xff"',
    "deep": b"[" * 200_000,
    "huge-integer": b"9" * 100_000,
    "list": b"[]",
    "no-schema": b"{}",
    "another-schema": journal(step(), schema="hnswcheck.journal/2"),
    "schema-no-text": journal(step(), schema=["hnswcheck.journal/1"]),
    "another-action": journal(step(), action="rebuild"),
    "steps-none": journal(steps=None),
    "step-no-object": journal(5),
    "segment-no-uuid": journal(step(segment="../../etc")),
    "segment-missing": journal({k: v for k, v in step().items() if k != "segment"}),
    "no-moves": journal(step(moves=[])),
    "move-of-one": journal(step(moves=[[SEGMENT]])),
    "move-of-three": journal(step(moves=[[SEGMENT, ASIDE, ASIDE]])),
    "move-of-numbers": journal(step(moves=[[1, 2]])),
    "move-no-list": journal(step(moves=[ASIDE])),
    "move-to-parent": journal(step(moves=[[SEGMENT, f"../{ASIDE}"]])),
    "move-to-root": journal(step(moves=[[SEGMENT, f"/{ASIDE}"]])),
    "move-of-database": journal(step(moves=[[DATABASE, ASIDE]])),
    "move-onto-database": journal(step(moves=[[SEGMENT, DATABASE]])),
    "move-of-another": journal(step(moves=[[SEGMENT.replace("8000", "9000"), ASIDE]])),
    "move-with-newline": journal(step(moves=[[SEGMENT, ASIDE + "\n"]])),
    "move-with-nul": journal(step(moves=[[SEGMENT, ASIDE + "\0"]])),
    "adds-parent": journal(step(adds=[f"../{ASIDE}.json"])),
    "adds-database": journal(step(adds=[DATABASE])),
    "adds-number": journal(step(adds=[5])),
    "adds-a-list": journal(step(adds=[[f"{ASIDE}.json"]])),
    "removes-parent": journal(step(removes=[f"../../{ASIDE}.json"])),
    "removes-database": journal(step(removes=[DATABASE])),
    "removes-a-folder": journal(step(removes=[ASIDE])),
    "no-watermarks": journal({k: v for k, v in step().items() if k != "watermarks"}),
    "watermarks-no-list": journal(step(watermarks=change())),
    "watermark-no-change": journal(step(watermarks=[5])),
    "watermark-of-no-segment": journal(step(watermarks=[change(segment="' OR 1")])),
    "watermark-no-row": journal(step(watermarks=[change(before=5)])),
    "watermark-no-hexadecimal": journal(
        step(watermarks=[change(after={"rowid": 1, "type": "blob", "value": "xyz"})])
    ),
    "watermark-unknown": journal(
        step(watermarks=[change(after={"rowid": 1, "type": "date", "value": 1})])
    ),
    "drop-no-pair": journal(step(drops=[5])),
    "drop-of-three": journal(step(drops=[[1, 2, 3]])),
    "drop-of-texts": journal(step(drops=[["1", "2"]])),
    "drop-beyond-sqlite": journal(step(drops=[[1, 10**30]])),
    "rowid-beyond-sqlite": huge_number("rowid"),
    "seq-id-beyond-sqlite": huge_number("value"),
    "second-step-wrong": journal(step(), step(segment="../x")),
}


def place(store: Path, content: bytes) -> None:
    (store / JOURNAL).write_bytes(content)


def place_folder(store: Path) -> None:
    (store / JOURNAL).mkdir()


def place_link(store: Path) -> None:
    elsewhere = store.parent / "elsewhere"
    elsewhere.write_bytes(journal(step()))
    (store / JOURNAL).symlink_to(elsewhere)


def place_dangling_link(store: Path) -> None:
    (store / JOURNAL).symlink_to(store.parent / "nowhere")


def place_pipe(store: Path) -> None:
    os.mkfifo(store / JOURNAL)


def place_giant(store: Path) -> None:
    with (store / JOURNAL).open("wb") as file:
        file.truncate(1 << 40)


OTHERS: dict[str, Callable[[Path], None]] = {
    "folder": place_folder,
    "link": place_link,
    "dangling-link": place_dangling_link,
    "pipe": place_pipe,
    "giant": place_giant,
}


def with_journal(kind: str, target: Path) -> Path:
    """A damaged store with a folder moved aside, and a journal that is none of ours."""
    store = unpack(TWO_DAMAGED, target)
    (store / ASIDE).mkdir()
    (store / ASIDE / "header.bin").write_bytes(b"kept")
    if kind in CONTENTS:
        place(store, CONTENTS[kind])
    else:
        OTHERS[kind](store)
    return store


def call_quarantine(store: Path) -> None:
    hnswcheck.quarantine(store, accept_loss=True)


def call_restore(store: Path) -> None:
    hnswcheck.restore(store, ASIDE)


@pytest.mark.parametrize("kind", [*CONTENTS, *OTHERS])
def test_a_journal_that_is_none_is_one_clear_error_and_nothing_changes(
    kind: str, tmp_path: Path
) -> None:
    store = with_journal(kind, tmp_path)
    before = times(store)
    for call in (call_quarantine, call_restore):
        with pytest.raises((hnswcheck.StoreUnreadable, hnswcheck.ActionFailed)) as caught:
            call(store)
        assert str(store / JOURNAL) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    findings = {found.id for found in hnswcheck.audit(store).findings}
    assert "action-unfinished" in findings
    assert times(store) == before


def times(store: Path) -> dict[str, tuple[int, ...]]:
    """What the system says of each file, where not all can be read; writing shows in the times."""
    paths = [store, *store.rglob("*")]
    found = {str(path): path.lstat() for path in paths}
    return {
        name: (s.st_ino, s.st_mode, s.st_nlink, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        for name, s in found.items()
    }


@pytest.mark.parametrize("kind", ["no-json", "move-to-parent", "folder", "link"])
def test_a_journal_that_is_none_is_one_line_and_exit_code_3(kind: str, tmp_path: Path) -> None:
    store = with_journal(kind, tmp_path)
    before = snapshot(store)
    for command, *options in (["quarantine", "--yes"], ["restore", "--quarantine", ASIDE]):
        done = run(command, store, *options)
        assert done.returncode == 3, done.stdout
        assert JOURNAL in one_line(done.stderr)
        assert done.stdout == ""
    assert snapshot(store) == before


@pytest.mark.parametrize("seed", range(4))
def test_a_journal_with_a_bit_flipped_never_costs_a_file(
    seed: int, workers: ProcessPoolExecutor, tracer: Path, tmp_path: Path
) -> None:
    first = prepared(to_quarantine, tracer, workers, tmp_path)
    left = first.case.copy("left")
    number = first.number_of("rename", nth=3)
    assert workers.submit(kill_only, first.case, left, number).result()
    content = bytearray((left / JOURNAL).read_bytes())
    draw = random.Random(seed)
    files = data_files(left)
    for trial in range(12):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        store = tmp_path / f"flipped-{trial}"
        shutil.copytree(left, store)
        (store / JOURNAL).write_bytes(flipped)
        before = contents(store)
        try:
            settle(store, 0.0)
        except (hnswcheck.StoreUnreadable, hnswcheck.ActionFailed):
            assert contents(store) == before
        assert data_files(store) == files
