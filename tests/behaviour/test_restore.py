"""Restore puts back exactly what quarantine took, unless that would lose what was written since."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from environments import engine_of
from moving import (
    Answer,
    ask,
    clear_line,
    dump,
    edit,
    files_only,
    segment_of,
    serve_job,
)
from oracle import Engine
from stores import SOUND, run, snapshot, unpack

import hnswcheck
from hnswcheck import RestoreRefused
from hnswcheck.cli import app as cli

#: Chroma can read and write it all: one record's row is gone from sqlite.
PHANTOM = "1.5.9-damaged-record-deleted"
#: 10 phantoms, 35 records without a vector.
OLDER = "1.5.9-damaged-folder-older"
#: As that, and Chroma never removes anything from the WAL.
UNPURGED = "1.5.9-damaged-folder-older-unpurged"
#: Chroma fails to open it before, and serves 7 records once it is moved.
TORN = "1.5.9-damaged-header-count-beyond-files"
DOCS = {"tenant": "default_tenant", "database": "default_database", "name": "docs"}
Operations = Sequence[tuple[str, Sequence[str]]]


def r(*numbers: int) -> list[str]:
    return [f"r{number:03}" for number in numbers]


def new(count: int, prefix: str = "new") -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


@pytest.fixture(scope="module")
def engine(chroma: object) -> Engine:
    return engine_of()


@dataclass(frozen=True, slots=True)
class Moved:
    """A store with its only segment in quarantine, and what it was."""

    store: Path
    segment: str
    folder: str
    watermark: tuple[int, int] | None

    @property
    def manifest(self) -> Path:
        return self.store / f"{self.folder}.json"


def quarantined(name: str, target: Path) -> Moved:
    store = unpack(name, target)
    segment = segment_of(store)
    row = watermark(store, segment)
    (fate,) = hnswcheck.quarantine(store, accept_loss=True).segments
    assert fate.moved_to
    return Moved(store, segment, fate.moved_to, row)


def watermark(store: Path, segment: str) -> tuple[int, int] | None:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        query = "SELECT rowid, seq_id FROM max_seq_id WHERE segment_id = ?"
        row: tuple[int, int] | None = database.execute(query, (segment,)).fetchone()
    return row


def play(engine: Engine, store: Path, operations: Operations, scratch: Path) -> None:
    """Let a Chroma of its own process do this."""
    step = {"do": "play", "operations": operations}
    (answer,) = ask(engine, [serve_job(store, DOCS, step)], scratch)
    assert "error" not in answer, answer["error"]


def read(engine: Engine, store: Path, scratch: Path) -> Answer:
    """All that a fresh Chroma serves: ids, what searches find, and each vector."""
    steps: list[Answer] = [{"do": "serve", "results": 1000}, {"do": "vectors"}]
    (answer,) = ask(engine, [serve_job(store, DOCS, *steps)], scratch)
    assert "error" not in answer, answer["error"]
    return answer


# --- What was written since ----------------------------------------------------------------------


def put_back_by_hand(moved: Moved, target: Path) -> Path:
    """A copy in which the old folder and watermark are there again, whatever that loses."""
    shutil.copytree(moved.store, target)
    shutil.rmtree(target / moved.segment, ignore_errors=True)
    (target / moved.folder).rename(target / moved.segment)
    edit(target, f"DELETE FROM max_seq_id WHERE segment_id = '{moved.segment}'")
    if moved.watermark:
        mark = moved.watermark[1]
        edit(
            target,
            f"INSERT INTO max_seq_id (segment_id, seq_id) VALUES ('{moved.segment}', {mark})",
        )
    return target


def phantoms(store: Path) -> set[str]:
    """Ids that Chroma's searches find and its records lack: searches may pass some by."""
    (segment,) = (
        s
        for s in hnswcheck.audit(store, all_ids=True).stores[0].segments
        if s.collection.name == "docs"
    )
    return {i for found in segment.findings if found.id == "records-phantom" for i in found.sample}


def same(one: Sequence[float], two: Sequence[float] | None) -> bool:
    return two is not None and all(abs(a - b) < 1e-5 for a, b in zip(one, two, strict=True))


def random_operations(seed: int) -> Operations:
    source = random.Random(seed)
    live = r(*range(10), *range(20, 65), *range(100, 130))
    operations: list[tuple[str, list[str]]] = []
    for call in range(source.randint(3, 14)):
        kind = source.choice(("add", "upsert", "update", "delete", "touch", "revive"))
        some = source.sample(live, min(len(live), source.randint(1, 20)))
        if kind == "add":
            some = new(source.randint(1, 30), f"seed-{call}")
        elif kind == "upsert":
            some += new(source.randint(1, 9), f"upserted-{call}")
        elif kind == "revive":
            kind, some = "upsert", r(*source.sample(range(10, 20), 4))
        if kind == "delete":
            live = [record for record in live if record not in some]
        elif kind in ("add", "upsert"):
            live += [record for record in some if record not in live]
        operations.append((kind, some))
    return operations


#: By what it is: the fixture, what is done in one process, and what in the next.
SINCE: dict[str, tuple[str, Operations, Operations]] = {
    "nothing": (PHANTOM, [], []),
    "a few, unflushed": (
        PHANTOM,
        [("add", new(5)), ("delete", r(41, 60)), ("update", r(50))],
        [("add", new(3, "later"))],
    ),
    "a flush of adds": (PHANTOM, [("add", new(60))], []),
    "a flush of all kinds": (
        PHANTOM,
        [
            ("update", r(20, 21, 50)),
            ("delete", r(1, 2, 3, 4, 41)),
            ("upsert", r(5, 6)),
            ("add", new(60)),
        ],
        [],
    ),
    "a flush, then more": (
        PHANTOM,
        [("add", new(60)), ("delete", new(5)), ("delete", r(7, 8))],
        [("add", new(7, "later")), ("update", new(60)[20:22])],
    ),
    "metadata only": (PHANTOM, [("touch", r(*range(3, 10), *range(32, 40)))], []),
    "a flush with metadata only changes": (
        PHANTOM,
        [("touch", r(*range(3, 10), *range(32, 40))), ("add", new(60))],
        [],
    ),
    "written and deleted again": (PHANTOM, [("add", new(60)), ("delete", new(60))], []),
    "deleted and added again": (
        PHANTOM,
        [("delete", r(50, 51)), ("add", [*r(50, 51), *new(60)])],
        [],
    ),
    "everything deleted": (
        PHANTOM,
        [("delete", r(*range(1, 10), *range(20, 30), *range(32, 65), *range(100, 130)))],
        [],
    ),
    "deletions flushed, phantoms written again after it": (
        OLDER,
        [("delete", r(*range(10), *range(20, 30), *range(32, 65), *range(100, 126)))],
        [("add", r(*range(10, 20)))],
    ),
    "as many deletions flushed as phantoms were written again": (
        OLDER,
        # Two deletions waited in the WAL before.
        [("delete", r(*range(8))), ("add", new(30)), ("delete", new(30))],
        [("upsert", r(*range(10, 20), 40, 41, 129, *range(200, 205)))],
    ),
    "a flush over an older folder": (OLDER, [("add", new(60)), ("delete", r(22, 23))], []),
    "a flush that purged nothing": (UNPURGED, [("add", new(60)), ("delete", r(22, 110))], []),
    "a flush that purged nothing, then more": (
        UNPURGED,
        [("upsert", r(*range(20, 65), *range(100, 130)))],
        [("delete", r(22, 110)), ("add", r(22))],
    ),
} | {
    f"anything {seed}": (OLDER if seed % 2 else PHANTOM, random_operations(seed), [])
    for seed in range(2, 6)
}


@dataclass(frozen=True, slots=True)
class Original:
    """What Chroma serves of a fixture as it is."""

    phantoms: set[str]
    vectors: dict[str, Any]


@pytest.fixture(scope="module")
def originals(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Original]:
    root = tmp_path_factory.mktemp("originals")
    stores = {name: unpack(name, root) for name in (PHANTOM, OLDER, UNPURGED)}
    return {
        name: Original(phantoms(store), read(engine, store, root)["vectors"])
        for name, store in stores.items()
    }


@pytest.mark.parametrize("what", SINCE)
def test_restore_is_refused_exactly_where_chroma_would_lose_what_was_written_since(
    what: str, engine: Engine, originals: dict[str, Original], tmp_path: Path
) -> None:
    name, first, second = SINCE[what]
    moved = quarantined(name, tmp_path)
    for operations in (first, second):
        if operations:
            play(engine, moved.store, operations, tmp_path)
    copy = tmp_path / "now"
    shutil.copytree(moved.store, copy)
    now = read(engine, copy, tmp_path)
    original = originals[name]
    hand = put_back_by_hand(moved, tmp_path / "by-hand")
    deletes = phantoms(hand) - original.phantoms
    by_hand = read(engine, hand, tmp_path)
    assert set(by_hand["hits"]) - set(by_hand["ids"]) <= phantoms(hand)
    written = {record for call in (*first, *second) for record in call[1]}
    # What only the replay of the whole WAL has healed was not there before.
    owed = {
        record: vector
        for record, vector in now["vectors"].items()
        if vector is not None and (record in written or same(vector, original.vectors.get(record)))
    }
    writes = {k for k, vector in owed.items() if not same(vector, by_hand["vectors"].get(k))}

    before = snapshot(moved.store)
    planned = hnswcheck.restore(moved.store, moved.folder, dry_run=True)
    assert snapshot(moved.store) == before
    assert (planned.lost_writes, planned.lost_deletes) == (len(writes), len(deletes))
    assert not planned.done
    if writes or deletes:
        with pytest.raises(RestoreRefused) as refused:
            hnswcheck.restore(moved.store, moved.folder)
        assert f"{len(writes)} written" in str(refused.value)
        assert f"{len(deletes)} deleted" in str(refused.value)
        assert snapshot(moved.store) == before
        return
    done = hnswcheck.restore(moved.store, moved.folder)
    assert done.done
    assert watermark(moved.store, moved.segment) == moved.watermark
    served = read(engine, moved.store, tmp_path)
    assert served["ids"] == now["ids"]
    assert phantoms(moved.store) == phantoms(hand)
    assert [k for k, vector in owed.items() if not same(vector, served["vectors"][k])] == []


def test_what_chroma_made_meanwhile_is_kept_and_can_be_put_back_too(
    engine: Engine, tmp_path: Path
) -> None:
    moved = quarantined(UNPURGED, tmp_path)
    play(engine, moved.store, [("add", new(60))], tmp_path)
    made = {p.name: p.read_bytes() for p in (moved.store / moved.segment).iterdir()}
    mark = watermark(moved.store, moved.segment)
    done = hnswcheck.restore(moved.store, moved.folder)
    assert done.displaced
    folder = moved.store / done.displaced
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == made
    (manifest,) = hnswcheck.quarantines(moved.store)
    assert manifest.folder == done.displaced
    again = hnswcheck.restore(moved.store, done.displaced)
    assert again.displaced
    assert {p.name: p.read_bytes() for p in (moved.store / moved.segment).iterdir()} == made
    assert watermark(moved.store, moved.segment) == mark


def test_restore_leaves_watermarks_alone_that_came_in_the_meantime(
    engine: Engine, tmp_path: Path
) -> None:
    """sqlite gives the place of a removed row to the next that comes."""
    moved = quarantined(PHANTOM, tmp_path)
    assert moved.watermark
    other = DOCS | {"name": "other"}
    step = {"do": "play", "operations": [("add", new(30))]}
    (answer,) = ask(engine, [serve_job(moved.store, other, step, make=True)], tmp_path)
    assert "error" not in answer, answer["error"]
    others = segment_of(moved.store, "other")
    place = watermark(moved.store, others)
    assert place
    with closing(sqlite3.connect(moved.store / "chroma.sqlite3")) as database:
        ((taken,),) = database.execute(
            "SELECT count(*) FROM max_seq_id WHERE rowid = ?", moved.watermark[:1]
        )
        rows = dict(database.execute("SELECT segment_id, seq_id FROM max_seq_id"))
    assert taken
    assert hnswcheck.restore(moved.store, moved.folder).done
    with closing(sqlite3.connect(moved.store / "chroma.sqlite3")) as database:
        found = dict(database.execute("SELECT segment_id, seq_id FROM max_seq_id"))
    assert found == rows | {moved.segment: moved.watermark[1]}
    statuses = {
        s.collection.name: s.status for s in hnswcheck.audit(moved.store).stores[0].segments
    }
    assert statuses == {"docs": "diverged", "other": "lagging"} or statuses["other"] == "consistent"


def test_two_quarantines_of_one_segment_can_be_put_back_in_either_order(tmp_path: Path) -> None:
    for order in (0, 1):
        target = tmp_path / str(order)
        moved = quarantined(UNPURGED, target)
        folder = shutil.copytree(moved.store / moved.folder, moved.store / moved.segment)
        os.truncate(folder / "data_level0.bin", 1_000)
        (fate,) = hnswcheck.quarantine(moved.store, accept_loss=True).segments
        assert fate.moved_to
        assert fate.moved_to != moved.folder
        names = [moved.folder, fate.moved_to]
        assert {m.folder for m in hnswcheck.quarantines(moved.store)} == set(names)
        assert hnswcheck.restore(moved.store, names[order]).done
        left = {m.folder for m in hnswcheck.quarantines(moved.store)}
        assert left == {names[1 - order]}


def test_an_older_folder_does_not_slip_past_what_was_flushed_later(tmp_path: Path) -> None:
    moved = quarantined(UNPURGED, tmp_path)
    folder = shutil.copytree(moved.store / moved.folder, moved.store / moved.segment)
    os.truncate(folder / "data_level0.bin", 1_000)
    with contextlib.closing(sqlite3.connect(moved.store / "chroma.sqlite3")) as database, database:
        (last,) = database.execute("SELECT max(seq_id) FROM embeddings_queue").fetchone()
        database.execute("INSERT INTO max_seq_id VALUES (?, ?)", (moved.segment, last))
    (fate,) = hnswcheck.quarantine(moved.store, accept_loss=True).segments
    assert fate.moved_to
    with pytest.raises(hnswcheck.RestoreRefused, match="flushed later"):
        hnswcheck.restore(moved.store, moved.folder)
    assert hnswcheck.restore(moved.store, fate.moved_to).done


# --- Refusals ------------------------------------------------------------------------------------


def snapshot_but_pipes(store: Path) -> object:
    """Of what cannot be read to its end, only that it is there."""
    endless = [p for p in store.rglob("*") if p.is_fifo() or p.is_symlink() or is_huge(p)]
    if not endless:
        return snapshot(store)
    return [(str(path), path.lstat().st_ino) for path in sorted(store.rglob("*"))], dump(store)


def is_huge(path: Path) -> bool:
    return path.lstat().st_size > 1 << 30


def flip_a_byte(moved: Moved) -> None:
    path = moved.store / moved.folder / "data_level0.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def add_a_file(moved: Moved) -> None:
    (moved.store / moved.folder / "more").touch()


def remove_a_file(moved: Moved) -> None:
    (moved.store / moved.folder / "length.bin").unlink()


def rename_a_file(moved: Moved) -> None:
    folder = moved.store / moved.folder
    (folder / "length.bin").rename(folder / "length.bak")


def link_a_file(moved: Moved) -> None:
    path = moved.store / moved.folder / "length.bin"
    path.rename(moved.store.parent / "length.bin")
    path.symlink_to(moved.store.parent / "length.bin")


def add_a_folder(moved: Moved) -> None:
    (moved.store / moved.folder / "more").mkdir()


def add_a_pipe(moved: Moved) -> None:
    os.mkfifo(moved.store / moved.folder / "more")


CHANGES = (
    flip_a_byte,
    add_a_file,
    remove_a_file,
    rename_a_file,
    link_a_file,
    add_a_folder,
    add_a_pipe,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_folder_that_was_changed_since_is_not_put_back(
    change: Callable[[Moved], None], tmp_path: Path
) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    change(moved)
    before = snapshot_but_pipes(moved.store)
    done = run("restore", moved.store, "--quarantine", moved.folder, timeout=20)
    assert done.returncode in (1, 3), done
    clear_line(done.stderr)
    assert done.stdout == ""
    assert snapshot_but_pipes(moved.store) == before


def test_a_changed_folder_is_refused_with_exit_code_1_and_named_files(tmp_path: Path) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    flip_a_byte(moved)
    with pytest.raises(RestoreRefused, match=r"data_level0\.bin"):
        hnswcheck.restore(moved.store, moved.folder)
    with pytest.raises(RestoreRefused):
        hnswcheck.restore(moved.store, moved.folder, dry_run=True)


def test_the_folder_of_a_deleted_collection_is_not_put_back(engine: Engine, tmp_path: Path) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    edit(
        moved.store,
        "DELETE FROM segments WHERE collection = (SELECT id FROM collections WHERE name = 'docs')",
        "DELETE FROM collections WHERE name = 'docs'",
    )
    step = {"do": "play", "operations": [("add", new(3))]}
    (answer,) = ask(engine, [serve_job(moved.store, DOCS, step, make=True)], tmp_path)
    assert "error" not in answer
    before = snapshot(moved.store)
    with pytest.raises(RestoreRefused, match="no collection"):
        hnswcheck.restore(moved.store, moved.folder)
    assert snapshot(moved.store) == before


def test_refused_is_exit_code_1_with_one_line(engine: Engine, tmp_path: Path) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    play(engine, moved.store, [("add", new(60))], tmp_path)
    before = snapshot(moved.store)
    done = run("restore", moved.store, "--quarantine", moved.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert " written" in clear_line(done.stderr)
    done = run("restore", moved.store, "--quarantine", moved.folder, "--dry-run")
    assert (done.returncode, done.stderr) == (1, "")
    assert "written" in done.stdout
    assert snapshot(moved.store) == before


# --- Asking --------------------------------------------------------------------------------------


def test_asked_nothing_it_lists_what_can_be_put_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    stranger = moved.store / f"{moved.segment}.drift-20250101-000000"
    stranger.mkdir()
    before = snapshot(moved.store)
    assert cli.run(["restore", str(moved.store)]) == 0
    out, err = capsys.readouterr()
    assert moved.folder in out
    assert "records-phantom" in out
    assert "drift" not in out
    assert err == ""
    assert snapshot(moved.store) == before


def test_where_nothing_was_moved_the_list_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = unpack(SOUND, tmp_path)
    assert hnswcheck.quarantines(store) == ()
    assert cli.run(["restore", str(store)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "name", ["", ".", "..", "nope", "../outside", "SEGMENT", "FOLDER.json", "/FOLDER", "x/FOLDER"]
)
def test_an_unknown_quarantine_is_exit_code_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    before = snapshot(tmp_path)
    asked = name.replace("FOLDER", moved.folder).replace("SEGMENT", moved.segment)
    code = cli.run(["restore", str(moved.store), "--quarantine", asked])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    clear_line(err)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("words", [[], ["--quarantine", "x"]], ids=["list", "restore"])
@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_what_is_no_store_is_exit_code_2(
    words: Sequence[str], place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.run(["restore", str(tmp_path / place), *words]) == 2
    out, err = capsys.readouterr()
    assert place in clear_line(err)
    assert out == ""


# --- Hostile manifests ---------------------------------------------------------------------------


def with_field(*path: str | int, to: Any) -> Callable[[Moved], None]:
    def change(moved: Moved) -> None:
        manifest = json.loads(moved.manifest.read_text())
        place = manifest
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to
        moved.manifest.write_text(json.dumps(manifest))

    return change


def with_text(text: str | bytes) -> Callable[[Moved], None]:
    def change(moved: Moved) -> None:
        moved.manifest.write_bytes(text.encode() if isinstance(text, str) else text)

    return change


def without(field: str) -> Callable[[Moved], None]:
    def change(moved: Moved) -> None:
        manifest = json.loads(moved.manifest.read_text())
        del manifest[field]
        moved.manifest.write_text(json.dumps(manifest))

    return change


def huge(moved: Moved) -> None:
    os.truncate(moved.manifest, 1 << 36)


def huge_text(moved: Moved) -> None:
    with moved.manifest.open("w") as file:
        file.write("[" + "0," * 40_000_000 + "0]")
        file.flush()
        os.fsync(file.fileno())  # only then is it known how many blocks it takes


def a_link(moved: Moved) -> None:
    elsewhere = moved.store.parent / "elsewhere.json"
    moved.manifest.rename(elsewhere)
    moved.manifest.symlink_to(elsewhere)


def a_link_without_end(moved: Moved) -> None:
    moved.manifest.unlink()
    moved.manifest.symlink_to("/dev/zero")


def a_pipe(moved: Moved) -> None:
    moved.manifest.unlink()
    os.mkfifo(moved.manifest)


def a_directory(moved: Moved) -> None:
    moved.manifest.unlink()
    moved.manifest.mkdir()


def gone(moved: Moved) -> None:
    moved.manifest.unlink()


OTHER = "00000000-0000-4000-8000-000000000000"
HOSTILE: dict[str, Callable[[Moved], None]] = {
    "empty": with_text(""),
    "no JSON": with_text("{folder: x}"),
    "no UTF-8": with_text(b"\xff\xfe{}"),
    "a list": with_text("[]"),
    "a number": with_text("1"),
    "null": with_text("null"),
    "nested": with_text("[" * 100_000),
    "nested in the report": with_text('{"report":' + '{"a":' * 100_000),
    "many digits": with_text('{"schema": ' + "9" * 10_000 + "}"),
    "another schema": with_field("schema", to="hnswcheck.quarantine/99"),
    "schema no text": with_field("schema", to=1),
    "folder elsewhere": with_field("folder", to="../elsewhere"),
    "folder of another": with_field("folder", to=f"{OTHER}.quarantined-20250101T000000Z-1"),
    "folder a number": with_field("folder", to=7),
    "segment elsewhere": with_field("segment", to="../elsewhere"),
    "segment absolute": with_field("segment", to="/tmp/elsewhere"),
    "segment of another": with_field("segment", to=OTHER),
    "segment a list": with_field("segment", to=["x"]),
    "time no time": with_field("time", to="yesterday"),
    "time a number": with_field("time", to=1),
    "time null": with_field("time", to=None),
    "why a text": with_field("why", to="because"),
    "why numbers": with_field("why", to=[1, 2]),
    "collection null": with_field("collection", to=None),
    "collection empty": with_field("collection", to={}),
    "collection name a number": with_field("collection", "name", to=3),
    "watermark a list": with_field("watermark", to=[1, 2, 3]),
    "watermark empty": with_field("watermark", to={}),
    "watermark value a text": with_field("watermark", "value", to="xyz"),
    "watermark value enormous": with_field("watermark", "value", to=1 << 70),
    "watermark value infinite": with_text('{"watermark": {"rowid": 1, "value": Infinity}}'),
    "watermark rowid a text": with_field("watermark", "rowid", to="1; DROP TABLE"),
    "watermark rowid enormous": with_field("watermark", "rowid", to=1 << 70),
    "watermark type unknown": with_field("watermark", "type", to="evil"),
    "watermark type another": with_field("watermark", "type", to="blob"),
    "highest a text": with_field("highest_seq_id", to="x"),
    "highest null": with_field("highest_seq_id", to=None),
    "strangers a text": with_field("strangers", to="x"),
    "strangers no texts": with_field("strangers", to=[True, {}]),
    "missing below 0": with_field("missing", to=-5),
    "searchable a text": with_field("searchable", to="x"),
    "files null": with_field("files", to=None),
    "files an object": with_field("files", to={}),
    "files numbers": with_field("files", to=[1, 2]),
    "file name elsewhere": with_field("files", 0, "name", to="../../elsewhere"),
    "file name a number": with_field("files", 0, "name", to=1),
    "file size a text": with_field("files", 0, "size", to="big"),
    "file sha a number": with_field("files", 0, "sha256", to=0),
    "report a list": with_field("report", to=[1]),
    "tool a text": with_field("tool", to="hammer"),
    "unknown field": with_field("surprise", to=1),
    "unknown field of no UTF-8": with_field("\udcff\ud800", to=1),
    "report of no UTF-8": with_field("report", "\udcff", to="\ud800"),
    "watermark type of no UTF-8": with_field("watermark", "type", to="\ud800"),
    "huge": huge,
    "huge text": huge_text,
    "a link": a_link,
    "a link without end": a_link_without_end,
    "a pipe": a_pipe,
    "a directory": a_directory,
    "gone": gone,
} | {f"without {field}": without(field) for field in ("folder", "segment", "files", "watermark")}

#: What does no harm: it is ignored, or says nothing that is used.
HARMLESS = {"unknown field", "unknown field of no UTF-8", "report a list", "report of no UTF-8"} | {
    "tool a text",
    "missing below 0",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_manifest_is_one_clear_line_and_changes_nothing(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    HOSTILE[how](moved)
    before = snapshot_but_pipes(moved.store)
    started = time.monotonic()
    asked = ["--quarantine", moved.folder]
    for words in ([], [*asked, "--dry-run"], asked):
        code = cli.run(["restore", str(moved.store), *words])
        out, err = capsys.readouterr()
        if code == 0:
            assert how in HARMLESS or not words
            assert err == "" or moved.folder in clear_line(err)
            continue
        assert how not in HARMLESS
        assert code in (1, 2, 3), (words, out, err)
        assert moved.folder in clear_line(err) or "Z-1" in err
        assert out == ""
    assert time.monotonic() - started < 30
    if how not in HARMLESS:
        assert snapshot_but_pipes(moved.store) == before


def test_a_hostile_manifest_does_not_stand_in_the_way_of_others(tmp_path: Path) -> None:
    """The names of folders, not the manifests, say what there is."""
    moved = quarantined(PHANTOM, tmp_path)
    other = moved.store / f"{OTHER}.quarantined-20250101T000000Z-1"
    other.mkdir()
    (moved.store / f"{other.name}.json").write_text("no JSON")
    assert hnswcheck.restore(moved.store, moved.folder).done


def test_a_manifest_alone_brings_nothing_back(tmp_path: Path) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    shutil.rmtree(moved.store / moved.folder)
    before = snapshot(moved.store)
    with pytest.raises(hnswcheck.UsageError):
        hnswcheck.restore(moved.store, moved.folder)
    assert snapshot(moved.store) == before


def test_a_link_in_the_place_of_the_folder_is_not_put_back(tmp_path: Path) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    (moved.store / moved.folder).rename(elsewhere)
    (moved.store / moved.folder).symlink_to(elsewhere)
    before = snapshot(tmp_path)
    with pytest.raises(hnswcheck.HnswcheckError):
        hnswcheck.restore(moved.store, moved.folder)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "empty folder", "pipe"])
def test_what_stands_where_the_folder_was_is_never_lost(kind: str, tmp_path: Path) -> None:
    moved = quarantined(PHANTOM, tmp_path)
    place = moved.store / moved.segment
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    match kind:
        case "link":
            place.symlink_to(elsewhere)
        case "dangling link":
            place.symlink_to("nowhere")
        case "file":
            place.write_text("precious")
        case "empty folder":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
    before = files_only(snapshot(tmp_path)) if kind != "pipe" else {}
    done = run("restore", moved.store, "--quarantine", moved.folder, timeout=20)
    if done.returncode:
        clear_line(done.stderr)
        if before:
            assert files_only(snapshot(tmp_path)) == before
        return
    assert (elsewhere / "precious").read_text() == "precious"
    assert not place.is_symlink()
    if kind == "file":
        assert any(p.is_file() and p.read_bytes() == b"precious" for p in moved.store.rglob("*"))
