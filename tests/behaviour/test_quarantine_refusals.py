"""Where a quarantine cannot be done it says so in one line, and nothing is moved or lost."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from moving import clear_line, dump, edit, segment_of, unmoved
from others import EACH_OF_THEM, EXCLUSIVE, IMMEDIATE, OPEN, OTHERS, READING, another
from stores import (
    PROGRAM,
    SOUND,
    environment,
    in_a_mount_namespace,
    mounted,
    run,
    snapshot,
    unpack,
    unwrapped,
)

import hnswcheck
from hnswcheck import StoreChanged, StoreInUse
from hnswcheck.changes.quarantine import LINKED, carry_out, plan_quarantine
from hnswcheck.cli import app as cli
from hnswcheck.progress import silent

#: One segment; 47 records would be searchable only after a repair.
OLDER = "1.5.9-damaged-folder-older"
#: One segment; the WAL holds all of it.
HELD_BY_WAL = "1.5.9-damaged-folder-older-unpurged"
#: Two segments, both damaged.
TWO = "1.5.9-damaged-folders-exchanged"
ANY_COST = ("--yes", "--accept-loss")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return unpack(OLDER, tmp_path)


def command(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Run the program in this process: exit code, stdout, stderr."""
    capsys.readouterr()
    code = cli.run([str(word) for word in words])
    return code, *capsys.readouterr()


def quarantine_folders(store: Path) -> list[str]:
    return sorted(path.name for path in store.glob("*.quarantined-*") if path.is_dir())


# --- Wrong use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--collection", "nope"],
        ["--collection", ""],
        ["--collection", "docs", "--collection", "nope"],
        ["--segment", "nope"],
        ["--segment", ""],
        ["--segment", "../docs"],
        ["--segment", "00000000-0000-4000-8000-000000000000"],
        ["--level", "probe"],
        ["--wait", "-1"],
        ["--wait", "soon"],
        ["--frobnicate"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2_and_moves_nothing(
    words: Sequence[str], store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(store)
    code, out, err = command(capsys, "quarantine", store, *ANY_COST, *words)
    assert (code, out) == (2, "")
    clear_line(err)
    assert snapshot(store) == before


@pytest.mark.parametrize("place", ["nowhere", "empty", "file"])
def test_what_is_no_store_is_exit_code_2(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    before = snapshot(tmp_path)
    for words in (ANY_COST, ("--dry-run",)):
        code, out, err = command(capsys, "quarantine", tmp_path / place, *words)
        assert (code, out) == (2, "")
        assert place in clear_line(err)
    assert snapshot(tmp_path) == before


def test_a_segment_that_is_not_asked_for_stays(tmp_path: Path) -> None:
    store = unpack(TWO, tmp_path)
    segments = [s.vector_segment for s in hnswcheck.audit(store).stores[0].segments]
    chosen, other = segments[:2]
    assert chosen
    assert other
    result = hnswcheck.quarantine(store, segments=[chosen], accept_loss=True)
    assert [fate.segment for fate in result.segments] == [chosen]
    assert not (store / chosen).exists()
    assert (store / other).is_dir()


def test_a_collection_that_is_not_asked_for_stays(tmp_path: Path) -> None:
    store = unpack(TWO, tmp_path)
    chosen, other = hnswcheck.audit(store).stores[0].segments[:2]
    result = hnswcheck.quarantine(store, [chosen.collection.name], accept_loss=True)
    assert [fate.segment for fate in result.segments] == [chosen.vector_segment]
    assert (store / str(other.vector_segment)).is_dir()


# --- Asking first --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["quarantine"], ["audit", "--quarantine"]], ids=" ".join)
def test_without_anybody_to_ask_nothing_is_moved(
    words: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = unpack(HELD_BY_WAL, tmp_path)
    before = snapshot(store)
    code, _, err = command(capsys, words[0], store, *words[1:])
    assert code == (1 if words[0] == "audit" else 2)  # damage outranks wrong use
    clear_line(err.splitlines(keepends=True)[-1])
    assert snapshot(store) == before
    command(capsys, words[0], store, *words[1:], "--yes")
    assert len(quarantine_folders(store)) == 1


def test_without_accept_loss_it_says_what_would_be_lost_and_that_repair_is_better(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(store)
    (fate,) = hnswcheck.quarantine(store, dry_run=True).segments
    code, out, err = command(capsys, "quarantine", store, "--yes")
    assert (code, err) == (1, "")
    said = " ".join(out.split())
    assert f"{fate.searchable} records stay searchable" in said
    assert f"{fate.after_repair} only after a repair" in said
    assert "Better run hnswcheck repair, which keeps them" in said
    assert snapshot(store) == before


def on_a_terminal(store: Path, *words: str, meanwhile: Callable[[], None]) -> tuple[int, str]:
    """Answer the question with the last word: exit code and all that was shown."""
    *options, answer = words
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "quarantine", str(store), *options],
        stdin=side,
        stdout=side,
        stderr=side,
        env=environment(TERM="dumb"),
    )
    os.close(side)
    shown = b""
    asked = False
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if select.select([main], [], [], 0.1)[0]:
            try:
                part = os.read(main, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
        if not asked and b"Move them?" in shown:
            asked = True
            meanwhile()
            os.write(main, f"{answer}\n".encode())
    code = process.wait(10)
    os.close(main)
    assert asked, shown
    return code, shown.decode()


@pytest.mark.parametrize(("answer", "moved"), [("y", 1), ("n", 0)])
def test_whoever_is_asked_decides(answer: str, moved: int, tmp_path: Path) -> None:
    store = unpack(HELD_BY_WAL, tmp_path)
    code, _ = on_a_terminal(store, answer, meanwhile=lambda: None)
    assert code == 1 - moved
    assert len(quarantine_folders(store)) == moved


def test_what_changes_while_the_question_stands_is_not_moved(tmp_path: Path) -> None:
    store = unpack(HELD_BY_WAL, tmp_path)

    def write() -> None:
        edit(store, "UPDATE max_seq_id SET seq_id = seq_id + 1")

    code, shown = on_a_terminal(store, "y", meanwhile=write)
    assert code == 3
    assert "Traceback" not in shown
    assert quarantine_folders(store) == []


# --- Names ---------------------------------------------------------------------------------------


def test_segments_that_are_moved_in_the_same_second_have_names_of_their_own(tmp_path: Path) -> None:
    store = unpack(TWO, tmp_path)
    result = hnswcheck.quarantine(store, accept_loss=True)
    names = [fate.moved_to for fate in result.segments]
    assert len(set(names)) == 2
    assert quarantine_folders(store) == sorted(str(name) for name in names)
    assert {m.folder for m in hnswcheck.quarantines(store)} == set(names)


def test_one_segment_that_is_moved_thrice_in_a_second_has_three_names(store: Path) -> None:
    """Chroma makes a new folder at once."""
    segment = segment_of(store)
    content = {p.name: p.read_bytes() for p in (store / segment).iterdir()}
    names = []
    for _ in range(3):
        (fate,) = hnswcheck.quarantine(store, accept_loss=True).segments
        assert fate.moved_to
        names.append(fate.moved_to)
        shutil.copytree(store / fate.moved_to, store / segment)
    assert len(set(names)) == 3
    for name in names:
        assert {p.name: p.read_bytes() for p in (store / name).iterdir()} == content


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "precious").write_text("precious")


def make_empty_folder(path: Path) -> None:
    path.mkdir()


def make_file(path: Path) -> None:
    path.write_text("precious")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("suffix", ["", ".json"], ids=["folder", "manifest"])
@pytest.mark.parametrize(
    "make",
    [make_folder, make_empty_folder, make_file, make_dangling_link],
    ids=lambda make: make.__name__,
)
def test_a_name_that_exists_is_never_taken(
    make: Callable[[Path], None], suffix: str, store: Path
) -> None:
    segment = segment_of(store)
    now = datetime.now(UTC)
    for second in range(-1, 20):
        time_text = f"{now + timedelta(seconds=second):%Y%m%dT%H%M%SZ}"
        make(store / f"{segment}.quarantined-{time_text}-1{suffix}")
    before = unmoved(snapshot(store))
    (fate,) = hnswcheck.quarantine(store, accept_loss=True).segments
    assert fate.moved_to
    assert fate.moved_to.endswith("-2")
    after = unmoved(snapshot(store))
    there = {path: trace for path, trace in before.items() if path.split("/")[0] != segment}
    assert {path: after[path] for path in there} == there


def test_what_others_have_quarantined_is_never_touched_again(store: Path) -> None:
    segment = segment_of(store)
    for suffix in ("drift-20250101-000000", "corrupt-1700000000", "quarantined-by-hand", "bak"):
        shutil.copytree(store / segment, store / f"{segment}.{suffix}")
    before = unmoved(snapshot(store))
    (fate,) = hnswcheck.quarantine(store, accept_loss=True).segments
    after = unmoved(snapshot(store))
    others = {path: trace for path, trace in before.items() if path.split("/")[0] != segment}
    assert {path: after[path] for path in others} == others
    assert fate.moved_to
    again = snapshot(store)
    assert [f.moved_to for f in hnswcheck.quarantine(store, accept_loss=True).segments] == [None]
    assert snapshot(store) == again
    assert [m.folder for m in hnswcheck.quarantines(store)] == [fate.moved_to]


# --- Paths that lead elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../outside", "inside/../../outside", "/ABSOLUTE", ".", "..", "", "a/b", "x\0y"]
)
def test_a_segment_whose_id_is_a_path_is_never_moved(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = unpack(OLDER, tmp_path)
    segment = segment_of(store)
    name = name.replace("/ABSOLUTE", str(tmp_path / "outside"))
    shutil.copytree(store / segment, tmp_path / "outside")
    (store / "inside").mkdir()
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        for table, column in (("segments", "id"), ("max_seq_id", "segment_id")):
            query = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"
            database.execute(query, (name, segment))
        database.commit()
    before = snapshot(tmp_path)
    code, _, err = command(capsys, "quarantine", store, *ANY_COST)
    assert code in (1, 3)
    if err:
        clear_line(err)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("inside", [True, False], ids=["within", "elsewhere"])
def test_a_segment_folder_that_is_a_link_is_never_moved(
    inside: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = unpack(OLDER, tmp_path)
    segment = segment_of(store)
    target = (store if inside else tmp_path) / "elsewhere"
    (store / segment).rename(target)
    (store / segment).symlink_to(target)
    before = snapshot(tmp_path)
    code, out, err = command(capsys, "quarantine", store, *ANY_COST)
    assert code == 1
    assert LINKED in unwrapped(out + err)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("what", ["the folder", "a file"])
def test_a_segment_that_is_reached_through_a_link_is_never_repaired(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = unpack(OLDER, tmp_path)
    path = store / segment_of(store)
    path = path if what == "the folder" else path / "header.bin"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path)
    code, out, _ = command(capsys, "repair", store, "--yes")
    assert code == 1
    assert LINKED in unwrapped(out)
    assert snapshot(tmp_path) == before


def test_a_store_that_is_reached_through_a_link_is_moved_in_place(
    store: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link to it"
    link.symlink_to(store)
    (fate,) = hnswcheck.quarantine(link, accept_loss=True).segments
    assert quarantine_folders(store) == [fate.moved_to]
    assert link.is_symlink()
    assert fate.moved_to
    assert hnswcheck.restore(link, fate.moved_to).done


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "dangling link", "odd name"])
def test_strange_things_in_a_damaged_folder_go_with_it(kind: str, store: Path) -> None:
    folder = store / segment_of(store)
    name = os.fsdecode(b"\xff\xfe\n") if kind == "odd name" else "strange"
    match kind:
        case "pipe":
            os.mkfifo(folder / name)
        case "folder":
            (folder / name).mkdir()
            (folder / name / "precious").write_text("precious")
        case "link":
            (folder / name).symlink_to(store.parent)
        case "dangling link":
            (folder / name).symlink_to("nowhere")
        case "odd name":
            (folder / name).write_text("precious")
    inode = (folder / name).lstat().st_ino
    done = run("quarantine", store, *ANY_COST, timeout=20)
    if done.returncode:
        if done.stderr:
            clear_line(done.stderr)
        assert (folder / name).lstat().st_ino == inode
        return
    (moved,) = quarantine_folders(store)
    assert (store / moved / name).lstat().st_ino == inode
    done = run("restore", store, "--quarantine", moved, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / name).lstat().st_ino == inode


# --- File systems --------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """What a copy keeps of files: mode, mtime and content."""
    return {
        str(path.relative_to(root)): (s.st_mode, s.st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
        for s in [path.lstat()]
    }


@in_a_mount_namespace
def test_on_a_read_only_mount_nothing_is_moved(store: Path) -> None:
    before = snapshot(store)
    bind = f"mount --bind {store} {store}; mount -o remount,bind,ro {store}"
    done = run("quarantine", store, *ANY_COST, prefix=mounted(f'{bind}; "$@"'))
    assert done.returncode == 3
    clear_line(done.stderr)
    assert snapshot(store) == before


@in_a_mount_namespace
def test_from_a_read_only_mount_nothing_is_put_back(store: Path) -> None:
    (fate,) = hnswcheck.quarantine(store, accept_loss=True).segments
    before = snapshot(store)
    bind = f"mount --bind {store} {store}; mount -o remount,bind,ro {store}"
    prefix = mounted(f'{bind}; "$@"')
    done = run("restore", store, "--quarantine", str(fate.moved_to), prefix=prefix)
    assert done.returncode == 3
    clear_line(done.stderr)
    assert snapshot(store) == before


@in_a_mount_namespace
@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("tmpfs", "folder"),
        ("bind", "folder"),
        ("read-only", "folder"),
        ("read-only", "chroma.sqlite3"),
    ],
)
def test_what_is_a_mount_itself_is_not_moved_and_stays_whole(
    kind: str, what: str, tmp_path: Path
) -> None:
    """Two segments are damaged: neither is moved where one cannot be."""
    store = unpack(TWO, tmp_path)
    folders = sorted(path.name for path in store.iterdir() if path.is_dir())
    place = store / (folders[0] if what == "folder" else what)
    out = tmp_path / "out"
    if kind == "tmpfs":
        keep = tmp_path / "keep"
        shutil.copytree(place, keep)
        mount = f"mount -t tmpfs none {place}; cp -a {keep}/. {place}"
    else:
        mount = f"mount --bind {place} {place}"
    if kind == "read-only":
        mount += f"; mount -o remount,bind,ro {place}"
    before = contents(store)
    done = run(
        "quarantine",
        store,
        *ANY_COST,
        prefix=mounted(f'{mount}; "$@" || code=$?; cp -a {store} {out}; exit $code'),
    )
    assert done.returncode == 3, done
    clear_line(done.stderr)
    found = contents(out)
    if what == "folder":  # the watermark was taken back by sqlite
        before.pop("chroma.sqlite3")
        found.pop("chroma.sqlite3")
    assert found == before
    assert dump(out) == dump(store)


FREE = (0, 8, 24, 512)


@in_a_mount_namespace
@pytest.mark.parametrize("action", ["quarantine", "restore"])
def test_on_a_full_disk_all_of_it_is_done_or_nothing(action: str, tmp_path: Path) -> None:
    """However much is free, in KiB, it works once there is room."""
    store = unpack(TWO, tmp_path)
    original = dump(store)
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    words: tuple[str, ...] = ANY_COST
    if action == "restore":
        fate, _ = hnswcheck.quarantine(store, accept_loss=True).segments
        words = ("--quarantine", str(fate.moved_to))
    before, dumped = contents(store), dump(store)
    codes = []
    for free in FREE:
        out, again = tmp_path / f"full-{free}", tmp_path / f"roomy-{free}"
        script = f"""mount -t tmpfs -o size=4m none {tiny}; cp -a {store}/. {tiny}
            dd if=/dev/zero of={tiny}/filler bs=4k 2>/dev/null || true
            truncate -s -{free}k {tiny}/filler; code=0; "$@" || code=$?
            rm {tiny}/filler; cp -a {tiny} {out}; "$@" >/dev/null 2>&1 || true
            cp -a {tiny} {again}; exit $code"""
        done = run(action, tiny, *words, prefix=mounted(script))
        codes.append(done.returncode)
        if done.returncode:
            assert done.returncode == 3, (free, done)
            clear_line(done.stderr)
            found = contents(out)
            for kept in (found, before):
                kept.pop("chroma.sqlite3", None)
            assert found == before, free
            assert dump(out) == dumped
        if action == "quarantine":
            assert len(quarantine_folders(again)) == 2, free
        else:
            assert len(quarantine_folders(again)) == 1, free
            assert dump(again) != dumped
        for moved in quarantine_folders(again):
            hnswcheck.restore(again, moved)
        assert dump(again) == original
    assert codes[0] == 3
    assert codes[-1] == 0


# --- Others --------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", EACH_OF_THEM)
def test_whoever_has_the_store_open_is_named_and_nothing_is_moved(
    who: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fate,) = hnswcheck.quarantine(store, accept_loss=True).segments
    assert fate.moved_to
    shutil.copytree(store / fate.moved_to, store / fate.segment)
    with another(OTHERS[who], store) as process:
        before = snapshot(store)
        asked: list[tuple[str | Path, ...]] = [
            ("quarantine", store, *ANY_COST),
            ("restore", store, "--quarantine", fate.moved_to),
        ]
        if OTHERS[who] is not EXCLUSIVE:  # it would get no further than the audit
            asked.append(("audit", store, "--quarantine", *ANY_COST))
        for words in asked:
            code, _, err = command(capsys, *words)
            assert code == (1 if words[0] == "audit" else 3), words  # damage outranks the rest
            said = clear_line(err)
            assert str(process.pid) in said
            assert "python" in said
        assert snapshot(store) == before
    assert hnswcheck.restore(store, fate.moved_to).done


def test_a_dry_run_disturbs_nobody_and_is_not_disturbed(store: Path) -> None:
    with another(READING, store):
        (fate,) = hnswcheck.quarantine(store, dry_run=True).segments
    assert fate.after_repair


def test_waiting_ends_when_the_other_leaves(store: Path) -> None:
    with another(IMMEDIATE, store) as process:
        asked = subprocess.Popen(
            [*PROGRAM, "quarantine", str(store), *ANY_COST, "--wait", "30"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        with pytest.raises(subprocess.TimeoutExpired):
            asked.wait(2.5)
        process.communicate("")
        _, err = asked.communicate(timeout=20)
    assert (asked.returncode, err) == (0, "")
    assert len(quarantine_folders(store)) == 1


def test_waiting_ends_with_its_time(store: Path) -> None:
    with another(OPEN, store):
        before = snapshot(store)
        started = time.monotonic()
        with pytest.raises(StoreInUse):
            hnswcheck.quarantine(store, accept_loss=True, wait=1.5)
        assert time.monotonic() - started >= 1.5
        assert snapshot(store) == before


IN_THIS_PROCESS = """
import sys
import chromadb
import hnswcheck
path = sys.argv[1]
client = chromadb.PersistentClient(path, chromadb.Settings(anonymized_telemetry=False))
docs = client.get_collection("docs")
count = docs.count()
for attempt in range(2):
    try:
        hnswcheck.quarantine(path, accept_loss=True)
    except hnswcheck.StoreInUse as error:
        print(error)
docs.add(ids=["a"], embeddings=[[0.5] * 8])
assert docs.count() == count + 1
"""


@pytest.mark.usefixtures("chroma")
def test_a_client_in_this_process_is_refused_and_goes_on_working(store: Path) -> None:
    folders = [path.name for path in store.iterdir() if path.is_dir()]
    done = subprocess.run(
        [sys.executable, "-c", IN_THIS_PROCESS, str(store)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert "this process" in done.stdout
    assert [path.name for path in store.iterdir() if path.is_dir()] == folders


LOCKS = """
import sqlite3, subprocess, sys
import hnswcheck
path = sys.argv[1]
database = path + "/chroma.sqlite3"
try_to_lock = '''
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
other.execute("BEGIN IMMEDIATE")
'''
acts = {
    "nothing": lambda: None,
    "dry run": lambda: hnswcheck.quarantine(path, dry_run=True),
    "quarantine": lambda: hnswcheck.quarantine(path, accept_loss=True),
    "list": lambda: hnswcheck.quarantines(path),
    "restore": lambda: hnswcheck.restore(path, "x"),
    "restore's dry run": lambda: hnswcheck.restore(path, "x", dry_run=True),
}
for name, act in acts.items():
    mine = sqlite3.connect(database, isolation_level=None)
    mine.execute("BEGIN IMMEDIATE")
    try:
        act()
    except hnswcheck.HnswcheckError:
        pass
    other = subprocess.run([sys.executable, "-c", try_to_lock, database], capture_output=True)
    if b"database is locked" not in other.stderr:
        print(name)
    mine.close()
"""


def test_locks_of_this_process_survive_whatever_is_asked(store: Path) -> None:
    """Closing any descriptor of a file gives up all of a process's locks on it."""
    before = unmoved(snapshot(store))
    done = subprocess.run(
        [sys.executable, "-c", LOCKS, str(store)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == []
    assert unmoved(snapshot(store)) == before


# --- What changes between the audit and the move -------------------------------------------------


def write_to_the_wal(store: Path) -> None:
    edit(
        store,
        "INSERT INTO embeddings_queue (operation, topic, id, vector, encoding, metadata)"
        " SELECT operation, topic, 'another', vector, encoding, metadata FROM embeddings_queue"
        " LIMIT 1",
    )


def move_a_watermark(store: Path) -> None:
    edit(store, "UPDATE max_seq_id SET seq_id = seq_id - 1")


def write_and_set_the_clock_back(store: Path) -> None:
    path = store / "chroma.sqlite3"
    times = path.stat()
    move_a_watermark(store)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def write_to_an_index(store: Path) -> None:
    path = store / segment_of(store) / "data_level0.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    times = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace_a_file(store: Path) -> None:
    path = store / segment_of(store) / "index_metadata.pickle"
    shutil.copy2(path, store.parent / "copy")
    (store.parent / "copy").rename(path)


def add_a_file(store: Path) -> None:
    (store / segment_of(store) / "another").touch()


def remove_a_file(store: Path) -> None:
    (store / segment_of(store) / "length.bin").unlink()


def make_a_new_folder(store: Path) -> None:
    folder = store / segment_of(store)
    folder.rename(store.parent / "gone")
    shutil.copytree(store.parent / "gone", folder)


def remove_the_folder(store: Path) -> None:
    shutil.rmtree(store / segment_of(store))


def link_the_folder(store: Path) -> None:
    folder = store / segment_of(store)
    folder.rename(store.parent / "gone")
    folder.symlink_to(store.parent / "gone")


CHANGES = (
    write_to_the_wal,
    move_a_watermark,
    write_and_set_the_clock_back,
    write_to_an_index,
    replace_a_file,
    add_a_file,
    remove_a_file,
    make_a_new_folder,
    remove_the_folder,
    link_the_folder,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_changed_since_it_was_audited_is_not_moved(
    change: Callable[[Path], None], store: Path
) -> None:
    plan = plan_quarantine(
        store, None, None, level="standard", dry_run=False, wait=0.0, progress=silent
    )
    change(store)
    before = snapshot(store)
    with pytest.raises((StoreChanged, hnswcheck.StoreUnreadable)) as refused:
        carry_out(plan, True, 0.0, silent)
    assert len(str(refused.value).splitlines()) == 1
    assert snapshot(store) == before


def test_a_change_at_any_moment_is_either_seen_or_too_late(tmp_path: Path) -> None:
    """The reports of progress are the moments; what is moved is then what its manifest says."""
    seen = 0
    for moment in range(1_000):
        store = unpack(OLDER, tmp_path / str(moment))
        path = store / segment_of(store) / "length.bin"
        data = path.read_bytes()
        calls = 0

        def interfere(done: int, total: int, what: str, moment: int = moment, path: Path = path,
                      data: bytes = data) -> None:  # fmt: skip
            nonlocal calls
            if calls == moment:
                path.write_bytes(data[:-1] + b"\x7f")
            calls += 1

        try:
            result = hnswcheck.quarantine(store, accept_loss=True, progress=interfere)
        except StoreChanged:
            seen += 1
            assert quarantine_folders(store) == []
            continue
        if calls <= moment:
            break
        for fate in result.segments:
            if fate.moved_to:
                manifest = json.loads((store / f"{fate.moved_to}.json").read_text())
                assert hnswcheck.restore(store, fate.moved_to, dry_run=True).lost_writes == 0
                assert manifest["files"]
    else:
        pytest.fail("it never ended")
    assert moment > 3
    assert seen


# --- In one step ---------------------------------------------------------------------------------


def test_audit_with_quarantine_does_the_same_in_one_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = []
    for number, words in enumerate((["quarantine"], ["audit", "--quarantine"])):
        store = unpack(HELD_BY_WAL, tmp_path / str(number))
        code, _, err = command(capsys, words[0], store, *words[1:], "--yes")
        assert code == 0 or words[0] == "audit", err
        assert len(quarantine_folders(store)) == 1
        moved.append(dump(store))
    assert moved[0] == moved[1]


def test_a_sound_store_is_left_alone_in_one_step_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = unpack(SOUND, tmp_path)
    before = snapshot(store)
    for words in (("quarantine", store, *ANY_COST), ("audit", store, "--quarantine", *ANY_COST)):
        code, _, err = command(capsys, *words)
        assert (code, err) == (0, "")
    assert snapshot(store) == before


@pytest.mark.parametrize("pages", ["garbage", "halved"])
def test_where_sqlite_is_damaged_nothing_is_moved(
    pages: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store / "chroma.sqlite3"
    data = bytearray(path.read_bytes())
    if pages == "halved":
        del data[len(data) // 2 :]
    else:
        data[4096 * 2 : 4096 * 30] = os.urandom(4096 * 28)
    path.write_bytes(data)
    before = snapshot(store)
    code, _, err = command(capsys, "quarantine", store, *ANY_COST)
    assert code == 1
    clear_line(err)
    assert snapshot(store) == before
