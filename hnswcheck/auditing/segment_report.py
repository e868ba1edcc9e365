"""The report of one vector segment, from what its collection's rows and its files say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hnswcheck.checks.ledger import check_watermark
from hnswcheck.findings import REGISTRY
from hnswcheck.kinds import STATUSES, Status
from hnswcheck.replay.records import count_pending
from hnswcheck.report import (
    CollectionInfo,
    Finding,
    Ledger,
    Recoverable,
    SegmentReport,
    finding,
)
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.segment import SegmentFolder


def ledger_of(view: CollectionView, folder: SegmentFolder) -> Ledger:
    """The accounts, as far as sqlite, header and the head of the id map tell."""
    watermark = view.vector_watermark.value if view.vector_watermark else None
    if watermark is None and view.peek.present:
        watermark = view.peek.max_seq_id
    return Ledger(
        records=view.records,
        elements=folder.header.count if folder.header else None,
        total_elements_added=view.peek.total_elements_added,
        capacity=folder.header.capacity if folder.header else None,
        vector_watermark=watermark,
        metadata_watermark=view.metadata_watermark.value if view.metadata_watermark else None,
        wal_rows=view.wal_total,
        pending=count_pending(view.wal, view.start),
    )


def check_dimension(view: CollectionView, folder: SegmentFolder) -> Iterator[Finding]:
    """A collection without a dimension can hold nothing; Chroma then reads no vectors."""
    holds = view.records or folder.count or view.peek.present
    if view.collection.dimension is None and holds:
        found = folder.header.dimension if folder.header else None
        yield finding("header-dimension-mismatch", 1, (), "none, says sqlite", found)


def check_watermarks(view: CollectionView) -> Iterator[Finding]:
    """Findings about both ``max_seq_id`` rows."""
    for name, mark in (
        ("VECTOR", view.vector_watermark),
        ("METADATA", view.metadata_watermark),
    ):
        yield from check_watermark(mark, view.opener, view.highest, name)
    mark, peek = view.vector_watermark, view.peek
    if view.checkpoint_behind and mark is not None:
        yield finding("checkpoint-behind-watermark", 1, (), f"at least {mark.value}", view.start)
    if peek.checkpoint is not None and peek.checkpoint > view.highest:
        yield finding("checkpoint-ahead-of-log", 1, (), f"at most {view.highest}", peek.checkpoint)
    if peek.present and peek.max_seq_id and (mark is None or mark.form == "pickled"):
        yield finding("watermark-legacy", 1, (), None, peek.max_seq_id)
    has_none = mark is None and peek.max_seq_id is None and peek.total_elements_added is not None
    if view.opener.needs_watermark and has_none:
        yield finding("watermark-missing", 1, ["VECTOR"])


def segment_report(
    view: CollectionView,
    findings: Sequence[Finding],
    ledger: Ledger | None = None,
    recoverable: Recoverable | None = None,
) -> SegmentReport:
    """The report of this collection's vector segment."""
    c = view.collection
    ledger = ledger or Ledger(records=view.records)
    return SegmentReport(
        collection=CollectionInfo(
            id=c.id,
            name=c.name,
            tenant=c.tenant,
            database=c.database,
            dimension=c.dimension,
            space=c.space,
        ),
        vector_segment=c.vector.id if c.vector else None,
        metadata_segment=c.metadata.id if c.metadata else None,
        status=status_of(view, findings, ledger),
        ledger=ledger,
        recoverable=recoverable or Recoverable(),
        findings=tuple(findings),
    )


def status_of(view: CollectionView, findings: Sequence[Finding], ledger: Ledger) -> Status:
    """The status that findings amount to."""
    written = view.records or view.peek.present or ledger.elements
    without: Status = "consistent" if written else "empty"
    statuses = {without, *(REGISTRY[found.id].status for found in findings)}
    return max(statuses, key=STATUSES.index)
