"""A new index in the place of a damaged one: prepared beside it, swapped in, verified there.

If it does not come out right, the old folder and its watermark come back.
"""

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
from hnswcheck.changes.log_end import LogEnd
from hnswcheck.changes.procedure import StoreState
from hnswcheck.changes.set_aside import set_aside
from hnswcheck.changes.watermark import WatermarkChange, numbered, read_watermark
from hnswcheck.engines.chroma import Expected, NotAsked, problem_in_chroma
from hnswcheck.errors import (
    HnswcheckError,
    RepairFailed,
    RepairRefused,
    UsageError,
    VectorsNotFinite,
)
from hnswcheck.progress import Progress
from hnswcheck.repairing.choices import Verify
from hnswcheck.repairing.embed_documents import Embedded
from hnswcheck.repairing.prepare import Prepared, discard, prepare
from hnswcheck.repairing.sample import Sample
from hnswcheck.repairing.segment_plan import SegmentPlan, SegmentRepaired
from hnswcheck.repairing.verification import Verification
from hnswcheck.report import Level, StoreReport
from hnswcheck.store.files import look_at
from hnswcheck.store.manifest import FilePrint, file_prints, free_name
from hnswcheck.store.names import MANIFEST
from hnswcheck.store.watermarks import WatermarkRow


def swap_segment(
    plan: SegmentPlan,
    seen: StoreState,
    *,
    embedded: Embedded | None,
    how: Verification,
    wait: float,
    progress: Progress,
) -> SegmentRepaired:
    """Make the new index of one collection, put it in place, and verify it there.

    Records are deleted last, once the index is known to be right.

    Args:
        seen: the state of the store that the plan was made from.
        embedded: the vectors of the records that are embedded again; None if there are none.
        how: how the new index is verified.
        wait: seconds to wait for other processes to close the store.

    Raises:
        RepairFailed: it did not come out right; the old folder is back.
        HnswcheckError: nothing was changed.
    """
    root, now, sample = seen.root, datetime.now(UTC), Sample()
    made, begun = Prepared(None, None), False
    try:
        with seen.while_read(), reading(root), _naming_collection(root, plan):
            made = prepare(root, plan, embedded, now, progress, sample)
        files = file_prints(root / plan.segment, progress)
        with seen.hold(wait) as held:
            step, manifests = _step(held, plan, made, now, files)
            begun = True
            perform(held, "repair", [step], manifests)
    except BaseException:
        if not (begun and is_unfinished(root)):  # else it is still needed
            discard(root, made.names)  # and nothing else: that is another repair's
        raise
    try:
        how = _verify(root, plan, step, wait, how, sample)
    except BaseException:
        discard(root, made.names)
        raise
    return SegmentRepaired(
        plan=plan,
        replaced=step.adds[0].removesuffix(MANIFEST) if step.adds else None,
        exported=_delete(root, plan, made.lines, now, wait) if made.lines else None,
        verified=how.verify,
        not_asked=how.not_asked,
        tried_by=how.chroma,
    )


@contextmanager
def _naming_collection(root: Path, plan: SegmentPlan) -> Iterator[None]:
    """Errors name the collection that no index can be built for.

    What the builder takes for wrong use is the store's fault here, not the caller's.
    """
    try:
        yield
    except (UsageError, VectorsNotFinite) as error:
        text = f"{root}: nothing was changed: {plan.collection.name}: {error}"
        if isinstance(error, VectorsNotFinite):
            raise error.saying(text) from error
        raise RepairRefused(text) from error


def _step(
    held: Held, plan: SegmentPlan, made: Prepared, now: datetime, files: tuple[FilePrint, ...]
) -> tuple[Step, dict[str, bytes]]:
    """What the journal has to say of the swap, and the manifest of the old folder by name."""
    root, before = held.root, read_watermark(held.connection, plan.segment)
    moves: list[tuple[str, str]] = []
    manifests: dict[str, bytes] = {}
    end = None
    if plan.log_end is not None and not held.highest_seq_id():
        end = LogEnd(plan.log_end, f"persistent://default/default/{plan.collection.id}")
    old = made.stand_in or plan.segment
    if look_at(root / old) is not None:
        name, manifests = set_aside(
            held,
            plan.segment,
            now,
            plan.collection,
            before,
            files,
            why=plan.findings,
            present=plan.present,
            report={
                "collection": asdict(plan.collection),
                "status": plan.status,
                "grades": plan.grades,
            },
            accepted=plan.fates.accepted,
            log_end=end,
        )
        moves.append((old, name))
    if made.folder is not None:
        moves.append((made.folder, plan.segment))
    changes = tuple(_changes(held.connection, plan, made.start, before))
    if not moves and not changes:
        raise RepairRefused(f"{root}: {plan.collection.name} has nothing to repair")
    step = Step(
        segment=plan.segment,
        moves=tuple(moves),
        watermarks=changes,
        adds=tuple(manifests),
        log_end=end,
    )
    return step, manifests


def _changes(
    connection: sqlite3.Connection,
    plan: SegmentPlan,
    start: int | None,
    before: WatermarkRow | None,
) -> Iterator[WatermarkChange]:
    """What becomes of the collection's watermarks.

    METADATA begins with all of the log where it has no row, in every line.
    """
    if start is not None:
        yield WatermarkChange(plan.segment, before, numbered(connection, before, start))
    elif plan.patch is None:  # there is no index, or its id map has the watermark
        yield WatermarkChange(plan.segment, before, None)
    metadata, start = plan.audited.metadata_segment, plan.fates.salvage.metadata_start
    if metadata is not None and start is not None:
        row = read_watermark(connection, metadata)
        yield WatermarkChange(
            metadata, row, numbered(connection, row, start) if start >= 0 else None
        )


def _delete(root: Path, plan: SegmentPlan, lines: str, now: datetime, wait: float) -> str:
    """Delete the records that are to go; the name of the file that has them."""
    records, chosen = plan.fates.salvage.records, plan.fates.drop
    rows = zip(records.rowids[chosen].tolist(), records.seq_ids[chosen].tolist(), strict=True)
    name = free_name(root, plan.segment, now, "dropped", ".jsonl")
    step = Step(segment=plan.segment, moves=((lines, name),), drops=tuple(rows))
    try:
        with StoreState.of_database(root).hold(wait) as held:
            perform(held, "repair", [step], {})
    except HnswcheckError as error:
        text = f"{error}; the index is repaired, but no record was deleted: run the repair again"
        raise error.saying(text) from error
    return name


def _verify(
    root: Path,
    plan: SegmentPlan,
    step: Step,
    wait: float,
    how: Verification,
    sample: Sample,
) -> Verification:
    """How the new index was verified after all: Chroma may not have been able to try it.

    Audits it with its vectors and lets Chroma try it; puts the old folder back if it is not right.
    """
    if how.verify is Verify.NONE:
        return how
    try:
        with reading(root):
            problem = _problem(_audited_deeply(root, plan), plan)
            if how.chroma is not None and not problem:
                problem = problem_in_chroma(root, expected_of(plan, sample), how.chroma.python)
    except HnswcheckError as error:
        problem = str(error)
    except NotAsked as error:
        problem = str(error) if how.required else ""
        how = Verification(Verify.AUDIT, not_asked=str(error))
    except BaseException:  # an interrupt: nobody would say that it was not verified
        _take_back(root, step, wait)
        raise
    if not problem:
        return how
    _take_back(root, step, wait)
    raise RepairFailed(
        f"{root}: the new index of {plan.collection.name} was not right ({problem});"
        " the store is as it was"
    )


def _audited_deeply(root: Path, plan: SegmentPlan) -> StoreReport:
    only = (plan.collection.id,)
    return audit_in_process(
        AuditRequest(directory=root, level=Level.DEEP, collections=only, salvages=False)
    )


def expected_of(plan: SegmentPlan, sample: Sample) -> Expected:
    """What Chroma has to answer about a repaired collection.

    Args:
        sample: some of the vectors that the new index was given.
    """
    return Expected(
        collection=plan.collection,
        segment=plan.segment,
        ids=plan.fates.salvage.records.ids,
        sample=sample.records,
        vectors=sample.vectors,
        indexed=sample.indexed,
    )


def _take_back(root: Path, step: Step, wait: float) -> None:
    """Put the old folder and its watermark back."""
    moves = tuple((target, source) for source, target in reversed(step.moves))
    changes = tuple(change.reversed for change in step.watermarks)
    back = Step(
        segment=step.segment,
        moves=moves,
        watermarks=changes,
        removes=step.adds,
        log_end=step.log_end and replace(step.log_end, adds=False),
    )
    with StoreState.of_database(root).hold(wait) as held:
        perform(held, "repair", [back], {})
    discard(root, (source for source, _ in step.moves if source != step.segment))


def _problem(store: StoreReport, plan: SegmentPlan) -> str:
    """What is wrong with the new index; empty if nothing is that the plan does not leave so."""
    (found,) = store.segments
    if found.status == "undecided":
        return "it could not be judged"
    errors = {one.id: one.count for one in found.findings if one.severity == "error"}
    left = len(plan.fates.unindexed)
    if left and errors.get("records-missing") == left:
        errors.pop("records-missing")
    if not len(plan.fates.indexed):
        errors.pop("segment-folder-missing", None)
    return ", ".join(f"{count:,} {id}" for id, count in errors.items())
