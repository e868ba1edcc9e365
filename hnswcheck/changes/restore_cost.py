"""What a restore would cost: writes and deletes that only the present folder has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hnswcheck.checks.elements import place
from hnswcheck.checks.vectors import WAL_TOLERANCE
from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.strings import Strings, find, positions
from hnswcheck.replay.balance import Balance, balance_with
from hnswcheck.replay.records import replay_records
from hnswcheck.replay.vectors import vectors_in
from hnswcheck.salvaging.damaged_segment import DamagedSegment, open_damaged_segment
from hnswcheck.store.collection_view import CollectionView, replay_start
from hnswcheck.store.database import Database
from hnswcheck.store.manifest import Manifest, as_text
from hnswcheck.store.records import read_written_since
from hnswcheck.store.segment import peek_id_map
from hnswcheck.store.wal import WalRow
from hnswcheck.store.watermarks import watermark

#: Vectors that are compared at a time.
CHUNK = 1 << 12


@dataclass(frozen=True, slots=True)
class RestoreCost:
    """What the store would lose if an old folder took the place of the present one.

    Attributes:
        lost_writes: records whose last vector only the present folder has.
        lost_deletes: deleted records that the old folder would bring back to searches.
        present: account 1 of the present folder; None if it is unknown, or there is no folder.
    """

    lost_writes: int
    lost_deletes: int
    present: Balance | None


def restore_cost(
    root: Path, database: Database, view: CollectionView, manifest: Manifest
) -> RestoreCost:
    """Count the writes and deletes that a restore would lose.

    Nothing is lost as long as Chroma has flushed nothing since: every write is still in the WAL.
    Nor is anything lost as long as nobody has written to the collection: a repair can be undone,
    whatever it replaced.

    Args:
        view: with its record ids.
        manifest: of the folder that is to be put back.
    """
    if view.vector_watermark is None and not view.peek.present:
        return RestoreCost(0, 0, None)
    records = replay_records(view.wal, view.metadata_start, view.record_ids())
    present, _ = balance_with(view, root / manifest.segment, view.start, records)
    log = view.read_all_wal()
    if manifest.log == (len(log), log[-1].seq_id if log else 0):
        return RestoreCost(0, 0, present)
    start = _start_of(root, manifest, view)
    old, old_ids = balance_with(view, root / manifest.folder, start, records)
    written = _written_since(database, view, start, manifest)
    replayed = _replayed_vectors(log, start, old_ids)
    missing = set(present.missing) if present else set()
    only_there = [id for id in written if id not in replayed and id not in missing]
    unlike = _unlike(only_there, root / manifest.segment, root / manifest.folder, view)
    known = set(manifest.strangers or ())
    deleted = {as_text(id) for id in old.phantom} - known if old else set()
    return RestoreCost(sum(1 for _ in unlike), len(deleted), present)


def _start_of(root: Path, manifest: Manifest, view: CollectionView) -> int:
    """The seq_id after which Chroma would replay the WAL into the old folder."""
    row = manifest.watermark
    mark = None if row is None else watermark(row.raw)
    peek = peek_id_map(root / manifest.folder)
    return replay_start(peek, mark, view.opener, view.highest)


def _written_since(
    database: Database, view: CollectionView, start: int, manifest: Manifest
) -> dict[bytes, int]:
    """The records that were written after the old folder was flushed or moved aside."""
    assert view.collection.metadata
    last = min(start, manifest.highest_seq_id)  # a watermark may be ahead of the log
    return read_written_since(database, view.collection.metadata.id, last)


def _replayed_vectors(log: Sequence[WalRow], start: int, old_ids: Strings) -> set[bytes]:
    """The records whose vector replay would write into the old folder."""
    rows = [row for row in log if row.seq_id > start]
    return vectors_in(rows, start, find((row.id for row in rows), old_ids).keys())


def _unlike(
    ids: Sequence[bytes], present: Path, old: Path, view: CollectionView
) -> Iterator[bytes]:
    """Those whose vector is not the same in both folders."""
    folders = _elements(present, ids, view), _elements(old, ids, view)
    if None in folders:
        yield from ids
        return
    (a, at_a), (b, at_b) = (found for found in folders if found)
    for begin in range(0, len(ids), CHUNK):
        part = slice(begin, begin + CHUNK)
        both = (at_a[part] >= 0) & (at_b[part] >= 0)
        same = np.zeros(len(both), bool)
        one, other = a.vectors(at_a[part][both]), b.vectors(at_b[part][both])
        limit = WAL_TOLERANCE * np.linalg.norm(one, axis=1)  # under cosine it was normalised anew
        same[both] = np.linalg.norm(one - other, axis=1) <= limit
        for i in np.flatnonzero(~same).tolist():
            yield ids[begin + i]


def _elements(
    path: Path, ids: Sequence[bytes], view: CollectionView
) -> tuple[DamagedSegment, Ints] | None:
    """A folder, and the element of each id in it, -1 for none."""
    if view.collection.dimension is None:
        return None
    opened = open_damaged_segment(path, view.collection, view.settings)
    folder, id_map = opened or (None, None)
    if folder is None or id_map is None or id_map.problem is not None:
        return None
    placement = place(folder.elements, id_map)
    at = positions(Strings.of(ids), id_map.id_to_label.ids)
    element = np.where(at >= 0, placement.element[at], -1)
    hidden = placement.tombstoned[at] | np.isin(element, np.flatnonzero(folder.relabelled))
    return folder, np.where((at >= 0) & ~hidden, element, -1)
