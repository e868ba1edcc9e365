"""What a folder that is put back would cost: writes that only the present one has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hnswcheck.checks.elements import place
from hnswcheck.checks.vectors import WAL_TOLERANCE
from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.strings import Strings, find, positions
from hnswcheck.replay.balance import Balance, balance_with
from hnswcheck.replay.records import replay_records
from hnswcheck.replay.vectors import vectors_in
from hnswcheck.salvaging.damaged_segment import Folder, open_remains
from hnswcheck.store.collection_view import CollectionView, replay_start
from hnswcheck.store.database import Database
from hnswcheck.store.manifest import Manifest, as_text
from hnswcheck.store.records import read_written_since
from hnswcheck.store.segment import peek_id_map
from hnswcheck.store.watermarks import watermark

CHUNK = 1 << 12


def losses(
    root: Path, database: Database, view: CollectionView, manifest: Manifest
) -> tuple[int, int, Balance | None]:
    """Writes and deletes since that would be lost; and account 1 as it is now, if it matters.

    As long as Chroma has flushed nothing since, every write is still in the WAL. Nor is anything
    lost as long as nobody has written to the collection: a repair can be undone, whatever it
    replaced.
    """
    if view.vector_watermark is None and not view.peek.present:
        return 0, 0, None
    assert view.collection.metadata
    records = replay_records(view.wal, view.metadata_start, view.record_ids())
    present, _ = balance_with(view, root / manifest.segment, view.start, records)
    log = view.read_all_wal()
    if manifest.log == (len(log), log[-1].seq_id if log else 0):
        return 0, 0, present
    row = manifest.watermark
    mark = None if row is None else watermark(row.raw)
    start = replay_start(peek_id_map(root / manifest.folder), mark)
    old, old_ids = balance_with(view, root / manifest.folder, start, records)
    rows = [row for row in log if row.seq_id > start]
    in_wal = vectors_in(rows, start, find((row.id for row in rows), old_ids).keys())
    last = min(start, manifest.highest_seq_id)  # a watermark may be ahead
    since = read_written_since(database, view.collection.metadata.id, last)
    missing = set(present.missing) if present else set()
    writes = [id for id in since if id not in in_wal and id not in missing]
    lost = sum(1 for _ in _unlike(writes, root / manifest.segment, root / manifest.folder, view))
    known = set(manifest.strangers or ())
    deletes = {as_text(id) for id in old.phantom} - known if old else set()
    return lost, len(deletes), present


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


def _elements(path: Path, ids: Sequence[bytes], view: CollectionView) -> tuple[Folder, Ints] | None:
    """A folder, and the element of each id in it, -1 for none."""
    if view.collection.dimension is None:
        return None
    opened = open_remains(path, view.collection, view.settings)
    folder, id_map = opened or (None, None)
    if folder is None or id_map is None or id_map.problem is not None:
        return None
    placement = place(folder.elements, id_map)
    at = positions(Strings.of(ids), id_map.id_to_label.ids)
    element = np.where(at >= 0, placement.element[at], -1)
    hidden = placement.tombstoned[at] | np.isin(element, np.flatnonzero(folder.relabelled))
    return folder, np.where((at >= 0) & ~hidden, element, -1)
