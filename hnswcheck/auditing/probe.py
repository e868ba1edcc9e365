"""Level probe: counts alone. They can prove divergence, never consistency."""

from __future__ import annotations

from collections.abc import Iterator

from hnswcheck.auditing.segment_report import (
    check_dimension,
    check_watermarks,
    ledger_of,
    segment_report,
)
from hnswcheck.checks.files import check_files, check_symlinks
from hnswcheck.checks.ledger import check_lag
from hnswcheck.formats.segment_files import ID_MAP
from hnswcheck.report import Finding, Pending, SegmentReport, finding
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.segment import SegmentFolder


def probe(view: CollectionView, folder: SegmentFolder) -> SegmentReport:
    """Judge a segment by its header, its file sizes, the watermarks and the counts of sqlite."""
    if folder.irregular:
        return segment_report(view, list(check_files(folder, *view.shape)))
    ledger = ledger_of(view, folder)
    pending = ledger.pending or Pending()
    findings = [*check_symlinks(folder), *check_files(folder, *view.shape)]
    findings += check_dimension(view, folder)
    findings += _check_presence(view, folder)
    most_ids = _most_ids(view, folder, pending)
    fewest = view.records - _unseen_deletions(view)
    if most_ids is not None and fewest > most_ids:
        found = f"{fewest:,} records, so at least {fewest - most_ids:,} are missing"
        expected = f"at most {most_ids:,}, the ids that the index can have"
        findings.append(finding("records-missing", fewest - most_ids, (), expected, found))
    findings += check_watermarks(view)
    findings += check_lag(view.wal, view.start)
    return segment_report(view, findings, ledger)


def _check_presence(view: CollectionView, folder: SegmentFolder) -> Iterator[Finding]:
    if not folder.states:
        if view.was_flushed and not view.keeps_what_it_replays():
            yield finding("segment-folder-missing")
    elif ID_MAP not in folder.states and view.was_flushed:
        yield finding("id-map-missing")


def _most_ids(view: CollectionView, folder: SegmentFolder, pending: Pending) -> int | None:
    """How many ids the index has at most after replay; None where that cannot be told.

    No id without a label; the header's count stands in where damage made the counter smaller.
    """
    labels = view.peek.total_elements_added if view.peek.present else 0
    if labels is None or not view.start_known:
        return None
    return max(labels, folder.count) + pending.add + pending.upsert


def _unseen_deletions(view: CollectionView) -> int:
    """Pending deletions that the rows of ``embeddings`` still show."""
    start = view.metadata_start
    return sum(row.operation == "delete" and row.seq_id > start for row in view.wal)
