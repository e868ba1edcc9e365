"""Of which moment is a segment folder?

Account 1 tells of the segment's own: if both sides name the same records once the log is replayed
from the watermark, it is of that moment. Of a folder that was moved aside the manifest tells.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hnswcheck.checks.ledger import balance, replay_index
from hnswcheck.checks.proof import begun_anew
from hnswcheck.disk.catalog import watermark
from hnswcheck.disk.idmap import IdMap
from hnswcheck.disk.manifest import Manifest, read_manifest
from hnswcheck.disk.names import MANIFEST, OURS
from hnswcheck.disk.records import Records
from hnswcheck.disk.strings import find
from hnswcheck.errors import HnswcheckError
from hnswcheck.target import Target


def moment_of(
    folder: Path, id_map: IdMap, records: Records, target: Target
) -> tuple[int | None, bool, bool]:
    """The operation that a folder was written after, if that is certain; whether the log covers all
    that came since; and whether account 1 balances.

    Args:
        records: after replay.
    """
    if folder == target.folder:
        complete, balanced = _balances(id_map, records, target)
        if complete and target.start <= target.highest:
            return target.start, True, balanced
        return None, False, balanced
    if not OURS.fullmatch(folder.name):
        return None, False, False
    manifest = _manifest(folder)
    if manifest is None or manifest.missing != 0 or manifest.strangers != ():
        return None, False, False
    if manifest.watermark is None:
        return None, False, False
    mark = watermark(manifest.watermark.raw)
    if not mark.is_number(target.integers) or mark.value > manifest.highest_seq_id:
        return None, False, False
    never_flushed_since = target.vector_watermark is None and not target.peek.present
    return mark.value, never_flushed_since, False


def _balances(id_map: IdMap, records: Records, target: Target) -> tuple[bool, bool]:
    """Whether the index has all since it was begun, and nothing else; and whether all records."""
    if not target.start_known:
        return False, False
    rows = target.read_all_wal()
    replay = replay_index(rows, target.start, id_map, None, target.revives)
    result = balance(records.ids, replay, id_map.id_to_label.ids)
    obscure = {row.id for row in rows if row.operation is None and row.seq_id > target.start}
    missing = set(result.missing) - obscure
    if set(result.phantom) - obscure:
        return False, False
    if not missing:
        return True, True
    present = np.ones(len(records.ids), bool)
    present[list(find(missing, records.ids).values())] = False
    anew = begun_anew(present, records)
    return bool(anew.any() and (anew | present).all()), False


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder.with_name(folder.name + MANIFEST))
    except HnswcheckError:
        return None
