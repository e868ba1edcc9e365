"""Evidence of what quarantine and restore do to a store, and a real Chroma to ask afterwards."""

from __future__ import annotations

import difflib
import json
import multiprocessing
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from environments import IN_CHROMA
from oracle import Engine, copied_database
from stores import NAMES, Trace, expectation, one_line, snapshot, unpack

import hnswcheck
from hnswcheck import HnswcheckError, QuarantineResult

#: Status of what may be moved, and of what may not.
BROKEN = ("diverged", "corrupt")
DAMAGED_STORES = [name for name in NAMES if expectation(name)["verdict"] == "damaged"]
SOUND_STORES = [name for name in NAMES if name not in DAMAGED_STORES]
Snapshot = Mapping[str, Trace]
#: A row of max_seq_id: rowid, type and literal.
Row = tuple[int, str, str]


def clear_line(text: str) -> str:
    """``text`` if it is one line that was meant to be read."""
    assert "internal error" not in text, text
    return one_line(text)


def has_broken_segment(name: str) -> bool:
    """Whether the generator of a fixture expects a segment that may be moved."""
    return any(c["status"] in BROKEN for c in (expectation(name)["collections"] or {}).values())


# --- What sqlite holds ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dump:
    """All that a database says, and the watermarks as they are stored."""

    lines: tuple[str, ...]
    watermarks: Mapping[str, Row]


def dump(store: Path) -> Dump | None:
    """Read from a copy; None where sqlite cannot read it."""
    try:
        with copied_database(store) as database:
            database.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
            query = "SELECT segment_id, rowid, typeof(seq_id), quote(seq_id) FROM max_seq_id"
            watermarks = {segment: row for segment, *row in database.execute(query)}
            lines = tuple(database.iterdump())
    except sqlite3.Error:
        return None
    return Dump(lines, {str(key): (row[0], row[1], row[2]) for key, row in watermarks.items()})


def difference(before: Dump, after: Dump) -> list[str]:
    """The lines of a dump that went and came."""
    lines = difflib.ndiff(before.lines, after.lines)
    return [line for line in lines if line.startswith(("- ", "+ "))]


def edit(store: Path, *statements: str) -> None:
    """Change a database as no Chroma would."""
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def files_only(found: Snapshot) -> dict[str, Trace]:
    """Without the persist directory itself and what sqlite writes."""
    return {k: v for k, v in found.items() if k != "." and not k.startswith("chroma.sqlite3")}


def unmoved(found: Snapshot) -> dict[str, Trace]:
    """Without times and counts that renaming changes: ctime of whatever is renamed."""
    return {key: replace(trace, ctime_ns=0) for key, trace in files_only(found).items()}


# --- The corpus, moved and put back --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """A store at one moment."""

    files: Snapshot
    dump: Dump | None


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a store: looked at, moved with care, moved at any cost, put back.

    Attributes:
        statuses: by vector segment, as an audit on its own says; empty if it could not.
        folders: those of them that are directories of this store.
        wanted: what a dry run promises.
        steps: what was answered with and without care; an error's class and text if none.
        manifests: as text, by file name, once all is moved.
        copy: the store in that state, to be asked.
    """

    statuses: Mapping[str, str]
    folders: frozenset[str]
    wanted: QuarantineResult | str
    careful: QuarantineResult | str
    reckless: QuarantineResult | str
    start: Look
    after_dry_run: Snapshot
    after_careful: Look
    after_reckless: Look
    manifests: Mapping[str, str]
    copy: Path
    restored: tuple[str, ...]
    end: Look

    @property
    def moved(self) -> dict[str, hnswcheck.Fate]:
        """By the segment's id."""
        results = [r for r in (self.careful, self.reckless) if isinstance(r, QuarantineResult)]
        return {fate.segment: fate for r in results for fate in r.segments if fate.moved_to}


def look(store: Path) -> Look:
    return Look(snapshot(store), dump(store))


def try_quarantine(store: Path, **options: Any) -> QuarantineResult | str:
    try:
        return hnswcheck.quarantine(store, **options)
    except HnswcheckError as error:
        return f"{type(error).__name__}: {error}"


def follow(name: str, scratch: Path) -> Course:
    """Take a fixture through it all."""
    store = unpack(name, scratch / "put-back")
    start = look(store)
    statuses: dict[str, str] = {}
    try:
        (report,) = hnswcheck.audit(store).stores
    except HnswcheckError:
        pass
    else:
        statuses = {s.vector_segment: s.status for s in report.segments if s.vector_segment}
    paths = {segment: store / segment for segment in statuses}
    folders = frozenset(s for s, path in paths.items() if path.is_dir() and not path.is_symlink())
    wanted = try_quarantine(store, dry_run=True, accept_loss=True)
    after_dry_run = snapshot(store)
    careful = try_quarantine(store)
    after_careful = look(store)
    reckless = try_quarantine(store, accept_loss=True)
    after_reckless = look(store)
    manifests = {path.name: path.read_text() for path in store.glob("*.quarantined-*.json")}
    copy = scratch / "moved" / name
    shutil.copytree(store, copy, symlinks=True)
    restored: list[str] = []
    if manifests:
        for manifest in hnswcheck.quarantines(store):
            try:
                restored.append(f"done: {hnswcheck.restore(store, manifest.folder).done}")
            except HnswcheckError as error:
                restored.append(f"{type(error).__name__}: {error}")
    return Course(
        statuses,
        folders,
        wanted,
        careful,
        reckless,
        start,
        after_dry_run,
        after_careful,
        after_reckless,
        manifests,
        copy,
        tuple(restored),
        look(store),
    )


def follow_all(names: Iterable[str], scratch: Path) -> dict[str, Course]:
    """As :func:`follow`, two at once."""
    names = list(names)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        courses = pool.map(follow, names, [scratch] * len(names), chunksize=8)
        return dict(zip(names, courses, strict=True))


@dataclass(frozen=True, slots=True)
class Stay:
    """A store before and after it was to be quarantined at any cost."""

    answer: QuarantineResult | str
    before: Look
    after: Look


def stay(name: str) -> Stay:
    with TemporaryDirectory() as scratch:
        store = unpack(name, Path(scratch))
        before = look(store)
        return Stay(try_quarantine(store, accept_loss=True), before, look(store))


def stay_all(names: Iterable[str]) -> dict[str, Stay]:
    """As :func:`stay`, two at once."""
    names = list(names)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        return dict(zip(names, pool.map(stay, names, chunksize=16), strict=True))


# --- A real Chroma -------------------------------------------------------------------------------

Answer = dict[str, Any]


def serve_job(store: Path, collection: Mapping[str, Any], *steps: Answer, **more: Any) -> Answer:
    """Ask about a collection of a store; ``collection`` has its tenant, database and name."""
    names = {key: collection[key] for key in ("tenant", "database", "name")}
    rest = {"dimension": 8, "seed": str(steps), "steps": steps}
    return {"store": str(store), **rest, **names, **more}


def ask(engine: Engine, jobs: Sequence[Answer], scratch: Path, batch: int = 10) -> list[Answer]:
    """The answers of fresh processes, each of which takes ``batch`` jobs; two run at once."""
    parts = [(n, jobs[n : n + batch]) for n in range(0, len(jobs), batch)]

    def run(part: tuple[int, Sequence[Answer]]) -> list[Answer]:
        number, mine = part
        job, answer = scratch / f"job-{number}", scratch / f"answer-{number}"
        job.write_text(json.dumps({"collections": mine}))
        answer.write_text("[]")
        output = scratch / f"output-{number}"
        death = engine.run(IN_CHROMA, ["answer", str(job), str(answer)], output, 60)
        assert (death.code, death.hung) == (0, False), output.read_text(errors="replace")[-500:]
        found: list[Answer] = json.loads(answer.read_text())
        return found

    with ThreadPoolExecutor(2) as pool:
        return [answer for part in pool.map(run, parts) for answer in part]


def sync_threshold(store: Path, collection: str) -> int:
    """After how many operations Chroma flushes a collection."""
    query = (
        "SELECT int_value FROM collection_metadata"
        " WHERE collection_id = ? AND key = 'hnsw:sync_threshold'"
    )
    with copied_database(store) as database:
        row = database.execute(query, (collection,)).fetchone()
    return row[0] if row else 1000


def segment_of(store: Path, collection: str = "docs") -> str:
    """The vector segment of a collection."""
    query = (
        "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection"
        " WHERE s.scope = 'VECTOR' AND c.name = ?"
    )
    with copied_database(store) as database:
        ((segment,),) = database.execute(query, (collection,))
    return str(segment)
