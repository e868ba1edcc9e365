"""After which operation was a segment folder written?

Proves it from the record balance for the segment's own folder: if folder and sqlite name the same
records once the log is replayed from the watermark, the folder is of the watermark. Of a folder
that was moved aside the manifest tells, which kept its watermark and its balance.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.strings import find
from hnswcheck.replay.balance import balance
from hnswcheck.replay.index import replay_index
from hnswcheck.salvaging.grading import begun_anew
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.manifest import manifests_of
from hnswcheck.store.records import Records
from hnswcheck.store.watermarks import watermark


class FolderAsOf(NamedTuple):
    """The moment that a folder is of.

    Attributes:
        seq_id: the last operation that it reflects, with all before; None if that is not certain.
        covered: the log has all that came since.
        balanced: folder and sqlite name the same records once the log is replayed.
    """

    seq_id: int | None
    covered: bool
    balanced: bool

    @classmethod
    def unknown(cls, balanced: bool = False) -> FolderAsOf:
        """Nothing is certain."""
        return cls(None, covered=False, balanced=balanced)


def folder_as_of(folder: Path, id_map: IdMap, records: Records, view: CollectionView) -> FolderAsOf:
    """The operation that a folder was written after, if that is certain.

    Args:
        records: after replay.
    """
    if folder == view.folder:
        complete, balanced = _balances(id_map, records, view)
        if complete and view.start <= view.highest and not view.checkpoint_behind:
            return FolderAsOf(view.start, _is_covered(view, view.start), balanced)
        return FolderAsOf.unknown(balanced)
    manifest = next(manifests_of([folder]), None)
    if manifest is None or manifest.watermark is None:
        return FolderAsOf.unknown()
    if manifest.missing != 0 or manifest.strangers != ():
        return FolderAsOf.unknown()
    mark = watermark(manifest.watermark.raw)
    if not mark.is_number(view.writer) or mark.value > manifest.highest_seq_id:
        return FolderAsOf.unknown()
    never_flushed_since = view.vector_watermark is None and not view.peek.present
    covered = never_flushed_since and _is_covered(view, mark.value)
    return FolderAsOf(mark.value, covered, balanced=False)


def _is_covered(view: CollectionView, seq_id: int) -> bool:
    """Whether no operation after this one was lost with a log that was emptied."""
    return view.lost_until is None or seq_id >= view.lost_until


def _balances(id_map: IdMap, records: Records, view: CollectionView) -> tuple[bool, bool]:
    """Whether the index has all since it was begun, and nothing else; and whether all records."""
    if not view.start_known:
        return False, False
    replay = replay_index(view.read_all_wal(), view.start, id_map, None, view.writer)
    result = balance(records.ids, replay, id_map.id_to_label.ids)
    if result.phantom:
        return False, False
    if not result.missing:
        return True, True
    present = np.ones(len(records.ids), bool)
    present[list(find(result.missing, records.ids).values())] = False
    anew = begun_anew(present, records)
    return bool(anew.any() and (anew | present).all()), False
