"""The plan for one damaged collection: where its vectors come from, or why it is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hnswcheck.changes.quarantine import LINKED
from hnswcheck.errors import RepairRefused
from hnswcheck.findings import REGISTRY
from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.segment_files import LINKS
from hnswcheck.repairing.choices import Choices
from hnswcheck.repairing.patch import choose_patch
from hnswcheck.repairing.segment_plan import (
    AuditedSegment,
    RecordFates,
    SegmentPlan,
    SegmentRefused,
)
from hnswcheck.replay.balance import balance_with
from hnswcheck.report import SegmentReport
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.sources import Salvaged, find_sources
from hnswcheck.store.collection_view import BEFORE_ALL, CollectionView
from hnswcheck.store.database import Database
from hnswcheck.store.documents import have_documents
from hnswcheck.store.records import read_last_seq_id
from hnswcheck.store.schema import Schema
from hnswcheck.store.segment import links_in
from hnswcheck.store.settings import read_embedding_function
from hnswcheck.store.watermarks import LARGEST_SEQ_ID

NONE = np.zeros(0, np.int64)


def plan_segment(
    database: Database,
    schema: Schema,
    view: CollectionView,
    report: SegmentReport,
    choices: Choices,
) -> SegmentRefused | SegmentPlan:
    """Find the best vector of each record, and decide what is done about the records without.

    Args:
        report: the audit's report of the segment.
        choices: what the caller wants done about records without a proven vector.

    Raises:
        StoreChanged, StoreUnreadable, SqliteDamaged: something could not be read.
    """
    audited = AuditedSegment(
        collection=report.collection,
        segment=report.vector_segment or "",
        metadata_segment=report.metadata_segment,
        status=report.status,
        findings=report.error_ids,
    )
    log_end = _log_end(database, view)
    if log_end is not None:
        view = replace(view, highest=log_end)
    try:
        found = find_sources(database, view)
    except RepairRefused as error:
        return SegmentRefused(audited, str(error))
    fates, undecided = _fates(database, found, choices)
    if view.folder and links_in(view.folder):
        return SegmentRefused(audited, LINKED, fates)
    if choices.embed is not None and len(fates.embed):
        try:
            function = read_embedding_function(database, schema, view.collection)
            fates = replace(fates, embedder=choices.embed.embedder(function))
        except RepairRefused as error:
            return SegmentRefused(audited, str(error), fates)
    if reason := _refusal(fates, undecided, choices):
        return SegmentRefused(audited, reason, fates)
    patch = None
    if schema.writer.watermark_in == "sqlite" and len(fates.use) == len(found.grades):
        patch = choose_patch(frozenset(report.error_ids), found, database)
    if patch is None and not len(fates.indexed) and (reason := _coming_back(view, found)):
        return SegmentRefused(audited, reason, fates)
    present, _ = balance_with(view, view.folder, view.start, found.records.ids)
    return SegmentPlan(audited=audited, fates=fates, patch=patch, present=present, log_end=log_end)


def _log_end(database: Database, view: CollectionView) -> int | None:
    """Where a log that is empty has to end; None where it goes on by itself.

    That is the number of the last operation that any record is of.
    """
    if view.highest or not view.opener.zero_skips_all:
        return None
    return max(1, min(read_last_seq_id(database), LARGEST_SEQ_ID))


def _fates(database: Database, found: Salvaged, choices: Choices) -> tuple[RecordFates, Ints]:
    """What becomes of each record, and int64: the records that no choice says anything about."""
    good = np.isin(found.grades, [Grade.PROVEN, *choices.accept])
    rest = np.flatnonzero(~good)
    embed = leave = drop = NONE
    if choices.embed is not None and len(rest):
        has = found.settled[rest] & have_documents(database, found.records.rowids[rest])
        embed, rest = rest[has], rest[~has]
    if choices.leave:
        leave, rest = rest, NONE
    if choices.drop:
        settled = found.settled[rest]
        drop, rest = rest[settled], rest[~settled]
    use = np.flatnonzero(good)
    return RecordFates(salvage=found, use=use, embed=embed, leave=leave, drop=drop), rest


def _refusal(fates: RecordFates, undecided: Ints, choices: Choices) -> str:
    """Why nothing is done; empty if something is.

    Args:
        undecided: int64: the records that no choice says anything about.
    """
    if not len(undecided):
        if len(fates.drop) and not len(fates.indexed) + len(fates.leave):
            return "no record would be left; delete the collection with Chroma instead"
        return ""
    grades = fates.salvage.grades[undecided]
    counts = {grade.name.lower(): int(np.count_nonzero(grades == grade)) for grade in Grade}
    named = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    if choices.drop:
        return (
            f"{len(undecided):,} records ({named}) have writes in the log that Chroma applies first"
        )
    return f"{len(undecided):,} records have no proven vector ({named})"


def _coming_back(view: CollectionView, found: Salvaged) -> str:
    """Why an index without vectors is no repair; empty if it is one.

    Chroma begins such an index anew, with all that the log has.
    """
    if any(row.fault for row in view.read_all_wal()):
        return "no vector is left, and Chroma stops at rows of the log"
    anew, _ = balance_with(view, None, BEFORE_ALL, found.records.ids)
    if anew is None or not anew.phantom:
        return ""
    return (
        f"the log would bring back {len(anew.phantom):,} records that sqlite does not have;"
        " delete the collection with Chroma instead"
    )


def is_too_long(segment: SegmentReport) -> bool:
    """Whether link_lists.bin is longer than its records, which is only a warning."""
    return any(
        LINKS in found.sample and isinstance(found.found, int) and REGISTRY[found.id].patchable
        for found in segment.findings
        if found.severity != "error"
    )
