"""An audit says of every record where its vector can still be found, before anybody moves it."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import unpack

import hnswcheck

# Each store has 88 records after replay, 7 of them with a vector that only the WAL has; of those
# that a flush has seen, one more was updated since. (segment, WAL, quarantine, suspect, lost)
KNOWN = {
    "1.5.9-damaged-folder-renamed": (0, 7, 81, 0, 0),
    "1.5.9-damaged-folder-deleted": (0, 7, 0, 0, 81),
    "1.5.9-damaged-folder-deleted-unpurged": (0, 88, 0, 0, 0),
    "1.5.9-damaged-quarantine-beside": (81, 7, 0, 0, 0),
    "1.5.9-damaged-live-tombstoned-and-blocked": (80, 8, 0, 0, 0),
    "1.5.9-damaged-label-twice": (0, 8, 0, 79, 1),
    "1.5.9-damaged-data-cut": (79, 8, 0, 0, 1),
    "1.5.9-damaged-links-garbage": (80, 8, 0, 0, 0),
    # What the cut took away may still have an element: not lost, but not told either.
    "1.5.9-damaged-id-map-empty": (0, 7, 0, 0, None),
    "1.5.9-damaged-id-map-deleted": (None, 7, 0, None, None),
    "1.5.9-damaged-header-deleted": (None, 8, 0, None, None),
}


@pytest.mark.parametrize("name", KNOWN)
def test_each_record_is_counted_at_its_best_source(name: str, tmp_path: Path) -> None:
    (segment,) = hnswcheck.audit(unpack(name, tmp_path)).stores[0].segments
    found = segment.recoverable
    parts = (
        found.from_segment,
        found.from_wal,
        found.from_quarantine,
        found.suspect,
        found.lost,
    )
    assert parts == KNOWN[name]
    if None not in parts and segment.ledger.records_after_replay is not None:
        assert sum(part or 0 for part in parts) == segment.ledger.records_after_replay
