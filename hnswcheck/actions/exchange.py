"""A new index in the place of a damaged one: built beside it, swapped, audited, or taken back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hnswcheck.actions.choices import Choices, Embed, SegmentRepair
from hnswcheck.actions.hold import hold_unchanged, reading, states_if_quiet
from hnswcheck.actions.index_settings import IndexSettings, estimate
from hnswcheck.actions.journal import Step, is_unfinished, perform, remove_rebuilt
from hnswcheck.actions.rebuild import build_segment
from hnswcheck.actions.watermark import read_watermark
from hnswcheck.apart import Progress
from hnswcheck.audit import Question, examine
from hnswcheck.checks.salvage import Salvage
from hnswcheck.checks.vectors import Floats
from hnswcheck.disk.catalog import Schema, read_collections, read_schema
from hnswcheck.disk.database import Database
from hnswcheck.disk.manifest import FilePrint, Manifest, file_prints, free_name
from hnswcheck.disk.names import MANIFEST, SCRATCH
from hnswcheck.disk.records import read_documents
from hnswcheck.disk.settings import read_declared_settings
from hnswcheck.disk.strings import Ints
from hnswcheck.disk.view import States, free_bytes, list_directory, open_store
from hnswcheck.disk.watermark import WatermarkRow
from hnswcheck.errors import HnswcheckError, RepairFailed, RepairRefused
from hnswcheck.report import Level, StoreReport
from hnswcheck.target import Target, read_targets

#: Documents that are embedded at a time.
BATCH = 256


def exchange(
    root: Path,
    segment: SegmentRepair,
    choices: Choices,
    folders: tuple[Path, ...],
    states: States | None,
    wait: float,
    progress: Progress,
) -> SegmentRepair:
    """Build the new index of one collection, put it in place, and audit it there.

    Raises:
        RepairFailed: it was not consistent; the old folder is back.
        HnswcheckError: nothing was changed.
    """
    now = datetime.now(UTC)
    try:
        with reading(root):
            rebuilt, last = _build(root, segment, choices, now, progress)
        old = root / segment.segment
        files = file_prints(old, progress) if list_directory(old) else ()
        with hold_unchanged(root, folders, states, wait) as held:
            before = read_watermark(held.connection, segment.segment)
            step, manifests = _step(
                root, segment, now, files, rebuilt, before, held.highest_seq_id()
            )
            if last is not None:
                step = replace(step, after=_mark(held.connection, before, *last))
            perform(held, "repair", [step], manifests)
    except BaseException:
        with suppress(OSError):
            if not is_unfinished(root):  # else the journal still needs it
                remove_rebuilt(root)
        raise
    replaced = step.adds[0].removesuffix(MANIFEST) if step.adds else None
    _verify(root, segment, step, wait)
    return replace(segment, replaced=replaced)


def _build(
    root: Path, segment: SegmentRepair, choices: Choices, now: datetime, progress: Progress
) -> tuple[str | None, tuple[int, bool] | None]:
    """The name of the new folder, and the new watermark with whether it is an INTEGER.

    None where there is nothing to index; no watermark where the id map keeps it.
    """
    found = segment.salvage
    assert found is not None
    chosen = np.sort(np.concatenate([segment.use, segment.embed]))
    if not len(chosen):
        return None, None
    with open_store(root) as view:
        schema = read_schema(view.database)
        (collection,) = read_collections(view.database, schema, segment.collection.id)
        (target,) = read_targets(view, [collection], schema, with_ids=False)
        last = _last_operation(target)
        settings = _settings(schema, target, found, view.database)
        ids = found.records.ids.take(chosen)
        _, needed = estimate(len(chosen), settings.dimension, settings.m, int(ids.lengths.sum()))
        free = free_bytes(root)
        if needed > free:
            text = f"the new index needs {needed:,} bytes of disk, and {free:,} are free"
            raise RepairRefused(f"{root}: {text}; nothing was changed")
        name = free_name(root, segment.segment, now, "rebuilt")
        total = len(chosen)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total, segment.collection.name)

        build_segment(
            root / name,
            _vectors(
                found, chosen, segment.embed, choices.embed, view.database, settings.dimension
            ),
            ids,
            settings,
            scratch=root / (name + SCRATCH),
            seq_ids=None if schema.integer_watermarks else found.records.seq_ids[chosen],
            max_seq_id=last if settings.made_by.keeps_watermark else None,
            advance=advance,
        )
    return name, None if settings.made_by.keeps_watermark else (last, schema.integer_watermarks)


def _settings(schema: Schema, target: Target, found: Salvage, database: Database) -> IndexSettings:
    """The collection's own: as its index was built, else as sqlite says."""
    c = target.collection
    declared = read_declared_settings(database, schema, c)
    header = found.folders[0].header if found.folders else None
    assert c.dimension is not None
    return IndexSettings(
        space=c.space,
        dimension=c.dimension,
        line=schema.line,
        m=header.m if header else declared.m,
        ef_construction=header.ef_construction if header else declared.ef_construction,
        threads=declared.threads,
    )


def _last_operation(target: Target) -> int:
    """The last operation on the collection that sqlite has or will have."""
    rows = target.read_all_wal()
    return max(rows[-1].seq_id if rows else 0, min(target.metadata_start, target.highest))


def _vectors(
    found: Salvage,
    chosen: Ints,
    embed: Ints,
    function: Embed | None,
    database: Database,
    dimension: int,
) -> Iterator[Floats]:
    """float32 chunks (k, dimension), in the order of the records."""
    embedded = set(embed.tolist())
    for begin in range(0, len(chosen), BATCH):
        part = chosen[begin : begin + BATCH]
        vectors = np.empty((len(part), dimension), np.float32)
        new = np.array([index in embedded for index in part.tolist()], bool)
        if not new.all():
            vectors[~new] = np.concatenate(list(found.read(part[~new], database, dimension)))
        if new.any():
            assert function is not None
            rowids = found.records.rowids[part[new]]
            documents = read_documents(database, rowids)
            vectors[new] = _embedded(function, [documents[int(r)] for r in rowids], dimension)
        yield vectors


def _embedded(function: Embed, documents: list[str], dimension: int) -> Floats:
    try:
        made = np.asarray(function(documents), np.float32)
    except Exception as error:
        text = f"the embedding function failed: {error!r}; nothing was changed"
        raise RepairRefused(text) from error
    if made.shape != (len(documents), dimension):
        raise RepairRefused(
            f"the embedding function gave an array of shape {made.shape} for {len(documents)}"
            f" documents; the collection has {dimension} dimensions"
        )
    return made


def _step(
    root: Path,
    segment: SegmentRepair,
    now: datetime,
    files: tuple[FilePrint, ...],
    rebuilt: str | None,
    before: WatermarkRow | None,
    highest: int,
) -> tuple[Step, dict[str, bytes]]:
    moves: list[tuple[str, str]] = []
    manifests: dict[str, bytes] = {}
    if files:
        name = free_name(root, segment.segment, now)
        moves.append((segment.segment, name))
        c = segment.collection
        manifests[name + MANIFEST] = Manifest(
            name,
            segment.segment,
            now.isoformat(timespec="seconds"),
            segment.findings,
            {"id": c.id, "name": c.name, "tenant": c.tenant, "database": c.database},
            before,
            highest,
            None,
            None,
            0,
            0,
            files,
            {"collection": asdict(c), "status": segment.status, "grades": segment.grades},
        ).to_json()
    if rebuilt is not None:
        moves.append((rebuilt, segment.segment))
    if not moves:
        raise RepairRefused(f"{root}: {segment.collection.name} has nothing to repair")
    return Step(segment.segment, tuple(moves), before, None, adds=tuple(manifests)), manifests


def _mark(
    connection: sqlite3.Connection, before: WatermarkRow | None, last: int, integers: bool
) -> WatermarkRow | None:
    if not last:
        return None
    if before is not None:
        rowid = before.rowid
    else:
        (top,) = connection.execute("SELECT max(rowid) FROM max_seq_id").fetchone()
        rowid = (top or 0) + 1
    if integers:
        return WatermarkRow(rowid, "integer", last)
    return WatermarkRow(rowid, "blob", last.to_bytes(8, "big").hex().upper())


def _verify(root: Path, segment: SegmentRepair, step: Step, wait: float) -> None:
    """Audit what was made, with its vectors; put the old folder back if it is not right."""
    try:
        with reading(root):
            store = examine(Question(root, Level.DEEP, (segment.collection.id,)))
        problem = _problem(store, segment)
    except HnswcheckError as error:
        problem = str(error)
    if not problem:
        return
    moves = tuple((target, source) for source, target in reversed(step.moves))
    back = Step(step.segment, moves, step.after, step.before, removes=step.adds)
    with hold_unchanged(root, (), states_if_quiet(root, ()), wait) as held:
        perform(held, "repair", [back], {})
    remove_rebuilt(root)
    raise RepairFailed(
        f"{root}: the rebuilt index of {segment.collection.name} was not consistent ({problem});"
        " the store is as it was"
    )


def _problem(store: StoreReport, segment: SegmentRepair) -> str:
    (found,) = store.segments
    errors = {one.id: one.count for one in found.findings if one.severity == "error"}
    left = len(segment.leave)
    if left and errors.get("records-missing") == left:
        errors = {id: n for id, n in errors.items() if id not in ("records-missing",)}
    if not len(segment.use) + len(segment.embed):
        errors.pop("segment-folder-missing", None)
    if found.status == "undecided":
        return "it could not be judged"
    return ", ".join(f"{count:,} {id}" for id, count in errors.items())
