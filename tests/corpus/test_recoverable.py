"""An audit says of every record where its vector can still be found, before anybody moves it."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import unpack

import hnswcheck

# Each store has 88 records after replay. The log still has the vectors of 8: of 7 that no flush has
# seen, and of the last one that one has. (segment, WAL, quarantine, suspect, lost)
KNOWN = {
    "1.5.9-damaged-folder-renamed": (0, 8, 80, 0, 0),
    "1.5.9-damaged-folder-deleted": (0, 8, 0, 0, 80),
    "1.5.9-damaged-folder-deleted-unflushed": (0, 88, 0, 0, 0),
    "1.5.9-damaged-quarantine-beside": (81, 7, 0, 0, 0),  # sound: as Chroma reads it
    "1.5.9-damaged-live-tombstoned-and-blocked": (80, 8, 0, 0, 0),
    "1.5.9-damaged-label-twice": (78, 8, 0, 2, 0),
    "1.5.9-damaged-data-cut": (79, 8, 0, 0, 1),
    "1.5.9-damaged-data-halved": (36, 8, 0, 0, 44),
    "1.5.9-damaged-data-deleted": (0, 8, 0, 0, 80),
    "1.5.9-damaged-count-too-small": (80, 8, 0, 0, 0),
    "1.5.9-damaged-links-garbage": (80, 8, 0, 0, 0),
    # What no id map names is put together by the order of the records.
    "1.5.9-damaged-id-map-empty": (80, 8, 0, 0, 0),
    "1.5.9-damaged-id-map-deleted": (80, 8, 0, 0, 0),
    "1.5.9-damaged-id-map-halved": (80, 8, 0, 0, 0),
    "0.6.3-damaged-id-map-halved": (53, 28, 0, 0, 7),  # 0.x has no such order
    "1.5.9-damaged-header-deleted": (80, 8, 0, 0, 0),
    "0.6.3-damaged-header-deleted": (60, 28, 0, 0, 0),
    # What a row wrote that cannot be read is nowhere.
    "1.5.9-damaged-log-vector-odd": (80, 7, 0, 0, 1),
    "1.5.9-damaged-log-encoding-unknown": (80, 7, 0, 0, 1),
    # Nobody can tell what the vectors are.
    "1.5.9-damaged-dimension-changed": (None, None, None, None, None),
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
