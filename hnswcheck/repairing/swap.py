"""A new index in the place of a damaged one: built beside it, swapped, audited, or taken back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from hnswcheck.auditing.request import AuditRequest
from hnswcheck.auditing.runner import audit_in_process
from hnswcheck.changes.journal import Step, is_unfinished, perform
from hnswcheck.changes.lock import Held, reading
from hnswcheck.changes.procedure import StoreState
from hnswcheck.changes.set_aside import set_aside
from hnswcheck.changes.watermark import WatermarkChange, numbered, read_watermark
from hnswcheck.engines.chroma import Expected, NotAsked, problem_in_chroma
from hnswcheck.errors import HnswcheckError, RepairFailed, RepairRefused, UsageError
from hnswcheck.progress import Progress
from hnswcheck.repairing.embed_documents import Embedded
from hnswcheck.repairing.prepare import Made, discard, make
from hnswcheck.repairing.sample import Sample
from hnswcheck.repairing.segment_plan import SegmentRepair
from hnswcheck.repairing.verification import Verification, Verify
from hnswcheck.report import Level, StoreReport
from hnswcheck.store.files import look_at
from hnswcheck.store.manifest import FilePrint, file_prints, free_name
from hnswcheck.store.names import MANIFEST
from hnswcheck.store.watermarks import WatermarkRow


def exchange(
    root: Path,
    segment: SegmentRepair,
    embedded: Embedded | None,
    seen: StoreState,
    wait: float,
    progress: Progress,
    how: Verification,
) -> SegmentRepair:
    """Make the new index of one collection, put it in place, and verify it there.

    Records go last, once the index is known to be right.

    Args:
        embedded: the vectors of ``segment.embed``; None if there are none.

    Raises:
        RepairFailed: it did not come out right; the old folder is back.
        HnswcheckError: nothing was changed.
    """
    now, sample = datetime.now(UTC), Sample()
    made, begun = Made(None, None), False
    try:
        with reading(root), _refusing(root, segment):
            made = make(root, segment, embedded, now, progress, sample)
        files = file_prints(root / segment.segment, progress)
        with seen.hold(wait) as held:
            step, manifests = _step(held, segment, made, now, files)
            begun = True
            perform(held, "repair", [step], manifests)
    except BaseException:
        if not (begun and is_unfinished(root)):  # else it is still needed
            discard(root, made.names)  # and nothing else: that is another repair's
        raise
    replaced = step.adds[0].removesuffix(MANIFEST) if step.adds else None
    try:
        verified, not_asked = _verify(root, segment, step, wait, how, sample)
    except BaseException:
        discard(root, made.names)
        raise
    exported = _drop(root, segment, made.lines, now, wait) if made.lines else None
    return replace(
        segment,
        replaced=replaced,
        exported=exported,
        verified=verified,
        not_asked=not_asked,
    )


@contextmanager
def _refusing(root: Path, segment: SegmentRepair) -> Iterator[None]:
    """What no index can be built for is the store's fault, not the caller's."""
    try:
        yield
    except UsageError as error:
        name = segment.collection.name
        raise RepairRefused(f"{root}: nothing was changed: {name}: {error}") from error


def _step(
    held: Held, segment: SegmentRepair, made: Made, now: datetime, files: tuple[FilePrint, ...]
) -> tuple[Step, dict[str, bytes]]:
    root, before = held.root, read_watermark(held.connection, segment.segment)
    moves: list[tuple[str, str]] = []
    manifests: dict[str, bytes] = {}
    old = made.nothing or segment.segment
    if look_at(root / old) is not None:
        name, manifests = set_aside(
            held,
            segment.segment,
            now,
            segment.collection,
            before,
            files,
            why=segment.findings,
            present=segment.present,
            report={
                "collection": asdict(segment.collection),
                "status": segment.status,
                "grades": segment.grades,
            },
            accepted=segment.accepted,
        )
        moves.append((old, name))
    if made.folder is not None:
        moves.append((made.folder, segment.segment))
    changes = tuple(_changes(held.connection, segment, made.start, before))
    if not moves and not changes:
        raise RepairRefused(f"{root}: {segment.collection.name} has nothing to repair")
    return Step(segment.segment, tuple(moves), changes, adds=tuple(manifests)), manifests


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


def _drop(root: Path, segment: SegmentRepair, lines: str, now: datetime, wait: float) -> str:
    """Delete the records that are to go; the name of the file that has them."""
    assert segment.salvage is not None
    records = segment.salvage.records
    rowids, seq_ids = records.rowids[segment.drop], records.seq_ids[segment.drop]
    drops = tuple(zip(rowids.tolist(), seq_ids.tolist(), strict=True))
    name = free_name(root, segment.segment, now, "dropped", ".jsonl")
    try:
        with StoreState.of_database(root).hold(wait) as held:
            perform(held, "repair", [Step(segment.segment, ((lines, name),), drops=drops)], {})
    except HnswcheckError as error:
        text = f"{error}; the index is repaired, but no record was deleted: run the repair again"
        raise type(error)(text) from error
    return name


def _verify(
    root: Path,
    segment: SegmentRepair,
    step: Step,
    wait: float,
    how: Verification,
    sample: Sample,
) -> tuple[Verify, str]:
    """How what was made was verified, and why not by the engine.

    Audits it with its vectors and lets Chroma try it; puts the old folder back if it is not right.
    """
    verified, not_asked = how.verify, how.not_asked
    if verified is Verify.NONE:
        return verified, not_asked
    try:
        with reading(root):
            only = (segment.collection.id,)
            store = audit_in_process(
                AuditRequest(directory=root, level=Level.DEEP, collections=only, salvages=False)
            )
            problem = _problem(store, segment)
            if verified is Verify.CHROMA and not problem:
                problem = problem_in_chroma(root, expected_of(segment, sample))
    except HnswcheckError as error:
        problem = str(error)
    except NotAsked as error:
        problem = str(error) if how.required else ""
        verified, not_asked = Verify.AUDIT, str(error)
    except BaseException:  # an interrupt: nobody would say that it was not verified
        _take_back(root, step, wait)
        raise
    if not problem:
        return verified, not_asked
    _take_back(root, step, wait)
    raise RepairFailed(
        f"{root}: the new index of {segment.collection.name} was not right ({problem});"
        " the store is as it was"
    )


def expected_of(segment: SegmentRepair, sample: Sample) -> Expected:
    """What Chroma must find in the new index."""
    assert segment.salvage is not None
    return Expected(
        collection=segment.collection,
        segment=segment.segment,
        ids=segment.salvage.records.ids,
        sample=sample.records,
        vectors=sample.vectors,
        indexed=sample.indexed,
    )


def _take_back(root: Path, step: Step, wait: float) -> None:
    moves = tuple((target, source) for source, target in reversed(step.moves))
    changes = tuple(change.reversed for change in step.watermarks)
    back = Step(step.segment, moves, changes, removes=step.adds)
    with StoreState.of_database(root).hold(wait) as held:
        perform(held, "repair", [back], {})
    discard(root, (source for source, _ in step.moves if source != step.segment))


def _problem(store: StoreReport, segment: SegmentRepair) -> str:
    (found,) = store.segments
    errors = {one.id: one.count for one in found.findings if one.severity == "error"}
    left = len(segment.unindexed)
    if left and errors.get("records-missing") == left:
        errors = {id: n for id, n in errors.items() if id not in ("records-missing",)}
    if not len(segment.use) + len(segment.embed):
        errors.pop("segment-folder-missing", None)
    if found.status == "undecided":
        return "it could not be judged"
    return ", ".join(f"{count:,} {id}" for id, count in errors.items())
