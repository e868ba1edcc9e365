"""Level probe: counts alone. They can prove divergence, never consistency."""

from __future__ import annotations

from collections.abc import Iterator

from hnswcheck.auditing.segment_report import (
    check_dimension,
    check_watermarks,
    ledger_of,
    segment_report,
)
from hnswcheck.checks.files import check_files
from hnswcheck.checks.ledger import check_lag
from hnswcheck.formats.segment_files import ID_MAP
from hnswcheck.report import Finding, Pending, SegmentReport, finding
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.segment import SegmentFolder


def probe(target: CollectionView, folder: SegmentFolder) -> SegmentReport:
    """Judge a segment by its header, its file sizes, the watermarks and the counts of sqlite."""
    if folder.irregular:
        return segment_report(target, list(check_files(folder, *target.shape)))
    ledger = ledger_of(target, folder)
    pending = ledger.pending or Pending()
    findings = list(check_files(folder, *target.shape))
    findings += check_dimension(target, folder)
    findings += _check_presence(target, folder)
    most_ids = _most_ids(target, folder, pending)
    fewest = target.records - _unseen_deletions(target)
    if most_ids is not None and fewest > most_ids:
        found = f"{fewest:,} records, so at least {fewest - most_ids:,} are missing"
        expected = f"at most {most_ids:,}, the ids that the index can have"
        findings.append(finding("records-missing", fewest - most_ids, (), expected, found))
    findings += check_watermarks(target)
    findings += check_lag(target.wal, target.start)
    return segment_report(target, findings, ledger)


def _check_presence(target: CollectionView, folder: SegmentFolder) -> Iterator[Finding]:
    if not folder.states:
        if target.was_flushed:
            yield finding("segment-folder-missing")
    elif ID_MAP not in folder.states and target.was_flushed:
        yield finding("id-map-missing")


def _most_ids(target: CollectionView, folder: SegmentFolder, pending: Pending) -> int | None:
    """How many ids the index has at most after replay; None where that cannot be told.

    No id without a label; the header's count stands in where damage made the counter smaller.
    """
    labels = target.peek.total_elements_added if target.peek.present else 0
    if labels is None or not target.start_known:
        return None
    return max(labels, folder.count) + pending.add + pending.upsert


def _unseen_deletions(target: CollectionView) -> int:
    """Pending deletions that the rows of ``embeddings`` still show."""
    start = target.metadata_start
    return sum(row.operation == "delete" and row.seq_id > start for row in target.wal)
