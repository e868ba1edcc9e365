"""Of which moment is a segment folder?

Account 1 tells of the segment's own: if both sides name the same records once the log is replayed
from the watermark, it is of that moment. Of a folder that was moved aside the manifest tells.
"""

from __future__ import annotations

from pathlib import Path

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


def folder_as_of(
    folder: Path, id_map: IdMap, records: Records, view: CollectionView
) -> tuple[int | None, bool, bool]:
    """Of which moment a folder is.

    The operation that it was written after, if that is certain; whether the log covers all that
    came since; and whether account 1 balances.

    Args:
        records: after replay.
    """
    if folder == view.folder:
        complete, balanced = _balances(id_map, records, view)
        if complete and view.start <= view.highest:
            return view.start, True, balanced
        return None, False, balanced
    manifest = next(manifests_of([folder]), None)
    if manifest is None or manifest.missing != 0 or manifest.strangers != ():
        return None, False, False
    if manifest.watermark is None:
        return None, False, False
    mark = watermark(manifest.watermark.raw)
    if not mark.is_number(view.release) or mark.value > manifest.highest_seq_id:
        return None, False, False
    never_flushed_since = view.vector_watermark is None and not view.peek.present
    return mark.value, never_flushed_since, False


def _balances(id_map: IdMap, records: Records, view: CollectionView) -> tuple[bool, bool]:
    """Whether the index has all since it was begun, and nothing else; and whether all records."""
    if not view.start_known:
        return False, False
    replay = replay_index(view.read_all_wal(), view.start, id_map, None, view.release)
    result = balance(records.ids, replay, id_map.id_to_label.ids)
    if result.phantom:
        return False, False
    if not result.missing:
        return True, True
    present = np.ones(len(records.ids), bool)
    present[list(find(result.missing, records.ids).values())] = False
    anew = begun_anew(present, records)
    return bool(anew.any() and (anew | present).all()), False
