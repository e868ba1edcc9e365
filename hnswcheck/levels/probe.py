"""Level probe: counts alone. They can prove divergence, never consistency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hnswcheck.checks.files import check_files
from hnswcheck.checks.ledger import check_lag
from hnswcheck.disk.segment import ID_MAP, SegmentFolder
from hnswcheck.report import Finding, Pending, SegmentReport, finding
from hnswcheck.target import Target


def probe(target: Target, folder: SegmentFolder) -> SegmentReport:
    """Judge a segment by its header, its file sizes, the watermarks and the counts of sqlite."""
    if folder.irregular:
        return target.report(list(check_files(folder, None)))
    ledger = target.ledger(folder)
    pending = ledger.pending or Pending()
    findings = list(check_files(folder, target.collection.dimension))
    findings += _check_presence(target, folder)
    short = _records_short(target, folder, pending)
    if short > 0:
        expected = f"at most {target.records - short}, by the counts"
        findings.append(finding("records-missing", short, (), expected, target.records))
    findings += target.check_watermarks()
    findings += check_lag(target.wal, target.start)
    return target.report(findings, replace(ledger, missing=short if short > 0 else None))


def _check_presence(target: Target, folder: SegmentFolder) -> Iterator[Finding]:
    if not folder.states:
        if target.was_flushed:
            yield finding("segment-folder-missing")
    elif ID_MAP not in folder.states and target.was_flushed:
        yield finding("id-map-missing")


def _records_short(target: Target, folder: SegmentFolder, pending: Pending) -> int:
    """By how many the index must fall short of the records, whatever the ids are."""
    if target.peek.present and folder.header is None:
        return 0
    unseen = [row for row in target.wal if row.seq_id > target.metadata_start]
    fewest_records = target.records - sum(row.operation == "delete" for row in unseen)
    most_ids = (folder.count if target.peek.present else 0) + pending.add + pending.upsert
    return fewest_records - most_ids
