"""A new index in the place of a damaged one: built beside it, swapped, audited, or taken back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hnswcheck.actions.choices import SegmentRepair
from hnswcheck.actions.copying import copy_mended
from hnswcheck.actions.durable import new_file
from hnswcheck.actions.embedding import Embedded
from hnswcheck.actions.hold import Held, hold, hold_unchanged, reading, states_if_quiet
from hnswcheck.actions.index_settings import IndexSettings, estimate
from hnswcheck.actions.journal import Step, is_unfinished, perform, recover, remove_rebuilt
from hnswcheck.actions.lines import lines_of
from hnswcheck.actions.manifest import FilePrint, Manifest, file_prints, free_name
from hnswcheck.actions.mends import Mend, last_operation
from hnswcheck.actions.rebuild import build_segment, refusals
from hnswcheck.actions.salvage import Salvage
from hnswcheck.actions.watermark import (
    WatermarkChange,
    WatermarkRow,
    numbered,
    read_watermark,
)
from hnswcheck.apart import Progress
from hnswcheck.audit import Question, examine
from hnswcheck.checks.vectors import Floats
from hnswcheck.disk.catalog import Schema, read_collections, read_schema
from hnswcheck.disk.database import Database
from hnswcheck.disk.names import DROPPED, MANIFEST, SCRATCH
from hnswcheck.disk.segment import LINKS
from hnswcheck.disk.settings import read_declared_settings
from hnswcheck.disk.strings import Ints
from hnswcheck.disk.view import States, StoreView, free_bytes, list_directory, open_store
from hnswcheck.errors import HnswcheckError, RepairFailed, RepairRefused
from hnswcheck.report import Level, StoreReport
from hnswcheck.target import Target, read_targets

#: Vectors that are handed on at a time.
CHUNK = 1 << 12


@dataclass(frozen=True, slots=True)
class _Made:
    """What is ready to take its place.

    Attributes:
        folder: the new one's name for now; None where the segment's own stays, or none is needed.
        start: VECTOR's new watermark; None where it stays as it is, or the id map keeps it.
        lines: the file with the records that go, for now.
    """

    folder: str | None
    start: int | None
    lines: str | None = None


def exchange(
    root: Path,
    segment: SegmentRepair,
    embedded: Embedded | None,
    folders: tuple[Path, ...],
    states: States | None,
    wait: float,
    progress: Progress,
) -> SegmentRepair:
    """Make the new index of one collection, put it in place, and audit it there.

    Records go last, once the index is known to be right: the journal stays until then.

    Args:
        embedded: the vectors of ``segment.embed``; None if there are none.

    Raises:
        RepairFailed: it was not consistent; the old folder is back.
        HnswcheckError: nothing was changed.
    """
    now = datetime.now(UTC)
    with _no_remains(root):
        with reading(root):
            made = _make(root, segment, embedded, now, progress)
        stays = segment.mend is not None and not segment.mend.changes_files
        old = root / segment.segment
        files = file_prints(old, progress) if list_directory(old) and not stays else ()
        with hold_unchanged(root, folders, states, wait) as held:
            step, manifests = _step(held, segment, made, now, files)
            perform(held, "repair", [step], manifests)
    replaced = step.adds[0].removesuffix(MANIFEST) if step.adds else None
    _verify(root, segment, step, wait)
    if step.drops:
        with hold(root, wait) as held:
            recover(held)
    exported = next((name for _, name in step.moves if DROPPED.fullmatch(name)), None)
    return replace(segment, replaced=replaced, exported=exported)


@contextmanager
def _no_remains(root: Path) -> Iterator[None]:
    """What was made goes if it does not take its place."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if not is_unfinished(root):  # else the journal still needs it
                remove_rebuilt(root)
        raise


def _make(
    root: Path,
    segment: SegmentRepair,
    embedded: Embedded | None,
    now: datetime,
    progress: Progress,
) -> _Made:
    """Build or copy what is needed, beside what is there."""
    found = segment.salvage
    assert found is not None
    with open_store(root) as view:
        schema = read_schema(view.database)
        name = free_name(root, segment.segment, now, "rebuilt")
        if segment.mend is not None:
            return _copy(root, name, segment, segment.mend, schema, progress)
        made = _build(root, name, segment, embedded, view, schema, progress)
        if not len(segment.drop):
            return made
        lines = root / (name + SCRATCH)
        with refusals(lines), new_file(lines) as file:
            for line in lines_of(found, segment.drop, view.database):
                file.write(line.encode())
        return replace(made, lines=lines.name)


def _copy(
    root: Path, name: str, segment: SegmentRepair, mend: Mend, schema: Schema, progress: Progress
) -> _Made:
    if not mend.changes_files:
        return _Made(None, mend.start)
    assert segment.salvage is not None
    size = sum(state.size for state in list_directory(mend.folder) if state.name != LINKS)
    _check_space(root, size)
    advance = _counted(progress, size, segment.collection.name)
    records = segment.salvage.records
    copy_mended(mend, root / name, records, schema.integer_watermarks, advance)
    return _Made(name, mend.start)


def _build(
    root: Path,
    name: str,
    segment: SegmentRepair,
    embedded: Embedded | None,
    view: StoreView,
    schema: Schema,
    progress: Progress,
) -> _Made:
    found = segment.salvage
    assert found is not None
    chosen = np.sort(np.concatenate([segment.use, segment.embed]))
    if not len(chosen):
        return _Made(None, None)
    (collection,) = read_collections(view.database, schema, segment.collection.id)
    (target,) = read_targets(view, [collection], schema, with_ids=False)
    last = last_operation(target)
    settings = _settings(schema, target, found, view.database)
    ids = found.records.ids.take(chosen)
    _, needed = estimate(len(chosen), settings.dimension, settings.m, int(ids.lengths.sum()))
    _check_space(root, needed)
    build_segment(
        root / name,
        _vectors(found, chosen, segment.embed, embedded, view.database, settings.dimension),
        ids,
        settings,
        scratch=root / (name + SCRATCH),
        seq_ids=None if schema.integer_watermarks else found.records.seq_ids[chosen],
        max_seq_id=last if settings.made_by.keeps_watermark else None,
        advance=_counted(progress, len(chosen), segment.collection.name),
    )
    return _Made(name, None if settings.made_by.keeps_watermark else last)


def _check_space(root: Path, needed: int) -> None:
    free = free_bytes(root)
    if needed > free:
        text = f"the new index needs {needed:,} bytes of disk, and {free:,} are free"
        raise RepairRefused(f"{root}: {text}; nothing was changed")


def _counted(progress: Progress, total: int, label: str) -> Callable[[int], None]:
    """Progress that is told how much more was done."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total, label)

    return advance


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


def _vectors(
    found: Salvage,
    chosen: Ints,
    embed: Ints,
    embedded: Embedded | None,
    database: Database,
    dimension: int,
) -> Iterator[Floats]:
    """float32 chunks (k, dimension), in the order of the records."""
    is_embedded = np.isin(chosen, embed)
    for begin in range(0, len(chosen), CHUNK):
        part, new = chosen[begin : begin + CHUNK], is_embedded[begin : begin + CHUNK]
        vectors = np.empty((len(part), dimension), np.float32)
        if not new.all():
            vectors[~new] = np.concatenate(list(found.read(part[~new], database, dimension)))
        if new.any():
            assert embedded is not None
            vectors[new] = embedded.read(np.searchsorted(embed, part[new]))
        yield vectors


def _step(
    held: Held, segment: SegmentRepair, made: _Made, now: datetime, files: tuple[FilePrint, ...]
) -> tuple[Step, dict[str, bytes]]:
    found = segment.salvage
    assert found is not None
    root, before = held.root, read_watermark(held.connection, segment.segment)
    moves: list[tuple[str, str]] = []
    manifests: dict[str, bytes] = {}
    if made.lines is not None:
        moves.append((made.lines, free_name(root, segment.segment, now, "dropped", ".jsonl")))
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
            held.highest_seq_id(),
            segment.missing,
            segment.strangers,
            0,
            0,
            files,
            {"collection": asdict(c), "status": segment.status, "grades": segment.grades},
        ).to_json()
    if made.folder is not None:
        moves.append((made.folder, segment.segment))
    changes = tuple(_changes(held.connection, segment, made.start, before))
    if not moves and not changes:
        raise RepairRefused(f"{root}: {segment.collection.name} has nothing to repair")
    rowids, seq_ids = found.records.rowids[segment.drop], found.records.seq_ids[segment.drop]
    drops = tuple(zip(rowids.tolist(), seq_ids.tolist(), strict=True))
    step = Step(segment.segment, tuple(moves), changes, adds=tuple(manifests), drops=drops)
    return step, manifests


def _changes(
    connection: sqlite3.Connection,
    segment: SegmentRepair,
    start: int | None,
    before: WatermarkRow | None,
) -> Iterator[WatermarkChange]:
    """What becomes of the collection's watermarks."""
    if start is not None:
        after = numbered(connection, before, start)
        yield WatermarkChange(segment.segment, before, after)
    elif segment.mend is None:  # there is no index, or its id map has the watermark
        yield WatermarkChange(segment.segment, before, None)
    metadata, found = segment.metadata_segment, segment.salvage
    if metadata is not None and found is not None and found.metadata_start is not None:
        row = read_watermark(connection, metadata)
        yield WatermarkChange(metadata, row, numbered(connection, row, found.metadata_start))


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
    changes = tuple(change.reversed for change in step.watermarks)
    back = Step(step.segment, moves, changes, removes=step.adds)
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
    left = len(segment.leave) + len(segment.drop)
    if left and errors.get("records-missing") == left:
        errors = {id: n for id, n in errors.items() if id not in ("records-missing",)}
    if not len(segment.use) + len(segment.embed):
        errors.pop("segment-folder-missing", None)
    if found.status == "undecided":
        return "it could not be judged"
    return ", ".join(f"{count:,} {id}" for id, count in errors.items())
